"""`tracer explain`: a step, a role or a word of a report in plain English. It reads no capture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from tracer.cli import output
from tracer.cli.common import CommonOptions, common_options
from tracer.cli.output import CONFORMS
from tracer.errors import UsageError, close_matches

if TYPE_CHECKING:
    from tracer.grammar import Grammar, Step
    from tracer.reports.glossary import Entry

__all__ = ["explain"]

_CREATIONS = ("cloudvm_create", "openstack_create")
"""The grammars whose steps are explained unless --grammar names another."""
_ABSENT = {
    "required": "missing, if the captures would have shown it; else unobserved",
    "inferred": "inferred: it may leave nothing on the wire",
    "optional": "skipped: it may not happen",
}
_LABEL = 8
"""Columns of the labels at the left."""

Row = tuple[str, str]
"""A label and its text; rows without a label continue the one before."""


@click.command("explain", short_help="Say in plain words what a step or a word of a report means.")
@click.argument("word", metavar="WORD", nargs=-1)
@click.option(
    "--grammar",
    metavar="NAME|FILE",
    help="The grammar whose steps are explained; default: both of a creation.",
)
@common_options
@click.pass_obj
def explain(common: CommonOptions, word: tuple[str, ...], grammar: str | None) -> int:
    """Says what a step is, who does it, what usually breaks it and where to look;
    or what a service, status, outcome, verdict, deviation, note or exit code is.

    \b
    Examples:
      tracer explain 8b                     a step of the creation of a VM
      tracer explain unobserved             a word of a report
      tracer explain nova-conductor         a service
      tracer explain 6 --grammar server_reboot
      tracer explain                        all words that it knows
    """
    from rich.text import Text

    asked = " ".join(word)
    grammars = _grammars(grammar)
    blocks = list(_blocks(asked, grammars)) if asked else list(_everything(grammars))
    if not blocks:
        raise UsageError(_unknown(asked, grammars))
    with output.destination(None, ()) as file:
        console = output.console(file, common)
        for number, (title, rows) in enumerate(blocks):
            if number:
                console.print()
            console.print(Text(output.plain(title, 300), "bold"), soft_wrap=True)
            for label, text in rows:
                lines = Text(output.plain(text, 2000)).wrap(console, max(30, console.width - _LABEL - 2))
                for first, line in enumerate(lines):
                    line.rstrip()
                    head = Text(f"  {label if not first else '':<{_LABEL}}", "dim")
                    console.print(head + line, soft_wrap=True)
    return CONFORMS


def _grammars(name: str | None) -> list[Grammar]:
    from tracer.grammar import load

    return [load(each) for each in ((name,) if name else _CREATIONS)]


def _blocks(asked: str, grammars: Iterable[Grammar]) -> Iterator[tuple[str, list[Row]]]:
    """Yield a title and rows for each meaning of *asked*: step, role, word of a report, grammar."""
    from tracer.grammar import load, shipped
    from tracer.openstack.duty import DUTIES
    from tracer.reports import glossary

    step = asked.lower().removeprefix("step").strip()
    for grammar in grammars:
        for found in grammar.steps:
            # A step without its letter stands for its parts: 8 is 8a, 8b and 8c.
            if step in (found.name.lower(), found.name.lower().rstrip("abcdefghijklmnopqrstuvwxyz")):
                yield f"step {found.name} of {grammar.name}: {found.title}", list(_step(grammar, found))
    if duty := DUTIES.get(asked.lower()):
        rows = [("does", duty.does), ("breaks", duty.breaks), ("log", duty.logs)]
        rows += [("command" if not n else "", command) for n, command in enumerate(duty.commands)]
        yield f"{asked.lower()}: a service", rows
    for entry in glossary.entries(asked):
        yield f"{entry.word}: {entry.kind}", _entry(entry)
    if asked in shipped():
        known = load(asked)
        rows = [(step.name, step.title) for step in known.steps]
        yield f"{known.name}: {known.title}", [*rows, ("more", f"tracer grammar show {known.name}")]


def _step(grammar: Grammar, step: Step) -> Iterator[Row]:
    """Yield the rows of *step*: who does it, what breaks it, where to look, what to type next."""
    from tracer.openstack.duty import DUTIES
    from tracer.openstack.services import MEDIUM_OF

    legs = list(dict.fromkeys(leg for name in step.terminals for leg in grammar.terminal_legs(name)))
    ways = dict.fromkeys((leg.caller, leg.callee, leg.protocol) for leg in legs)
    for number, (caller, callee, protocol) in enumerate(ways):
        yield "who" if not number else "", f"{_role(caller)} calls {_role(callee)} by {protocol}"
    yield "absent", _ABSENT[step.presence]
    # The caller owes the step; a message is in the hands of the broker.
    media = (MEDIUM_OF.get(protocol, callee) for _, callee, protocol in ways)
    ends = (*(caller for caller, _, _ in ways), *media, *(callee for _, callee, _ in ways))
    roles = [role for role in dict.fromkeys(ends) if role in DUTIES]
    if step.breaks:
        yield "breaks", step.breaks
    else:
        for number, role in enumerate(roles):
            yield "breaks" if not number else "", f"{role}: {DUTIES[role].breaks}"
    for number, role in enumerate(roles):
        yield "look at" if not number else "", f"{role}: {DUTIES[role].logs}"
    commands = list(dict.fromkeys(command for role in roles for command in DUTIES[role].commands))
    for number, command in enumerate(commands):
        yield "try" if not number else "", command
    yield "next", f"tracer check CAPTURE --where step={step.name}"


def _role(role: str) -> str:
    return "any service" if role == "*" else role


def _entry(entry: Entry) -> list[Row]:
    rows = [("means", entry.means)]
    if entry.look:
        rows.append(("look at", entry.look))
    return rows


def _everything(grammars: Iterable[Grammar]) -> Iterator[tuple[str, list[Row]]]:
    """Yield all words that can be explained, by kind."""
    from tracer.grammar import shipped
    from tracer.openstack.duty import DUTIES
    from tracer.reports import glossary

    for grammar in grammars:
        yield f"steps of {grammar.name}", [(step.name, step.title) for step in grammar.steps]
    yield "roles", [("", ", ".join(DUTIES))]
    for kind in glossary.KINDS:
        words = [entry.word for entry in glossary.entries() if entry.kind == kind]
        yield kind, [("", ", ".join(words))]
    yield "grammars", [("", ", ".join(shipped()))]


def _unknown(asked: str, grammars: Iterable[Grammar]) -> str:
    from tracer.grammar import shipped
    from tracer.openstack.duty import DUTIES
    from tracer.reports import glossary

    steps = [step.name for grammar in grammars for step in grammar.steps]
    words = [entry.word for entry in glossary.entries()]
    near = close_matches(asked.lower(), list(dict.fromkeys((*steps, *words, *DUTIES, *shipped()))), n=1)
    hint = f"did you mean {near[0]}?" if near else "`tracer explain` lists what it knows"
    return f"explain: no step, service or word {output.plain(asked, 60)!r}; {hint}"
