"""What two parts of one verdict say differently: headline, first finding and step table."""

from __future__ import annotations

import re

from tracer.model import Verdict

__all__ = ["disagreements", "is_told", "names"]


def disagreements(verdict: Verdict) -> list[str]:
    """Return what two parts of *verdict* say differently, one line for each."""
    found = []
    status = {step.step: step.status for step in verdict.steps}
    first = verdict.deviations[0] if verdict.deviations else None
    if first is not None and first.kind in ("failed", "stalled"):
        headline = verdict.summary
        if first.step != verdict.stopped_at:
            found.append(f"the finding is about {first.step}, the verdict about {verdict.stopped_at}")
        if verdict.outcome != "deleted" and not is_told(first.message, headline):
            found.append(f"the headline lacks the finding: {first.message}")
        if not names(headline, first.peer, verdict.compute_host):
            found.append(f"the headline lacks the peer: {first.peer}")
        # A stall is told in one sentence with who owes it: the cause is a sentence of its own there.
        if first.kind == "failed" and first.cause not in first.message:
            found.append(f"the finding lacks the cause: {first.cause}")
    never = re.findall(r"step (\w+) never came", verdict.summary)
    found += [f"{s} never came, and is {status[s]}" for s in never if status[s] in ("seen", "failed")]
    failing = re.findall(r"step (\w+) failed", verdict.summary)
    found += [f"{s} failed, and is {status[s]}" for s in failing if status[s] != "failed"]
    if verdict.outcome in ("rejected", "error"):
        failed = [step for step in status if status[step] == "failed"]
        if failed != ([verdict.stopped_at] if verdict.stopped_at else []):
            found.append(f"stopped at {verdict.stopped_at}, and {failed} failed")
    return found


def is_told(message: str, headline: str) -> bool:
    """Return whether *headline* has *message*, or its beginning and its end where it is long."""
    told, cut, rest = headline.partition(" … ")
    begins = bool(cut) and message.startswith(told.removeprefix("stuck: "))
    return message in headline or (begins and rest[:30] in message)


def names(headline: str, peer: str, host: str | None) -> bool:
    """Return whether *headline* names *peer*.

    A host stands for its service, and what became of a message says enough of the broker.
    """
    is_host = peer == "nova-compute" and host is not None and host in headline
    return peer in headline or is_host or (peer == "rabbitmq" and "could not be routed" in headline)
