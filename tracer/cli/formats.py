"""The formats of a report by name. A new format needs one module in tracer/reports and one line here.

A format is a module with `pieces(report) -> Iterator[bytes]`. It is named here and imported on use: an unused
format costs nothing, and may need a library that is not installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from tracer.errors import UsageError

if TYPE_CHECKING:
    from tracer.model import Report

__all__ = ["FORMATS", "loaded", "needing", "pieces"]


class Format(NamedTuple):
    """The module of a format, and its requirements."""

    module: str
    description: str
    """Text for --help."""
    extra: str = ""
    """The extra of pyproject.toml that installs its libraries; '' if it needs none."""
    binary: bool = False
    """Whether it is binary, and so is not written to a terminal."""


FORMATS = {
    "json": Format("tracer.reports.json", "the schema tracer.check/1"),
    "html": Format("tracer.reports.html", "one page to look at and to mail"),
    "svg": Format("tracer.reports.svg", "ladder and waterfall as a picture"),
    "mermaid": Format("tracer.reports.mermaid", "the ladder for wikis"),
    "csv": Format("tracer.reports.csv", "the steps for spreadsheets"),
    "otlp": Format("tracer.reports.otlp", "OpenTelemetry spans", "otlp"),
    "har": Format("tracer.reports.har", "the REST calls", "har"),
    "parquet": Format("tracer.reports.parquet", "the steps for DuckDB and pandas", "parquet", binary=True),
    "ocel": Format("tracer.reports.ocel", "an event log (OCEL 2.0) for process miners", "ocel"),
    "junit": Format("tracer.reports.junit", "JUnit XML, a test case for each trace"),
}


def pieces(name: str, report: Report) -> Iterator[bytes]:
    """Return the report in the format *name*, in parts.

    Raises UsageError when a library of the format is not installed.
    """
    module = loaded(name, f"--format {name}")
    made: Iterator[bytes] = module.pieces(report)
    return made


def loaded(name: str, asked: str) -> Any:
    """Return the module of a format. Raises UsageError with the option *asked* and what to install."""
    chosen = FORMATS[name]
    return needing(chosen.extra, chosen.module, asked)


def needing(extra: str, module: str, asked: str) -> Any:
    """Return *module*, whose libraries *extra* installs. Raises UsageError as `loaded` does."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if not extra:
            raise
        install = f"pip install 'cloudvm-tracer[{extra}]'"
        raise UsageError(f"{asked} needs {error.name}, which is not installed: {install}") from None
