"""The process that records while a test runs: `python -m tracer.pytest_plugin.recorder`.

A process of its own, because it gives up all privileges once its sockets are open, and because a busy test
must not cost packets. It says `ready` on standard output, records until its standard input ends (so it never
outlives the test), and says then what was dropped. A mistake is one line on standard error, with exit code 2;
or 13 when it is a privilege that is missing.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from tracer.errors import TracerError, reason
from tracer.live.run import proposed_filter
from tracer.pipeline import Settings, given_topology
from tracer.recording.recorder import Recorder
from tracer.recording.rotation import Rotation
from tracer.recording.run import open_recording
from tracer.sources.interface import Interface

NO_PRIVILEGE = 13
COULD_NOT_RUN = 2


def main() -> int:
    """Record as the JSON in the first argument asks: folder, interfaces, filter, redact, topology."""
    # An interrupt at the terminal reaches all processes of the run; this one ends when the test does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asked = json.loads(sys.argv[1])
    try:
        recorder, sources = _opened(asked)
    except TracerError as error:
        print(error, file=sys.stderr)
        return NO_PRIVILEGE if isinstance(error.__context__, PermissionError) else COULD_NOT_RUN
    threading.Thread(target=_wait, args=(recorder,), daemon=True).start()
    print("ready", flush=True)
    try:
        recorder.run()
    except (TracerError, OSError) as error:
        # The interface has gone, or the disk is full.
        print(reason(error) if isinstance(error, OSError) else error, file=sys.stderr)
        return COULD_NOT_RUN
    told = {
        "packets": sum(recorder.packets.values()),
        "dropped": {source.name: source.dropped for source in sources if source.dropped},
        "troubles": recorder.troubles,
    }
    print(json.dumps(told), flush=True)
    return 0


def _wait(recorder: Recorder) -> None:
    sys.stdin.read()
    recorder.stop()


def _opened(asked: dict[str, Any]) -> tuple[Recorder, list[Interface]]:
    """Return the recorder with its sockets open, and its sources."""
    given = given_topology(Settings(topology=Path(asked["topology"]) if asked["topology"] else None))
    bpf = proposed_filter(given) if asked["filter"] is None else asked["filter"]
    recorder, _, sources = open_recording(
        asked["interfaces"], Path(asked["folder"]), Rotation(), given, bpf, redact=asked["redact"]
    )
    return recorder, sources


if __name__ == "__main__":
    sys.exit(main())
