"""`tracer grammar`: lists, prints, validates and draws grammars. It reads no capture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tracer.cli import options, output
from tracer.cli.common import CommonOptions, common_options
from tracer.cli.output import CONFORMS, COULD_NOT_RUN
from tracer.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from tracer.grammar import Grammar, Step

__all__ = ["grammar"]

_ABSENT = {"required": "deviates", "inferred": "inferred", "optional": "skipped"}


class _Subcommands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.commands and not ctx.resilient_parsing:
            known = ", ".join(self.commands)
            raise UsageError(
                f"grammar: no command '{args[0]}' (known: {known}); try: tracer grammar show NAME"
            )
        return super().resolve_command(ctx, args)


_name = click.argument("name", metavar="NAME|FILE", type=click.Path())


@click.group(
    "grammar",
    cls=_Subcommands,
    invoke_without_command=True,
    short_help="List, print, validate and draw grammars.",
)
@common_options
@click.pass_context
def grammar(context: click.Context) -> int:
    """Lists, prints, validates and draws the grammars that check knows.

    \b
    Examples:
      tracer grammar list
      tracer grammar show server_delete
      tracer grammar check ./mine.lark
      tracer grammar draw cloudvm_create --format dot | dot -Tsvg > create.svg

    NAME is one that comes with tracer, FILE one of your own: anything with a
    slash, or ending in .lark. grammars/README.md says how to write one.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
    return COULD_NOT_RUN


@grammar.command("list", short_help="Name the grammars that come with tracer.")
@common_options
@click.pass_obj
def list_(common: CommonOptions) -> int:
    """Names the grammars that come with tracer: how many steps they have, and what they check.

    With -v the terminals of the calls that begin a trace as well.
    """
    from rich.table import Table
    from rich.text import Text

    from tracer.grammar import load, shipped

    with output.destination(None, ()) as file:
        table = Table(box=None, pad_edge=False, header_style="dim")
        headings = ("grammar", "steps", "title", *(("begins with",) if common.verbose else ()))
        for heading in headings:
            table.add_column(heading, overflow="fold", justify="right" if heading == "steps" else "left")
        for name in shipped():
            known = load(name)
            title = output.plain(known.title, 200)
            cells = (Text(name, "bold"), str(len(known.steps)), title, ", ".join(known.begins))
            table.add_row(*cells[: len(headings)])
        _print(output.console(file, common), table)
    return CONFORMS


@grammar.command("show", short_help="Print the steps of a grammar.")
@_name
@common_options
@click.pass_obj
def show(common: CommonOptions, name: str) -> int:
    """Prints the documented steps of a grammar, and which calls are taken for them.

    Below them: what begins a trace, the refusals that do no harm, the steps of one
    attempt of a host, and the step that each kind of refusal belongs to.

    With -v the patterns as well, each over a call's whole line, as `tracer
    calls` prints it; but an action, which stands behind that line in brackets,
    ends the path here: POST /v2.1/servers/{id}/action/reboot 202.
    """
    from tracer.grammar import load

    known = load(name)
    with output.destination(None, ()) as file:
        _show(known, output.console(file, common), bool(common.verbose))
    return CONFORMS


def _print(console: Console, table: Table) -> None:
    """Print a table without the blanks after its last column, which rich writes into pipes too."""
    from rich.text import Text

    lines = console.render_lines(table, pad=False)
    for line in lines:
        text = Text().join(Text(segment.text, segment.style or "") for segment in line)
        text.rstrip()
        console.print(text, soft_wrap=True)


def _show(known: Grammar, console: Console, patterns: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    console.print(Text(output.plain(f"{known.name}  {known.title}", 300), "bold"))
    console.print(Text(output.plain(str(known.path), 300), "dim"), soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("step", "title", "when absent", "plane", "how", "who > whom", "accepts"):
        table.add_column(heading, overflow="fold")
    for step in known.steps:
        for row in _rows(known, step):
            table.add_row(*(Text(output.plain(cell, 200)) for cell in row))
    _print(console, table)
    console.print(Text(f"begins with  {', '.join(known.begins)}"))
    if known.harmless:
        console.print(Text(f"harmless     {', '.join(known.harmless)}"))
    if known.attempt:
        console.print(Text(f"attempt      {', '.join(known.attempt)}"))
    refused: dict[tuple[str, ...], list[str]] = {}
    for refusal in known.refusals:
        refused.setdefault(refusal.steps, []).append(refusal.terminal)
    heading = "refusals"
    for steps, terminals in refused.items():
        console.print(Text(f"{heading:<12} {' or '.join(steps)}: {', '.join(terminals)}"))
        heading = ""
    for terminal, pattern in known.terminals.items() if patterns else ():
        console.print(Text(f"{terminal}: {pattern.pattern}", "dim"), soft_wrap=True)


def _rows(known: Grammar, step: Step) -> list[tuple[str, ...]]:
    """Return one row for each alternative of a step."""
    noted = {
        symbol.terminal: symbol.note
        for symbol in known.automaton.symbols
        if symbol.step == step.name and symbol.note
    }
    ways: dict[tuple[str, str, str], dict[str, list[str]]] = {}
    for terminal in step.terminals:
        for leg in known.terminal_legs(terminal):
            way = ways.setdefault((leg.plane, leg.protocol, leg.caller), {"callees": [], "terminals": []})
            shown = terminal + (f" (noted: {noted[terminal]})" if terminal in noted else "")
            for names, value in ((way["callees"], leg.callee), (way["terminals"], shown)):
                if value not in names:
                    names.append(value)
    absent = _ABSENT[step.presence]
    if step.deadline_ns is not None:
        absent += f", late after {step.deadline_ns / 1e9:g} s"
    rows: list[tuple[str, ...]] = []
    for (plane, protocol, caller), way in ways.items():
        ends = f"{caller} > {', '.join(way['callees'])}"
        first = (step.name, step.title, absent) if not rows else ("", "or", "")
        rows.append((*first, "any" if plane == "*" else plane, protocol, ends, ", ".join(way["terminals"])))
    return rows


@grammar.command("check", short_help="Validate a grammar of your own.")
@_name
@common_options
@click.pass_obj
def check(common: CommonOptions, name: str) -> int:
    """Validates a grammar: 0 when tracer can use it, 2 and one line when not.

    The line says file, line, what is wrong and what to do. Warnings are about
    what is valid, but probably not intended.
    """
    from tracer.grammar.files import find
    from tracer.grammar.inspection import inspect
    from tracer.grammar.reading import read
    from tracer.openstack.services import ROLES
    from tracer.reports import plural

    known, source = read(find(name))
    found = inspect(known, source, ROLES)
    with output.destination(None, ()) as file:
        for warning in found.warnings:
            output.say(f"warning: {warning}", common)
        parts = (
            (found.files, "file"), (found.rules, "rule"), (found.terminals, "terminal"), (found.steps, "step")
        )  # fmt: skip
        compiled = ((found.states, "state"), (found.arcs, "arc"))
        counts = "; ".join(", ".join(plural(*size) for size in sizes) for sizes in (parts, compiled))
        warned = f"; {plural(len(found.warnings), 'warning')}" if found.warnings else ""
        output.console(file, common).print(
            f"{output.plain(known.name, 200)}: ok: {counts}{warned}", markup=False
        )
    return CONFORMS


@grammar.command("draw", short_help="Draw the steps of a grammar.")
@_name
@options.form("mermaid", "dot", description="Output language: Mermaid or Graphviz dot.")
@click.option("--automaton", is_flag=True, help="Draw the compiled automaton, not the steps.")
@options.target
@common_options
@click.pass_obj
def draw(common: CommonOptions, name: str, form: str, automaton: bool, target: Path | None) -> int:
    """Draws the steps of a grammar: in a row, side by side, tried again.

    \b
    Examples:
      tracer grammar draw cloudvm_create > create.mmd
      tracer grammar draw ./mine.lark --format dot | dot -Tsvg > mine.svg
    """
    from tracer.grammar import load
    from tracer.grammar.drawing import draw as drawn

    text = drawn(load(name), form, automaton=automaton)
    with output.destination(target, ()) as file:
        file.write(text)
    return CONFORMS
