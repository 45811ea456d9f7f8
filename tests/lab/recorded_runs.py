"""Tests that record, run by a pytest of their own, and the conversation that they record."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import tracer

ROOT = Path(tracer.__file__).parent.parent
RAW = os.geteuid() == 0 and sys.platform == "linux"
BESIDE = [str(ROOT / "tests"), str(ROOT / "tests/examples/small_cloud")]
SECRET = "gAAAAAB-a-token-that-nobody-may-see"
CONVERSATION = f'''
import http.server, json, threading, urllib.request

NAME, TOKEN = "web-1", "{SECRET}"
SERVER, REQUEST = "6ef71c2d-0f7c-4b8e-9a51-3e2f8a1c9b40", "req-2f3ede67-5c1b-4f3c-9a6e-0b7f4b2f9d01"

class Api(http.server.BaseHTTPRequestHandler):
    """A nova-api that takes a creation."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        answer = json.dumps({{"server": {{"id": SERVER}}}}).encode()
        self.send_response(202)
        self.send_header("X-OpenStack-Request-ID", REQUEST)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass

def create():
    server = http.server.HTTPServer(("127.0.0.1", 8774), Api)
    threading.Thread(target=server.handle_request, daemon=True).start()
    body = json.dumps({{"server": {{"name": NAME}}}}).encode()
    asked = urllib.request.Request(
        "http://127.0.0.1:8774/v2.1/servers",
        body,
        {{"Content-Type": "application/json", "X-Auth-Token": TOKEN}},
    )
    assert urllib.request.urlopen(asked).status == 202
    server.server_close()
'''


def run(
    folder: Path,
    installed: list[str],
    test: str,
    *arguments: str,
    before: tuple[str, ...] = (),
    more: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run *test* in a pytest of its own; *before* stands before its command, *more* are variables."""
    (folder / "conversation.py").write_text(CONVERSATION, encoding="utf-8")
    (folder / "test_recorded.py").write_text(test, encoding="utf-8")
    command = [
        *before,
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-rs",
        *installed,
        *arguments,
    ]
    path = os.pathsep.join([str(ROOT), str(folder), *BESIDE, *filter(None, sys.path)])
    return subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path, "COLUMNS": "200"} | (more or {}),
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )


def failures_of(junit: Path) -> dict[str, str]:
    """Test -> how it failed, of a report in JUnit's XML."""
    cases = ElementTree.parse(junit).iter("testcase")
    return {case.get("name", ""): failure.text or "" for case in cases for failure in case.iter("failure")}


def kept(folder: Path) -> list[Path]:
    """The captures that are left in *folder*."""
    return sorted((folder / "tracer-captures").rglob("*.pcapng"))
