"""`tracer compare`: what is different between two runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tracer.cli import options, output
from tracer.cli.manner import Manner, mannered
from tracer.cli.output import CONFORMS, DEVIATES, NO_TRACE
from tracer.cli.progress import progress

if TYPE_CHECKING:
    from tracer.engine.comparison import Document
    from tracer.settings import Settings

__all__ = ["compare"]


@click.command(short_help="Tell what is different between two runs.")
@click.argument("before", metavar="BEFORE", type=click.Path())
@click.argument("after", metavar="AFTER", type=click.Path())
@options.grammar
@options.topology
@options.form("text", "json", "html", words="json is the schema tracer.compare/1.")
@options.target
@options.stall
@options.allow
@mannered
@click.pass_obj
@options.settings
def compare(
    manner: Manner,
    settings: Settings,
    before: str,
    after: str,
    form: str,
    target: Path | None,
) -> int:
    """Tells what is different in AFTER: before and after an upgrade, say.

    \b
    Examples:
      tracer compare before-upgrade/ after-upgrade/
      tracer compare last-month.json today/ --format html -o compare.html

    Each is a folder of captures, a capture file, example:NAME, or a report of
    `tracer check --format json` (*.json). Told are deviations and outcomes, steps
    that appeared or vanished, an order that changed, times that moved (from 8
    creations on each side) and calls that are new or gone.

    Exit codes: 0, 1 when a kind of deviation is new, 2 could not run, 5 no trace
    found in one of them.
    """
    with output.destination(target, (before, after)) as file:
        from tracer.engine import comparison
        from tracer.reports import comparison as report

        documents = [_document(name, settings, manner) for name in (before, after)]
        for name, document in zip((before, after), documents, strict=True):
            if document.partial:
                output.say(f"warning: {name}: its run was interrupted; later traces are not in it", manner)
        found = comparison.compare(documents[0], documents[1], (before, after))
        file.flush()
        if form == "json":
            file.buffer.write(report.json(found))
        elif form == "html":
            file.buffer.write(report.html(found))
        else:
            file.writelines(f"{line}\n" for line in report.text(found))
    if not all(found.counts):
        output.say("no trace found in one of them: nothing can be told", manner)
        return NO_TRACE
    return DEVIATES if found.breaks else CONFORMS


def _document(name: str, settings: Settings, manner: Manner) -> Document:
    """The report that a word of the command line means: read, or made now."""
    from tracer import engine
    from tracer.engine import comparison
    from tracer.reports import json

    if name.endswith(".json"):
        return comparison.decode(Path(name).read_bytes(), name)
    with progress(manner) as heard:
        report = engine.check([name], settings, heard)
    return comparison.decode(json.render(report), name)
