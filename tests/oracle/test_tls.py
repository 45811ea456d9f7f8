"""Our opening of TLS against tshark's, with the same key log: the same messages on the same frames."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from lab.shark import tshark
from lab.tls import key_log, packets, talk

from tracer.capture import open_capture
from tracer.capture.layers import Layers
from tracer.model import TO_CLIENT, TO_SERVER, Capture, HttpRequest, HttpResponse, Message
from tracer.protocols import PORTS, Decoders, Options
from tracer.reassembly import Reassembler
from tracer.testing.packets import pcap

BODY = b"x" * 40_000
SAID = [
    (TO_SERVER, b"GET /v3/auth/tokens HTTP/1.1\r\nHost: keystone\r\n\r\n"),
    (TO_CLIENT, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY),
] * 3


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_messages_are_on_the_frames_that_tshark_shows(version: str, tmp_path: Path) -> None:
    """Answers of several records and many segments."""
    sent = talk(SAID, version=version)
    path, keylog = tmp_path / "a.pcap", tmp_path / "keys.log"
    path.write_bytes(pcap(packets(sent)))
    keylog.write_text(sent.keys)
    command = [tshark(), "-r", str(path), "-o", f"tls.keylog_file:{keylog}", "-Y", "http", "-T", "fields"]
    command += ["-d", "tcp.port==5000,tls", "-d", "tls.port==5000,http", "-e", "frame.number"]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert [int(line) for line in run.stdout.split()] == [m.frames[0][1] for m in messages(path, sent.keys)]


def messages(path: Path, keys: str) -> list[Message]:
    capture, layers = Capture(0, str(path)), Layers()
    decoders = Decoders(PORTS, Options(keys=key_log(keys)))
    batches = (layers.read(batch, capture.anomalies) for batch in open_capture(str(path), capture))
    reassembler = Reassembler([capture], PORTS)
    told = [m for event in reassembler.read(batches) for m in decoders.receive(event)]
    return [m for m in told if isinstance(m, HttpRequest | HttpResponse)]
