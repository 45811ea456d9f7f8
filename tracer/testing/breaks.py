"""What can go wrong at each step of a made creation; the method of the step says what it means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tracer.errors import UsageError

__all__ = ["OF_A_CREATION", "OF_A_HOST", "check_breaks"]

STATUS = "STATUS"
"""Stands for a status of HTTP in a table of breaks."""
TEXT = " …"
"""Ends the name of a break that goes on with a text of the caller."""
_ANSWERS = (STATUS, "refused", "unanswered", "silent", "left out")

OF_A_CREATION: Mapping[str, tuple[str, ...]] = {
    "1": ("403", "silent", "login 503", "login silent", "left out"),
    "2": ("left out",),
    "3": ("503", "504", "left out"),
    "4a": ("cached", *_ANSWERS),
    "4b": ("400", "403", "glance 404", "glance refused", "neutron …", "left out"),
    "4c": ("403", "error", "lost", "left out"),
    "4d": ("error", "left out"),
    "4e": (
        *("refused", "refused silent", "unroutable", "unroutable 202", "nacked", "undelivered"),
        *("unacked", "stop", "silence", "left out"),
    ),
    "5": ("undelivered", "undelivered stop", "unacked", "unroutable", "stop", "left out"),
    "6": ("failure", "filtered", "silent", "late", "stop", "left out"),
    "7": (
        *("undelivered", "unacked", "unroutable", "redelivered", "stop", "silence", "error"),
        *("reply …", "left out"),
    ),
    "8a": (*_ANSWERS, "volume error", "volume creating", "volume late"),
    "8b": (*_ANSWERS, "event …", "vif …"),
    "8c": (*_ANSWERS, "task failed", "task running", "start fails", "start unknown", "told …"),
}
"""Step -> breaks of `Creation`."""
_ENDS = ("hangs", "fails", "aborts", "dies")
OF_A_HOST: Mapping[str, tuple[str, ...]] = {
    **OF_A_CREATION,
    "7": (*OF_A_CREATION["7"], "late"),
    "8a": (*OF_A_CREATION["8a"], *_ENDS),
    "8b": (*_ANSWERS, "vif …", *_ENDS),
    "8c": _ENDS,
}
"""Step -> breaks of `UpstreamCreation`, whose hypervisor no packet shows."""


def check_breaks(known: Mapping[str, tuple[str, ...]], asked: Iterable[tuple[str, str]]) -> None:
    """Raise UsageError for a step, or a break of a step, that a conversation does not have.

    *asked* are pairs of a step and what goes wrong there; '' is nothing.
    """
    for step, how in asked:
        if step not in known:
            raise UsageError(f"there is no step {step!r} to break: {', '.join(known)}")
        if how and not any(_fits(how, name) for name in known[step]):
            raise UsageError(f"step {step} has no break {how!r}: {', '.join(known[step])}")


def _fits(how: str, name: str) -> bool:
    if name == STATUS:
        return len(how) == 3 and how.isdigit()
    return how.startswith(name.removesuffix("…")) if name.endswith(TEXT) else how == name
