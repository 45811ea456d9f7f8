"""A twin of the recorded services: answers as they did, but with other ids and tokens.

What it gives out is drawn from the recorded answers, with every UUID, token and host id replaced by one of
its own. It knows which recorded request a request stands for by putting the recorded ids back.
"""

from __future__ import annotations

import re
import threading
import uuid
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from lab.recorded import Exchanged

ID = re.compile(
    rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|gAAAAA[\w-]{40,}=*|live-[0-9a-f]{32}-token"
    rb"|(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])"
)


def introduced(exchanges: list[Exchanged], methods: tuple[str, ...] = ()) -> set[bytes]:
    """Ids and tokens that an answer told before any request held them."""
    asked: set[bytes] = set()
    found: set[bytes] = set()
    order = sorted(
        [(e.request.end_ns, 0, e.request.raw_head + e.request.body) for e in exchanges]
        + [(e.answer.end_ns, 1, _tells(e)) for e in exchanges if not methods or e.request.method in methods]
    )
    for _, is_answer, text in order:
        ids = set(ID.findall(text))
        if is_answer:
            found |= ids - asked
        else:
            asked |= ids
    return found


def indistinct(alike: Iterable[Exchanged]) -> Iterator[list[Exchanged]]:
    """Requests that read the same, in the runs that were under way at once: which is which, nobody can tell.

    Those of one run were all answered before any of the next one began.
    """
    run: list[Exchanged] = []
    until_ns = 0
    for each in sorted(alike, key=lambda e: e.request.end_ns):
        if run and each.request.end_ns > until_ns:
            yield run
            run = []
        run.append(each)
        until_ns = max(until_ns, each.answer.end_ns)
    yield run


def _tells(exchange: Exchanged) -> bytes:
    """What of an answer may name things: request ids and the like are nobody's to use."""
    head = exchange.answer.raw_head
    named = [
        line for line in head.split(b"\r\n") if line.lower().startswith((b"location:", b"x-subject-token:"))
    ]
    return b"\r\n".join(named) + b"\r\n" + exchange.answer.body


class Twin:
    """Answers the requests of *exchanges*, whichever service they were to."""

    def __init__(self, roles: dict[str, list[Exchanged]], methods: tuple[str, ...] = ()) -> None:
        """*roles*: each is reached under a path of its name. *methods*: only what answers to these introduce
        gets other ids; all, if there are none.
        """
        exchanges = [each for its in roles.values() for each in its]
        self.received: list[tuple[bytes, bytes, bytes]] = []
        """(request line, headers, body) as they came"""
        self.unexpected: list[bytes] = []
        self.early: set[bytes] = set()
        """Recorded ids that came in a request although an answer had told another one."""
        self._own = {each: _other(each) for each in introduced(exchanges, methods)}
        self._back = {own: recorded for recorded, own in self._own.items()}
        self._answers: dict[bytes, deque[Exchanged]] = defaultdict(deque)
        for role, each in ((role, each) for role, its in roles.items() for each in its):
            first, _, head = each.request.raw_head.partition(b"\n")
            line = first.split(b" HTTP/1")[0].replace(b" ", f" /{role}".encode(), 1)
            self._answers[_known_by(line, head, each.request.body)].append(each)
        runs = [run for alike in self._answers.values() for run in indistinct(alike)]
        told = [{_tells(each) for each in run} for run in runs]
        # One request of a run may get the answer of another, and then an id is told beside none of its own.
        crossing = {each for texts in told if len(texts) > 1 for text in texts for each in ID.findall(text)}
        self.held = set(self._own) - crossing
        """Recorded ids that no request has to hold, however the threads take turns."""
        self._lock = threading.Lock()
        self.handed_out: set[bytes] = set()

    def answer(self, line: bytes, head: bytes, body: bytes) -> tuple[int, bytes, bytes, bytes] | None:
        """Status, Location, X-Subject-Token and body for a request; None for one that was not recorded."""
        with self._lock:
            self.received.append((line, head, body))
            self.early |= set(ID.findall(line + head + body)) & set(self._own)
            recorded = ID.sub(lambda m: self._back.get(m[0], m[0]), _known_by(line, head, body))
            waiting = self._answers.get(recorded)
            if not waiting:
                self.unexpected.append(line)
                return None
            found = waiting.popleft().answer
            return (
                found.status,
                self._told(_header(found.raw_head, b"location")),
                self._told(_header(found.raw_head, b"x-subject-token")),
                self._told(found.body),
            )

    def _told(self, text: bytes) -> bytes:
        told = ID.sub(lambda m: self._own.get(m[0], m[0]), text)
        self.handed_out |= set(ID.findall(told)) & set(self._back)
        return told


def _known_by(line: bytes, head: bytes, body: bytes) -> bytes:
    """What tells a request from others: many services ask the same at once, in the name of other requests."""
    named = re.findall(rb"(?im)^(x-openstack-request-id):[ \t]*(.*?)\r?$", head)
    return b"\n".join((line, *(b": ".join((n.lower(), v)) for n, v in sorted(named)), body))


def _other(recorded: bytes) -> bytes:
    if recorded.startswith(b"gAAAAA"):
        return b"live-" + uuid.uuid4().hex.encode() + b"-token"
    own = uuid.uuid4()
    return (str(own) if b"-" in recorded else own.hex).encode()


def _header(head: bytes, name: bytes) -> bytes:
    found = re.search(rb"(?im)^" + name + rb":[ \t]*(.*?)\r?$", head)
    return found[1] if found else b""


@contextmanager
def serving(twin: Any, delay_s: float = 0.0) -> Iterator[str]:
    """The URL at which *twin* answers, each request after *delay_s*."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Two writes of a small answer would wait for one another (Nagle's algorithm, delayed ACK).
        wbufsize = -1

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            line = f"{self.command} {self.path}".encode("latin-1")
            # As bytes, the headers would be folded.
            head = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
            found = twin.answer(line, head.encode("latin-1"), body)
            if delay_s:
                threading.Event().wait(delay_s)
            status, location, token, content = found or (599, b"", b"", b"")
            self.send_response(status)
            if location:
                self.send_header("Location", location.decode("latin-1"))
            if token:
                self.send_header("X-Subject-Token", token.decode("latin-1"))
            has_body = status not in (204, 304)
            if has_body:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if has_body and self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS = handle_any

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        # As many clients as connect at once: those for whom there is no room are reset.
        request_queue_size = 128

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
