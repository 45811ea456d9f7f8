"""What one call did, and who owes a step, in words: the parts of the sentences of a verdict."""

from __future__ import annotations

from tracer.conformance.case import Case, Ending
from tracer.grammar import Grammar
from tracer.model import CLIENT_SILENT, CLOSED_UNANSWERED, CallRecord, RpcFacts
from tracer.openstack.services import BROKER, HOST_SERVICE

__all__ = [
    "FATES",
    "NOT_TAKEN",
    "REFUSED",
    "after_colon",
    "between_words",
    "brief",
    "call_words",
    "failing_end",
    "is_unconfirmed",
    "last_message",
    "owed_by",
    "owes",
    "with_error",
]

FATES = {
    "undelivered": "was published and never delivered: no consumer took it from the queue",
    "unacked": "was delivered and not acknowledged",
    "unroutable": "could not be routed: no queue is bound for it",
    "ok": "was delivered and acknowledged, then silence",
}
"""Result of a message -> what the broker did with it."""
NOT_TAKEN = ("undelivered", "unacked", "unroutable")
"""Results of a message that its consumer has not dealt with."""
_MOST, _MOST_BEHIND_A_STALL = 190, 165
"""Characters of a headline behind the step, and behind the step and who owes it: below 240 with these."""
_END = 0.42
"""Share of them that the end of the text has: services put the reason there, behind what they were asked."""
REFUSED = "Connection refused"
"""The error of a refused connection. It is no text of a service, so it is not quoted as a cause."""


def after_colon(text: str) -> str:
    """Return *text* behind a colon; '' for no text."""
    return f": {text}" if text else ""


def brief(message: str) -> str:
    """Return *message* for a headline: where it is long, the middle is left out behind its first colon.

    It is cut between words. How much is left does not depend on the names of steps, which stand before the
    colon.
    """
    head, colon, rest = message.partition(": ")
    most = _MOST_BEHIND_A_STALL if ", owed by " in head else _MOST
    if len(rest) <= most:
        return message
    end = int(most * _END)
    begun, ended = rest[: most - end], rest[-end:]
    begun = begun.rpartition(" ")[0] or begun
    ended = ended.partition(" ")[2] or ended
    return f"{head}{colon}{begun.rstrip(' .,;:([')} … {ended}"


def with_error(words: str, error: str) -> str:
    """Return *words* with the text of the fault behind them, unless they say it already."""
    return words if error == REFUSED or error in words else f"{words}{after_colon(error)}"


def call_words(record: CallRecord, is_silent: bool = False) -> str:
    """Return the result of a call in words, as in 'neutron-server answered 503 to POST /v2.0/ports'.

    *is_silent* says that an answer would have been captured.
    """
    operation = record.operation
    if operation.startswith("CONNECT"):
        return _connection_words(record)
    if record.protocol == "RPC":
        return _message_words(record)
    if record.result == "none" and record.error.startswith(CLOSED_UNANSWERED):
        return f"{record.callee} {record.error} ({operation} of {record.caller})"
    if record.result == "none" or (record.result == "?" and is_silent):
        return f"{record.callee} never answered {operation} of {record.caller}"
    if record.result == "?":
        return f"{record.callee}'s answer to {operation} of {record.caller} is not in the capture"
    if record.answered_by:
        by_itself = f"{record.answered_by} answered {record.result} by itself to {operation}"
        return f"{by_itself} of {record.caller} in place of {record.callee}"
    answered = "an error" if record.result == "error" else record.result
    return f"{record.callee} answered {answered} to {operation}"


def failing_end(record: CallRecord) -> str:
    """Return the role that failed in a REST call, a statement or a connection."""
    if record.operation.startswith("CONNECT") and record.error.startswith(CLIENT_SILENT):
        return record.caller
    return record.answered_by or record.callee


def _connection_words(record: CallRecord) -> str:
    """Return what became of a connection that failed."""
    refused = record.result == "refused"
    verb = "refused the connection of" if refused else "never answered the connection attempt of"
    port = record.operation.removeprefix("CONNECT ")
    callee = f"{record.callee} ({record.callee_address}{port})"
    if record.error.startswith(CLIENT_SILENT):
        what = record.error.removeprefix(CLIENT_SILENT).strip()
        return f"{record.caller} ({record.caller_address}) never answered {what} of {callee}"
    if record.error and record.error != REFUSED and not refused:
        verb = "never finished connecting with" if record.result == "none" else "refused the client"
        return f"{callee} {verb} {record.caller} ({record.caller_address}): {record.error}"
    return f"{callee} {verb} {record.caller} ({record.caller_address})"


def _message_words(record: CallRecord) -> str:
    """Return what became of a message."""
    operation = record.operation
    if record.result == "failure":
        return f"{record.caller} answered {operation.removeprefix('reply ')} with a failure"
    if record.result in FATES:
        return f"{operation} from {record.caller} to {record.callee} {FATES[record.result]}"
    if record.result == "error":
        return f"{operation} from {record.caller} to {record.callee} was refused by {BROKER}"
    return f"{operation} from {record.caller} to {record.callee}: {record.result}"


def owes(grammar: Grammar, step: str, host: str | None) -> str:
    """Return who owes *step*; *host* is the one that builds the VM, where it is known."""
    role = grammar.caller(step)
    return f"{role} on {host}" if role == HOST_SERVICE and host else role


def owed_by(case: Case, step: str) -> str:
    """Return who owes *step*, with the host where it is known."""
    return owes(case.grammar, step, case.attempts[-1].host if case.attempts else None)


def between_words(ending: Ending) -> str:
    """Return between which two steps a creation stopped, where the captures do not show more."""
    if ending.between is None:
        return "stopped at a step that the captures do not show"
    return f"stopped after step {ending.between[0]}, at step {ending.between[1]} at the latest"


def last_message(case: Case) -> CallRecord | None:
    """Return the last RPC call or cast that is a step: its consumer owes what comes next."""
    found = [
        w.record
        for w in case.witnesses
        if isinstance(w.call.facts, RpcFacts) and w.call.facts.mode in ("call", "cast") and w.steps
    ]
    return found[-1] if found else None


def is_unconfirmed(case: Case, message: CallRecord) -> bool:
    """Return whether the broker never confirmed *message*: then no queue is known to hold it."""
    call = next((call for call in case.trace.calls if case.records[call.serial] is message), None)
    if call is None or not isinstance(call.facts, RpcFacts):
        return False
    return call.facts.unconfirmed and not call.facts.delivered and not call.connection.gaps
