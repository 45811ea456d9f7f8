"""From the words of a command line to a recording."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tracer import __version__
from tracer.errors import UsageError
from tracer.model import Capture
from tracer.protocols import PORTS
from tracer.recording.pcapng_writer import Described
from tracer.recording.recorder import Recorder
from tracer.recording.redaction import Redactor
from tracer.recording.rotation import Files, Rotation
from tracer.sources.interface import Interface
from tracer.sources.live_arguments import resolve_live
from tracer.sources.privileges import drop
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
) -> tuple[Recorder, Files, list[Interface]]:
    """Return what records *interfaces* to *folder*: the sockets open, privileges given up.

    Raises UsageError or SourceError.
    """
    arguments = resolve_live(interfaces, {*KNOWN_PLANES, *given.plane_names})
    if not arguments:
        raise UsageError("record what? Name an interface with -i PLANE=INTERFACE")
    streams = [argument.target for argument in arguments if argument.is_stream]
    if streams:
        raise UsageError(f"-i {streams[0]}: capture records interfaces; a stream is a file already")
    sources = [
        Interface(argument.target, Capture(number, argument.target, argument.plane), bpf or None)
        for number, argument in enumerate(arguments)
    ]
    for source in sources:
        source.open()
    described = [
        Described(source.capture.plane or source.name, source.name, source.link_type, bpf)
        for source in sources
    ]
    files = Files(folder, described, rotation, f"tracer {__version__}")
    files.prepare()
    drop()
    files.prepare()
    database = {port for port, protocol in {**PORTS, **given.ports}.items() if protocol == "mysql"}
    redactor = Redactor(database) if redact else None
    return Recorder(sources, files, redactor), files, sources
