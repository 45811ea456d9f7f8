"""Opening of a capture file: detection of its format, and errors that name what else it is."""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Iterator
from typing import IO

from tracer.capture.files.compression import ByteStream
from tracer.capture.files.pcap import MAGICS, PcapReader
from tracer.capture.files.pcapng import SECTION_HEADER, PcapngReader
from tracer.errors import SourceError, reason
from tracer.model import Capture, PacketFields, place_of

__all__ = ["Reader", "open_capture", "open_reader"]

Reader = PcapReader | PcapngReader
"""An open capture file. It can be read once: as packets (`batches`), or as segments."""

_FORMATS = "pcap or pcapng, plain, .gz or .zst"
# First bytes of files that are mistaken for captures, and what to do with them.
_OTHERS = [
    (b"PK\x03\x04", "a zip archive: unpack it"),
    (b"\xfd7zXZ\0", "packed with xz: unpack it"),
    (b"BZh", "packed with bzip2: unpack it"),
    (b"\x04\x22\x4d\x18", "packed with lz4: unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it"),
    (b"\x1f\x8b", "packed twice: unpack it once"),
    (b"\x28\xb5\x2f\xfd", "packed twice: unpack it once"),
    (b"\x7fELF", "a program"),
    (b"%PDF", "a PDF document"),
]
# Source: the magic numbers of Wireshark's wiretap.
_READ_BY_TSHARK = [
    (b"snoop\0\0\0", "snoop"),
    (b"\x54\x52\x00", "HP-UX nettl"),
    (b"LOGG", "BLF"),
    (b"XCP\0", "NetXRay"),
    (b"RTSS", "Network Monitor"),
    (b"GMBU", "Network Monitor"),
    (b"TRSNIFF data    \x1a", "Sniffer"),
    (b"\x7fver", "EtherPeek"),
    (b"iptrace ", "AIX iptrace"),
    (b"5VIEW", "5Views"),
    (b"VIEWS", "5Views"),
]


def open_capture(path: str, capture: Capture) -> Iterator[list[PacketFields]]:
    """Return the packets of a capture file ('-': standard input), in file order and in batches.

    pcap and pcapng, plain, gzip or zstd, are recognised by their first bytes. The source need not be
    seekable, and memory is bounded. A batch holds the packets of one read, so packets of a pipe come as they
    arrive.
    Packets are counted in *capture*; the counters are complete when the iterator is exhausted. Damage behind
    the file header is counted in `capture.anomalies`. A file that breaks off is read up to there
    (`capture.broke_off`).

    Raises SourceError, before the first packet, if the file cannot be opened or is not a capture.
    """
    return open_reader(path, capture).batches()


def open_reader(path: str, capture: Capture) -> Reader:
    """Return the open capture file, of which nothing is read yet, as `open_capture`. Raises SourceError."""
    stream = ByteStream(_open(path))
    try:
        return _reader(stream, path, capture)
    except SourceError:
        stream.close()
        raise


def _open(path: str) -> IO[bytes]:
    if path == "-":
        if sys.stdin.isatty():
            raise SourceError(
                "standard input is a terminal, not a capture: pipe one in (tcpdump -U -w - | tracer check -)"
            )
        try:
            # Not sys.stdin.buffer: a thread that waits in it holds its lock, and the interpreter aborts when
            # it closes standard input at exit.
            return open(os.dup(sys.stdin.fileno()), "rb", buffering=0)
        except io.UnsupportedOperation:
            return sys.stdin.buffer
    try:
        return open(path, "rb", buffering=0)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {reason(error)}") from error


def _reader(stream: ByteStream, path: str, capture: Capture) -> Reader:
    head = stream.extend(b"", 4)
    if head[:4] in MAGICS:
        return PcapReader(stream, head, capture)
    if head[:4] == SECTION_HEADER:
        return PcapngReader(stream, head, capture)
    name = place_of(path)
    if stream.damage:
        raise SourceError(f"{name}: {stream.damage}, and nothing of it can be read: copy it again")
    if not head:
        inside = f" ({stream.packing} of nothing)" if stream.packing else ""
        raise SourceError(f"{name}: empty, 0 bytes{inside}: did the capture end before its first packet?")
    for magic, format_name in _READ_BY_TSHARK:
        if head.startswith(magic):
            raise SourceError(
                f"{name}: a capture of another format ({format_name}): --engine tshark may read it"
                " (tracer check, calls and show), or convert it with 'editcap -F pcap'"
            )
    packed = f"{stream.packing} of " if stream.packing else ""
    raise SourceError(f"{name}: not a capture ({_FORMATS}), but {packed}{_looks_like(head)}")


def _looks_like(head: bytes) -> str:
    """Return what a file that is not a capture seems to be, by its first bytes."""
    for magic, words in _OTHERS:
        if head.startswith(magic):
            return words
    # The magic of a tar header stands behind its first fields.
    if head[257:262] == b"ustar":
        return "a tar archive: unpack it"
    try:
        # Incremental, because the last character may be cut.
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head[:512])
    except UnicodeDecodeError:
        text = "\0"
    if all(character.isprintable() or character in "\t\r\n\f" for character in text):
        line = text.lstrip().split("\n")[0].strip()[:40]
        return f"text that begins with {line!r}"
    # ERF, for one, has no magic number.
    return f"data that begins with {head[:8].hex(' ')}: if Wireshark opens it, --engine tshark may, too"
