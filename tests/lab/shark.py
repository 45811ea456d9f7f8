"""tshark as the other opinion: which messages it shows, and on which frame."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import zstandard

__all__ = ["KINDS", "Shown", "folder", "plain", "shown", "tshark"]

KINDS = ("request", "response", "publish", "deliver", "command")
_BASIC, _PUBLISH, _DELIVER = "60", "40", "60"
_FIELDS = (
    "frame.number",
    "http.request.method",
    "http.response.code",
    "amqp.method.class",
    "amqp.method.method",
    "mysql.command",
)


def tshark() -> str:
    """Return the path of tshark; skip where there is none."""
    found = shutil.which("tshark")
    if found is None:
        pytest.skip("tshark is not installed")
    return found


def folder(variable: str) -> Path:
    """Return the folder that the environment variable names; skip where it is not set."""
    named = os.environ.get(variable)
    if not named:
        pytest.skip(f"{variable} is not set")
    path = Path(named)
    assert path.is_dir(), f"{variable} names {named}, which is no folder"
    return path


def plain(path: Path, into: Path) -> Path:
    """Return *path* without compression: itself, or a copy in *into*."""
    if path.suffix != ".zst":
        return path
    copy = into / path.stem
    with path.open("rb") as packed, copy.open("wb") as unpacked:
        zstandard.ZstdDecompressor().copy_stream(packed, unpacked)
    return copy


@dataclass
class Shown:
    """The frames on which each kind of message is shown, in order; a frame as often as messages on it."""

    frames: dict[str, list[int]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    codes: Counter[str] = field(default_factory=Counter)
    """Status codes of the responses."""
    commands: Counter[int] = field(default_factory=Counter)
    """Codes of the MySQL commands."""

    def counts(self) -> dict[str, int]:
        return {kind: len(frames) for kind, frames in self.frames.items()}


def shown(capture: Path, *options: str) -> Shown:
    """Return what tshark shows of *capture*; *options* such as `-d tcp.port==8784,http`."""
    command = [tshark(), "-n", "-r", str(capture), "-Y", "http || amqp || mysql", "-T", "fields"]
    command += ["-E", "separator=|", "-E", "occurrence=a", *options]
    for name in _FIELDS:
        command += ["-e", name]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    found = Shown()
    for line in run.stdout.splitlines():
        number, methods, codes, classes, ids, commands = line.split("|")
        frame = int(number)
        for kind, values in (("request", methods), ("response", codes), ("command", commands)):
            found.frames[kind] += [frame] * len(values.split(",")) if values else []
        found.codes.update(codes.split(",") if codes else [])
        found.commands.update(int(code) for code in commands.split(",") if code)
        for pair in zip(classes.split(","), ids.split(","), strict=True):
            if pair == (_BASIC, _PUBLISH):
                found.frames["publish"].append(frame)
            elif pair == (_BASIC, _DELIVER):
                found.frames["deliver"].append(frame)
    return found
