"""A live run whose key log is written while it watches."""

from __future__ import annotations

import os
from pathlib import Path

from lab.streams import pipes
from lab.tls import packets, talk

from tracer.live.run import open_watch
from tracer.model import TO_CLIENT, TO_SERVER
from tracer.settings import Settings
from tracer.testing.packets import pcap

SAID = [
    (TO_SERVER, b"GET /v3/auth/tokens HTTP/1.1\r\nHost: keystone\r\n\r\n"),
    (TO_CLIENT, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"),
]


def test_keys_that_are_written_behind_the_records_open_them(tmp_path: Path) -> None:
    """The file is not there at first; TLS 1.2 and 1.3."""
    talks = talk(SAID), talk(SAID, version="1.2")
    capture, keylog = tmp_path / "from" / "Internal_base.pcap", tmp_path / "keys.log"
    capture.parent.mkdir()
    capture.write_bytes(pcap(packets(*talks)))

    def write(fd: int, content: bytes) -> None:
        os.write(fd, content[:-400])
        keylog.write_text("".join(each.keys for each in talks))
        os.write(fd, content[-400:])

    with pipes(tmp_path, [capture], write) as [pipe]:
        run = open_watch([f"Internal_base={pipe}"], Settings(keylog=keylog), lambda event: None)
        report = run.run()
    [seen] = report.captures
    assert (seen.calls, seen.undecoded) == (2, {})
