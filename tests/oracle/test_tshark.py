"""Our decoders against tshark 4 on real captures without damage: the same messages on the same frames."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from lab.ours import counts, decode, kind_of
from lab.shark import KINDS, Shown, folder, plain, shown, tshark

from tracer.model import Capture, Message

SHARED = "TRACER_SHARED_CAPTURES"
VENDOR_PORT = 8784
"""The virtual resource manager's port in the colo scenarios; tshark must be told that it is HTTP."""

CLEAN = [
    "ok-image/External_api",
    "ok-image/Internal_base",
    "ok-image-midstream/Internal_base",
    "ok-volume/External_api",
    "ok-volume/Internal_base",
    "ok-gro/External_api",
    "ok-gro/Internal_base",
    "fail-400/External_api",
    "fail-400/Internal_base",
    "fail-401/External_api",
    "fail-401/Internal_base",
    "fail-conductor-down/External_api",
    "fail-conductor-down/Internal_base",
    "fail-neutron-down-midway/External_api",
    "fail-neutron-down-midway/Internal_base",
    "fail-no-valid-host/External_api",
    "fail-no-valid-host/Internal_base",
    "fail-quota-403/External_api",
    "fail-quota-403/Internal_base",
    "fail-scheduler-down/External_api",
    "fail-scheduler-down/Internal_base",
    "fail-vrm-500-reschedule/External_api",
    "fail-vrm-500-reschedule/Internal_base",
    "colo-ok/compute1-any",
    "colo-ok/compute2-any",
    "colo-ok/ctl-any",
    "colo-ok/sc-any",
    "colo-ok-taps/External_api",
    "colo-ok-taps/Internal_base",
    "vlan-tagged/both",
]

FEW = ["ok-image/External_api", "ok-image/Internal_base", "colo-ok/ctl-any"]
"""Compared in a short run, too."""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("captures")


@cache
def both(name: str, into: Path) -> tuple[list[Message], Capture, Shown]:
    """Return our messages, the capture's counters and what tshark shows."""
    tshark()
    where = folder(SHARED) / f"{name}.pcap.zst"
    assert where.is_file(), f"{where} is missing"
    path = plain(where, into)
    messages, (capture,) = decode([path], {VENDOR_PORT: "http1"})
    return messages, capture, shown(path, "-d", f"tcp.port=={VENDOR_PORT},http")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in FEW else [pytest.mark.long]) for name in CLEAN],
)
def test_as_many_messages_as_tshark(name: str, unpacked: Path) -> None:
    """Requests, responses, publishes, deliveries and MySQL commands are as many as tshark's; nothing is
    missing, truncated or undecoded in a capture without damage."""
    messages, capture, theirs = both(name, unpacked)
    assert counts(messages) == theirs.counts()
    assert counts(messages, truncated=False) == theirs.counts()
    assert (capture.gaps, capture.lost_bytes, capture.anomalies.total()) == (0, 0, 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FEW)
def test_messages_are_on_the_frames_that_wireshark_shows(name: str, kind: str, unpacked: Path) -> None:
    """The first frame of our evidence is the one on which Wireshark shows the message, for every one."""
    messages, _, theirs = both(name, unpacked)
    ours = sorted(message.frames[0][1] for message in messages if kind_of(message) == kind)
    assert ours == sorted(theirs.frames[kind])


def test_the_clean_captures_hold_every_kind(unpacked: Path) -> None:
    """The comparison is of something: each kind of message is in ok-image more than a hundred times."""
    _, _, theirs = both("ok-image/Internal_base", unpacked)
    assert all(count > 100 for count in theirs.counts().values())
