"""`tracer watch`: reads live sources; writes events as they happen, and the report at the end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from tracer.cli import formats, options, output
from tracer.cli.common import STOP_SIGNALS, CommonOptions, common_options, stoppable
from tracer.errors import UsageError

if TYPE_CHECKING:
    from tracer.live.checkpoint import Keeper
    from tracer.live.notify import Notifier
    from tracer.live.watch import Watch
    from tracer.model import Report
    from tracer.model.events import Event, Picture
    from tracer.reports.metrics import Metrics
    from tracer.settings import Settings

__all__ = ["follow", "watch"]


@click.command(short_help="Follow creations while they happen.")
@options.interfaces
@options.brokers
@options.bpf
@options.packets
@options.autostop
@options.grammar
@options.topology
@options.keylog
@options.form("auto", "view", "text", "jsonl", description="auto: view on a terminal, jsonl on a pipe.")
@options.stall
@options.allow
@options.metrics
@options.notify
@options.checkpoint
@common_options
@click.pass_obj
@options.settings
def watch(
    common: CommonOptions,
    settings: Settings,
    interfaces: tuple[str, ...],
    brokers: tuple[str, ...],
    bpf: str | None,
    packets: int | None,
    duration_s: float | None,
    form: str,
    metrics: str | None,
    notify: str | None,
    checkpoint: Path | None,
) -> int:
    """Follows creations while they happen, and gives each its verdict.

    \b
    Examples:
      tracer watch -i External_api=eth0 -i Internal_base=eth1
      tracer watch -i External_api=/run/ext.fifo -i Internal_base=/run/int.fifo
      tracer watch -i Internal_base=-       a piped stream, as below
      tracer watch -i External_api=eth0 --amqp amqp://tracer:secret@ctl1/

    From a host without Python: ssh ctl1 tcpdump -U -w - | tracer watch -i PLANE=-

    Ctrl-C ends it and prints the report. On a pipe there is one
    JSON object a line: watching (once all sources are open), trace_opened,
    step_seen, stalled, resumed, verdict, withdrawn (it was part of another
    creation, or none), trouble; the last one is the report.

    Exit codes as of check: 0 every trace conforms, 1 a trace deviates, 2 could
    not run, 3 none deviates but one is inconclusive, 5 no trace found.
    """
    from tracer.capture import privileges
    from tracer.live.run import open_watch

    def begin(receive: Callable[[Event], None]) -> Watch:
        run = open_watch(interfaces, settings, receive, bpf=bpf, brokers=brokers)
        privileges.drop()
        return run

    if settings.keylog is not None and not settings.keylog.exists():
        output.say(f"warning: --keylog {settings.keylog} is not there yet: it is read once it is", common)
    side_outputs = _SideOutputs(metrics, notify, settings.grammar, checkpoint)
    return output.exit_code(follow(begin, form, packets, duration_s, common, side_outputs, announced=True))


def follow(
    begin: Callable[[Callable[[Event], None]], Watch],
    form: str,
    packets: int | None,
    duration_s: float | None,
    common: CommonOptions,
    side_outputs: _SideOutputs | None = None,
    *,
    announced: bool = False,
) -> Report:
    """Run the watch that *begin* returns; write events and report in *form*; return the report.

    Events go to *side_outputs* too. *announced*: write a line when all sources are open, so that a program
    that started this one can go on.
    """
    from tracer.live.watch import Limits
    from tracer.reports import events

    if sys.stdout is None:
        raise UsageError("standard output is closed: nothing can be written to it")
    form = _form(form, sys.stdout)
    distributor = _Distributor()
    run = begin(distributor.receive)
    distributor.run = run
    with ExitStack() as stack:
        stack.enter_context(stoppable(run))
        if side_outputs is not None:
            side_outputs.begin(distributor, common, stack)
        if form == "jsonl":
            distributor.write = events.writer(sys.stdout, form)
        if announced:
            distributor.announce(form, common)
        with ExitStack() as screen:
            if form == "view":
                from tracer.reports import live

                view = screen.enter_context(live.view(output.console(sys.stdout, common)))
                distributor.write = view.tell
                distributor.draw = view.draw
            elif form == "text":
                distributor.write = events.writer(sys.stdout, form)
            report = run.run(Limits(packets, duration_s), distributor.show if distributor.is_shown else None)
        with output.destination(None, ()) as file:
            if form == "jsonl":
                file.buffer.write(events.report_line(report))
            else:
                from tracer.reports import console

                console.render(report, output.console(file, common), common.verbose)
        # Side outputs are closed after the report: pending notifications do not delay it.
    return report


def _form(form: str, file: TextIO) -> str:
    """Return the format for *form*; auto is the view on a terminal, text on a dumb one, JSON on a pipe."""
    if form != "auto":
        return form
    if not file.isatty():
        return "jsonl"
    return "text" if os.environ.get("TERM", "dumb") == "dumb" else "view"


class _SideOutputs:
    """Outputs besides standard output: metrics for Prometheus, notifications, a checkpoint."""

    def __init__(
        self, metrics: str | None, notify: str | None, grammar: str, checkpoint: Path | None = None
    ) -> None:
        self._metrics, self._notify, self._grammar = metrics, notify, grammar
        self._checkpoint = checkpoint

    def begin(self, distributor: _Distributor, common: CommonOptions, stack: ExitStack) -> None:
        """Connect the outputs to *distributor* and start their threads; privileges are dropped before.

        Raises UsageError for an address that cannot be bound, and for a file that is not a checkpoint.
        """
        if self._checkpoint is not None and distributor.run is not None:
            from tracer.live.checkpoint import Keeper, load

            state = load(self._checkpoint)
            if state is not None:
                distributor.run.resume(state)
            keeper = distributor.keeper = Keeper(self._checkpoint, distributor.run.state)
            keeper.begin()
            distributor.run.before_end = keeper.write
        if self._notify is not None:
            from tracer.live.notify import Notifier
            from tracer.reports.events import json_line

            notifier = distributor.notifier = Notifier(self._notify, json_line)
            stack.callback(_send_the_rest, notifier, common)
        if self._metrics is not None:
            posted = distributor.notifier.counts if distributor.notifier is not None else dict
            module = formats.needing("metrics", "tracer.reports.metrics", "--metrics")
            distributor.metrics = module.Metrics(self._metrics, Path(self._grammar).stem, posted)
            stack.enter_context(distributor.metrics)
            output.say(f"metrics at {distributor.metrics.url}", common)


def _send_the_rest(notifier: Notifier, common: CommonOptions) -> None:
    """Wait until pending notifications are sent; Ctrl-C or SIGTERM ends the wait."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.default_int_handler)
    output.say(notifier.close(say=lambda words: output.say(words, common)), common)


class _Distributor:
    """Passes events and pictures to the outputs; stops the run when the reader of standard output ends."""

    def __init__(self) -> None:
        self.write: Callable[[Event], None] | None = None
        self.draw: Callable[[Picture], None] | None = None
        self.run: Watch | None = None
        self.metrics: Metrics | None = None
        self.notifier: Notifier | None = None
        self.keeper: Keeper | None = None

    @property
    def is_shown(self) -> bool:
        """Whether pictures are needed: to be drawn, or as occasions to report troubles of an output."""
        return any(each is not None for each in (self.draw, self.metrics, self.notifier, self.keeper))

    def announce(self, form: str, common: CommonOptions) -> None:
        """Write that all sources are open: as an event in jsonl, else as a remark."""
        assert self.run is not None  # noqa: S101  # there is one by now
        words = "watching " + ", ".join(capture.words for capture in self.run.captures)
        if form == "jsonl":
            from tracer.model.events import Event

            # No packet has come yet, so there is no capture time: 0.
            self.receive(Event("watching", 0, message=words))
        else:
            output.say(words, common)

    def show(self, picture: Picture) -> None:
        if self.draw is not None:
            self.draw(picture)
        if self.metrics is not None:
            self.metrics.show(picture)
        if self.keeper is not None:
            self.keeper.look()
        for each in (self.notifier, self.keeper):
            if each is not None and (words := each.trouble()):
                from tracer.model.events import Event

                self.receive(Event("trouble", picture.now_ns, message=words))

    def receive(self, event: Event) -> None:
        for each in (self.metrics, self.notifier):
            if each is not None:
                each.tell(event)
        if self.write is None:
            return
        try:
            self.write(event)
        except BrokenPipeError:
            self.write = None
            output.discard_stdout()
            if self.run is not None:
                self.run.stop()
