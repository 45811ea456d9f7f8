"""`pytest --tracer-check FOLDER`: each trace of the captures is a test, named by its request id.

The folder is added to what pytest collects, and this module provides its collector. So node ids, `-k`,
`--last-failed`, deselection and pytest-xdist work as for any other test.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tracer.errors import TracerError
from tracer.model import Report, Verdict
from tracer.pytest_plugin import explain
from tracer.pytest_plugin.settings import of_run
from tracer.reports import failure
from tracer.testing.claims import Claim
from tracer.testing.traffic import Traffic

__all__ = ["collector", "configure"]

_FOLDERS = pytest.StashKey[dict[Path, str]]()
"""Path of a folder or file to check -> the argument that named it."""
_STRANGE = re.compile(r"[^\w./#-]+", re.ASCII)
_NO_TRACE = "no-trace"


def configure(config: pytest.Config) -> None:
    """Add the folders of --tracer-check to what pytest collects; without other arguments, only they are.

    Raises UsageError for a missing folder or an invalid option, before the collection.
    """
    from tracer.capture.arguments import example_path

    folders: dict[Path, str] = {}
    try:
        of_run(config)
        for argument in config.getoption("tracer_check"):
            path = absolutepath(config.invocation_params.dir / example_path(argument))
            if not path.exists():
                raise pytest.UsageError(f"--tracer-check: no such file or folder: {argument}")
            folders[path] = argument
    except TracerError as error:
        raise pytest.UsageError(f"tracer: {error}") from None
    config.stash[_FOLDERS] = folders
    named = list(config.args) if config.args_source is pytest.Config.ArgsSource.ARGS else []
    config.args = [*dict.fromkeys([*_without_ids(config, named, folders), *map(str, folders)])]


def _without_ids(config: pytest.Config, named: Sequence[str], folders: Iterable[Path]) -> Iterator[str]:
    """Yield the arguments to collect, without ids of traces, which are stored in the options.

    A failed test is named FOLDER::ID and can be run again by that name, but pytest accepts no `::` after a
    folder. The options are used because they reach the workers of pytest-xdist.
    """
    wanted: dict[str, list[str]] = {}
    for argument in named:
        place, colons, name = argument.partition("::")
        path = absolutepath(config.invocation_params.dir / place)
        if path not in folders:
            yield argument
            continue
        if colons:
            wanted.setdefault(str(path), []).append(name)
    config.option.tracer_wanted = wanted or getattr(config.option, "tracer_wanted", {})


def absolutepath(path: Path) -> Path:
    """Return *path* as pytest writes it: absolute, without `..`; links are not resolved."""
    return Path(os.path.abspath(path))


def collector(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Return the collector of *path* if --tracer-check names it; else None."""
    if path not in parent.config.stash.get(_FOLDERS, {}):
        return None
    root = parent.config.rootpath
    # pytest has no node id for a path outside its root: traces of two folders would have equal names.
    inside = path.is_relative_to(root)
    nodeid = (path.relative_to(root) if inside else path).as_posix()
    return Captures.from_parent(parent, path=path, nodeid=nodeid)


class Captures(pytest.File):
    """A collector for a folder of captures of one incident, or for one capture: its traces are tests."""

    def collect(self) -> Iterator[pytest.Item]:
        """Yield an item for each trace; without traces, one item that fails with that message."""
        try:
            traffic = Traffic([str(self.path)], of_run(self.config).settings)
            report = traffic.report
        except TracerError as error:
            raise self.CollectError(f"tracer: {error}") from None
        if not report.verdicts:
            yield TraceItem.from_parent(self, name=_NO_TRACE, verdict=None, traffic=traffic)
        taken: set[str] = set()
        wanted = self.config.option.tracer_wanted.get(str(self.path), ())
        for verdict in report.verdicts:
            name = item_name(verdict, taken)
            if wanted and name not in wanted:
                continue
            yield TraceItem.from_parent(self, name=name, verdict=verdict, traffic=traffic)


def item_name(verdict: Verdict, taken: set[str]) -> str:
    """Return the name of a test: the trace's id, without characters that node ids and shells cannot hold.

    Ids come from the wire: they may hold `::`, escapes or a megabyte.
    """
    plain = _STRANGE.sub("_", verdict.id[:160]) or "trace"
    name, number = plain, 1
    while name in taken:
        number += 1
        name = f"{plain}#{number}"
    taken.add(name)
    return name


class TraceItem(pytest.Item):
    """The test of one trace; it passes when the trace conforms."""

    def __init__(self, *, verdict: Verdict | None, traffic: Traffic, **more: object) -> None:
        super().__init__(**more)  # type: ignore[arg-type]
        self.verdict, self.traffic = verdict, traffic

    @property
    def _report(self) -> Report:
        return self.traffic.report

    def runtest(self) -> None:
        """Raise Deviation, with the full explanation, unless the trace conforms."""
        verdict = self.verdict
        if verdict is None:
            raise Deviation(
                Claim(False, f"no trace found in {self.path}", partial(failure.nothing, self._report))
            )
        self._record(verdict)
        trace = next(trace for trace in self.traffic.traces if trace.verdict is verdict)
        claim = trace.conforms()
        if not claim:
            raise Deviation(claim)

    def _record(self, verdict: Verdict) -> None:
        if self.config.getoption("tracer_properties"):
            known = {
                "verdict": verdict.verdict,
                "outcome": verdict.outcome,
                "stopped_at": verdict.stopped_at,
                "request_id": verdict.request_id,
                "server_id": verdict.server_id,
                "name": verdict.name,
            }
            self.user_properties += [(f"tracer_{key}", value) for key, value in known.items() if value]

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None) -> Any:
        """Return the explanation of the trace; for another exception, a bug of tracer, the traceback."""
        if isinstance(excinfo.value, Deviation):
            explain.draw(self, excinfo.value.claim)
            return f"{excinfo.value}\n{excinfo.value.claim.explain()}"
        return super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Return the path, no line number, and the heading of a failure."""
        name = f" {self.verdict.name[:60]!r}" if self.verdict and self.verdict.name else ""
        return self.path, None, f"{self.name}{name}"


class Deviation(AssertionError):
    """A trace that does not conform."""

    def __init__(self, claim: Claim) -> None:
        super().__init__(claim.words)
        self.claim = claim
