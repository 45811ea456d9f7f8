"""What the commands do: ask the pipeline, choose a report, and turn the answer into an exit code.

What click calls a command's help is the docstring here. Each command returns its exit code; what it
raises becomes one in `tracer.cli.main`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tracer.cli import (
    comparing,
    extracting,
    formats,
    grammars,
    live,
    options,
    output,
    recording,
    replaying,
)
from tracer.cli.options import Manner, Where
from tracer.cli.output import CONFORMS, COULD_NOT_RUN, DEVIATES, INCONCLUSIVE, INTERRUPTED, NO_TRACE
from tracer.cli.progress import progress
from tracer.errors import UsageError

if TYPE_CHECKING:
    from tracer.model import Report
    from tracer.settings import Settings

__all__ = ["exit_code", "program"]


class Commands(click.Group):
    """The commands in the order of their use, with a suggestion for one that does not exist."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.commands and not ctx.resilient_parsing:
            from tracer.cli import usage

            raise UsageError(usage.no_such_command(args[0], args[1:], self.list_commands(ctx)))
        return super().resolve_command(ctx, args)


@click.group(
    options.PROGRAM_NAME,
    cls=Commands,
    invoke_without_command=True,
    subcommand_metavar="COMMAND [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@options.manner
@options.version
@click.pass_context
def program(context: click.Context) -> int:
    """Says at which documented step the creation of a cloud VM broke, from
    network captures alone.

    \b
    Examples:
      tracer check incident/                  which creations broke, and where
      tracer show incident/ --trace web-1     one of them as a ladder diagram
      tracer calls boot.pcap --format jsonl   every call that the captures hold

    Exit codes of check: 0 all traces conform, 1 one deviates, 2 could not run,
    3 none deviates but one is inconclusive, 5 no trace found, 130 interrupted.
    The other commands: 0 or 2.

    Results go to standard output, all else to standard error. `tracer
    completion --help` tells how to have commands and options completed.
    """
    if context.invoked_subcommand is None:
        # Not 0: a script whose command came out empty has checked nothing.
        click.echo(context.get_help(), err=True)
    return COULD_NOT_RUN


@program.command(short_help="Check every creation against its documented steps.")
@options.captures
@options.grammar
@options.topology
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
@options.manner
@click.pass_obj
@options.settings
def check(
    manner: Manner,
    settings: Settings,
    captures: tuple[str, ...],
    where: Where,
    form: str,
    anonymize: bool,
    otlp: str | None,
    target: Path | None,
) -> int:
    """Checks every VM creation in the captures against its documented steps.

    \b
    Examples:
      tracer check External_api.pcap Internal_base.pcap.zst
      tracer check incident/ --where outcome=stuck --where 'name=web-*' -v
      tracer check incident/ --format json -o report.json --allow unobserved:1

    CAPTURE is a capture file (pcap, pcapng; .gz, .zst), PLANE=FILE, a folder of
    them, - for standard input, or example:NAME for one that comes with tracer.

    Exit codes: 0 every trace conforms, 1 a trace deviates, 2 could not run,
    3 none deviates but one is inconclusive, 5 no trace found, 130 interrupted
    (the report so far is printed).
    """
    with output.destination(target, captures) as file:
        output.ready(form, file)
        collector = formats.loaded("otlp", "--otlp") if otlp else None
        if collector is not None:
            collector.endpoint(otlp)
        report = _report(captures, settings, manner)
        found = len(report.verdicts)
        report = where.of(report)
        report = _mailable(report) if anonymize else report
        if form != "text":
            output.write_report(form, report, file)
            _warn(report, manner)
        elif report.verdicts or not found:
            from tracer.reports import console

            console.render(report, output.console(file, manner), manner.verbose)
    if collector is not None:
        output.say(f"sent {collector.send(report, otlp)} spans to {collector.shown(otlp)}", manner)
    if not report.verdicts:
        output.say(_nothing(report, found, where, settings), manner)
    return exit_code(report)


@program.command(short_help="Print every call that the captures hold.")
@options.captures
@options.grammar
@options.topology
@options.form(
    "text", "jsonl", "parquet", words="jsonl: one object a line; parquet: a table for DuckDB and pandas."
)
@options.anonymize
@options.target
@options.calls_since
@options.calls_until
@options.manner
@click.pass_obj
@options.settings
def calls(
    manner: Manner,
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
    with output.destination(target, captures) as file, progress(manner) as heard:
        output.ready(form, file)
        from tracer import pipeline
        from tracer.reports import calls as report

        records = pipeline.calls(captures, settings, heard)
        if anonymize:
            from tracer.reports.anonymous import anonymous_calls

            records = anonymous_calls(records)
        if form == "jsonl":
            report.write_lines(records, file)
        elif form == "parquet":
            file.flush()
            file.buffer.writelines(formats.loaded(form, "--format parquet").call_pieces(records))
        else:
            report.write_text(records, file, color=output.colourful(file, manner))
    return CONFORMS


@program.command(short_help="Draw one creation as a ladder diagram.")
@options.captures
@options.trace
@options.grammar
@options.topology
@options.report_form
@options.anonymize
@options.target
@options.stall
@options.since
@options.until
@options.allow
@options.manner
@click.pass_obj
@options.settings
def show(
    manner: Manner,
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

        report = _report(captures, settings, manner)
        chosen = reports.chosen(report.verdicts, trace)
        report = dataclasses.replace(report, verdicts=chosen)
        report = _mailable(report) if anonymize else report
        if form != "text":
            output.write_report(form, report, file)
        else:
            from tracer.reports import ladder

            screen = output.console(file, manner)
            for verdict in report.verdicts:
                ladder.render(verdict, report, screen, manner.verbose)
    return INTERRUPTED if report.partial else CONFORMS


program.add_command(live.watch)
program.add_command(recording.capture)
program.add_command(replaying.replay)


@program.command(short_help="Learn how long steps take in good creations.")
@options.captures
@options.grammar
@options.topology
@options.target
@options.stall
@options.since
@options.until
@options.where
@options.allow
@options.manner
@click.pass_obj
@options.settings
def baseline(
    manner: Manner,
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
        from tracer import pipeline, reports
        from tracer.baseline import LEAST

        report = where.of(_report(captures, settings, manner))
        learnt, count = pipeline.learn(report)
        file.write(learnt.decode())
    left_out = len(report.verdicts) - count
    if count < LEAST:
        few = f"warning: {reports.plural(count, 'creation')}: too few to compare with, {LEAST} are needed"
        output.say(few, manner)
    rest = f", {left_out} left out" if left_out else ""
    output.say(f"learnt from {reports.plural(count, 'creation')}{rest}", manner)
    return INTERRUPTED if report.partial else CONFORMS


program.add_command(extracting.extract)
program.add_command(comparing.compare)
program.add_command(grammars.grammar)


@program.command(short_help="Print the script that completes commands and options.")
@click.argument("shell", metavar="|".join(options.SHELLS), type=click.Choice(options.SHELLS))
def completion(shell: str) -> int:
    """Prints the script with which a shell completes commands and options.

    \b
    Examples:
      tracer completion bash > ~/.local/share/bash-completion/completions/tracer
      tracer completion zsh > ~/.zfunc/_tracer     # a folder of fpath
      tracer completion fish > ~/.config/fish/completions/tracer.fish

    To try it in the shell at hand, of bash or zsh: eval "$(tracer completion
    bash)".
    """
    from click.shell_completion import get_completion_class

    shell_class = get_completion_class(shell)
    if shell_class is None:
        raise UsageError(f"the installed click completes nothing in {shell}; update it")
    click.echo(shell_class(program, {}, options.PROGRAM_NAME, options.COMPLETE_VARIABLE).source())
    return CONFORMS


# --- what they have in common ---------------------------------------------------------------------


def _report(captures: Sequence[str], settings: Settings, manner: Manner) -> Report:
    """The report on the captures, with what is odd about the topology file said."""
    from tracer import pipeline

    with progress(manner) as heard:
        report = pipeline.check(captures, settings, heard)
    for words in report.remarks:
        output.say(f"warning: {words}", manner)
    return report


def _mailable(report: Report) -> Report:
    """The report without what tells whose cloud it is about."""
    from tracer.reports.anonymous import anonymous

    return anonymous(report)


def exit_code(report: Report) -> int:
    """Return the exit code of check and watch for what they found."""
    if report.partial:
        return INTERRUPTED
    verdicts = {verdict.verdict for verdict in report.verdicts}
    if not verdicts:
        return NO_TRACE
    if "deviates" in verdicts:
        return DEVIATES
    return INCONCLUSIVE if "inconclusive" in verdicts else CONFORMS


def _nothing(report: Report, found: int, where: Where, settings: Settings) -> str:
    """Why there is nothing to report, for standard error."""
    if found:
        return f"the one trace does not fit {where}" if found == 1 else f"none of {found} traces fits {where}"
    from tracer import reports

    if report.left_out:
        times = [("from", settings.since_ns), ("before", settings.until_ns)]
        given = " and ".join(f"{word} {reports.timestamp(at)}" for word, at in times if at is not None)
        count, starts = len(report.left_out), reports.starts_words(report.left_out)
        none = "the one trace does not start" if count == 1 else f"none of {count} traces starts"
        return f"{none} {given}: {starts}"
    return f"no trace found; the captures hold {reports.seen_instead(report)}"


def _warn(report: Report, manner: Manner) -> None:
    """Say on standard error what the captures lost: a pipe that reads the JSON may not look."""
    from tracer import reports

    for capture in report.captures:
        if lost := reports.losses(capture):
            output.say(f"warning: {capture.path}: {lost}", manner)
