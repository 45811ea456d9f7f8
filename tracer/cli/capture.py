"""`tracer capture`: records planes to rotating files."""

from __future__ import annotations

from pathlib import Path

import click

from tracer.cli import options, output
from tracer.cli.common import CommonOptions, common_options, stoppable
from tracer.cli.output import CONFORMS
from tracer.errors import UsageError
from tracer.settings import Settings

__all__ = ["capture"]

_SECRETS = (
    "the files will hold secrets in the clear (tokens, passwords, user data): protect them like passwords"
    ", or record with --redact"
)


@click.command(short_help="Record planes to rotating capture files.")
@options.interfaces
@click.option(
    "--write", "-w", "folder", metavar="DIR", type=click.Path(), required=True, help="Folder for the files."
)
@options.bpf
@click.option("--redact", is_flag=True, help="Overwrite secrets, lengths kept; verdicts stay the same.")
@options.size
@options.every
@options.most_files
@options.packets
@options.autostop
@options.topology
@common_options
@click.pass_obj
def capture(
    common: CommonOptions,
    interfaces: tuple[str, ...],
    folder: str,
    bpf: str | None,
    redact: bool,
    size_mb: float | None,
    every_s: float | None,
    most: int | None,
    packets: int | None,
    duration_s: float | None,
    topology: Path | None,
) -> int:
    """Records planes to capture files (pcapng), with one interface for each plane.

    \b
    Examples:
      tracer capture -i External_api=eth0 -i Internal_base=eth1 -w incident/
      tracer capture -i any -w incident/ -C 200 -W 20        a ring of 20 files
      tracer capture -i Internal_base=eth1 -w shared/ --redact
      tracer capture -i Internal_base=- -w incident/         a piped stream

    From a host without Python or disk space:
    ssh ctl1 tcpdump -i eth1 -U -s 0 -w - tcp | tracer capture -i PLANE=- -w DIR

    The files are valid at any moment, even if the recording is killed. Check
    them with `tracer check DIR`, also during the recording. On interfaces, the
    traffic on the protocols' ports is recorded, unless -f is given. Piped
    streams are recorded completely, until they end.

    --redact overwrites tokens, passwords and user data in HTTP, AMQP and SQL,
    and the rows that the database sends. Encrypted or compressed data are kept.
    """
    from tracer.engine import given_topology
    from tracer.live.run import proposed_filter
    from tracer.recording.rotation import Rotation
    from tracer.recording.run import open_recording

    if most is not None and size_mb is None and every_s is None:
        raise UsageError("-W: no limit given at which a new file begins: add -C MB or -G SECONDS")
    given = given_topology(Settings(topology=topology))
    rotation = Rotation(None if size_mb is None else int(size_mb * 1e6), every_s, most)
    wanted = proposed_filter(given) if bpf is None else bpf
    where = Path(folder)
    recorder, files, sources = open_recording(interfaces, where, rotation, given, wanted, redact=redact)
    if not redact:
        output.say(_SECRETS, common)
    with stoppable(recorder):
        recorder.run(packets, duration_s)
    for trouble in recorder.troubles:
        output.say(f"warning: {trouble}", common)
    for source in sources:
        dropped = f", {source.dropped:,} dropped by the kernel" if source.dropped else ""
        its = source.capture
        dropped += ", breaks off" if its.broke_off else ""
        output.say(f"{its.words}: {recorder.packets[its.number]:,} packets{dropped}", common)
    many = f"{len(files.written)} files" if len(files.written) != 1 else "1 file"
    output.say(f"{many} in {folder}, {files.size_bytes / 1e6:,.1f} MB written", common)
    return CONFORMS
