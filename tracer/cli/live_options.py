"""The flags of what is followed, recorded or played again: what, how long, how fast, and who hears of it."""

from __future__ import annotations

import math

import click

from tracer.cli.options import path
from tracer.errors import UsageError

__all__ = [
    "autostop",
    "bpf",
    "brokers",
    "checkpoint",
    "every",
    "interfaces",
    "metrics",
    "most_files",
    "notify",
    "packets",
    "size",
    "speed",
]

interfaces = click.option(
    "--interface",
    "-i",
    "interfaces",
    metavar="PLANE=WHAT",
    multiple=True,
    help="An interface, a named pipe, or - for standard input; one plane each. Repeat it.",
)


brokers = click.option(
    "--amqp",
    "brokers",
    metavar="URL",
    multiple=True,
    help="Listen to a broker's firehose: amqp://USER:PASSWORD@HOST/VHOST, or amqps://. Repeat it.",
)


bpf = click.option(
    "--filter",
    "-f",
    "bpf",
    metavar="BPF",
    help="What to sniff, in tcpdump's words, instead of the protocols' ports; '' is all.",
)


def _autostop(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    if text is None:
        return None
    kind, _colon, number = text.rpartition(":")
    try:
        seconds = float(number)
    except ValueError:
        seconds = math.nan
    if kind not in ("", "duration") or not (math.isfinite(seconds) and seconds > 0):
        raise UsageError(f"-a {text!r}: write duration:SECONDS, as duration:60")
    return seconds


autostop = click.option(
    "--autostop",
    "-a",
    "duration_s",
    metavar="duration:S",
    callback=_autostop,
    help="Stop after so many seconds.",
)
packets = click.option(
    "--count", "-c", "packets", metavar="N", type=click.IntRange(1), help="Stop after so many packets."
)

metrics = click.option(
    "--metrics",
    metavar="[ADDRESS:]PORT",
    help="Answer Prometheus there; on 127.0.0.1 unless an address is given.",
)
notify = click.option(
    "--notify",
    metavar="URL",
    help="POST the JSON line of each creation that is stuck or failed there, and of its recovery.",
)
checkpoint = click.option(
    "--checkpoint",
    metavar="FILE",
    type=click.Path(),
    callback=path,
    help="Keep open creations there; a watch that is started again goes on with them.",
)


def _more_than_nothing(_: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    if value is not None and not (math.isfinite(value) and value > 0):
        raise UsageError(f"{parameter.opts[0]} {value:g}: must be more than 0")
    return value


def _times(_: click.Context, __: click.Parameter, text: str) -> float:
    if text == "max":
        return 0.0
    try:
        speed = float(text)
    except ValueError:
        speed = math.nan
    if not (math.isfinite(speed) and speed > 0):
        raise UsageError(f"--speed {text!r}: write how many times faster, as 10 or 0.5, or max")
    return speed


speed = click.option(
    "--speed",
    metavar="N|max",
    default="1",
    show_default=True,
    callback=_times,
    help="How many times faster than it was recorded; max: as fast as possible.",
)
size = click.option(
    "--size",
    "-C",
    "size_mb",
    metavar="MB",
    type=float,
    callback=_more_than_nothing,
    help="Begin a new file after so many MB.",
)
every = click.option(
    "--every",
    "-G",
    "every_s",
    metavar="SECONDS",
    type=float,
    callback=_more_than_nothing,
    help="Begin a new file after so many seconds.",
)
most_files = click.option(
    "--files", "-W", "most", metavar="N", type=click.IntRange(1), help="Keep the last N files."
)
