"""Finds the keys of one connection: by its hellos, or by trial if it began before the capture.

With both hellos the key log is asked by the client's random. Without them TLS 1.3 can be opened all the same:
the keys depend on the traffic secret alone, so each secret of the log whose connection was not seen is tried,
with one record number after the other, on one record. The tag proves what fits. TLS 1.2 cannot be opened so:
its keys depend on the server's random, which no key log holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from tracer.model import TO_CLIENT, TO_SERVER
from tracer.protocols.tls.ciphers import NUMBERS, Cipher, master_cipher, traffic_cipher
from tracer.protocols.tls.greeting import Greeting, version_words
from tracer.protocols.tls.handshake import TLS_1_2, TLS_1_3, ClientHello, ServerHello
from tracer.protocols.tls.keylog import EARLY, HANDSHAKE_SECRETS, MASTER, TRAFFIC_SECRETS, KeyLog
from tracer.protocols.tls.records import APPLICATION, Record
from tracer.protocols.tls.schedule import keys_of_master, keys_of_traffic
from tracer.protocols.tls.side import Side
from tracer.protocols.tls.suites import CHACHA, OF_SECRET, SUITES, Suite

__all__ = ["NO_KEY", "Opening"]

NO_KEY = "tls: no key"
_SHALLOW, _DEEP = range(0, NUMBERS, NUMBERS), range(NUMBERS, 16 * NUMBERS, NUMBERS)
"""First record numbers of what is tried: of all secrets the small ones, then the others."""
_CHACHA_NUMBERS = 512
"""Record numbers that are tried with ChaCha20, and `NUMBERS` where a hello has shown that it is in use."""
_CHACHA_COST = 32
"""A trial of ChaCha20 takes so many times as long as one of AES."""
_MOST_PROBES = 3
"""Records of one direction on which all secrets are tried."""
_MOST_PROBES_OF_ONE = 64
"""The same, where it is known whose secrets they are."""


class Opening:
    """The keys of the connection of *greeting*, as far as *keys* hold them."""

    def __init__(self, keys: KeyLog, greeting: Greeting, joined: bool) -> None:
        self._keys = keys
        self._greeting = greeting
        self._began = "began before the capture" if joined else "its hellos are lost"
        self._given_up = f"tls: {self._began}, key search ended"
        self.random = b""
        """The client's random, by its hello or by trial."""
        self.reason = ""
        """Why it cannot be opened, whatever comes; empty while keys may come."""
        self.is_1_3 = False
        self.has_early_data = False
        self.master = b""
        """The master secret of TLS 1.2."""
        self.label = TO_SERVER
        self._probes = [0, 0]
        self._latest: list[Record | None] = [None, None]
        self._waiting: tuple[list[tuple[Record, int]], ...] = ([], [])
        """Records of each direction that are not tried yet, and how many stand before each."""
        self._begun: list[list[bytes]] = [[], []]
        """Beginnings of the records that were looked at, of each direction."""

    def by_hellos(self, client: ClientHello, server: ServerHello) -> tuple[Side | None, Side | None]:
        """Return the two sides of a connection both of whose hellos were seen; None without the key."""
        suite = SUITES.get(server.suite)
        if server.version not in (TLS_1_2, TLS_1_3):
            self.reason = f"tls {version_words(server.version)}: not supported"
        elif suite is None or server.compression:
            self.reason = f"tls: cipher suite 0x{server.suite:04x} is not supported"
        elif server.version == TLS_1_3:
            self.is_1_3 = True
            self._keys.has_chacha |= suite.cipher == CHACHA
            return self._by_traffic(client, suite)
        else:
            return self._by_master(client, server, suite)
        return None, None

    def _by_traffic(self, client: ClientHello, suite: Suite) -> tuple[Side | None, Side | None]:
        secrets = self._keys.find(client.random)
        self.random = client.random
        sides: list[Side | None] = []
        for direction in (TO_SERVER, TO_CLIENT):
            secret = secrets.get(TRAFFIC_SECRETS[direction])
            if secret is None:
                sides.append(None)
                continue
            before = [HANDSHAKE_SECRETS[direction]]
            if direction == TO_SERVER and EARLY in secrets:
                before.insert(0, EARLY)
                self.has_early_data = True
            used = [secrets[label] for label in before if label in secrets] + [secret]
            ciphers = [traffic_cipher(suite, keys_of_traffic(each, suite)) for each in used]
            sides.append(Side(ciphers, (suite, secret)))
        return sides[0], sides[1]

    def _by_master(
        self, client: ClientHello, server: ServerHello, suite: Suite
    ) -> tuple[Side | None, Side | None]:
        resumed = self._keys.resumed(server.session_id) or self._keys.resumed(client.ticket)
        master = self._keys.find(client.random).get(MASTER) or resumed
        if master is None:
            return None, None
        self.master = master
        self._keys.remember(server.session_id, master)
        then_mac = server.encrypt_then_mac
        ciphers: Iterable[Cipher] = (
            master_cipher(suite, each, then_mac)
            for each in keys_of_master(master, client.random, server.random, suite)
        )
        mine, others = (Side([cipher]) for cipher in ciphers)
        return mine, others

    # --- by trial ---

    def by_trial(
        self, direction: int, record: Record, labels: Sequence[int], before: int, is_last: bool
    ) -> Side | None:
        """Return the side of *direction* if *record* or an earlier one shows its key; else None.

        *labels* say whose secrets are tried: the client's (TO_SERVER), the server's; `label` is the one that
        fits. *before* other records of this direction wait; the side begins with the first of them. One
        record alone may be of TLS 1.2, which costs the whole search: it is tried if it *is_last*.
        """
        waiting, begun = self._waiting[direction], self._begun[direction]
        if record.kind == APPLICATION and record is not self._latest[direction]:
            self._latest[direction] = record
            waiting.append((record, before))
            begun.append(record.body[:8])
        if _counts(begun):
            self.reason = f"tls 1.2: {self._began}"
            return None
        is_known = bool(self._known_random())
        if len(begun) < 2 and not is_known and not is_last:
            return None
        if self._keys.left < 0:
            self.reason = self._given_up
            return None
        most = _MOST_PROBES_OF_ONE if is_known else _MOST_PROBES
        while waiting and self._probes[direction] < most:
            self._probes[direction] += 1
            side = self._try(*waiting.pop(0), labels)
            if side is not None or self.reason:
                return side
        if self._probes[direction] >= most:
            self.reason = self.why()
        return None

    def _try(self, record: Record, before: int, labels: Sequence[int]) -> Side | None:
        """Return the side if a secret of *labels* opens *record*, with any of its numbers."""
        keys = self._keys
        for label in labels:
            for random, secret, suite, firsts in _order([*self._candidates(TRAFFIC_SECRETS[label])]):
                cipher = traffic_cipher(suite, keys_of_traffic(secret, suite))
                is_chacha = suite.cipher == CHACHA
                count = _CHACHA_NUMBERS if is_chacha and not keys.has_chacha else NUMBERS
                for first in firsts:
                    keys.left -= count * (_CHACHA_COST if is_chacha else 1)
                    if keys.left < 0:
                        self.reason = self._given_up
                        return None
                    number = cipher.find(record, first, count)
                    if number is not None:
                        keys.find(random)
                        self.random, self.is_1_3, self.label = random, True, label
                        return Side([cipher], (suite, secret), max(0, number - before))
        return None

    def _known_random(self) -> bytes:
        client = self._greeting.client
        return self.random or (client.random if client is not None else b"")

    def _candidates(self, label: str) -> Iterator[tuple[bytes, bytes]]:
        random = self._known_random()
        if not random:
            yield from self._keys.unclaimed(label)
            return
        secret = self._keys.find(random).get(label)
        if secret is not None:
            yield random, secret

    def why(self) -> str:
        """Return why it is not opened, as far as it is known now."""
        if self.reason or self._greeting.client is not None:
            return self.reason or NO_KEY
        return f"tls: {self._began}, and no key fits"


def _order(
    secrets: Sequence[tuple[bytes, bytes]],
) -> Iterator[tuple[bytes, bytes, Suite, range]]:
    """Yield (client random, secret, suite, first record numbers) of what is tried, the likely ones first."""
    for firsts in (_SHALLOW, _DEEP):
        for random, secret in secrets:
            for suite in OF_SECRET[len(secret)]:
                if firsts is _SHALLOW or suite.cipher != CHACHA:
                    yield random, secret, suite, firsts


def _counts(beginnings: Sequence[bytes]) -> bool:
    """Return whether records begin with a number that counts: the nonce of TLS 1.2 with AES-GCM."""
    numbers = [int.from_bytes(each, "big") for each in beginnings if len(each) == 8]
    return any(0 < b - a <= 64 for a, b in pairwise(numbers))
