"""Captures made while a test runs: where they go, what is kept of them, and what is checked afterwards."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType

import pytest

from tracer.errors import SourceError, UsageError
from tracer.model import Report
from tracer.pipeline import Settings
from tracer.pytest_plugin import FAILED, KEPT
from tracer.pytest_plugin.recorder import NO_PRIVILEGE
from tracer.testing import Traffic

__all__ = ["Recording", "folder_of", "interfaces_of", "keep", "kept_words"]

READY_S = 60.0
SETTLE_S = 1.0
"""How long is recorded after the block: an acknowledgement comes behind the answer that a test waits for."""
_STRANGE = re.compile(r"[^\w.-]+")


class Recording(Traffic):
    """Traffic that is recorded in a `with` block, and checked when it is asked about after it."""

    def __init__(
        self,
        item: pytest.Item,
        interfaces: Sequence[str],
        folder: Path,
        settings: Settings,
        bpf: str | None,
        settle_s: float,
    ) -> None:
        super().__init__([str(folder)], settings)
        self._item, self._interfaces, self._folder = item, interfaces, folder
        self._bpf, self._settle_s = bpf, settle_s
        self._child: subprocess.Popen[str] | None = None
        self._state = "not begun"
        self.dropped: dict[str, int] = {}
        """Interface -> packets that the kernel had to drop."""
        self.packets = 0

    def __repr__(self) -> str:
        return f"<traffic recorded on {', '.join(self._interfaces)}: {self._state}>"

    @property
    def folder(self) -> Path:
        """Where the captures are."""
        return self._folder

    def __enter__(self) -> Recording:
        """Return when every packet from now on is recorded.

        Without the privilege to sniff the test is skipped, or fails under --tracer-strict. Raises UsageError
        for interfaces that are not there.
        """
        __tracebackhide__ = True
        config = self._item.config
        asked = {
            "folder": str(self._folder),
            "interfaces": list(self._interfaces),
            "filter": self._bpf,
            "redact": not config.getoption("tracer_raw"),
            "topology": str(self.settings.topology) if self.settings.topology else "",
        }
        shutil.rmtree(self._folder, ignore_errors=True)
        self._child = subprocess.Popen(  # noqa: S603  # this Python, and JSON as one argument
            [sys.executable, "-m", "tracer.pytest_plugin.recorder", json.dumps(asked)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        timer = threading.Timer(READY_S, self._child.kill)
        timer.start()
        ready = self._child.stdout.readline() if self._child.stdout else ""
        timer.cancel()
        if ready != "ready\n":
            self._give_up(self._child)
        self._state = "recording"
        return self

    def _give_up(self, child: subprocess.Popen[str]) -> None:
        """Say why nothing can be recorded: skip, fail or raise."""
        __tracebackhide__ = True
        _, errors = child.communicate()
        reason = errors.strip().rpartition("\n")[2] or f"the recorder did not start in {READY_S:g} s"
        if child.returncode != NO_PRIVILEGE:
            raise UsageError(reason)
        if self._item.config.getoption("tracer_strict"):
            pytest.fail(f"tracer: {reason}", pytrace=False)
        pytest.skip(f"tracer: {reason}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the recording, with all that was captured written."""
        child = self._child
        if child is None:
            return
        if error is None:
            threading.Event().wait(self._settle_s)
        output, errors = child.communicate("")
        if child.returncode != 0:
            self._state = "broken off"
            if error is None:
                raise SourceError(f"the recording broke off: {errors.strip()[-500:]}")
            return
        told = json.loads(output.strip().rpartition("\n")[2])
        self.packets, self.dropped = told["packets"], told["dropped"]
        self._state = f"{self.packets} packets" + (f", {self.dropped} dropped" if self.dropped else "")

    @cached_property
    def report(self) -> Report:
        if self._state in ("not begun", "recording"):
            raise UsageError("traffic is checked when its recording is over: ask behind the `with` block")
        if not self.packets:
            where = ", ".join(self._interfaces)
            raise SourceError(f"nothing was recorded on {where}: no packet of the protocols passed there")
        return Traffic(self.captures, self.settings).report


def interfaces_of(planes: Mapping[str, str] | str, more: Sequence[str]) -> list[str]:
    """Return the words of `-i` that are meant: PLANE=INTERFACE, or an interface for a capture point."""
    first = [planes] if isinstance(planes, str) else [f"{plane}={name}" for plane, name in planes.items()]
    return [*first, *more]


def folder_of(item: pytest.Item, number: int) -> Path:
    """Return where the captures of a test go: a folder under the test's name, another for each recording."""
    config = item.config
    top = config.getoption("tracer_folder") or config.getini("tracer_folder")
    *files, name = (_STRANGE.sub("_", part)[:100] for part in item.nodeid.split("::"))
    path = config.rootpath.joinpath(top, *files, name or "test")
    return path if number == 1 else path.with_name(f"{path.name}-{number}")


def keep(item: pytest.Item, folders: Sequence[Path]) -> None:
    """Remove the captures that are not to be kept, with the folders that are empty then."""
    wanted = item.config.getoption("tracer_keep")
    if wanted == "all" or (wanted == "failed" and item.stash.get(FAILED, False)):
        return
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        for parent in folder.parents:
            if parent == item.config.rootpath:
                break
            try:
                parent.rmdir()
            except OSError:
                break


def kept_words(item: pytest.Item) -> str:
    """Return where the captures of a failed test are, in words; empty when none were recorded."""
    folders = item.stash.get(KEPT, [])
    if not folders:
        return ""
    if item.config.getoption("tracer_keep") == "none":
        return "captures: not kept (--tracer-keep=failed keeps those of failures)"
    raw = item.config.getoption("tracer_raw")
    secrets = "with all secrets, for --tracer-raw" if raw else "secrets overwritten"
    return f"captures: {', '.join(map(str, folders))} ({secrets})"
