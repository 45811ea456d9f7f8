"""A conversation refuses what it cannot break, and names what it can."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tracer.errors import UsageError
from tracer.testing import SPREAD, Cloud, Creation, UpstreamCreation
from tracer.testing.breaks import OF_A_CREATION, OF_A_HOST

MADE: list[tuple[type[Creation], str, str, str]] = [
    # who makes it, the step, a break that is not there, one that is named instead
    (UpstreamCreation, "8c", "hang", "hangs, fails, aborts, dies"),
    (UpstreamCreation, "8c", "task failed", "hangs, fails, aborts, dies"),
    (UpstreamCreation, "8b", "5O3", "STATUS"),
    (UpstreamCreation, "7", "lately", "late"),
    (UpstreamCreation, "4c", "413", "403, error, lost"),
    (Creation, "8c", "hangs", "task failed"),
    (Creation, "7", "late", "undelivered"),
    (Creation, "6", "timeout", "silent"),
]


@pytest.mark.parametrize(("made_by", "step", "how", "named"), MADE)
def test_an_unknown_break_is_refused(made_by: type[Creation], step: str, how: str, named: str) -> None:
    with pytest.raises(UsageError, match=rf"step {step} has no break '{how}': .*{named}"):
        made_by(Cloud(SPREAD), breaks={step: how})
    with pytest.raises(UsageError, match=f"step {step} has no break"):
        made_by(Cloud(SPREAD), hosts=[{"compute1": {step: how}}])


@pytest.mark.parametrize("known", [OF_A_CREATION, OF_A_HOST], ids=["vendor", "upstream"])
def test_each_break_that_is_named_changes_the_traffic(
    known: dict[str, tuple[str, ...]], tmp_path: Path
) -> None:
    """None is named for nothing: the packets differ from those of a good creation from a volume."""
    made_by = UpstreamCreation if known is OF_A_HOST else Creation

    def traffic(breaks: dict[str, str]) -> list[tuple[float, int, bytes, bool]]:
        cloud = Cloud(SPREAD)
        made_by(cloud, breaks=breaks, volume=True).run()
        events = cloud.network.events
        # Without the ids, which are new in each creation.
        hidden = [
            (at, flags, re.sub(rb"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", b"", data), lost)
            for at, _, _, flags, data, lost in events
        ]
        return sorted(hidden)

    good = traffic({})
    texts = {"STATUS": "503", "neutron …": "neutron 503", "reply …": "reply late", "vif …": "vif unbound"}
    texts |= {"event …": "event failed", "told …": "told poll: it is gone"}
    same = [
        (step, name)
        for step, names in known.items()
        for name in names
        if traffic({step: texts.get(name, name)}) == good
    ]
    assert same == []


@pytest.mark.parametrize("how", ["late", "redelivered", "left out"])
def test_a_cloud_without_a_vrm_never_asks_one(how: str) -> None:
    cloud = Cloud(SPREAD)
    UpstreamCreation(cloud, breaks={"7": how}).run()
    assert not [made for _, made, *_ in cloud.network.events if made.server[1] == 7070]
