"""The process that records while a test runs: `python -m tracer.pytest_plugin.recorder`.

It is a separate process because it gives up all privileges once its sockets are open, and because a busy test
must not cause packet loss. Protocol: it reads one line of JSON from standard input (not arguments: other
users can read these, and a broker's URL holds a password), writes `ready` to standard output, records until
standard input ends (so it never outlives the test), and writes its result. A mistake of the user gives
one line on standard error and an exit code.

Packets of interfaces go into files, which are checked after the recording. A broker's firehose gives messages
and no packets, so it is not in the files. With a broker everything is checked as it comes, as in `tracer
watch`, and the result holds the report; the files are then only for inspection.
"""

from __future__ import annotations

import base64
import json
import pickle
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracer.capture.live import LiveSource
from tracer.capture.privileges import drop
from tracer.engine import given_topology
from tracer.errors import GrammarError, SourceError, TracerError, UsageError, reason
from tracer.live.run import open_watch, proposed_filter
from tracer.live.watch import Watch
from tracer.model import Report
from tracer.model.events import Event
from tracer.recording.recorder import Recorder
from tracer.recording.rotation import Rotation
from tracer.recording.run import open_recording
from tracer.settings import Settings

__all__ = ["BROKE_OFF", "MISTAKES", "NO_PRIVILEGE", "main"]

NO_PRIVILEGE, BROKE_OFF = 13, 1
MISTAKES: dict[int, type[TracerError]] = {2: UsageError, 3: SourceError, 4: GrammarError}
"""Exit code -> class of the error."""


class _Listening:
    """A watch in a separate thread."""

    def __init__(self, asked: dict[str, Any], settings: Settings) -> None:
        self.troubles: list[str] = []
        self._report: Report | None = None
        self._error: BaseException | None = None
        self.run: Watch = open_watch(
            asked["interfaces"], settings, self._hear, bpf=asked["filter"], brokers=asked["brokers"]
        )
        silent = self.run.silent_brokers()
        if silent:
            # The watch would run and report RPC as unobserved; a test with a broker should fail at once.
            raise SourceError(silent[0])
        self._thread = threading.Thread(target=self._listen, name="listens")

    def _hear(self, event: Event) -> None:
        if event.kind == "trouble":
            self.troubles.append(event.message)

    def _listen(self) -> None:
        try:
            self._report = self.run.run()
        except BaseException as error:
            self._error = error

    def start(self) -> None:
        self._thread.start()

    def report(self) -> tuple[Report, int]:
        """Wait for the end; return the report, and the number of verdicts left out of it for lack of room.

        Raises the exception that ended the run, if any.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._report is not None  # noqa: S101  # there is one or the other
        return self._report, self.run.follow.history.dropped.total()


@dataclass(frozen=True)
class _Opened:
    """A recorder, a watch, or both, with sockets open and privileges dropped."""

    recorder: Recorder | None
    interfaces: Sequence[LiveSource]
    listening: _Listening | None

    def stop(self) -> None:
        if self.recorder is not None:
            self.recorder.stop()
        if self.listening is not None:
            self.listening.run.stop()

    def run(self) -> dict[str, Any]:
        """Record until `stop`; return the result."""
        summary: dict[str, Any] = {"packets": 0, "dropped": {}, "troubles": [], "report": None, "left_out": 0}
        if self.listening is not None:
            self.listening.start()
        if self.recorder is not None:
            try:
                self.recorder.run()
            finally:
                self.stop()
            summary["packets"] = self.recorder.packets.total()
            summary["dropped"] = {
                source.capture.path: source.dropped for source in self.interfaces if source.dropped
            }
            summary["troubles"] += self.recorder.troubles
        if self.listening is not None:
            summary["report"], summary["left_out"] = self.listening.report()
            summary["troubles"] += self.listening.troubles
        return summary


def main() -> int:
    """Record as the JSON object in the first line of standard input specifies.

    Members: folder, interfaces, brokers (URLs), filter, redact; and, for checks with a broker, grammar,
    topology, stall_s, allow.
    """
    # Ctrl-C at the terminal reaches all processes of the run; this one ends with the test.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asked = json.loads(sys.stdin.readline())
    try:
        opened = _open(asked)
    except TracerError as error:
        print(error, file=sys.stderr)
        if isinstance(error.__context__, PermissionError):
            return NO_PRIVILEGE
        return next(code for code, kind in MISTAKES.items() if isinstance(error, kind))
    threading.Thread(target=_wait, args=(opened,), daemon=True).start()
    print("ready", flush=True)
    try:
        summary = opened.run()
    except (TracerError, OSError) as error:
        # The interface has gone, or the disk is full.
        print(reason(error) if isinstance(error, OSError) else error, file=sys.stderr)
        return BROKE_OFF
    # pickle: a report holds names from the wire with any characters, lone surrogates too.
    print(base64.b64encode(pickle.dumps(summary)).decode(), flush=True)
    return 0


def _wait(opened: _Opened) -> None:
    sys.stdin.read()
    opened.stop()


def _open(asked: dict[str, Any]) -> _Opened:
    settings = Settings(
        grammar=asked["grammar"],
        topology=Path(asked["topology"]) if asked["topology"] else None,
        stall_s=asked["stall_s"],
        allow=tuple(asked["allow"]),
    )
    listening = _Listening(asked, settings) if asked["brokers"] else None
    if listening is not None and not asked["interfaces"]:
        drop()
        return _Opened(None, (), listening)
    given = given_topology(settings)
    bpf = proposed_filter(given) if asked["filter"] is None else asked["filter"]
    recorder, _, interfaces = open_recording(
        asked["interfaces"],
        Path(asked["folder"]),
        Rotation(),
        given,
        bpf,
        redact=asked["redact"],
        streams=False,
    )
    return _Opened(recorder, interfaces, listening)


if __name__ == "__main__":
    sys.exit(main())
