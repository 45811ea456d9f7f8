"""A relay that records: what real clients and a real server say to one another, as a capture."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

from tracer.testing.packets import Connection, Network

BROKER = "10.0.0.9"


class Relay:
    """Listens on a free port, hands on to *port* and keeps what passes; every client is another host."""

    def __init__(self, port: int, shown_port: int = 5672) -> None:
        self._target = port
        self._shown_port = shown_port
        self._network = Network()
        self._lock = threading.Lock()
        self._begun_s = time.monotonic()
        self._clients = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def write(self, folder: Path) -> Path:
        """The capture of all that passed."""
        self._listener.close()
        with self._lock:
            [path] = self._network.write(folder)
        return Path(path)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._clients += 1
                made = self._network.connection(
                    f"10.0.1.{self._clients}", BROKER, self._shown_port, at=self._now()
                )
            for side, (source, target) in enumerate(((client, server), (server, client))):
                threading.Thread(target=self._pass, args=(source, target, made, side), daemon=True).start()

    def _now(self) -> float:
        return time.monotonic() - self._begun_s

    def _pass(self, source: socket.socket, target: socket.socket, made: Connection, side: int) -> None:
        while True:
            try:
                data = source.recv(65536)
            except OSError:
                data = b""
            # Recorded before it is handed on: nothing can be answered before it was seen.
            with self._lock:
                if data:
                    (made.say, made.hear)[side](self._now(), data)
                elif side == 0:
                    made.close(self._now(), by=0)
            if not data:
                break
            target.sendall(data)
        for each in (source, target):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
