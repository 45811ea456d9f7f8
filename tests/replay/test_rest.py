"""Recorded requests to real HTTP servers, which answer with other ids than were recorded."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from recording import CAPTURES, ROOT, Exchanged, exchanged, messages
from twin import Twin, serving

from tracer import pipeline
from tracer.pipeline import Settings


def replay(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tracer", "replay", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def to_role(name: str, *roles: str) -> list[Exchanged]:
    """The recorded exchanges with servers of these roles, told by the addresses in `tracer calls`."""
    folder = str(CAPTURES / name)
    addresses = {
        call.callee_address
        for call in pipeline.calls([folder], Settings())
        if call.protocol == "REST" and call.callee in roles and not call.via
    }
    return [e for e in exchanged(messages(folder)) if e.request.connection.server.address in addresses]


@pytest.mark.parametrize("delay_s", [0.0, 0.05])
@pytest.mark.parametrize(
    ("name", "roles"),
    [
        ("ok-image", ("sc",)),
        ("ok-image", ("keystone",)),
        ("fail-vrm-500-reschedule", ("nova-api", "neutron-server", "vrm", "keystone", "placement")),
        ("ok-concurrent-20", ("sc", "nova-api", "keystone")),
    ],
)
def test_requests_hold_the_ids_that_live_answers_gave(name: str, roles: tuple[str, ...], delay_s: float) -> None:
    recorded = to_role(name, *roles)
    twin = Twin(recorded)
    with serving(twin, delay_s) as url:
        rest = [word for role in roles for word in ("--rest", f"{role}={url}")]
        done = replay(f"example:{name}", "--speed", "max", "--format", "json", *rest)
    assert (done.returncode, done.stderr) == (0, "")
    summary = json.loads(done.stdout)
    assert twin.unexpected == []
    # Nothing that a live answer had named otherwise was asked for by its recorded name.
    assert twin.early == set()
    assert len(twin.received) == len(recorded) == sum(each["sent"] for each in summary["rest"])
    assert sum(each["same"] for each in summary["rest"]) == len(recorded)
    assert [each["different"] for each in summary["rest"]] == [[]] * len(roles)
    sent = Counter(line.split(b" ")[0] for line, _, _ in twin.received)
    assert sent == Counter(e.request.method.encode() for e in recorded)
    assert summary["mapped"] > 0
