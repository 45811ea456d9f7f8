"""A web server that takes notifications, as badly as a test wants, and a command that is watched."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Receiver:
    """Keeps what is posted; *answers* are the codes in turn, the last one for ever. 0 is no answer at all."""

    def __init__(self, *answers: int) -> None:
        self.answers = list(answers) or [204]
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.url = ""
        self.let_go = threading.Event()

    def _answer(self) -> int:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    @contextmanager
    def listening(self) -> Iterator[Receiver]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                outer.headers.append(dict(self.headers.items()) | {"path": self.path})
                code = outer._answer()
                if not code:
                    outer.let_go.wait(20)
                    return
                self.send_response(code)
                if code in (301, 302):
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                return

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield self
        finally:
            self.let_go.set()
            server.shutdown()
            server.server_close()


def until(happens: Callable[[], object], seconds: float = 60) -> None:
    """Wait until it does; fail when it does not."""
    end_s = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end_s, "it never happened"
        time.sleep(0.02)
