"""The secrets of a key log: the NSS key log format, as SSLKEYLOGFILE and eBPF tools write it.

One secret stands on each line: a label, the client's random, the secret, both in hexadecimal. Comments, empty
lines and labels that are of no use here are passed over; what cannot be read is counted, and never shown.

Source: RFC 9850 (formerly draft-ietf-tls-keylogfile); NSS Key Log Format (`RSA Session-ID:`).
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator

from tracer.model.tables import trim

__all__ = ["EARLY", "HANDSHAKE_SECRETS", "MASTER", "TRAFFIC_SECRETS", "KeyLog"]

MASTER = "CLIENT_RANDOM"
EARLY = "CLIENT_EARLY_TRAFFIC_SECRET"
# Of the client and of the server, as TO_SERVER and TO_CLIENT count them.
HANDSHAKE_SECRETS = ("CLIENT_HANDSHAKE_TRAFFIC_SECRET", "SERVER_HANDSHAKE_TRAFFIC_SECRET")
TRAFFIC_SECRETS = ("CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0")
_SIZES = dict.fromkeys((EARLY, *HANDSHAKE_SECRETS, *TRAFFIC_SECRETS), (32, 48)) | {MASTER: (48,)}
"""Label -> lengths that its secret may have."""
_UNUSED = frozenset({"EXPORTER_SECRET", "EARLY_EXPORTER_SECRET", "RSA", "ECH_SECRET", "ECH_CONFIG"})
_SESSION = re.compile(rb"RSA Session-ID:([0-9A-Fa-f]{2,64}) Master-Key:([0-9A-Fa-f]{96})")

MOST_CONNECTIONS = 50_000
"""The oldest are dropped beyond that: some 40 MB."""
MOST_SESSIONS = 10_000
_LONGEST_LINE_BYTES = 4096
HOLD_BYTES = 32 << 20
"""Records of all connections that may wait for their keys."""
SEARCH = 1 << 27
"""Record numbers that may be tried in all, of connections that began before the capture: some seconds."""


class KeyLog:
    """The secrets of connections, by the client's random.

    *more* adds what has been written since it was called last; it is called when a secret is not known.
    """

    def __init__(self, more: Callable[[], None] = lambda: None) -> None:
        self._more = more
        self._secrets: OrderedDict[bytes, dict[str, bytes]] = OrderedDict()
        self._masters: OrderedDict[bytes, bytes] = OrderedDict()
        """Session id or ticket of TLS 1.2 -> master secret."""
        self._claimed: set[bytes] = set()
        self._rest = b""
        self.is_given = False
        """There is a key log, or there was: keys may come."""
        self.unreadable = 0
        """Lines that could not be read."""
        self.lines = 0
        """Secrets that were read."""
        self.most_held_bytes = HOLD_BYTES
        self.held_bytes = 0
        """Records that wait for their keys."""
        self.has_chacha = False
        """A hello has chosen ChaCha20."""
        self.left = SEARCH
        """Record numbers that may still be tried."""

    def __repr__(self) -> str:
        return f"KeyLog({len(self._secrets)} connections)"

    # --- reading ---

    def add(self, text: bytes) -> None:
        """Add the next bytes of a key log that may grow: its last line may be cut."""
        lines = (self._rest + text).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > _LONGEST_LINE_BYTES:
            # A line without end: nothing is read up to where it ends.
            self._rest = b"#"
            self.unreadable += 1
        self._lines(lines)
        # It may be complete all the same. If it is cut within its secret, the whole one will replace it.
        unreadable = self.unreadable
        self._lines([self._rest])
        self.unreadable = unreadable

    def add_block(self, text: bytes) -> None:
        """Add a key log that is complete."""
        self._lines(text.split(b"\n"))

    def _lines(self, lines: Iterable[bytes]) -> None:
        self.is_given = True
        for line in lines:
            self._line(line.strip())
        trim(self._secrets, MOST_CONNECTIONS)

    def _line(self, line: bytes) -> None:
        if not line or line.startswith(b"#"):
            return
        session = _SESSION.fullmatch(line)
        if session is not None:
            self.remember(*(bytes.fromhex(part.decode()) for part in session.groups()))
            self.lines += 1
            return
        # Separators of Unicode may leave nothing of a line that is not empty.
        parts = line[:_LONGEST_LINE_BYTES].decode("ascii", "replace").split()
        if parts and parts[0] in _UNUSED:
            return
        try:
            label, random, secret = parts[0], bytes.fromhex(parts[1]), bytes.fromhex(parts[2])
        except (IndexError, ValueError):
            self.unreadable += 1
            return
        if len(parts) > 3 or len(random) != 32 or len(secret) not in _SIZES.get(label, ()):
            self.unreadable += 1
            return
        self._secrets.setdefault(random, {})[label] = secret
        self.lines += 1

    # --- answering ---

    def may_open(self) -> bool:
        """Return whether there is a key log, so that records are worth keeping."""
        if not self.is_given:
            self._more()
        return self.is_given

    def find(self, random: bytes) -> dict[str, bytes]:
        """Return label -> secret of the connection with this client *random*; empty if none is known yet."""
        found = self._secrets.get(random)
        if found is None or not (MASTER in found or all(label in found for label in TRAFFIC_SECRETS)):
            # The secrets of one connection are written one after the other.
            self._more()
            found = self._secrets.get(random)
        if found is None:
            return {}
        if len(self._claimed) < MOST_CONNECTIONS:
            self._claimed.add(random)
        return found

    def unclaimed(self, label: str) -> Iterator[tuple[bytes, bytes]]:
        """Yield (client random, secret) of the connections whose hello was not seen, the newest first."""
        self._more()
        for random, secrets in reversed(self._secrets.items()):
            if label in secrets and random not in self._claimed:
                yield random, secrets[label]

    def remember(self, session: bytes, master: bytes) -> None:
        """Remember the master secret of a *session* that may go on in another connection."""
        if session:
            self._masters[session] = master
            trim(self._masters, MOST_SESSIONS)

    def resumed(self, session: bytes) -> bytes | None:
        """Return the master secret of a session that goes on, by its id or ticket."""
        return self._masters.get(session) if session else None
