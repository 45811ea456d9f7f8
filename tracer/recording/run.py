"""Opens a recording for the arguments of a command line or of a test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tracer import __version__
from tracer.capture.arguments import LiveArgument, resolve_live
from tracer.capture.interface import Interface
from tracer.capture.live import LiveSource
from tracer.capture.privileges import drop
from tracer.capture.streams import CaptureStream
from tracer.errors import UsageError
from tracer.model import Capture
from tracer.protocols import PORTS
from tracer.recording.recorder import Recorder
from tracer.recording.redaction import Redactor
from tracer.recording.rotation import Files, Rotation
from tracer.topology import GivenTopology
from tracer.topology.planes import KNOWN_PLANES

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
    """Return what records *interfaces* to *folder*: the sockets open, privileges given up.

    Capture streams (pipes, standard input) are recorded like interfaces, unless *streams* forbids them.
    Raises UsageError or SourceError.
    """
    arguments = resolve_live(interfaces, {*KNOWN_PLANES, *given.plane_names})
    if not arguments:
        raise UsageError(
            "no source given: use -i PLANE=INTERFACE, -i PLANE=FIFO or -i PLANE=- (standard input)"
        )
    refused = [argument.target for argument in arguments if argument.is_stream and not streams]
    if refused:
        raise UsageError(f"{refused[0]}: a capture stream; only interfaces can be recorded here")
    sources = [_source(argument, number, bpf) for number, argument in enumerate(arguments)]
    for source in sources:
        source.open()
    # Interfaces are described by the recorder: of a stream its first packet tells the link layer.
    files = Files(folder, [], rotation, f"tracer {__version__}")
    files.prepare()
    drop()
    files.prepare()
    database = {port for port, protocol in {**PORTS, **given.ports}.items() if protocol == "mysql"}
    redactor = Redactor(database) if redact else None
    return Recorder(sources, files, redactor), files, sources


def _source(argument: LiveArgument, number: int, bpf: str) -> LiveSource:
    capture = Capture(number, argument.target, argument.plane)
    if argument.is_stream:
        return CaptureStream(argument.target, capture)
    return Interface(argument.target, capture, bpf or None)
