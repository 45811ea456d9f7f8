"""A capture file, read by tshark -> the messages in it, and the ends of its connections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path

from tracer.model import Capture, Closed, Gap, Message, Undecoded
from tracer.protocols import Options
from tracer.second.amqp import read_amqp
from tracer.second.connections import Connections, Link
from tracer.second.http import read_http1, read_http2
from tracer.second.sql import read_mysql
from tracer.second.tshark import Frame, frames, require, totals

__all__ = ["Event", "heard", "require"]

Event = tuple[int, Message | Closed | Gap]
"""Time, and what happened then."""


def heard(
    capture: Capture,
    ports: Mapping[int, str],
    options: Options,
    numbers: Iterator[int] | None = None,
    keylog: Path | None = None,
) -> Iterator[Event]:
    """Yield what tshark decodes of the file of *capture*, in the order of its frames.

    *ports*: port -> decoder; *numbers* gives each connection its number. The counters of *capture* are those
    of the whole file where capinfos tells them, else of the frames that were shown. Raises SourceError.
    """
    links = Connections(capture.number, ports, numbers or count(1))
    whole = totals(capture.path)
    for frame in frames(capture.path, ports, keylog):
        _count(capture, frame)
        link, direction = links.of(frame)
        yield from _hole(capture, link, direction, frame)
        yield from _messages(capture, links, link, direction, frame, options)
        for closed in links.ended(link, direction, frame):
            if len(link.ended) == 2:
                yield from _undecoded(link, frame.time_ns)
            yield frame.time_ns, closed
    if whole is not None:
        capture.packets, capture.size_bytes, capture.first_ns, capture.last_ns = whole
    last_ns = capture.last_ns or 0
    for link, closed in links.flush(last_ns):
        yield from _undecoded(link, last_ns)
        yield last_ns, closed


def _count(capture: Capture, frame: Frame) -> None:
    if capture.first_ns is None:
        capture.first_ns = frame.time_ns
    capture.last_ns = max(capture.last_ns or 0, frame.time_ns)
    capture.packets = frame.number
    capture.size_bytes += frame.size_bytes


def _hole(capture: Capture, link: Link, direction: int, frame: Frame) -> Iterator[Event]:
    """Yield the hole that tshark sees before *frame*; it does not say how many bytes are missing."""
    analysis = frame.tcp.get("tcp_tcp_analysis_lost_segment", frame.tcp)
    if analysis is frame.tcp and "_ws_expert" in frame.tcp:
        expert = frame.tcp["_ws_expert"]
        found = any(
            "tcp_tcp_analysis_lost_segment" in each
            for each in (expert if isinstance(expert, list) else [expert])
            if isinstance(each, dict)
        )
        if not found:
            return
    elif analysis is frame.tcp:
        return
    capture.gaps += 1
    link.connection.gaps += 1
    yield frame.time_ns, Gap(link.connection, direction, frame.time_ns, 0, frame.time_ns)


def _messages(
    capture: Capture, links: Connections, link: Link, direction: int, frame: Frame, options: Options
) -> Iterator[Event]:
    connection = link.connection
    if "tls" in frame.layers and not link.encrypted:
        link.encrypted = links.at(frame)
        # What tshark does not show of what is within may be there: no answer is observed to be missing.
        link.connection.gaps += 1
    about = (connection, links.began_ns(frame), links.at(frame), direction, link.state)
    for read in (read_http1, read_http2, read_amqp):
        for message in read(frame, *about):
            yield frame.time_ns, message
    for message in read_mysql(frame, *about, options.wants_statement, options.skipped):
        yield frame.time_ns, message


def _undecoded(link: Link, time_ns: int) -> Iterator[Event]:
    """Yield that TLS was not opened, where nothing was read of a connection with it."""
    if link.encrypted and link.connection.protocol is None:
        yield time_ns, Undecoded(link.connection, time_ns, "tls", link.encrypted)
