"""REST calls, made of HTTP requests and responses."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from tracer.calls.bodies import fault_text, read_answer, read_request
from tracer.calls.endings import end_unanswered, is_half_close
from tracer.calls.paths import UUID, operation_path, split_target, uuids
from tracer.model import (
    CLIENT,
    CLOSED_UNANSWERED,
    SERVER,
    TO_CLIENT,
    Call,
    Closed,
    Connection,
    End,
    Endpoint,
    Frame,
    HttpRequest,
    HttpResponse,
    RestFacts,
)
from tracer.model.tables import trim
from tracer.openstack.rest import (
    COMPUTE_REQUEST_ID,
    REQUEST_ID,
    SUBJECT_TOKEN,
    TOKEN,
    creates_server,
    is_vrm,
    server_named,
)
from tracer.openstack.states import BAD, STATUS_OF_FAILURE, TASK_FAILED

__all__ = ["RestCalls"]

EARLY_LIMIT = 4_096
"""Responses that wait for their request."""
MOST_OPEN = 1_024
"""Requests of one connection without an answer."""
_REQUEST_ID_LENGTH = 40  # req- and a UUID
_ANSWERED = (
    *("status", "answered_id", "answered_ids", "task_uri", "vm_uri", "status_text", "candidates"),
    *("condition", "said"),
)
"""Facts that an answer gives."""


class RestCalls:
    """Pairs each response with its request by connection and exchange."""

    def __init__(self, serial: Callable[[], int]) -> None:
        self._serial = serial
        self._open: dict[int, dict[int, Call]] = {}
        """Connection number -> exchange -> call without an answer."""
        self._early: OrderedDict[tuple[int, int], Call] = OrderedDict()
        """(connection number, exchange) -> answered call whose request was not seen, or is still held back
        by reassembly behind a hole."""
        self._given_up: set[int] = set()
        """Connections whose client has closed its side."""
        self._orphans: dict[tuple[Endpoint, Endpoint], Call] = {}
        """(client, server) -> open call of an earlier run. After the restart the connection has another
        number, so only its ends identify it."""

    def restore(self, call: Call) -> None:
        """Expect the answer to *call*, which began in an earlier run."""
        self._orphans[call.connection.client, call.connection.server] = call

    def request(self, message: HttpRequest) -> tuple[Call, ...]:
        """Return the call that *message* begins, behind one that can have no answer any more."""
        path, query = split_target(message.target)
        headers = message.headers
        facts = RestFacts(
            message.method,
            path,
            query,
            host=headers.get("host", ""),
            user_agent=headers.get("user-agent", "")[:200],
            forwarded_for=headers.get("x-forwarded-for", ""),
            request_id=_request_id(headers.get(REQUEST_ID, "")),
            token=headers.get(TOKEN, ""),
            subject_token=headers.get(SUBJECT_TOKEN, ""),
            ids=uuids(message.target),
            creates=creates_server(message.method, path),
            server_id=server_named(path),
            broken=message.truncated,
        )
        read_request(facts, message.body)
        early = self._early.pop((message.connection.number, message.exchange), None)
        if early is not None:
            return (_completed(early, facts, message),)
        call = self._begin(message.connection, facts, message.time_ns, list(message.frames))
        call.operation = _operation(message.method, path)
        waiting = self._open.setdefault(message.connection.number, {})
        waiting[message.exchange] = call
        if len(waiting) <= MOST_OPEN:
            return (call,)
        # The decoder pairs no answer with it.
        oldest = waiting.pop(next(iter(waiting)))
        oldest.result, oldest.closed = "?", True
        return (oldest, call)

    def response(self, message: HttpResponse) -> Call:
        """Return the call that *message* ends; a new call if its request was not seen."""
        connection = message.connection
        waiting = self._open.get(connection.number)
        call = waiting.pop(message.exchange, None) if waiting else None
        # Only a connection that began before this run can answer a request of an earlier one.
        if call is None and self._orphans and connection.joined:
            call = self._orphans.pop((connection.client, connection.server), None)
        if call is None:
            facts = RestFacts("?", "", broken=True)
            call = self._begin(connection, facts, message.time_ns, [])
            call.operation = "? ?"
            self._early[connection.number, message.exchange] = call
            trim(self._early, EARLY_LIMIT)
        facts = call.facts  # type: ignore[assignment]
        headers = message.headers
        facts.status = message.status
        facts.answered_id = _request_id(headers.get(REQUEST_ID) or headers.get(COMPUTE_REQUEST_ID, ""))
        facts.subject_token = facts.subject_token or headers.get(SUBJECT_TOKEN, "")
        facts.broken = facts.broken or message.truncated
        read_answer(facts, message.body, headers)
        # A task or server in error is reported with status 200; its body holds the reason.
        if message.status >= 400 or facts.status_text in STATUS_OF_FAILURE:
            call.error = fault_text(message.body) or (message.reason if message.status >= 400 else facts.said)
        elif facts.condition == BAD:
            call.error = facts.said
        call.result = str(message.status) if message.status else "?"
        call.ended_ns = message.end_ns
        call.frames.extend(message.frames)
        call.closed = True
        return call

    def closed(self, closed: Closed) -> list[Call]:
        """Return the calls of the connection that stay without an answer.

        Their result is `none` if the capture shows that no answer came, else `?`.
        """
        number = closed.connection.number
        if is_half_close(closed):
            if self._open.get(number):
                self._given_up.add(number)
            return []
        has_given_up = number in self._given_up
        by_server = closed.how in ("fin", "reset") and closed.direction == TO_CLIENT
        calls = list((self._open.pop(number, None) or {}).values())
        for call in calls:
            end_unanswered(call, closed, has_given_up)
            if call.result == "none" and by_server and not has_given_up:
                call.error = f"{CLOSED_UNANSWERED}: it died or was restarted"
        self._given_up.discard(number)
        return calls

    def _begin(self, connection: Connection, facts: RestFacts, time_ns: int, frames: list[Frame]) -> Call:
        return Call(
            self._serial(),
            "REST",
            "",
            "?",
            time_ns,
            None,
            frames,
            End(connection, CLIENT),
            End(connection, SERVER),
            facts,
            connection,
        )


def _completed(call: Call, request: RestFacts, message: HttpRequest) -> Call:
    """Return *call*, whose response came out of reassembly first, with the facts of its request."""
    facts = call.facts
    assert isinstance(facts, RestFacts)  # noqa: S101  # made by `response`
    for name in _ANSWERED:
        setattr(request, name, getattr(facts, name))
    request.project_id = request.project_id or facts.project_id
    if is_vrm(request.path) and request.status_text == TASK_FAILED:
        # Whose answer it was could not be known.
        request.condition, request.said = BAD, call.error
    call.facts = request
    call.operation = _operation(message.method, request.path)
    call.started_ns = min(call.started_ns, message.time_ns)
    call.frames[:0] = message.frames
    return call


def _operation(method: str, path: str) -> str:
    return f"{method} {operation_path(path) or '?'}"


def _request_id(text: str) -> str:
    """Return *text* if it has the shape of a request id, else ''.

    A lost part of a header is filled with NULs and must not become an id.
    """
    text = text.strip()
    return text if len(text) == _REQUEST_ID_LENGTH and text[:4] == "req-" and UUID.fullmatch(text[4:]) else ""
