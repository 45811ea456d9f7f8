"""The packets of one creation, as tshark and tracer itself read them again."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from scapy.layers.inet import IP, fragment
from scapy.layers.l2 import Ether

from tracer.capture import open_capture
from tracer.capture.arguments import example_names
from tracer.cli import main
from tracer.engine import Settings, check
from tracer.model import Capture, PacketFields, Verdict
from tracer.recording.extraction import extract
from tracer.testing.packets import pcap

SECRETS = (b"gAAAA", b"Admin-lab", b"vdcpass")
"""Keystone's Fernet tokens begin with gAAAA; the others are passwords of the lab."""


def taken(path: str, verdict: Verdict, captures: list[Capture], *, raw: bool = False) -> None:
    """Write the packets of one trace."""
    Path(path).write_bytes(b"".join(extract([verdict], captures, raw=raw).blocks))


def packets(path: str) -> list[PacketFields]:
    """All packets of a capture."""
    return [packet for batch in open_capture(path, Capture(0, path)) for packet in batch]


def told(verdict: Verdict) -> tuple[object, ...]:
    """What a trace's verdict says; not how many calls: behind a hole in a connection, fewer statements can
    be told whose they are."""
    return (
        verdict.id,
        verdict.name,
        verdict.verdict,
        verdict.outcome,
        verdict.stopped_at,
        verdict.attempts,
        [(each.kind, each.step) for each in verdict.deviations],
        [(step.step, step.status) for step in verdict.steps],
    )


@pytest.mark.parametrize("name", example_names())
def test_what_is_taken_tells_the_same(name: str, tmp_path: Path) -> None:
    """Without secrets: the same verdict, step by step, for the first traces of each capture."""
    report = check([f"example:{name}"], Settings(stall_s=20))
    path = str(tmp_path / "one.pcapng")
    for verdict in sorted(report.verdicts, key=lambda v: v.name or "")[:2]:
        taken(path, verdict, list(report.captures))
        assert not [secret for secret in SECRETS if secret in Path(path).read_bytes()]
        (again,) = check([path], Settings(stall_s=20)).verdicts
        assert told(again) == told(verdict)
        # Never what was not so: a result may be unknown (?) behind a hole, but none is another. A proxy whose
        # inner leg is no call of the trace looks like the service behind it.
        then, now = (
            {call.line.replace("> lb ", "> nova-api ") for call in each.calls if call.result != "?"}
            for each in (verdict, again)
        )
        assert now <= then


def test_quota_reads_behind_a_hole_stay_with_their_request(tmp_path: Path) -> None:
    """They are known only after the answer of the request that caused them."""
    report = check(["example:fail-quota-403"], Settings(stall_s=20))
    (refused,) = (each for each in report.verdicts if each.name == "quota-b")
    path = str(tmp_path / "one.pcapng")
    taken(path, refused, list(report.captures))
    (again,) = check([path], Settings(stall_s=20)).verdicts
    reads, reads_again = (
        [call.line for call in each.calls if call.protocol == "SQL" and "quota" in call.line]
        for each in (refused, again)
    )
    assert reads_again == reads and len(reads) > 5


def test_what_is_taken_of_what_was_taken_has_its_answers(tmp_path: Path) -> None:
    """Parts of both directions of a database's connections are missing: each statement that is there has
    its result all the same, and so it stays."""
    report = check(["example:fail-neutron-down-midway"], Settings(stall_s=20))
    (verdict,), captures = report.verdicts, list(report.captures)
    for turn in range(3):
        path = str(tmp_path / f"{turn}.pcapng")
        taken(path, verdict, captures)
        report = check([path], Settings(stall_s=20))
        (verdict,), captures = report.verdicts, list(report.captures)
        results = [call.result for call in verdict.calls if call.protocol == "SQL"]
        assert len(results) > 30
        assert "?" not in results


def test_silence_is_told_only_by_an_extract_that_is_whole(tmp_path: Path) -> None:
    """Who cuts packets off an extract leaves its end as it was: what was cut off is not silence."""
    report = check(["example:fail-conductor-down"], Settings(stall_s=20))
    blocks = extract(report.verdicts, report.captures, raw=False).blocks
    packet = max(n for n, block in enumerate(blocks) if block[0] == 6)
    path = tmp_path / "one.pcapng"
    outcomes = []
    for kept in (blocks, blocks[:packet] + blocks[packet + 1 :]):
        path.write_bytes(b"".join(kept))
        outcomes += [verdict.outcome for verdict in check([str(path)], Settings(stall_s=20)).verdicts]
    assert outcomes == ["stuck", "unfinished"]


def test_exactly_the_packets_of_the_trace(tmp_path: Path) -> None:
    """All evidence, byte for byte with --raw, and no packet of another creation's request."""
    report = check(["example:fail-quota-403"], Settings(stall_s=20))
    path = str(tmp_path / "one.pcapng")
    (verdict,) = [verdict for verdict in report.verdicts if verdict.name == "quota-b"]
    (other,) = [verdict for verdict in report.verdicts if verdict.name == "quota-a"]
    taken(path, verdict, list(report.captures), raw=True)
    found = [packet[1] for packet in packets(path)]
    originals = {capture.path: packets(capture.path) for capture in report.captures}
    for call in verdict.calls:
        for file, frame in call.evidence:
            assert originals[file][frame - 1][1] in found
    assert all(data in {p[1] for file in originals.values() for p in file} for data in found)
    assert not [data for data in found if (other.name or "?").encode() in data]
    assert len(found) < sum(map(len, originals.values())) / 20


def fragmented(packets: Sequence[PacketFields], size_bytes: int) -> list[tuple[int, bytes]]:
    """The packets, IPv4 in Ethernet, as a link with a small MTU carries them."""
    found = []
    for time_ns, data, *_ in packets:
        pieces = [Ether(data)]
        if len(data) > size_bytes:
            pieces = [Ether(data[:14]) / piece for piece in fragment(IP(data[14:]), size_bytes)]  # type: ignore[no-untyped-call]
        found += [(time_ns, bytes(piece)) for piece in pieces]
    return found


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("plane", ["External_api", "Internal_base"])
def test_a_fragmented_packet_is_taken_with_all_its_fragments(plane: str, raw: bool, tmp_path: Path) -> None:
    """On either plane: the same verdict again, secrets or not, and no datagram lacks a piece."""
    (source,) = [c for c in check(["example:fail-400"], Settings()).captures if plane in c.path]
    path = tmp_path / f"{plane}.pcap"
    path.write_bytes(pcap(fragmented(packets(source.path), 200)))
    report = check([str(path)], Settings())
    (verdict,) = report.verdicts
    made = str(tmp_path / "made.pcapng")
    taken(made, verdict, list(report.captures), raw=raw)
    again = check([made], Settings())
    assert [told(each) for each in again.verdicts] == [told(verdict)]
    assert not again.captures[0].anomalies
    assert any(b"gAAAA" in packet[1] for packet in packets(made)) == raw
    if raw:
        originals = packets(str(path))
        found = [packet[1] for packet in packets(made)]
        assert all(originals[n - 1][1] in found for call in verdict.calls for _, n in call.evidence)


def test_tshark_reads_it_with_the_comments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which("tshark") is None:
        pytest.skip("no tshark")
    path = str(tmp_path / "one.pcapng")
    with pytest.raises(SystemExit) as end:
        main(["extract", "example:fail-neutron-down-midway", "--trace", "fail-nmid", "-w", path])
    assert end.value.code == 0
    assert "pieces of secrets overwritten" in capsys.readouterr().err

    def fields(*arguments: str) -> list[str]:
        command = ["tshark", "-r", path, "-T", "fields", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

    comments = fields("-e", "frame.comment")
    assert len(comments) > 100
    assert all(line.startswith(("step ", "no documented step")) for line in comments)
    refused = fields("-Y", 'frame.comment contains "step 8b"', "-e", "tcp.port")
    assert refused
    assert all("9696" in ports for ports in refused)
    uris = fields("-Y", "http.request", "-e", "http.request.uri")
    assert "/sc/cloudhosts" in uris
    assert set(fields("-e", "frame.interface_name")) == {"External_api", "Internal_base"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-", "--trace", "x", "-w", "x.pcapng"], "more than once"),
        (["example:fail-quota-403", "--trace", "nobody", "-w", "x.pcapng"], "no trace 'nobody'"),
        (["example:fail-quota-403", "--trace", "quota-b"], "extract needs"),
        (["example:fail-quota-403", "-w", "x.pcapng"], "known: quota-a (req-"),
        (["example:fail-400", "--trace", "x", "-w", "gone/x.pcapng"], "-w gone/x.pcapng: cannot be written"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["extract", *arguments])
    assert end.value.code == 2
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
