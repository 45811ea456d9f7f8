"""Opens a recording for the arguments of a command line or of a test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tracer import __version__
from tracer.capture.arguments import resolve_live
from tracer.capture.live import LiveSource
from tracer.capture.privileges import drop
from tracer.capture.sources import interface_sources
from tracer.engine import known_planes
from tracer.errors import UsageError
from tracer.model import CALLS_OVER
from tracer.protocols import PORTS
from tracer.recording.recorder import Recorder
from tracer.recording.redaction import Redactor
from tracer.recording.rotation import Files, Rotation
from tracer.topology import GivenTopology

__all__ = ["open_recording"]


def open_recording(
    interfaces: Sequence[str],
    folder: Path,
    rotation: Rotation,
    given: GivenTopology,
    bpf: str,
    *,
    redact: bool,
    streams: bool = True,
) -> tuple[Recorder, Files, list[LiveSource]]:
    """Return a recorder of *interfaces* to *folder*, its files and sources: opened, privileges given up.

    Capture streams (pipes, standard input) are recorded like interfaces, unless *streams* forbids them.
    Raises UsageError or SourceError.
    """
    arguments = resolve_live(interfaces, known_planes(given))
    if not arguments:
        raise UsageError(
            "no source given: use -i PLANE=INTERFACE, -i PLANE=FIFO or -i PLANE=- (standard input)"
        )
    refused = [argument.target for argument in arguments if argument.is_stream and not streams]
    if refused:
        raise UsageError(f"{refused[0]}: a capture stream; only interfaces can be recorded here")
    sources = interface_sources(arguments, bpf)
    for source in sources:
        source.open()
    # The recorder describes interfaces later: the link type of a stream is known from its first packet on.
    files = Files(folder, [], rotation, f"tracer {__version__}")
    # Twice: the first creates the folder with privileges, the second checks that it is writable without them.
    files.prepare()
    drop()
    files.prepare()
    ports = {**PORTS, **given.ports}
    databases = {port: protocol for port, protocol in ports.items() if CALLS_OVER.get(protocol) == "SQL"}
    redactor = Redactor(databases) if redact else None
    return Recorder(sources, files, redactor), files, sources
