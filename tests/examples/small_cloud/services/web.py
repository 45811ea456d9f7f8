"""HTTP as the services speak it: a server that answers JSON, and a call that gets it."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Callable, Mapping
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, NamedTuple

BREAK = "X-Break"


class Request(NamedTuple):
    """What a service is asked."""

    method: str
    path: str
    headers: Message
    body: Any

    def is_for(self, method: str, pattern: str) -> bool:
        """Tell whether it is a *method* of a path that fits."""
        return self.method == method and re.fullmatch(pattern, self.path.partition("?")[0]) is not None

    def breaks(self, step: str) -> bool:
        """Tell whether *step* is to go wrong."""
        return self.headers.get(BREAK) == step

    @property
    def carried(self) -> dict[str, str]:
        """The headers that whoever serves it passes on."""
        names = ("X-Auth-Token", "X-OpenStack-Request-ID", BREAK)
        return {name: self.headers[name] for name in names if name in self.headers}


class Answer(NamedTuple):
    """What it answers."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = {}  # read only


def serve(address: str, ports: list[int], answer: Callable[[Request], Answer]) -> None:
    """Answer requests for ever; says `ready` when it can."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            told = answer(Request(self.command, self.path, self.headers, json.loads(data) if data else None))
            body = b"" if told.body is None else json.dumps(told.body).encode()
            self.send_response(told.status)
            for name, value in {"Content-Type": "application/json", **told.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_DELETE = do

    servers = [ThreadingHTTPServer((address, port), Handler) for port in ports]
    print("ready", flush=True)
    for server in servers[1:]:
        Thread(target=server.serve_forever, daemon=True).start()
    servers[0].serve_forever()


def call(
    where: tuple[str, int], method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
) -> Answer:
    """Ask a service, and return its answer, whatever it is."""
    connection = http.client.HTTPConnection(*where, timeout=20)
    try:
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"Content-Type": "application/json", **(headers or {})})
        told = connection.getresponse()
        text = told.read()
        return Answer(told.status, json.loads(text) if text else None, dict(told.getheaders()))
    finally:
        connection.close()
