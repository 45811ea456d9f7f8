"""Recordings made while a test runs: their folder, what is kept of them, and the check afterwards."""

from __future__ import annotations

import base64
import json
import pickle
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType

import pytest

from tracer.errors import SourceError, UsageError
from tracer.model import Report
from tracer.pytest_plugin.stash import FAILED, HEARD, KEPT, SECTIONS
from tracer.settings import Settings
from tracer.testing import Traffic
from tracer.testing.traffic import INCONCLUSIVE

__all__ = ["Recording", "folder_of", "interfaces_of", "keep", "kept_words", "scrubbed", "without_user"]

READY_S = 60.0
SETTLE_S = 1.0
"""How long recording goes on after the block: acknowledgements follow the answer that a test waits for."""
_STRANGE = re.compile(r"[^\w.-]+")


class Recording(Traffic):
    """Traffic that is recorded in a `with` block, and checked when a result is first needed after it."""

    def __init__(
        self,
        item: pytest.Item,
        interfaces: Sequence[str],
        brokers: Sequence[str],
        folder: Path,
        settings: Settings,
        bpf: str | None,
        settle_s: float,
    ) -> None:
        super().__init__([str(folder)] if interfaces else [], settings)
        self._item, self._interfaces, self._folder = item, interfaces, folder
        self._brokers, self._bpf, self._settle_s = brokers, bpf, settle_s
        self._child: subprocess.Popen[str] | None = None
        self._state = "not begun"
        self._live_report: Report | None = None
        """The report of the watch; None without a broker."""
        self._left_out = 0
        self.dropped: dict[str, int] = {}
        """interface -> packets that the kernel dropped"""
        self.packets = 0
        """Packets of interfaces in the captures."""
        self.messages = 0
        """Messages of brokers; each counts when it is published and when it is delivered."""
        self.troubles: list[str] = []
        """Messages about losses: a broker that was unreachable for a while, an interface that ended."""

    def __repr__(self) -> str:
        return f"<traffic recorded on {self._where}: {self._state}>"

    @property
    def folder(self) -> Path:
        """The folder of the captures; messages of brokers are not in it."""
        return self._folder

    @property
    def _where(self) -> str:
        return ", ".join([*self._interfaces, *map(without_user, self._brokers)])

    def __enter__(self) -> Recording:
        """Start the recording; return when every later packet and message is recorded.

        Without the privilege to capture, the test is skipped, or fails under --tracer-strict. Raises
        UsageError for a missing interface, and SourceError for a broker without access or firehose.
        """
        __tracebackhide__ = True
        shutil.rmtree(self._folder, ignore_errors=True)
        self._child = child = subprocess.Popen(
            [sys.executable, "-m", "tracer.pytest_plugin.recorder"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        timer = threading.Timer(READY_S, child.kill)
        timer.start()
        ready = self._ask(child)
        timer.cancel()
        if ready != "ready\n":
            self._give_up(child)
        self._state = "recording"
        return self

    def _ask(self, child: subprocess.Popen[str]) -> str:
        """Send *child* the specification of the recording; return the first line that it writes."""
        config, settings = self._item.config, self.settings
        asked = {
            "folder": str(self._folder),
            "interfaces": list(self._interfaces),
            "brokers": list(self._brokers),
            "filter": self._bpf,
            "redact": not config.getoption("tracer_raw"),
            "grammar": settings.grammar,
            "topology": str(settings.topology) if settings.topology else "",
            "stall_s": settings.stall_s,
            "allow": [kind for kind in settings.allow if kind != INCONCLUSIVE],
        }
        assert child.stdin is not None and child.stdout is not None  # noqa: S101  # they are pipes
        with suppress(BrokenPipeError):
            child.stdin.write(json.dumps(asked) + "\n")
            child.stdin.flush()
        return child.stdout.readline()

    def _give_up(self, child: subprocess.Popen[str]) -> None:
        """Skip the test, fail it, or raise, with the reason why the recorder did not start."""
        __tracebackhide__ = True
        # Imported here: the module is also imported by tests that record nothing.
        from tracer.pytest_plugin.recorder import MISTAKES, NO_PRIVILEGE

        _, errors = child.communicate()
        self._state = "not begun"
        reason = errors.strip().rpartition("\n")[2] or f"the recorder did not start in {READY_S:g} s"
        if child.returncode != NO_PRIVILEGE:
            # What the command line calls --amqp is an argument here.
            raise MISTAKES.get(child.returncode, SourceError)(scrubbed(reason).removeprefix("--"))
        if self._item.config.getoption("tracer_strict"):
            pytest.fail(f"tracer: {reason}", pytrace=False)
        pytest.skip(f"tracer: {reason}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the recording after all packets are written and all messages of brokers checked."""
        child = self._child
        if child is None:
            return
        if error is None:
            threading.Event().wait(self._settle_s)
        output, errors = child.communicate("")
        if child.returncode != 0:
            self._state = "broken off"
            if error is None:
                raise SourceError(f"the recording broke off: {scrubbed(errors.strip()[-500:])}")
            return
        line = output.strip().rpartition("\n")[2]
        summary = pickle.loads(base64.b64decode(line))  # noqa: S301  # of our own process, by a pipe of its own
        self.packets, self.dropped, self.troubles = (
            summary["packets"],
            summary["dropped"],
            summary["troubles"],
        )
        self._live_report, self._left_out = summary["report"], summary["left_out"]
        self._state = f"{self.packets} packets" if self._interfaces else ""
        if self._live_report is not None:
            self.messages = sum(capture.packets for capture in self._live_report.captures if capture.protocol)
            self._state += f"{', ' * bool(self._state)}{self.messages} messages"
        self._state += f", {self.dropped} dropped" if self.dropped else ""
        if self.troubles:
            sections = self._item.stash.setdefault(SECTIONS, [])
            sections.append(("tracer: while it was recorded", "\n".join(self.troubles)))

    @cached_property
    def report(self) -> Report:
        """The report on the recording. Raises UsageError before its end, SourceError if it holds nothing."""
        if self._state in ("not begun", "recording"):
            raise UsageError("traffic is checked when its recording is over: ask after the `with` block")
        live = self._live_report
        # A broker also reports connections: messages without a call leave nothing to check.
        if not self.packets and not any(capture.calls for capture in (live.captures if live else ())):
            what = ["packet of the protocols"] * bool(self._interfaces) + ["RPC"] * bool(self._brokers)
            nothing = f"no {' and no '.join(what)} passed there"
            more = f" ({'; '.join(self.troubles)})" if self.troubles else ""
            raise SourceError(f"nothing was recorded on {self._where}: {nothing}{more}")
        if self._left_out:
            # Not a pass: one of the verdicts left out may deviate.
            raise SourceError(
                f"too many traces for one recording with a broker: {self._left_out:,} of the first are not"
                " kept. Record shorter, or from interfaces alone"
            )
        if live is not None:
            return live
        return Traffic(self.captures, self.settings).report

    def checked_with(self, settings: Settings) -> Traffic:
        """Return the same captures checked with *settings*. Raises UsageError with a broker."""
        if self._brokers:
            chosen = self.report.grammar
            if settings == replace(self.settings, grammar=chosen):
                return self
            raise UsageError(
                "messages of a broker are checked as they come and not kept, so against one grammar alone"
                f" ({chosen}): record with tracer.record(…, grammar={settings.grammar!r})"
            )
        return super().checked_with(settings)


_USER = re.compile(r"(\w+://)(?!USER:PASSWORD@)[^\s'\"]*:[^\s'\"]*@")
"""URLs with a user, also with a wrong scheme, since errors quote these. Examples in messages do not match."""


def without_user(url: str) -> str:
    """Return *url* without user and password; it may be an invalid URL."""
    return re.sub(r"^(\w+://)?.*@", r"\1", url, flags=re.DOTALL)


def scrubbed(words: str) -> str:
    """Return *words* without users and passwords in URLs."""
    return _USER.sub(r"\1…@", words)


def interfaces_of(planes: Mapping[str, str] | str | None, more: Sequence[str]) -> list[str]:
    """Return the arguments of `-i`: PLANE=INTERFACE, or an interface as a capture point."""
    if planes is None:
        return [*more]
    first = [planes] if isinstance(planes, str) else [f"{plane}={name}" for plane, name in planes.items()]
    return [*first, *more]


def folder_of(item: pytest.Item, number: int) -> Path:
    """Return the folder of a recording: named after the test, another one for each recording of it."""
    config = item.config
    top = config.getoption("tracer_folder") or config.getini("tracer_folder")
    *files, name = (_STRANGE.sub("_", part)[:100] for part in item.nodeid.split("::"))
    path = config.rootpath.joinpath(top, *files, name or "test")
    return path if number == 1 else path.with_name(f"{path.name}-{number}")


def keep(item: pytest.Item, folders: Sequence[Path]) -> None:
    """Remove the captures that are not to be kept, and folders that become empty."""
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
    """Return a message about where the captures of a failed test are; '' when none were recorded."""
    folders, brokers = item.stash.get(KEPT, []), item.stash.get(HEARD, [])
    words = []
    if folders and item.config.getoption("tracer_keep") == "none":
        words = ["not kept (--tracer-keep=failed keeps those of failures)"]
    elif folders:
        raw = item.config.getoption("tracer_raw")
        secrets = "with all secrets, for --tracer-raw" if raw else "secrets overwritten"
        words = [f"{', '.join(map(str, folders))} ({secrets})"]
    if brokers:
        # Frames are numbered for each interface, while a file holds the packets of all interfaces.
        counted = ", and '#' counts the packets of an interface" if folders else ""
        words.append(f"none of {', '.join(brokers)}: messages are checked as they come{counted}")
    return f"captures: {'; '.join(words)}" if words else ""
