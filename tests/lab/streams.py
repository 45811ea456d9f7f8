"""Capture files sent through named pipes into a live run."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab.captures import CAPTURES, ROOT, files
from tracer.engine import Settings
from tracer.live.follow import Patience
from tracer.live.run import open_watch
from tracer.live.watch import Watch
from tracer.model import Report, Verdict
from tracer.model.events import Event

__all__ = ["CAPTURES", "ROOT", "STALL_S", "answer", "answers", "command", "files", "pipes", "watch", "whole"]

STALL_S = 20
Write = Callable[[int, bytes], None]


def whole(fd: int, content: bytes) -> None:
    """Write as fast as the reader reads."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(fd, rest[: 1 << 16]) :]


def command(name: str, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """`tracer NAME` with these arguments, and what it says in pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", "tracer", name, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


@contextmanager
def pipes(
    folder: Path, paths: Sequence[Path], write: Write = whole, hold: threading.Event | None = None
) -> Iterator[list[str]]:
    """Named pipes with the names of *paths*, and their content coming out; kept open until *hold* is set."""
    names, threads = [], []
    for path in paths:
        pipe = folder / path.name
        os.mkfifo(pipe)
        names.append(str(pipe))
        threads.append(
            threading.Thread(target=_send, args=(pipe, path.read_bytes(), write, hold), daemon=True)
        )
    for thread in threads:
        thread.start()
    yield names
    for thread in threads:
        thread.join(10)


def _send(pipe: Path, content: bytes, write: Write, hold: threading.Event | None) -> None:
    fd = os.open(pipe, os.O_WRONLY)
    try:
        write(fd, content)
        if hold is not None:
            hold.wait(120)
    except BrokenPipeError:
        pass
    finally:
        os.close(fd)


def watch(
    sources: Sequence[str],
    tell: Callable[[Event], None] = lambda event: None,
    patience: Patience | None = None,
) -> tuple[Watch, Report]:
    """Run over *sources* to their end."""
    run = open_watch(sources, Settings(stall_s=STALL_S), tell, patience)
    return run, run.run()


def answer(verdict: Verdict) -> tuple[object, ...]:
    """All of a verdict that a user may rely on."""
    return (
        verdict.id,
        verdict.server_id,
        verdict.name,
        verdict.verdict,
        verdict.outcome,
        verdict.stopped_at,
        verdict.stopped_between,
        verdict.attempts,
        verdict.summary,
        [(s.step, s.status, s.started_ns, s.duration_ns) for s in verdict.steps],
        [(d.kind, d.step, d.message) for d in verdict.deviations],
        [(n.kind, n.step, n.message) for n in verdict.notes],
        verdict.log_ids,
    )


def answers(report: Report) -> list[tuple[object, ...]]:
    return sorted((answer(v) for v in report.verdicts), key=repr)
