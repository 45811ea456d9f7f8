"""Sends recorded REST requests to test endpoints, in recorded order, with live ids and tokens.

Each recorded connection becomes one connection to the endpoint; requests on different connections overlap as
recorded. A request with an id or token from a recorded answer waits until the live answer to that request.

Heads and bodies are sent as recorded, secrets included. They are kept until the request is answered, live
tokens until the replay ends. None of them is printed.
"""

from __future__ import annotations

import http.client
import select
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import urlsplit

from tracer.errors import UsageError
from tracer.model import Closed, Endpoint, HttpRequest, HttpResponse
from tracer.openstack.rest import SUBJECT_TOKEN, TOKEN
from tracer.protocols import RAW_LIMIT
from tracer.replay.ids import Ids, candidates, ids_of_answer
from tracer.replay.summary import RestSummary

__all__ = ["Target", "ToEndpoints", "endpoint_at"]

TIMEOUT_S = 60.0
WORKERS = 32
MOST_WAITING = 256
"""Most requests that wait or are being sent; at the limit the reading of the captures waits."""
ANSWER_LIMIT = 4 << 20
"""Bytes of a live answer that are searched for ids."""
MOST_OPEN = 10_000
_OWN = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "keep-alive", "proxy-connection"}
    | {"proxy-authorization", "te", "trailer", "upgrade", "expect", "accept-encoding"}
)
"""Headers that are not sent again: those of one hop (RFC 9110 §7.6.1), and those that http.client sets."""
CUT = "requests cut in the captures (snap length, lost packets)"


class Target(NamedTuple):
    """The endpoint for the requests to one role."""

    host: str
    port: int
    tls: bool
    prefix: str
    """Path to put before the recorded path, without a slash at its end."""


def endpoint_at(role: str, url: str) -> Target:
    """Return the target of `--rest ROLE=URL`. Raises UsageError; its message does not contain the URL."""
    form = f"write {role}=http://HOST:PORT"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise UsageError(f"--rest {role}: not a URL; {form}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise UsageError(f"--rest {role}: a URL begins with http:// or https:// and names a host; {form}")
    if "@" in url or parts.query or parts.fragment:
        raise UsageError(f"--rest {role}: the URL must have neither a user nor a query; {form}")
    tls = parts.scheme == "https"
    return Target(host, port or (443 if tls else 80), tls, parts.path.rstrip("/"))


class _Answer(NamedTuple):
    status: int
    location: str
    token: str
    body: bytes


@dataclass(eq=False, slots=True)
class _Exchange:
    """A request that was handed over, until its live and its recorded answer are compared."""

    summary: RestSummary
    done: Future[None] = field(default_factory=Future)
    """Set after the live answer, or after the attempt failed."""
    recorded: _Answer | None = None
    live: _Answer | None = None
    failed: bool = False
    ended: bool = False
    """Whether no recorded answer will follow."""
    promised: set[str] = field(default_factory=set)
    """Recorded ids for which its live answer may hold live ids."""


class _Line:
    """One connection to an endpoint, opened when it is needed."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._client: http.client.HTTPConnection | None = None

    def ask(self, method: str, path: str, headers: list[tuple[str, str]], body: bytes) -> _Answer:
        """Send one request and return the answer. Raises OSError or http.client.HTTPException."""
        client = self._open()
        client.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers:
            client.putheader(name, value)
        # Uncompressed, so that ids in the answer can be found.
        client.putheader("Accept-Encoding", "identity")
        if body or method in ("POST", "PUT", "PATCH"):
            client.putheader("Content-Length", str(len(body)))
        client.endheaders(body or None)
        response = client.getresponse()
        kept = response.read(ANSWER_LIMIT)
        if response.read(1):
            # A longer body is not read to its end: a new connection is cheaper.
            self.close()
        answer = _Answer(
            response.status,
            response.getheader("Location", ""),
            response.getheader(SUBJECT_TOKEN, ""),
            kept,
        )
        if response.will_close:
            self.close()
        return answer

    def _open(self) -> http.client.HTTPConnection:
        client = self._client
        if client is not None and client.sock is not None and select.select([client.sock], [], [], 0)[0]:
            # Readable although no request is open: the server has closed the connection.
            self.close()
            client = None
        if client is None:
            kind = http.client.HTTPSConnection if self._target.tls else http.client.HTTPConnection
            client = self._client = kind(self._target.host, self._target.port, timeout=TIMEOUT_S)
        return client

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        client, self._client = self._client, None
        if client is not None:
            client.close()


class ToEndpoints:
    """Receives the HTTP messages of a recording and sends its requests to the endpoints of their servers.

    *targets*: recorded server -> target and its counters. *in_step*: a request waits for all requests that
    were answered before it in the recording, so that the concurrency is as recorded. Without *in_step* the
    caller keeps the pace, and a request waits only for answers whose ids or tokens it holds.
    """

    def __init__(
        self,
        targets: Mapping[Endpoint, tuple[Target, RestSummary]],
        left_out: Counter[str],
        *,
        in_step: bool,
    ) -> None:
        self._targets = targets
        self._left_out = left_out
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="sends requests")
        self._slots = threading.Semaphore(MOST_WAITING)
        self._open: OrderedDict[tuple[int, int], _Exchange] = OrderedDict()
        self._last: dict[int, Future[None]] = {}
        """Recorded connection -> end of its latest request; the next request waits for it"""
        self._lines: dict[int, _Line] = {}
        self._in_step = in_step
        self._before: list[Future[None]] = []
        """Requests that are answered in the recording and perhaps not live yet (*in_step*)."""
        self._promised: dict[str, Future[None]] = {}
        """Recorded id -> the request whose live answer may hold the live id"""
        self._stopped = False
        self._bug: BaseException | None = None
        """Unexpected exception in a thread; `close` raises it."""
        self.ids = Ids()
        self.mapped = 0
        """Number of requests that were sent with live ids or tokens."""

    def receive(self, message: HttpRequest | HttpResponse | Closed) -> None:
        """Send a request, compare an answer, or end a connection."""
        if isinstance(message, HttpRequest):
            if message.connection.server in self._targets:
                self._request(message)
        elif isinstance(message, HttpResponse):
            exchange = self._open.get((message.connection.number, message.exchange))
            if exchange is not None:
                self._answered(message, exchange)
        else:
            self._closed(message)

    def close(self, *, at_once: bool) -> None:
        """Wait for the pending requests (*at_once*: only for those being sent), then drop all secrets."""
        # Set before the shutdown: requests that still wait for others are not sent any more.
        self._stopped = at_once
        self._pool.shutdown(wait=True, cancel_futures=at_once)
        for line in self._lines.values():
            line.close()
        for exchange in self._open.values():
            exchange.ended = True
            self._compare(exchange)
        self._open.clear()
        self.ids = Ids()
        if self._bug is not None:
            raise self._bug

    # --- requests ---

    def _request(self, message: HttpRequest) -> None:
        target, summary = self._targets[message.connection.server]
        why = _unsendable(message)
        if why:
            self._left_out[why] += 1
            return
        number = message.connection.number
        headers = _headers(message.raw_head)
        path = _path(message.raw_head)
        exchange = _Exchange(summary)
        self._open[number, message.exchange] = exchange
        if len(self._open) > MOST_OPEN:
            self._settle(self._open.popitem(last=False)[1])
        waits = self._waits(number, path, headers, message.body)
        self._last[number] = exchange.done
        line = self._lines.setdefault(number, _Line(target))
        # Blocks the reader of the captures, so that memory does not grow when the endpoint is slow.
        self._slots.acquire()

        def send() -> None:
            try:
                for each in waits:
                    each.result()
                if not self._stopped:
                    self._send(line, target, exchange, message.method, path, headers, message.body)
            except BaseException as error:
                # The pool would store it in a future that nobody reads.
                self._bug = self._bug or error
            finally:
                self._slots.release()
                if not exchange.done.done():
                    exchange.done.set_result(None)

        self._pool.submit(send)

    def _waits(
        self, number: int, path: str, headers: list[tuple[str, str]], body: bytes
    ) -> list[Future[None]]:
        """Return what a request waits for: the request before on its connection, and answers with its ids."""
        self._before = [each for each in self._before if not each.done()]
        found = [self._last[number]] if number in self._last else []
        found += self._before
        with self._lock:
            if self._promised:
                held = candidates("\n".join((path, *(value for _, value in headers), body.decode("latin-1"))))
                found += [self._promised[word] for word in held if word in self._promised]
        return list(dict.fromkeys(found))

    def _send(
        self,
        line: _Line,
        target: Target,
        exchange: _Exchange,
        method: str,
        path: str,
        headers: list[tuple[str, str]],
        body: bytes,
    ) -> None:
        with self._lock:
            live_path = target.prefix + self.ids.mapped(path)
            live_headers = [(name, self.ids.mapped(value)) for name, value in headers]
            # latin-1 maps every byte to one character and back.
            live_body = self.ids.mapped(body.decode("latin-1")).encode("latin-1", "replace")
            exchange.summary.sent += 1
            exchange.summary.old_tokens += (TOKEN, dict(headers).get(TOKEN)) in live_headers
            self.mapped += (live_path, live_headers, live_body) != (target.prefix + path, headers, body)
        try:
            answer = line.ask(method, live_path, live_headers, live_body)
        except (OSError, http.client.HTTPException, ValueError) as error:
            line.close()
            with self._lock:
                exchange.failed = True
                exchange.summary.problems[_why(error)] += 1
                self._fulfil(exchange)
            return
        with self._lock:
            exchange.live = answer
            self._fulfil(exchange)

    def _fulfil(self, exchange: _Exchange) -> None:
        """Learn ids if the recorded answer is known already; requests that wait for the ids may go on."""
        if exchange.recorded is not None:
            self._learn(exchange)
        for word in exchange.promised:
            if self._promised.get(word) is exchange.done:
                del self._promised[word]
        if exchange.recorded is not None or exchange.ended:
            self._compare(exchange)

    # --- recorded answers ---

    def _answered(self, message: HttpResponse, exchange: _Exchange) -> None:
        del self._open[message.connection.number, message.exchange]
        if self._in_step:
            self._before.append(exchange.done)
        heads = dict(_headers(message.raw_head))
        body = b"" if message.truncated else message.body
        answer = _Answer(message.status, heads.get("location", ""), heads.get(SUBJECT_TOKEN, ""), body)
        with self._lock:
            exchange.recorded = answer
            if exchange.live is not None:
                self._learn(exchange)
                self._compare(exchange)
            elif exchange.failed:
                self._compare(exchange)
            else:
                exchange.promised = ids_of_answer(body, answer.location, answer.token)
                for word in exchange.promised:
                    self._promised.setdefault(word, exchange.done)

    def _learn(self, exchange: _Exchange) -> None:
        recorded, live = exchange.recorded, exchange.live
        # A success and a failure have different bodies: comparing them would pair unrelated values.
        if recorded is None or live is None or (recorded.status < 400) != (live.status < 400):
            return
        self.ids.learn(recorded.token, live.token)
        if recorded.location and live.location:
            self.ids.learn_url(recorded.location, live.location)
        self.ids.learn_json(recorded.body, live.body)

    def _closed(self, closed: Closed) -> None:
        number = closed.connection.number
        # One direction may be closed while the answer is still to come.
        if closed.how == "fin":
            return
        for key in [key for key in self._open if key[0] == number]:
            self._settle(self._open.pop(key))
        last, line = self._last.pop(number, None), self._lines.pop(number, None)
        if line is not None:
            if last is None or last.done():
                line.close()
            else:
                last.add_done_callback(_closing(line))

    def _settle(self, exchange: _Exchange) -> None:
        """Record that no recorded answer will follow."""
        with self._lock:
            exchange.ended = True
            if exchange.live is not None or exchange.failed:
                self._compare(exchange)

    def _compare(self, exchange: _Exchange) -> None:
        recorded, live, summary = exchange.recorded, exchange.live, exchange.summary
        # Both hold secrets, which are not kept longer than needed.
        exchange.recorded = exchange.live = None
        if live is None and not exchange.failed:
            return
        status = str(live.status) if live is not None else "none"
        if recorded is None:
            summary.uncompared += 1
        elif str(recorded.status) == status:
            summary.same += 1
        else:
            summary.different[str(recorded.status), status] += 1


def _closing(line: _Line) -> Callable[[object], None]:
    return lambda _: line.close()


def _unsendable(message: HttpRequest) -> str:
    """Return why a request cannot be sent; '' when it can."""
    declared = message.headers.get("content-length", "")
    if message.method == "CONNECT":
        return "CONNECT requests: what follows is no HTTP"
    if message.truncated:
        return CUT
    if len(message.body) >= RAW_LIMIT or (declared.isdecimal() and int(declared) > RAW_LIMIT):
        return f"requests with a body of more than {RAW_LIMIT >> 20} MiB"
    if declared.isdecimal() and int(declared) != len(message.body):
        return CUT
    return ""


def _headers(head: bytes) -> list[tuple[str, str]]:
    """Return the headers of a request to send again, names in lower case; folded lines are joined."""
    found: list[tuple[str, str]] = []
    for line in head.decode("latin-1").split("\n")[1:]:
        line = line.rstrip("\r")
        if line[:1] in (" ", "\t") and found:
            found[-1] = found[-1][0], f"{found[-1][1]} {line.strip()}"
            continue
        name, colon, value = line.partition(":")
        if colon and name:
            found.append((name.strip().lower(), value.strip()))
    return [(name, value) for name, value in found if name not in _OWN]


def _path(head: bytes) -> str:
    """Return path and query of a request's head."""
    # The target may be in absolute form (RFC 9112 §3.2.2), as sent to a proxy.
    target = head.partition(b"\n")[0].decode("latin-1").partition(" ")[2].rpartition(" ")[0].strip()
    if target.startswith("/") or target == "*":
        return target
    parts = urlsplit(target)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT_S:g} s"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return {"RemoteDisconnected": "connection closed without an answer"}.get(
        type(error).__name__, f"not an HTTP answer ({type(error).__name__})"
    )
