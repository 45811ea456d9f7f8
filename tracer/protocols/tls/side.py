"""One direction of a TLS connection while it is opened: which key, and which record number.

A record is tried with the current key and the next number; then with the keys that may follow (the traffic
secret behind the handshake, a KeyUpdate), from their first number on. Behind a hole, numbers are tried one
after the other: only the right one fits the tag.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tracer.protocols.tls.ciphers import Cipher, traffic_cipher
from tracer.protocols.tls.records import HEAD_BYTES, Missing, Record
from tracer.protocols.tls.schedule import keys_of_traffic, next_traffic
from tracer.protocols.tls.suites import Suite

__all__ = ["Epoch", "Side"]

Epoch = Callable[[], Cipher]
"""Makes the cipher of a key that may follow."""

_MOST_NUMBERS = 2048
"""Record numbers that are tried behind one hole."""
_MOST_TRIES = 100_000
"""Record numbers that are tried in one direction in all: damage must not take all the time."""
_MOST_FAILURES = 32
"""So many records in a row that no key opens: the direction is given up."""
_LEAST_BYTES = HEAD_BYTES + 17
"""Of the shortest record: its type and a tag."""


class Side:
    """Opens the records of one direction.

    *ciphers* follow each other; *traffic* is (suite, secret) of the last of them in TLS 1.3, which a
    KeyUpdate replaces. *number* is that of the first record.
    """

    def __init__(
        self, ciphers: Sequence[Cipher], traffic: tuple[Suite, bytes] | None = None, number: int = 0
    ) -> None:
        self._ciphers = list(ciphers)
        self._traffic = traffic
        self._number = number
        self._lost = 0
        """So many records may be missing, beside those that were counted."""
        self._failures = 0
        self._tries = 0
        self.epoch = 0
        """How many keys came before the current one."""

    @property
    def is_lost(self) -> bool:
        """Whether no key has opened any of many records."""
        return self._failures > _MOST_FAILURES

    def open(self, record: Record) -> tuple[int, bytes] | None:
        """Return (ContentType, content) of *record*; None if no key opens it."""
        found = self._ciphers[0].open(self._number, record)
        if found is not None:
            self._number += 1
            self._lost = self._failures = 0
            return found
        if not self.is_lost:
            found = self._search(record)
        if found is None:
            # It is taken for one of this key, damaged.
            self._number += 1
            self._failures += 1
            self._lost = min(self._lost + 1, _MOST_NUMBERS)
        return found

    def miss(self, missing: Missing) -> None:
        """Count the records that are missing."""
        if missing.kind:
            self._number += 1
            self._lost = min(self._lost + 1, _MOST_NUMBERS)
        else:
            most = missing.size_bytes // _LEAST_BYTES + 2 if missing.size_bytes else _MOST_NUMBERS
            self._lost = min(self._lost + most, _MOST_NUMBERS)

    def advance(self) -> None:
        """Go on with the next key: the handshake is finished, or the key was updated."""
        if self._more():
            self._use(1, 0)

    def size_bytes(self, missing: Missing) -> int:
        """Return the length of the content of the one record that is missing; 0 if it is not sure."""
        return self._ciphers[0].size_bytes(missing.size_bytes) if missing.kind else 0

    def size_of(self, record: Record) -> int:
        """Return the length of the content of a *record* that no key opens; 0 if it is not sure."""
        return self._ciphers[0].size_bytes(len(record.body))

    def _search(self, record: Record) -> tuple[int, bytes] | None:
        """Try what may follow; without a hole, the next keys alone."""
        # Those that failed were counted as if they were of this key.
        since = self._number - self._failures
        for ahead in range(self._lost + 1):
            if self._tries > _MOST_TRIES:
                return None
            for skipped in range(3):
                if skipped and not self._more(skipped):
                    break
                number = ahead if skipped else since + ahead
                self._tries += 1
                found = self._ciphers[skipped].open(number, record)
                if found is not None:
                    self._use(skipped, number + 1)
                    self._lost = self._failures = 0
                    return found
        return None

    def _use(self, skipped: int, number: int) -> None:
        del self._ciphers[:skipped]
        self.epoch += skipped
        self._number = number

    def _more(self, ahead: int = 1) -> bool:
        """Return whether there is a key so many ahead; make it if it follows from the traffic secret."""
        if len(self._ciphers) > ahead:
            return True
        if self._traffic is None:
            return False
        suite, secret = self._traffic
        secret = next_traffic(secret, suite)
        self._traffic = suite, secret
        self._ciphers.append(traffic_cipher(suite, keys_of_traffic(secret, suite)))
        return True
