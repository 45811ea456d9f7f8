"""Captures of encrypted connections, with the key log that opens them."""

from __future__ import annotations

import json
import re
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from lab.captures import SHARED, needs_shared
from lab.tls import packets, talk

from tracer import engine
from tracer.engine.keys import KeySource
from tracer.errors import UsageError
from tracer.model import TO_CLIENT, TO_SERVER, Capture, Report
from tracer.reports import json as json_report
from tracer.settings import Settings
from tracer.testing.packets import pcap

SAID = [
    (TO_SERVER, b"GET /v3/auth/tokens HTTP/1.1\r\nHost: keystone\r\nUser-Agent: nova\r\n\r\n"),
    (TO_CLIENT, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"),
]
CALL = "keystone GET /v3/auth/tokens 200"


def with_secrets(frames: list[tuple[int, bytes]], keys: str) -> bytes:
    """A pcapng file with a decryption secrets block before its packets."""

    def block(kind: int, body: bytes) -> bytes:
        body += b"\0" * (-len(body) % 4)
        size = struct.pack("<I", len(body) + 12)
        return struct.pack("<I", kind) + size + body + size

    parts = [
        block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)),
        block(1, struct.pack("<HHI", 1, 0, 0)),
        block(10, struct.pack("<II", 0x544C534B, len(keys)) + keys.encode()),
    ]
    for time_ns, data in frames:
        micros = time_ns // 1000
        head = struct.pack("<5I", 0, micros >> 32, micros & 0xFFFFFFFF, len(data), len(data))
        parts.append(block(6, head + data))
    return b"".join(parts)


def lines(folder: Path, keylog: Path | None = None) -> list[str]:
    return [call.line for call in engine.calls([str(folder)], Settings(keylog=keylog))]


def calls(folder: Path, keylog: Path | None = None) -> list[str]:
    """The calls without their plane and caller."""
    return [line.partition(" > ")[2] for line in lines(folder, keylog)]


def random_of(keys: str) -> bytes:
    """The client's random in a key log."""
    found = re.search(r"^[A-Z]\S+ ([0-9a-f]{64}) ", keys, re.MULTILINE)
    assert found is not None
    return bytes.fromhex(found[1])


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """A folder with a capture of two connections, and their key log."""
    talks = talk(SAID), talk(SAID, version="1.2")
    (tmp_path / "Internal_base.pcap").write_bytes(pcap(packets(*talks)))
    (tmp_path / "keys.log").write_text("".join(each.keys for each in talks))
    return tmp_path


def test_calls_are_those_of_plain_connections(capture: Path) -> None:
    """With the frames of the encrypted packets."""
    assert calls(capture, capture / "keys.log") == [CALL, CALL]


def test_a_key_log_in_a_folder_is_not_read_by_itself(capture: Path) -> None:
    """It is hinted at: a folder's other files are ignored."""
    assert not lines(capture)
    report = engine.check([str(capture)], Settings())
    assert any("--keylog" in words and "keys.log" in words for words in report.remarks)


def test_secrets_in_a_pcapng_file_are_read_by_themselves(tmp_path: Path) -> None:
    sent = talk(SAID)
    (tmp_path / "Internal_base.pcapng").write_bytes(with_secrets(packets(sent), sent.keys))
    assert calls(tmp_path) == [CALL]


def test_a_key_log_that_is_not_there_stops_the_run(capture: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        engine.check([str(capture)], Settings(keylog=capture / "other.log"))


def test_a_file_that_is_no_key_log_stops_the_run(capture: Path) -> None:
    with pytest.raises(UsageError, match="not a key log"):
        engine.check([str(capture)], Settings(keylog=capture / "Internal_base.pcap"))


def test_a_key_log_that_grows_is_read_on(tmp_path: Path) -> None:
    """Also one that is begun anew, and one that is not there at first."""
    sent, path = talk(SAID), tmp_path / "keys.log"
    random = random_of(sent.keys)
    source = KeySource(path, [Capture(0, "a.pcap")])
    assert not source.log.find(random)
    path.write_text(talk(SAID).keys)
    assert not source.log.find(random)
    with path.open("a") as file:
        file.write(sent.keys)
    assert source.log.find(random)
    later = talk(SAID)
    path.write_text(later.keys[:300])
    path.write_text(later.keys)
    assert source.log.find(random_of(later.keys))


# --- the lab's captures -----------------------------------------------------------------------------


def report_of(name: str) -> Report:
    return engine.check([str(SHARED / name)], Settings(keylog=SHARED / name / "keys.log"))


def gist(report: Report) -> list[Any]:
    """What the verdicts say, without frames and times."""
    return [
        (v.name, v.verdict, v.outcome, v.stopped_at, [(s.step, s.status) for s in v.steps])
        for v in report.verdicts
    ]


@needs_shared
@pytest.mark.parametrize("name", ["fail-quota-403", "fail-no-valid-host"])
def test_the_encrypted_scenario_is_that_of_the_plain_one(name: str) -> None:
    """Verdicts, steps and calls."""
    plain, encrypted = engine.check([str(SHARED / name)], Settings()), report_of(f"tls-{name}")
    assert gist(encrypted) == gist(plain)
    folder = SHARED / f"tls-{name}"
    assert Counter(lines(folder, folder / "keys.log")) == Counter(lines(SHARED / name))


@needs_shared
def test_a_cloud_that_encrypts_everything_conforms() -> None:
    """HAProxy's, Python's and Erlang's TLS, real."""
    report = report_of("tls-ok-image")
    assert [(v.outcome, v.verdict) for v in report.verdicts] == [("active", "conforms")]
    assert not any(capture.undecoded for capture in report.captures)
    text = b"".join(json_report.pieces(report)).decode()
    keys = (SHARED / "tls-ok-image" / "keys.log").read_text()
    secrets = set(re.findall(r" ([0-9a-f]{64,96})$", keys, re.MULTILINE))
    assert secrets and not any(secret in text for secret in secrets)
    assert json.loads(text)["summary"]["conforms"] == 1


@needs_shared
@pytest.mark.parametrize("kept", [(0, 2), (1, 2), (0, 3), (1, 3)])
def test_the_keys_of_some_connections_make_no_step_missing(kept: tuple[int, int], tmp_path: Path) -> None:
    """A message may have gone by a connection that is dark, beside others of its role that are read."""
    folder = SHARED / "tls-ok-image"
    first, each = kept
    randoms: dict[str, int] = {}
    left = []
    for line in (folder / "keys.log").read_text(encoding="ascii").splitlines():
        number = randoms.setdefault(line.split()[1], len(randoms)) if len(line.split()) > 1 else 0
        if number % each == first:
            left.append(line)
    (tmp_path / "some.log").write_text("\n".join(left) + "\n", encoding="ascii")
    report = engine.check([str(folder)], Settings(keylog=tmp_path / "some.log"))
    assert [(v.verdict, d.message) for v in report.verdicts for d in v.deviations] == []
    assert {step.status for v in report.verdicts for step in v.steps} & {"missing", "failed"} == set()


@needs_shared
def test_what_began_before_the_capture_leads_to_no_claim() -> None:
    """TLS 1.3 is opened all the same; of TLS 1.2 it is said that it is dark."""
    report = report_of("tls-ok-image-mid-session")
    [verdict] = report.verdicts
    assert (verdict.outcome, verdict.verdict, verdict.deviations) == ("active", "inconclusive", ())
    assert not any("--keylog" in words for words in report.advice)
    assert any("begin the capture before" in words for words in report.advice)
    [_, inner] = report.captures
    assert sum(inner.undecoded.values()) and all("began before" in why for why in inner.undecoded)
