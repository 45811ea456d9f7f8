"""Header blocks of HTTP/2, also where the table that they refer to is known in part only.

Blocks of one direction share a table. Its newest entry has the first index. So where the connection began
before the capture, or behind a hole, entries are known once they are seen being added, and older ones are
not: a reference to one is `UNKNOWN`, and nothing is guessed.

Source: RFC 7541 §2.3 (indexing), §4 (management of the table), §6 (representations).
"""

from __future__ import annotations

import logging
from typing import Any

__all__ = ["UNKNOWN", "Fields"]

UNKNOWN = b"\x00"
"""Name and value of an entry that was added where the capture shows nothing. No field may hold this (RFC 9113
§8.2.1)."""
LIST_LIMIT = 65_536
"""Bytes of the fields of one block: a few bytes of it can stand for many (RFC 9113 §10.5.1)."""
JOINED_BYTES = 16_384
"""Size of the table of a connection whose beginning was not seen. The sender's may be smaller: what it has
dropped is not referred to."""
LARGEST_TABLE = 65_536
"""Limit of a table; older entries become unknown."""


class Fields:
    """Decodes the header blocks of one direction. *joined*: earlier blocks were not seen."""

    __slots__ = ("_decoder", "_joined")

    def __init__(self, joined: bool) -> None:
        self._joined = joined
        self._decoder: Any = None

    def decode(self, block: bytes) -> list[tuple[bytes, bytes]] | None:
        """Return the fields of *block* in order, `UNKNOWN` for what is not known; None if it is damaged."""
        if self._decoder is None:
            self._decoder = _decoder(self._joined)
        try:
            return list(self._decoder.decode(block, raw=True))
        except Exception:  # any: the library raises IndexError and its own errors on hostile blocks
            # Entries behind the damage were not added, so no index is certain.
            self.lose()
            return None

    def lose(self) -> None:
        """Forget the table: blocks may be missing here, and each may have added entries."""
        self._joined = True
        self._decoder = None


def _decoder(joined: bool) -> Any:
    """Return a decoder of the library, with a table that knows what it does not know."""
    # Imported here: its tables take a while, and most captures hold no HTTP/2.
    from hpack import Decoder, InvalidTableIndex
    from hpack.table import HeaderTable

    # Its debug messages hold the values of headers, and so secrets.
    log = logging.getLogger("hpack")
    if log.level == logging.NOTSET:
        log.setLevel(logging.INFO)

    class Table(HeaderTable):
        def get_by_index(self, index: int) -> tuple[bytes, bytes]:
            try:
                return super().get_by_index(index)
            except InvalidTableIndex:
                if not index:
                    raise
                return UNKNOWN, UNKNOWN

        @property
        def maxsize(self) -> int:
            return self._maxsize

        @maxsize.setter
        def maxsize(self, size: int) -> None:
            self._maxsize = min(max(size, JOINED_BYTES if joined else 0), LARGEST_TABLE)
            self._shrink()

    decoder = Decoder(max_header_list_size=LIST_LIMIT)
    decoder.header_table = Table()
    decoder.header_table.maxsize = HeaderTable.DEFAULT_SIZE
    # The receiver's limit may have been announced before the capture; the table bounds itself.
    decoder.max_allowed_table_size = 1 << 32
    return decoder
