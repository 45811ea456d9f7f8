"""What a MySQL server sends, packet by packet: which bytes are rows, and so somebody's data.

What tells how a statement ended (OK, ERR, EOF, column counts and definitions) is left as it is. A packet is
judged by its first bytes alone: a row that looks like an OK keeps seven of them.

Source: MySQL client/server protocol, "Text Resultset", "OK_Packet", "Connection Phase", "COM_CHANGE_USER".
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["login_secret", "packets", "row"]

_OK, _EOF, _ERROR, _GREETING = 0x00, 0xFE, 0xFF, 0x0A
_CHANGE_USER = 0x11
_LAST_ANSWER, _ANSWER_BYTES = 8, 1_024
"""A login takes a handful of packets, and none is long."""
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
    """Return where in a client's packet data[begin:end] the answer to a challenge is; None if there is none.

    That of a login, of COM_CHANGE_USER, and of a later challenge (another method, as with LDAP or PAM, may
    send the password itself): commands have the number 0, and so have all but the answers.
    """
    number = data[begin - 1]
    if 2 <= number <= _LAST_ANSWER:
        return (begin, end) if 0 < end - begin <= _ANSWER_BYTES else None
    if number == 1 and end - begin >= 34:
        name_at = begin + 32
    elif number == 0 and end > begin and data[begin] == _CHANGE_USER:
        name_at = begin + 1
    else:
        return None
    name = data.find(b"\0", name_at, end)
    if name < 0 or name + 1 >= end:
        return None
    return name + 2, min(name + 2 + data[name + 1], end)
