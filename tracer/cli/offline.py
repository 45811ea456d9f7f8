"""The commands that read captures to their end: check, calls, show, baseline, extract, compare.

The docstring of a command is its help text. `program` turns its exceptions into exit codes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tracer.cli import formats, options, output
from tracer.cli.common import CommonOptions, common_options
from tracer.cli.options import Where
from tracer.cli.output import CONFORMS, DEVIATES, INTERRUPTED, NO_TRACE, progress
from tracer.errors import UsageError

if TYPE_CHECKING:
    from tracer.engine.comparison import Document
    from tracer.model import Report
    from tracer.settings import Settings

__all__ = ["baseline", "calls", "check", "compare", "extract", "show"]


@click.command(short_help="Check every creation against its documented steps.")
@options.captures
@options.grammar
@options.engine
@options.topology
@options.keylog
@options.report_form
@options.anonymize
@options.otlp
@options.target
@options.stall
@options.since
@options.until
@options.where
@options.allow
@options.baseline
@options.cross_check
@common_options
@click.pass_obj
@options.settings
def check(
    common: CommonOptions,
    settings: Settings,
    captures: tuple[str, ...],
    where: Where,
    form: str,
    anonymize: bool,
    otlp: str | None,
    target: Path | None,
    cross_check: bool,
) -> int:
    """Checks every VM creation in the captures against its documented steps.

    \b
    Examples:
      tracer check External_api.pcap Internal_base.pcap.zst
      tracer check incident/ --where outcome=stuck --where 'name=web-*' -v
      tracer check incident/ --format json -o report.json --allow unobserved:1
      tracer check capture.snoop --engine tshark  a format that only tshark reads
      tracer check incident/ --cross-check         where tshark decodes otherwise

    CAPTURE is a capture file (pcap, pcapng; .gz, .zst), PLANE=FILE, a folder of
    them, - for standard input, or example:NAME for one that comes with tracer.
    PLANE=FILE@OFFSET adds to the times of that file, as @+1.2ms, @-50us or @+2s.

    Exit codes: 0 every trace conforms, 1 a trace deviates, 2 could not run,
    3 none deviates but one is inconclusive, 5 no trace found, 130 interrupted
    (the report so far is printed).
    """
    with output.destination(target, captures) as file:
        output.ready(form, file)
        collector = formats.loaded("otlp", "--otlp") if otlp else None
        if collector is not None:
            collector.endpoint(otlp)
        report = _report(captures, settings, common)
        if cross_check:
            report = _cross_checked(report, captures, settings, common, anonymize)
        found = len(report.verdicts)
        report = where.of(report)
        report = _mailable(report) if anonymize else report
        if form != "text":
            output.write_report(form, report, file)
            _warn(report, common)
        elif report.verdicts or not found or cross_check:
            from tracer.reports import console

            console.render(report, output.console(file, common), common.verbose)
    _remark(report, common)
    if report.cross_check is not None:
        from tracer.reports.cross_check import summary

        output.say(summary(report.cross_check), common)
    if collector is not None:
        output.say(f"sent {collector.send(report, otlp)} spans to {collector.shown(otlp)}", common)
    if not report.verdicts:
        output.say(_nothing(report, found, where, settings), common)
    return output.exit_code(report)


@click.command(short_help="Print every call that the captures hold.")
@options.captures
@options.grammar
@options.engine
@options.topology
@options.keylog
@options.form(
    "text",
    "jsonl",
    "parquet",
    description="jsonl: one object a line; parquet: a table for DuckDB and pandas.",
)
@options.anonymize
@options.target
@options.calls_since
@options.calls_until
@common_options
@click.pass_obj
@options.settings
def calls(
    common: CommonOptions,
    settings: Settings,
    captures: tuple[str, ...],
    form: str,
    anonymize: bool,
    target: Path | None,
) -> int:
    """Prints every call that the captures hold: REST, RPC and SQL, in time order.

    \b
    Examples:
      tracer calls Internal_base.pcap | grep 'nova-compute > '
      tracer calls incident/ --format jsonl -o calls.jsonl
      tracer calls incident/ --format jsonl | jq 'select(.traces | length > 1)'
      tracer calls incident/ --format parquet -o calls.parquet

    CAPTURE is a capture file (pcap, pcapng; .gz, .zst), PLANE=FILE, a folder of
    them, - for standard input, or example:NAME for one that comes with tracer.
    """
    with output.destination(target, captures) as file, progress(common) as shown:
        output.ready(form, file)
        from tracer import engine
        from tracer.reports import calls as report

        records = engine.calls(captures, settings, shown)
        if anonymize:
            from tracer.reports.anonymous import anonymous_calls

            records = anonymous_calls(records)
        if form == "jsonl":
            report.write_lines(records, file)
        elif form == "parquet":
            file.flush()
            file.buffer.writelines(formats.loaded(form, "--format parquet").call_pieces(records))
        else:
            report.write_text(records, file, color=output.colourful(file, common))
    return CONFORMS


@click.command(short_help="Draw one creation as a ladder diagram.")
@options.captures
@options.trace
@options.grammar
@options.engine
@options.topology
@options.keylog
@options.report_form
@options.anonymize
@options.target
@options.stall
@options.since
@options.until
@options.allow
@common_options
@click.pass_obj
@options.settings
def show(
    common: CommonOptions,
    settings: Settings,
    captures: tuple[str, ...],
    trace: str | None,
    form: str,
    anonymize: bool,
    target: Path | None,
) -> int:
    """Draws one creation as a ladder diagram, with time deltas and frame numbers.

    \b
    Examples:
      tracer show incident/ --trace web-1
      tracer show incident/ --trace req-2f3ede67 -v   with the undocumented calls
      tracer show External_api.pcap Internal_base.pcap --trace 8450a932 | less -S

    CAPTURE is a capture file (pcap, pcapng; .gz, .zst), PLANE=FILE, a folder of
    them, - for standard input, or example:NAME for one that comes with tracer.
    """
    with output.destination(target, captures) as file:
        output.ready(form, file)
        from tracer import reports

        report = _report(captures, settings, common)
        chosen = reports.chosen(report.verdicts, trace)
        report = dataclasses.replace(report, verdicts=chosen)
        report = _mailable(report) if anonymize else report
        if form != "text":
            output.write_report(form, report, file)
        else:
            from tracer.reports import ladder

            screen = output.console(file, common)
            for verdict in report.verdicts:
                ladder.render(verdict, report, screen, common.verbose)
    _remark(report, common)
    return INTERRUPTED if report.partial else CONFORMS


@click.command(short_help="Learn how long steps take in good creations.")
@options.captures
@options.grammar
@options.topology
@options.keylog
@options.target
@options.stall
@options.since
@options.until
@options.where
@options.allow
@common_options
@click.pass_obj
@options.settings
def baseline(
    common: CommonOptions,
    settings: Settings,
    captures: tuple[str, ...],
    where: Where,
    target: Path | None,
) -> int:
    """Writes how long each step takes in the creations that conform.

    \b
    Examples:
      tracer baseline good-days/ -o usual.json
      tracer baseline good-days/ --where 'name=web-*' -o web.json
      tracer check incident/ --baseline usual.json    names the slow steps

    Only creations that conform at the first attempt count. Of each step it holds
    count, mean, deviation and quantiles (schema tracer.baseline/1). A step is slow
    when it takes more than p50 + 3 (p95 - p50), and 50 ms more than p95; fewer
    than 5 times are not compared.

    CAPTURE is a capture file (pcap, pcapng; .gz, .zst), PLANE=FILE, a folder of
    them, - for standard input, or example:NAME for one that comes with tracer.
    """
    with output.destination(target, captures) as file:
        from tracer import engine, reports
        from tracer.engine.baseline import LEAST

        report = where.of(_report(captures, settings, common))
        learnt, count = engine.learn(report)
        file.write(learnt.decode())
    _remark(report, common)
    left_out = len(report.verdicts) - count
    if count < LEAST:
        few = f"warning: {reports.plural(count, 'creation')}: too few to compare with, {LEAST} are needed"
        output.say(few, common)
    rest = f", {left_out} left out" if left_out else ""
    output.say(f"learnt from {reports.plural(count, 'creation')}{rest}", common)
    return INTERRUPTED if report.partial else CONFORMS


@click.command(short_help="Write exactly the packets of one creation.")
@options.captures
@options.trace
@click.option(
    "--write", "-w", "target", metavar="FILE", type=click.Path(), required=True, help="File to write."
)
@click.option("--raw", is_flag=True, help="Leave tokens, passwords and user data in the packets.")
@options.grammar
@options.topology
@options.keylog
@options.since
@options.until
@common_options
@click.pass_obj
@options.settings
def extract(
    common: CommonOptions,
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
            raise UsageError("packets cannot be written to a terminal; name a file with -w")
        if "-" in captures:
            raise UsageError("extract reads its captures more than once: give files, not standard input")
        with progress(common) as shown:
            report = engine.check(captures, settings, shown)
        chosen = reports.chosen(report.verdicts, trace)
        made = extraction.extract(chosen, report.captures, raw=raw)
        file.flush()
        file.buffer.writelines(made.blocks)
    kept = "secrets left in" if raw else f"{made.overwritten:,} pieces of secrets overwritten"
    traces = reports.plural(len(chosen), "trace")
    output.say(f"{reports.plural(made.packets, 'packet')} of {traces}; {kept}", common)
    return CONFORMS


@click.command(short_help="Show what is different between two runs.")
@click.argument("before", metavar="BEFORE", type=click.Path())
@click.argument("after", metavar="AFTER", type=click.Path())
@options.grammar
@options.topology
@options.form("text", "json", "html", description="json is the schema tracer.compare/1.")
@options.target
@options.stall
@options.allow
@common_options
@click.pass_obj
@options.settings
def compare(
    common: CommonOptions,
    settings: Settings,
    before: str,
    after: str,
    form: str,
    target: Path | None,
) -> int:
    """Shows what differs in AFTER, for example after an upgrade.

    \b
    Examples:
      tracer compare before-upgrade/ after-upgrade/
      tracer compare last-month.json today/ --format html -o compare.html

    Each is a folder of captures, a capture file, example:NAME, or a report of
    `tracer check --format json` (*.json). Shown are deviations and outcomes, steps
    that appeared or vanished, changes of order, times that changed (with 8 or
    more creations on each side) and calls that are new or gone.

    Exit codes: 0, 1 when a kind of deviation is new, 2 could not run, 5 no trace
    found in one of them.
    """
    with output.destination(target, (before, after)) as file:
        from tracer.engine import comparison
        from tracer.reports import comparison as report

        documents = _documents((before, after), settings, common)
        for name, document in zip((before, after), documents, strict=True):
            if document.partial:
                output.say(f"warning: {name}: its run was interrupted; later traces are not in it", common)
        found = comparison.compare(documents[0], documents[1], (before, after))
        file.flush()
        if form == "json":
            file.buffer.write(report.json(found))
        elif form == "html":
            file.buffer.write(report.html(found))
        else:
            file.writelines(f"{line}\n" for line in report.text(found))
    if not all(found.counts):
        output.say("no trace found in one of them: nothing to compare", common)
        return NO_TRACE
    return DEVIATES if found.breaks else CONFORMS


def _documents(names: Sequence[str], settings: Settings, common: CommonOptions) -> list[Document]:
    """Return the reports for the arguments of compare, of one grammar where that is left to tracer."""
    from tracer.engine import workflows
    from tracer.settings import AUTO

    documents = {name: _document(name, settings, common) for name in names}
    if settings.grammar == AUTO:
        fixed = [documents[name].grammar for name in names if name.endswith(".json")]
        chosen = [documents[name].grammar for name in names if not name.endswith(".json")]
        wanted = workflows.common(chosen, fixed)
        again = dataclasses.replace(settings, grammar=wanted)
        for name, document in documents.items():
            if wanted and document.grammar != wanted and not name.endswith(".json"):
                documents[name] = _document(name, again, common)
    return [documents[name] for name in names]


def _document(name: str, settings: Settings, common: CommonOptions) -> Document:
    """Return the report for an argument of compare: read from a file (*.json), or made from captures."""
    from tracer import engine
    from tracer.engine import comparison
    from tracer.reports import json

    if name.endswith(".json"):
        return comparison.decode(Path(name).read_bytes(), name)
    with progress(common) as shown:
        report = engine.check([name], settings, shown)
    return comparison.decode(json.render(report), name)


# --- shared by them ---------------------------------------------------------------------


def _report(captures: Sequence[str], settings: Settings, common: CommonOptions) -> Report:
    """Return the report on the captures, with progress on a terminal."""
    from tracer import engine

    with progress(common) as shown:
        return engine.check(captures, settings, shown)


def _cross_checked(
    report: Report, captures: Sequence[str], settings: Settings, common: CommonOptions, anonymize: bool
) -> Report:
    """Return *report* with what tshark decodes otherwise."""
    if anonymize:
        raise UsageError("--cross-check quotes calls as they are: leave --anonymize out")
    from tracer.engine.cross_check import cross_check

    with progress(common) as shown:
        return dataclasses.replace(report, cross_check=cross_check(captures, settings, shown))


def _remark(report: Report, common: CommonOptions) -> None:
    """Write warnings about likely mistakes of the user; after the results, where they stay visible."""
    for words in report.remarks:
        output.say(f"warning: {words}", common)


def _mailable(report: Report) -> Report:
    """Return the report without names and addresses that identify the cloud."""
    from tracer.reports.anonymous import anonymous

    return anonymous(report)


def _nothing(report: Report, found: int, where: Where, settings: Settings) -> str:
    """Return a message that says why there is nothing to report."""
    if found:
        if found == 1:
            return f"the only trace does not match {where}"
        return f"none of {found} traces matches {where}"
    from tracer import reports

    if report.left_out:
        times = [("from", settings.since_ns), ("before", settings.until_ns)]
        given = " and ".join(f"{word} {reports.timestamp(at)}" for word, at in times if at is not None)
        count, starts = len(report.left_out), reports.starts_words(report.left_out)
        none = "the one trace does not start" if count == 1 else f"none of {count} traces starts"
        return f"{none} {given}: {starts}"
    return f"no trace found; the captures hold {reports.seen_instead(report)}"


def _warn(report: Report, common: CommonOptions) -> None:
    """Write to standard error what the captures lost: a program that reads the report may ignore it."""
    from tracer import reports

    for capture in report.captures:
        if lost := reports.losses(capture):
            output.say(f"warning: {capture.path}: {lost}", common)
