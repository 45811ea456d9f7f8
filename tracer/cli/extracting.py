"""`tracer extract`: the packets of one trace, for Wireshark."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tracer.cli import options, output
from tracer.cli.manner import Manner, mannered
from tracer.cli.output import CONFORMS
from tracer.cli.progress import progress
from tracer.errors import UsageError

if TYPE_CHECKING:
    from tracer.settings import Settings

__all__ = ["extract"]


@click.command(short_help="Write exactly the packets of one creation.")
@options.captures
@options.trace
@click.option("--write", "-w", "target", metavar="FILE", type=click.Path(), required=True, help="Where to.")
@click.option("--raw", is_flag=True, help="Leave tokens, passwords and user data in the packets.")
@options.grammar
@options.topology
@options.since
@options.until
@mannered
@click.pass_obj
@options.settings
def extract(
    manner: Manner,
    settings: Settings,
    captures: tuple[str, ...],
    trace: str | None,
    target: str,
    raw: bool,
) -> int:
    """Writes exactly the packets of one creation to a pcapng file.

    \b
    Examples:
      tracer extract incident/ --trace web-1 -w web-1.pcapng
      tracer extract incident/ --trace req-2f3ede67 -w raw.pcapng --raw

    Each packet has a comment with step, call and where it was: in Wireshark,
    `frame.comment contains "step 8b"`. Secrets are overwritten in place, lengths
    kept, unless --raw. The captures must be files: they are read three times.
    """
    with output.destination(Path(target), captures, "-w") as file:
        from tracer import engine, reports
        from tracer.recording import extraction

        if file.isatty():
            raise UsageError("packets are no text for a terminal; name a file with -w")
        if "-" in captures:
            raise UsageError("extract reads its captures more than once: give files, not standard input")
        with progress(manner) as heard:
            report = engine.check(captures, settings, heard)
        chosen = reports.chosen(report.verdicts, trace)
        made = extraction.extract(chosen, report.captures, raw=raw)
        file.flush()
        file.buffer.writelines(made.blocks)
    kept = "secrets left in" if raw else f"{made.overwritten:,} pieces of secrets overwritten"
    traces = reports.plural(len(chosen), "trace")
    output.say(f"{reports.plural(made.packets, 'packet')} of {traces}; {kept}", manner)
    return CONFORMS
