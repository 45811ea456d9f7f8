"""The words of reports in plain English: what each means, and where to look next.

`tracer explain` prints them. tests/reports/test_glossary.py compares them with `tracer.model.verdicts`.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["KINDS", "Entry", "entries"]


class Entry(NamedTuple):
    """One meaning of a word."""

    kind: str
    """verdict · outcome · status of a step · deviation · note · exit code"""
    word: str
    means: str
    look: str = ""
    """Where to look next; '' where the report itself says it."""


_VERDICT, _OUTCOME, _STATUS = "verdict", "outcome", "status of a step"
_DEVIATION, _NOTE, _EXIT, _RESULT = "deviation", "note", "exit code", "result of a call"
KINDS = (_VERDICT, _OUTCOME, _STATUS, _DEVIATION, _NOTE, _RESULT, _EXIT)
"""The kinds of words, in the order in which meanings of one word are printed."""

_FIRST_LINES = "the trace's first line names step, service and cause; `tracer show … --trace NAME` draws it"
_CAPTURE_MORE = "the line `not observed` says why, and the advice at the end what to capture"

_ENTRIES = (
    Entry(_VERDICT, "conforms", "every step that could be seen was as documented, and the VM runs"),
    Entry(
        _VERDICT,
        "deviates",
        "a step failed, is missing, came out of order, on the wrong plane or in the wrong mode; or the"
        " creation was rejected, ended in error, is stuck, or was deleted",
        _FIRST_LINES,
    ),
    Entry(
        _VERDICT,
        "inconclusive",
        "nothing deviates, but something that decides was not seen: a plane is not captured, bytes are lost"
        " or encrypted, or the capture ends too early",
        _CAPTURE_MORE,
    ),
    Entry(_OUTCOME, "active", "the VM was seen to run, or its start at the hypervisor to succeed"),
    Entry(_OUTCOME, "done", "a workflow that makes no VM, such as a deletion, came to its end"),
    Entry(
        _OUTCOME,
        "rejected",
        "the request was answered with a refusal or an error. Mostly no VM was made; where a proxy gave up"
        " waiting, a record of it may remain",
        "the status and the text of the answer are in the first line",
    ),
    Entry(_OUTCOME, "error", "the request was accepted, and the VM ended in state error", _FIRST_LINES),
    Entry(
        _OUTCOME,
        "stuck",
        "accepted, no error, and nothing more was seen of it for longer than --stall (60 s by default)",
        "the first line says who owes the next step, and since when",
    ),
    Entry(_OUTCOME, "deleted", "its user deleted the VM while it was being built", _FIRST_LINES),
    Entry(
        _OUTCOME,
        "unfinished",
        "the capture ends before the creation does, and before the stall limit",
        "capture for longer, or give a lower --stall",
    ),
    Entry(_STATUS, "seen", "its calls are in the captures; the text says ok"),
    Entry(_STATUS, "ok", "its calls are in the captures; the JSON says seen"),
    Entry(
        _STATUS,
        "inferred",
        "it may leave nothing on the wire (a token in a cache), and later steps imply that it happened",
    ),
    Entry(
        _STATUS,
        "failed",
        "a call of it failed or said so in its body, or the service that does it said so",
        "the line `!` has the call and its frame; `tracer explain STEP` says what usually breaks that step",
    ),
    Entry(
        _STATUS,
        "owed",
        "it has not happened though the step before it did; the report names the service that has to act. The"
        " JSON says not_reached or missing",
        "the log of the service that is named, from the time of the last call on",
    ),
    Entry(
        _STATUS,
        "refused",
        "it passed on the refusal of a step further in; the JSON says seen",
    ),
    Entry(
        _STATUS,
        "open",
        "its call had not ended when the creation or the captures did; the text says not ended",
        "the log of the service that was asked",
    ),
    Entry(_STATUS, "unanswered", "its call got no answer; the text says no answer, the JSON says seen"),
    Entry(
        _STATUS,
        "given_up",
        "a proxy answered that it got no answer (502, 504); the text says gave up",
        "the service behind the proxy: what did it wait for?",
    ),
    Entry(
        _STATUS,
        "sent",
        "its message is at the broker, and no consumer took or acknowledged it; the JSON says seen",
        "`rabbitmqctl list_queues name messages consumers`: does a consumer take from its queue?",
    ),
    Entry(
        _STATUS,
        "retrying",
        "it failed, and the captures end while it may still be tried again; the JSON says failed",
    ),
    Entry(
        _STATUS,
        "missing",
        "the captures would have shown it, and it is not there: it did not happen",
        "the caller of the step, which had to begin it",
    ),
    Entry(
        _STATUS,
        "unobserved",
        "these captures could not show it: its plane or leg is not captured, bytes are lost there, or it is"
        " encrypted. It is never taken for missing",
        _CAPTURE_MORE,
    ),
    Entry(_STATUS, "skipped", "it is optional, or this cloud has no service for it: it did not happen"),
    Entry(_STATUS, "not_reached", "the creation stopped before it; the text says not reached"),
    Entry(_DEVIATION, "failed", "the step at which the creation was refused or ended in error", _FIRST_LINES),
    Entry(
        _DEVIATION,
        "stalled",
        "the step that is owed, of a creation that is stuck",
        "the log of the service that is named, from the time of the last call on",
    ),
    Entry(_DEVIATION, "missing", "a step that the captures would have shown, and that is not there"),
    Entry(
        _DEVIATION,
        "extra",
        "a call of a documented step that fits nowhere: once too often, or without the calls around it",
        "a retry of a client or a service; `tracer show … -v` draws all calls",
    ),
    Entry(_DEVIATION, "order", "a step came before or after its documented place"),
    Entry(
        _DEVIATION,
        "plane",
        "a step went over another network plane than the documented one",
        "the routes and endpoints (`openstack endpoint list`) of the caller",
    ),
    Entry(
        _DEVIATION,
        "mode",
        "a step by REST that is documented as RPC, or the reverse, where the grammar does not accept that",
    ),
    Entry(_DEVIATION, "late", "a step took longer than the deadline that the grammar states"),
    Entry(_NOTE, "mode", "a step by REST that is documented as RPC, which the grammar accepts"),
    Entry(
        _NOTE,
        "retry",
        "a call failed and was repeated, or another host was asked, with success",
        "the line `attempt`: the first host may have a fault that the next creations will meet",
    ),
    Entry(_NOTE, "host", "several hosts were asked, and the capture ends before it shows which built the VM"),
    Entry(
        _NOTE,
        "redelivered",
        "the broker delivered a message again: its first consumer went away or did not acknowledge it",
    ),
    Entry(
        _NOTE, "absent", "this cloud has no service for the step: no portal (SC), no load balancer or no VRM"
    ),
    Entry(_NOTE, "ambiguous", "some calls of the step may belong to another creation"),
    Entry(_NOTE, "allowed", "a deviation or an unobserved step that --allow accepted"),
    Entry(_NOTE, "slow", "slower than good creations of the baseline (--baseline)"),
    Entry(_NOTE, "baseline", "the baseline has too few good creations to compare with"),
    Entry(
        _NOTE,
        "placement",
        "how many hosts placement offered, and for what; it stands with `No valid host`",
        "`openstack allocation candidate list` with the same resources",
    ),
    Entry(
        _NOTE,
        "reply",
        "an RPC call got no reply, or a late one",
        "grep the message id in the logs of the caller and of the service that was asked",
    ),
    Entry(
        _NOTE,
        "broker",
        "a message that no queue took, no consumer fetched, or no consumer acknowledged",
        "`rabbitmqctl list_queues name messages consumers`",
    ),
    Entry(_NOTE, "fault", "the fault that nova recorded, as `openstack server show` prints it"),
    Entry(_RESULT, "ok", "SQL: done. RPC: acknowledged, or delivered to one that need not acknowledge"),
    Entry(
        _RESULT,
        "refused",
        "the connection was refused: no process listens on the port",
        "is the service up, and does it listen there? `ss -ltn` on its host",
    ),
    Entry(_RESULT, "error", "SQL: the statement failed. RPC: the broker or the consumer refused the message"),
    Entry(_RESULT, "failure", "the reply to an RPC call is an exception"),
    Entry(_RESULT, "unroutable", "no queue took the message, and the broker returned it"),
    Entry(_RESULT, "undelivered", "the message is in a queue, and no consumer fetched it"),
    Entry(_RESULT, "unacked", "the message was delivered, and the consumer did not acknowledge it"),
    Entry(_RESULT, "none", "no answer came, and the captures would have shown it"),
    Entry(_RESULT, "?", "the answer is not in the captures"),
    Entry(_EXIT, "exit 0", "every trace conforms"),
    Entry(_EXIT, "exit 1", "a trace deviates"),
    Entry(_EXIT, "exit 2", "could not run: wrong option, unreadable capture, internal error"),
    Entry(_EXIT, "exit 3", "no trace deviates, but one is inconclusive"),
    Entry(_EXIT, "exit 5", "no trace was found"),
    Entry(_EXIT, "exit 130", "interrupted; the report so far was written"),
)


def entries(word: str = "") -> tuple[Entry, ...]:
    """Return the meanings of *word*, in the order of `KINDS`; all entries for ''.

    Upper and lower case are one, and so are `not_reached`, `not reached` and `not-reached`.
    """
    wanted = _folded(word)
    return tuple(entry for entry in _ENTRIES if not wanted or _folded(entry.word) == wanted)


def _folded(word: str) -> str:
    return word.strip().lower().replace("_", " ").replace("-", " ")
