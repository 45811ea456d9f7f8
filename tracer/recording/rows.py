"""What a MySQL server sends, packet by packet: which bytes are rows, and so somebody's data.

What tells how a statement ended (OK, ERR, EOF, column counts and definitions) is left as it is. A packet is
judged by its first bytes alone: a row that looks like an OK keeps seven of them.

Source: MySQL client/server protocol, "Text Resultset", "OK_Packet".
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["login_secret", "packets", "row"]

_OK, _EOF, _ERROR, _GREETING = 0x00, 0xFE, 0xFF, 0x0A
_OK_BYTES = 16
_KEPT_BYTES = 7


def packets(data: bytes | bytearray, at: int) -> Iterator[tuple[int, int]]:
    """Yield where each whole packet from *at* on begins and ends, behind its header of 4 bytes."""
    while at + 4 <= len(data):
        end = at + 4 + int.from_bytes(data[at : at + 3], "little")
        if end > len(data):
            return
        yield at + 4, end
        at = end


def row(data: bytes | bytearray, begin: int, end: int) -> int:
    """Return from where on a server's packet data[begin:end] holds a row; *end* if it is something else."""
    length = end - begin
    first = data[begin] if length else _ERROR
    greets = first == _GREETING and data[begin - 1] == 0
    ends = first == _ERROR or (first == _EOF and length < 9)
    if length <= 2 or greets or ends or data[begin + 1 : begin + 4] == b"def":
        return end
    if first == _OK:
        return end if length <= _OK_BYTES else begin + _KEPT_BYTES
    return begin + 1


def login_secret(data: bytes | bytearray, begin: int, end: int) -> tuple[int, int] | None:
    """Return where in a client's first packet the answer to the challenge is; None if it is no login."""
    if end - begin < 34 or data[begin - 1] != 1:
        return None
    name = data.find(b"\0", begin + 32, end)
    if name < 0 or name + 1 >= end:
        return None
    return name + 2, min(name + 2 + data[name + 1], end)
