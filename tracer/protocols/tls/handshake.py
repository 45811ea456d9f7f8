"""Handshake messages of TLS: what the two ends say of themselves before they encrypt.

`Greeting` collects what the hellos and a certificate tell of one connection. A message may span several
records, and a record may hold several messages.

Source: RFC 8446 §4, RFC 5246 §7.4; server_name RFC 6066 §3, ALPN RFC 7301 §3.1, encrypt_then_mac RFC 7366 §2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = [
    "CERTIFICATE",
    "CLIENT_HELLO",
    "ENCRYPTED_EXTENSIONS",
    "END_OF_EARLY_DATA",
    "FINISHED",
    "KEY_UPDATE",
    "SERVER_HELLO",
    "SERVER_HELLO_DONE",
    "SESSION_TICKET",
    "TLS_1_0",
    "TLS_1_2",
    "TLS_1_3",
    "ClientHello",
    "Messages",
    "ServerHello",
    "certificate_names",
    "read_client_hello",
    "read_server_hello",
    "session_ticket",
]

# HandshakeType.
CLIENT_HELLO, SERVER_HELLO, SESSION_TICKET, END_OF_EARLY_DATA, ENCRYPTED_EXTENSIONS = 1, 2, 4, 5, 8
CERTIFICATE, SERVER_HELLO_DONE, FINISHED, KEY_UPDATE = 11, 14, 20, 24
# ExtensionType.
_SERVER_NAME, _ALPN, _ENCRYPT_THEN_MAC, _TICKET, _VERSIONS = 0, 16, 22, 35, 43
TLS_1_0, TLS_1_2, TLS_1_3 = 0x0301, 0x0303, 0x0304
_RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
"""The random of a HelloRetryRequest (RFC 8446 §4.1.3)."""
_NAME = re.compile(r"[A-Za-z0-9_*.\-:]{1,255}")
"""Names that are shown; others may hold anything."""
_PROTOCOL = re.compile(r"[A-Za-z0-9_./\-]{1,32}")
_MOST_NAMES = 16
_LONGEST_BYTES = 128 << 10
"""A longer message is passed over: a chain of certificates has some thousand bytes."""


@dataclass(frozen=True, slots=True)
class ClientHello:
    """What a client offers."""

    random: bytes
    session_id: bytes
    server_name: str
    alpn: tuple[str, ...]
    ticket: bytes
    """The session ticket of TLS 1.2 (RFC 5077); empty without one."""


@dataclass(frozen=True, slots=True)
class ServerHello:
    """What a server has chosen."""

    random: bytes
    version: int
    """0x0304 for TLS 1.3, by the extension that says so."""
    session_id: bytes
    suite: int
    compression: int
    alpn: tuple[str, ...]
    """The protocol, in TLS 1.2; TLS 1.3 encrypts it."""
    encrypt_then_mac: bool
    is_retry: bool
    """A HelloRetryRequest: the client greets once more."""


class Messages:
    """Puts the messages of one direction together from the contents of its handshake records."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._passing_bytes = 0
        """Bytes to come of a message that is too long."""

    def receive(self, content: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield (type, body) of each message that *content*, the next bytes, completes."""
        passed = min(self._passing_bytes, len(content))
        self._passing_bytes -= passed
        buffer = self._buffer
        buffer += content[passed:]
        while len(buffer) >= 4:
            size = int.from_bytes(buffer[1:4], "big")
            if size > _LONGEST_BYTES:
                self._passing_bytes = max(0, size + 4 - len(buffer))
                del buffer[: size + 4]
                continue
            if len(buffer) < 4 + size:
                return
            kind, body = buffer[0], bytes(buffer[4 : 4 + size])
            del buffer[: 4 + size]
            yield kind, body

    def reset(self) -> None:
        """Drop an incomplete message, the rest of which is not in the capture."""
        self._buffer.clear()
        self._passing_bytes = 0


# --- hellos ---------------------------------------------------------------------------------------


class _Reader:
    """Reads the fields of a message. Raises IndexError where it ends too early."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise IndexError
        found = self._data[self._at : end]
        self._at = end
        return found

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        """Return bytes that follow their length, a number of *size* bytes."""
        return self.take(self.number(size))

    @property
    def is_empty(self) -> bool:
        return self._at >= len(self._data)


def read_client_hello(body: bytes) -> ClientHello | None:
    """Return the contents of a ClientHello; None if it is damaged."""
    reader = _Reader(body)
    try:
        reader.take(2)
        random, session_id = reader.take(32), reader.vector(1)
        reader.vector(2)
        reader.vector(1)
    except IndexError:
        return None
    extensions = _extensions(reader)
    name = _server_name(extensions.get(_SERVER_NAME, b""))
    alpn = _protocols(extensions.get(_ALPN, b""))
    return ClientHello(random, session_id, name, alpn, extensions.get(_TICKET, b""))


def read_server_hello(body: bytes) -> ServerHello | None:
    """Return the contents of a ServerHello; None if it is damaged."""
    reader = _Reader(body)
    try:
        version = reader.number(2)
        random, session_id = reader.take(32), reader.vector(1)
        suite, compression = reader.number(2), reader.number(1)
    except IndexError:
        return None
    extensions = _extensions(reader)
    chosen = extensions.get(_VERSIONS, b"")
    if len(chosen) == 2:
        version = int.from_bytes(chosen, "big")
    alpn = _protocols(extensions.get(_ALPN, b""))
    then_mac = _ENCRYPT_THEN_MAC in extensions
    return ServerHello(random, version, session_id, suite, compression, alpn, then_mac, random == _RETRY)


def session_ticket(body: bytes) -> bytes:
    """Return the ticket of a NewSessionTicket of TLS 1.2 (RFC 5077 §3.3), empty if it is damaged."""
    reader = _Reader(body)
    try:
        reader.take(4)
        return reader.vector(2)
    except IndexError:
        return b""


def _extensions(reader: _Reader) -> dict[int, bytes]:
    """Return the extensions that follow in *reader*, as far as they are whole."""
    found: dict[int, bytes] = {}
    if reader.is_empty:
        return found
    try:
        inner = _Reader(reader.vector(2))
        while not inner.is_empty:
            kind = inner.number(2)
            found.setdefault(kind, inner.vector(2))
    except IndexError:
        pass
    return found


def _server_name(extension: bytes) -> str:
    """Return the first host name (type 0) of a server_name extension."""
    try:
        entries = _Reader(_Reader(extension).vector(2))
        while not entries.is_empty:
            kind, name = entries.number(1), entries.vector(2).decode("ascii", "replace")
            if kind == 0 and _NAME.fullmatch(name):
                return name
    except IndexError:
        pass
    return ""


def _protocols(extension: bytes) -> tuple[str, ...]:
    found: list[str] = []
    try:
        entries = _Reader(_Reader(extension).vector(2))
        while not entries.is_empty and len(found) < _MOST_NAMES:
            name = entries.vector(1).decode("ascii", "replace")
            if _PROTOCOL.fullmatch(name):
                found.append(name)
    except IndexError:
        pass
    return tuple(found)


# --- certificates ---------------------------------------------------------------------------------

# DER: tags, and the object identifiers of a common name (2.5.4.3) and subjectAltName (2.5.29.17).
_SEQUENCE, _SET, _OCTETS, _OBJECT, _EXTENSIONS, _DNS_NAME, _IP_ADDRESS = 0x30, 0x31, 4, 6, 0xA3, 0x82, 0x87
_COMMON_NAME, _ALTERNATIVE_NAMES = b"\x55\x04\x03", b"\x55\x1d\x11"


def certificate_names(body: bytes) -> tuple[str, ...]:
    """Return the names that the server's certificate is for: DNS names, else its common name.

    *body* is the Certificate message of TLS 1.2 (RFC 5246 §7.4.2), whose first certificate is the server's.
    Source: RFC 5280 §4.1, §4.2.1.6.
    """
    try:
        first = _Reader(_Reader(body).vector(3)).vector(3)
        inner = _children(_children(first)[0][1])
        fields = [value for kind, value in _children(inner[0][1]) if kind in (_SEQUENCE, _EXTENSIONS)]
        # Algorithm, issuer, validity, subject, key; then the extensions.
        names = list(_alternative_names(fields[5])) if len(fields) > 5 else []
        names = names or list(_common_names(fields[3]))
    except IndexError:
        return ()
    return tuple(dict.fromkeys(name for name in names if _NAME.fullmatch(name)))[:_MOST_NAMES]


def _children(data: bytes) -> list[tuple[int, bytes]]:
    """Return (tag, contents) of each DER element in *data*. Raises IndexError where one is cut."""
    found, reader = [], _Reader(data)
    while not reader.is_empty:
        tag, size = reader.number(1), reader.number(1)
        if size & 0x80:
            size = reader.number(min(size & 0x7F, 4))
        found.append((tag, reader.take(size)))
    return found


def _alternative_names(extensions: bytes) -> Iterator[str]:
    for _, extension in _children(_children(extensions)[0][1]):
        parts = _children(extension)
        if parts[0] != (_OBJECT, _ALTERNATIVE_NAMES):
            continue
        for kind, name in _children(_children(parts[-1][1])[0][1]):
            if kind == _DNS_NAME:
                yield name.decode("ascii", "replace")
            elif kind == _IP_ADDRESS and len(name) == 4:
                yield ".".join(str(byte) for byte in name)


def _common_names(subject: bytes) -> Iterator[str]:
    for _, one in _children(subject):
        for _, attribute in _children(one):
            parts = _children(attribute)
            if parts[0] == (_OBJECT, _COMMON_NAME):
                yield parts[1][1].decode("utf-8", "replace")
