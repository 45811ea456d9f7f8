"""What the end of a connection says of the calls on it that wait for an answer."""

from __future__ import annotations

from tracer.model import BOTH, TO_SERVER, Call, Closed

__all__ = ["end_unanswered", "is_half_close"]


def is_half_close(closed: Closed) -> bool:
    """Return whether the client sends no more, but may still read the answer (RFC 9293 section 3.6)."""
    return closed.how == "fin" and closed.direction == TO_SERVER


def end_unanswered(call: Call, closed: Closed, has_given_up: bool = False) -> None:
    """End *call*, which waits for an answer: `none` if the capture shows that none came, else `?`.

    The end of the capture shows nothing, unless the client had closed its side by then (*has_given_up*). That
    the server sent no answer is known only if both directions were captured without a gap.
    """
    connection = closed.connection
    observed = closed.how in ("fin", "reset") or (closed.how == "end" and has_given_up)
    is_whole = connection.seen == BOTH and not connection.gaps and not getattr(call.facts, "broken", False)
    call.result = "none" if observed and is_whole else "?"
    if observed:
        call.ended_ns = closed.time_ns
        call.frames.extend(closed.frames)
    call.closed = True
