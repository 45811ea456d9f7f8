"""Groups creations that stopped for the same reason: one broken service breaks many VMs.

Traces that do not conform form a cluster when outcome, step, peer and normalised cause are equal. A cause is
normalised by replacing what differs for every VM: ids, addresses, hosts, names, times, numbers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tracer.model import Verdict
from tracer.reports import plain

__all__ = ["Cluster", "clusters", "normalised"]

_CAUSE_LIMIT = 240
_UNSEEN = " could not be seen: "
_VOLATILE = r"""(?xi)
      (?P<request> \breq-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b)
    | (?P<id> \b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b | \b[0-9a-f]{32}\b | \b0x[0-9a-f]{4,}\b)
    | (?P<time> \b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?)
    | (?P<address> \b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b
                 | (?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?(?![\w.]*\d)
                 | (?<![\w:])(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{1,4}(?![\w:]))
    | (?P<n> (?<![\w.])\d+(?:\.\d+)?(?=(?:[mun]?s|m|h|[kmgt]i?b)\b|\b)(?!\.\d))
    """


@dataclass(frozen=True, slots=True)
class Cluster:
    """Traces that stopped for the same reason."""

    outcome: str
    kind: str
    """Kind of the first deviation; 'unobserved' or 'unfinished' when nothing deviates."""
    step: str | None
    between: tuple[str, str] | None
    peer: str
    """The role that failed, or that owes what did not come; '' when not known."""
    cause: str
    """The cause with {id}, {address}, {host}, {name}, {time}, {n} for what differs for every VM."""
    words: str
    """The error text if it is the same for all members; else as `cause`."""
    verdicts: tuple[Verdict, ...]

    @property
    def hosts(self) -> Counter[str]:
        """Compute host that was asked last -> number of traces."""
        return Counter(v.compute_host for v in self.verdicts if v.compute_host)


def clusters(verdicts: Iterable[Verdict]) -> list[Cluster]:
    """Return the clusters of the traces that did not conform, the largest first."""
    members: dict[tuple[object, ...], list[tuple[Verdict, str]]] = {}
    for verdict in verdicts:
        if verdict.verdict == "conforms":
            continue
        kind, step, peer, cause = _reason(verdict)
        # Names of steps look like numbers and must not be normalised.
        head, unseen, rest = cause.partition(_UNSEEN) if kind == "unobserved" else ("", "", cause)
        same = f"{head}{unseen}{normalised(rest, verdict)}"
        key = (verdict.outcome, kind, step, verdict.stopped_between, peer, same)
        members.setdefault(key, []).append((verdict, cause))
    found = [_cluster(key, group) for key, group in members.items()]
    return sorted(found, key=lambda cluster: -len(cluster.verdicts))


def _cluster(key: tuple[object, ...], group: Sequence[tuple[Verdict, str]]) -> Cluster:
    outcome, kind, step, between, peer, cause = key
    causes = {cause for _, cause in group}
    words = plain(causes.pop(), _CAUSE_LIMIT) if len(causes) == 1 else str(cause)
    verdicts = tuple(verdict for verdict, _ in group)
    return Cluster(
        str(outcome),
        str(kind),
        step if isinstance(step, str) else None,
        between if isinstance(between, tuple) else None,
        str(peer),
        str(cause),
        words,
        verdicts,
    )


def _reason(verdict: Verdict) -> tuple[str, str | None, str, str]:
    """Return kind, step, peer and cause of the first finding of a trace that does not conform."""
    if verdict.deviations:
        first = verdict.deviations[0]
        step = first.step if verdict.outcome in ("active", "done") else verdict.stopped_at
        return first.kind, step, first.peer, first.cause or first.message
    if verdict.outcome == "unfinished":
        return "unfinished", verdict.stopped_at, "", "the capture ends first"
    blind = [step for step in verdict.steps if step.status == "unobserved"]
    names = ", ".join(step.step for step in blind)
    reasons = "; ".join(dict.fromkeys(step.reason for step in blind if step.reason))
    return "unobserved", None, "", f"{names}{_UNSEEN}{reasons}"


def normalised(text: str, verdict: Verdict | None = None) -> str:
    """Return *text* with placeholders for what differs for every VM, at most 240 characters."""
    text = plain(text, 2 * _CAUSE_LIMIT)
    if verdict is not None:
        for placeholder, words in (
            ("{name}", (verdict.name or "",)),
            ("{host}", (*verdict.attempts, verdict.api_host or "")),
        ):
            for word in dict.fromkeys(words):
                if len(word) > 2:
                    text = re.sub(rf"(?<![\w.-]){re.escape(word)}(?![\w.-])", placeholder, text)
    return plain(re.sub(_VOLATILE, lambda match: f"{{{match.lastgroup}}}", text), _CAUSE_LIMIT)
