"""`tracer doctor`: what this host can do, and what captures could show."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tracer.cli import options, output
from tracer.cli.common import CommonOptions, common_options
from tracer.cli.output import CONFORMS, INTERRUPTED, progress
from tracer.errors import UsageError

if TYPE_CHECKING:
    from tracer.model.diagnosis import Diagnosis, HostDiagnosis
    from tracer.settings import Settings

__all__ = ["doctor"]

LONGEST_LISTEN_S = 600.0


@click.command("doctor", short_help="Show what this host, or a capture, can show.")
@click.argument("captures", metavar="[CAPTURE...]", nargs=-1, type=click.Path())
@options.grammar
@options.topology
@options.keylog
@options.brokers
@click.option(
    "--listen",
    type=click.FloatRange(0.1, LONGEST_LISTEN_S),
    metavar="SECONDS",
    help="Listen on the interfaces that are up, and show what flows there.",
)
@options.form("text", "json", description="text, or JSON: the schema tracer.doctor/1.")
@options.target
@common_options
@click.pass_obj
@options.settings
def doctor(
    common: CommonOptions,
    settings: Settings,
    captures: tuple[str, ...],
    brokers: tuple[str, ...],
    listen: float | None,
    form: str,
    target: Path | None,
) -> int:
    """Shows what this host can do: privileges, tools, clock, interfaces, RabbitMQ;
    or what captures hold: planes, protocols, roles, encrypted and damaged parts,
    and which documented steps could be seen in them.

    \b
    Examples:
      tracer doctor                                  this host
      tracer doctor --listen 5                       and what flows on its interfaces
      tracer doctor --amqp amqp://tracer:secret@ctl1/
      tracer doctor incident/                        before a creation is checked
      tracer doctor example:colo-ok --format json

    It writes nothing. --listen makes interfaces promiscuous meanwhile, --amqp a
    queue of its own at the broker. Exit codes: 0; 2 could not run; 130 interrupted.
    """
    if listen is not None and not math.isfinite(listen):
        raise UsageError(f"--listen {listen}: not a number of seconds; write 5 or 2.5")
    if captures and (brokers or listen):
        raise UsageError("doctor: give captures, or look at this host (--amqp, --listen): not both at once")
    with output.destination(target, captures) as file:
        host, found = (
            (None, _of(captures, settings, common)) if captures else _of_host(brokers, listen, settings)
        )
        if form == "json":
            from tracer.reports.diagnosis import json_pieces

            file.flush()
            for piece in json_pieces(host, found):
                file.buffer.write(piece)
        else:
            from tracer.reports import file_names
            from tracer.reports.diagnosis import write
            from tracer.reports.page import Page

            paths = [capture.path for capture in found.captures] if found else []
            write(
                Page(output.console(file, common), file_names(paths, short=True), common.verbose), host, found
            )
    return INTERRUPTED if found is not None and found.partial else CONFORMS


def _of(captures: tuple[str, ...], settings: Settings, common: CommonOptions) -> Diagnosis:
    from tracer.engine.diagnosis import diagnose

    with progress(common) as bars:
        return diagnose(captures, settings, bars)


def _of_host(
    brokers: tuple[str, ...], listen_s: float | None, settings: Settings
) -> tuple[HostDiagnosis, Diagnosis | None]:
    from tracer.capture.host import diagnose_host

    host = diagnose_host(brokers)
    if listen_s is None:
        return host, None
    from tracer.engine.diagnosis import diagnose_interfaces

    names = [each.name for each in host.interfaces if each.is_up]
    if not names:
        raise UsageError("--listen: no interface of this host is up")
    return host, diagnose_interfaces(names, listen_s, settings)
