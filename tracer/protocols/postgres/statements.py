"""What a client of PostgreSQL prepared and bound: named statements, portals and their parameters."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import NamedTuple

from tracer.protocols.postgres.fields import Value, bound, text_to_nul

__all__ = ["UNKNOWN", "Portal", "Prepared", "Statements"]

UNKNOWN = b"#"
"""Text of a statement whose preparation was not seen; its name follows."""
_MOST = 512
"""Statements, and portals, of a connection that are remembered; the oldest is forgotten first."""
_MOST_BYTES = 2 << 20
"""Bytes of their texts and parameters together."""
_TYPES = Struct(">H").unpack_from


class Prepared(NamedTuple):
    """A statement that was parsed."""

    text: bytes
    types: tuple[int, ...]
    """Numbers of the parameters' types, as far as the client gave them."""
    truncated: bool
    wanted: bool
    number: int
    """Counts the Parse messages of the connection; 0: its Parse was not seen."""


class Portal(NamedTuple):
    """A statement that was bound to parameters."""

    prepared: Prepared
    values: tuple[Value, ...]
    truncated: bool
    executed: bool = False
    """Executed already: another Execute fetches more of its rows."""


class Statements:
    """The prepared statements and the portals of one connection."""

    def __init__(self, wanted: Callable[[bytes], bool] | None) -> None:
        self._wanted = wanted
        self._prepared: dict[bytes, Prepared] = {}
        self._portals: dict[bytes, Portal] = {}
        self._bytes = 0
        self._parses = 0

    def is_wanted(self, text: bytes) -> bool:
        """Return whether a message is to be made of a statement with *text*."""
        return self._wanted is None or self._wanted(text)

    def parse(self, body: bytes, truncated: bool) -> Prepared:
        """Remember the statement of a Parse message and return it."""
        name, at = text_to_nul(body, 0)
        text, at = text_to_nul(body, at)
        types: tuple[int, ...] = ()
        if not truncated and at + 2 <= len(body):
            count = min(_TYPES(body, at)[0], (len(body) - at - 2) // 4)
            types = tuple(int.from_bytes(body[at + 2 + 4 * n : at + 6 + 4 * n], "big") for n in range(count))
        self._parses += 1
        prepared = Prepared(text, types, truncated, self.is_wanted(text), self._parses)
        self.close(b"S" + name)
        self._prepared[name] = prepared
        self._grow(len(text))
        return prepared

    def bind(self, body: bytes, truncated: bool) -> None:
        """Remember the portal of a Bind message."""
        portal, at = text_to_nul(body, 0)
        name, at = text_to_nul(body, at)
        prepared = self._prepared.get(name) or self._not_seen(name)
        values: tuple[Value, ...] = ()
        whole = True
        if prepared.wanted:
            values, whole = bound(body, at, prepared.types)
        self.close(b"P" + portal)
        self._portals[portal] = Portal(prepared, values, truncated or not whole)
        self._grow(sum(len(value) for value in values if value))

    def execute(self, body: bytes) -> Portal:
        """Return the portal of an Execute message as it was before, and mark it as executed."""
        name, _ = text_to_nul(body, 0)
        portal = self._portals.get(name)
        if portal is None:
            portal = Portal(self._not_seen(name), (), True)
        # Its parameters are not needed any more.
        self.close(b"P" + name)
        self._portals[name] = portal._replace(values=(), executed=True)
        return portal

    def close(self, target: bytes) -> None:
        """Forget a statement (S and its name) or a portal (P and its name)."""
        name = target[1:].rstrip(b"\0")
        if target[:1] == b"S":
            prepared = self._prepared.pop(name, None)
            self._bytes -= len(prepared.text) if prepared is not None else 0
        else:
            portal = self._portals.pop(name, None)
            self._bytes -= sum(len(value) for value in portal.values if value) if portal is not None else 0

    def lose(self) -> None:
        """Forget what messages in a hole may have replaced: portals, and the statement without a name.

        Named statements stay, since drivers give each name once.
        """
        self.close(b"S")
        for name in tuple(self._portals):
            self.close(b"P" + name)

    def clear(self) -> None:
        """Forget everything."""
        self._prepared.clear()
        self._portals.clear()
        self._bytes = 0

    def _not_seen(self, name: bytes) -> Prepared:
        text = UNKNOWN + name[:128]
        return Prepared(text, (), False, self.is_wanted(text), 0)

    def _grow(self, size_bytes: int) -> None:
        self._bytes += size_bytes
        while self._prepared and (len(self._prepared) > _MOST or self._bytes > _MOST_BYTES):
            self.close(b"S" + next(iter(self._prepared)))
        while self._portals and (len(self._portals) > _MOST or self._bytes > _MOST_BYTES):
            self.close(b"P" + next(iter(self._portals)))
