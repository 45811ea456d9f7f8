"""`pytest --tracer-check FOLDER`: each trace of captures is a test, with its request id for a name.

pytest is given the folder as something to collect, and this module as the one that knows how. So node ids,
`-k`, `--last-failed`, deselection and pytest-xdist work as for any other test.
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
    """Make the folders to check what pytest collects; with nothing else named, the only thing.

    UsageError for what is not there, and for options that make no sense, before anything is collected.
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
    """Yield what is *named* to collect; keep for later which traces of a folder are wanted.

    A failure is named FOLDER::ID, and is run again by that name; but pytest takes no `::` behind a folder.
    Options reach the workers of pytest-xdist as they are, so that is where it is kept.
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
    """Return *path* as pytest names what it is given: absolute, without `..`, through no link."""
    return Path(os.path.abspath(path))


def collector(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Return what collects *path*, if it is one to check."""
    if path not in parent.config.stash.get(_FOLDERS, {}):
        return None
    root = parent.config.rootpath
    # Outside of the root pytest has no name for it, and one folder's traces could not be told from another's.
    inside = path.is_relative_to(root)
    nodeid = (path.relative_to(root) if inside else path).as_posix()
    return Captures.from_parent(parent, path=path, nodeid=nodeid)


class Captures(pytest.File):
    """A folder of captures of one incident, or one capture: its traces are tests."""

    def collect(self) -> Iterator[pytest.Item]:
        """Yield an item for each trace; without any, one that fails by saying so."""
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
    """Return a name for a test: the trace's id, without what node ids and shells could not stand.

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
    """One trace: passes when it conforms."""

    def __init__(self, *, verdict: Verdict | None, traffic: Traffic, **more: object) -> None:
        super().__init__(**more)  # type: ignore[arg-type]
        self.verdict, self.traffic = verdict, traffic

    @property
    def _report(self) -> Report:
        return self.traffic.report

    def runtest(self) -> None:
        """Fail unless the trace conforms, with all that is known of it."""
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
        """Return the story of the trace; of anything else, which is a bug of ours, the traceback."""
        if isinstance(excinfo.value, Deviation):
            explain.draw(self, excinfo.value.claim)
            return f"{excinfo.value}\n{excinfo.value.claim.explain()}"
        return super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Return where it is, and what its failure is headed with."""
        name = f" {self.verdict.name[:60]!r}" if self.verdict and self.verdict.name else ""
        return self.path, None, f"{self.name}{name}"


class Deviation(AssertionError):
    """A trace that does not conform."""

    def __init__(self, claim: Claim) -> None:
        super().__init__(claim.words)
        self.claim = claim
