"""`tracer replay`: replays recorded captures into the live view or to test systems."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tracer.cli import options, output
from tracer.cli.common import CommonOptions, common_options, stoppable
from tracer.cli.watch import follow
from tracer.errors import SourceError, UsageError

if TYPE_CHECKING:
    from tracer.replay.run import Targets
    from tracer.settings import Settings

__all__ = ["replay"]


@click.command(short_help="Play captures again: into the live view, onto a test broker, to test endpoints.")
@options.captures
@options.speed
@click.option("--amqp", metavar="URL", help="Send the AMQP messages to this test broker.")
@click.option(
    "--rest",
    metavar="ROLE=URL",
    multiple=True,
    help="Send the requests to ROLE (or ADDRESS:PORT) to this test endpoint. Repeat it.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be sent, and send nothing.")
@click.option("--force", is_flag=True, help="Use a broker that has exchanges or queues of the same names.")
@click.option("--keep", is_flag=True, help="Leave on the broker what was declared.")
@options.grammar
@options.topology
@options.form(
    "auto", "view", "text", "jsonl", "json", description="as of watch; with --amqp or --rest: text or json."
)
@options.stall
@options.allow
@common_options
@click.pass_obj
@options.settings
def replay(
    common: CommonOptions,
    settings: Settings,
    captures: tuple[str, ...],
    speed: float,
    amqp: str | None,
    rest: tuple[str, ...],
    dry_run: bool,
    force: bool,
    keep: bool,
    form: str,
) -> int:
    """Plays captures again, at their recorded pace: into the live view, or
    to test systems.

    \b
    Examples:
      tracer replay example:ok-concurrent-20            as it was
      tracer replay incident/ --speed 10                ten times faster
      tracer replay incident/ --speed max --format text the events alone
      tracer replay incident/ --amqp amqp://guest:guest@localhost/
      tracer replay incident/ --rest nova-api=http://localhost:8774

    CAPTURE is a capture file (pcap, pcapng; .gz, .zst), PLANE=FILE, a folder of
    them, - for standard input, or example:NAME for one that comes with tracer.

    --amqp declares exchanges, queues and consumers as recorded, sends each
    message byte for byte, and deletes at the end what it declared. It refuses
    a broker that has exchanges or queues of these names already.

    --rest sends the requests that a role was sent; ids and tokens of live
    answers replace the recorded ones in later requests.
    """
    from tracer.replay.run import Targets

    targets = Targets(amqp, rest, force, keep, dry_run)
    if amqp is not None or rest:
        return _send(captures, settings, targets, speed, form, common)
    for name in ("force", "keep", "dry_run"):
        if getattr(targets, name):
            raise UsageError(
                f"--{name.replace('_', '-')}: no target given: use --amqp URL or --rest ROLE=URL"
            )
    if form == "json":
        raise UsageError("--format json: only with --amqp or --rest; use jsonl for the events")
    from tracer.live.run import open_replay

    follow(lambda receive: open_replay(captures, settings, speed, receive), form, None, None, common)
    return output.CONFORMS


def _send(
    captures: tuple[str, ...],
    settings: Settings,
    targets: Targets,
    speed: float,
    form: str,
    common: CommonOptions,
) -> int:
    from tracer.engine import given_topology
    from tracer.replay.run import Onward

    if form not in ("auto", "text", "json"):
        raise UsageError(f"--format {form}: with --amqp or --rest the formats are text and json")
    if targets.amqp is None and (targets.force or targets.keep):
        raise UsageError(f"--{'force' if targets.force else 'keep'}: only with --amqp")
    run = Onward(captures, given_topology(settings), targets, speed)
    with stoppable(run):
        summary = run.run()
    with output.destination(None, ()) as file:
        text = summary.json() if form == "json" else summary.text()
        file.write(f"{text}\n")
    if failure := summary.failure():
        raise SourceError(failure)
    return output.CONFORMS
