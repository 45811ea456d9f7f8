"""From the secrets of a key log to the keys of records. The hashes are Python's own.

Source: RFC 8446 §7.1 to §7.3; RFC 5246 §5, §6.3.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import NamedTuple

from tracer.protocols.tls.suites import CBC, CHACHA, Suite

__all__ = ["Keys", "keys_of_master", "keys_of_traffic", "next_traffic"]


class Keys(NamedTuple):
    """The keys of one direction."""

    mac: bytes
    """Empty but for CBC."""
    key: bytes
    iv: bytes
    """TLS 1.2: its fixed part."""

    def __repr__(self) -> str:
        return "Keys()"  # a traceback can print any value


# --- TLS 1.3 --------------------------------------------------------------------------------------


def _expand_label(secret: bytes, label: bytes, size: int, hash_name: str) -> bytes:
    """Return HKDF-Expand-Label with an empty context; *size* is at most the hash's length."""
    label = b"tls13 " + label
    info = size.to_bytes(2, "big") + bytes((len(label),)) + label + b"\0"
    # HKDF-Expand (RFC 5869 §2.3), of which one round is enough.
    return hmac.digest(secret, info + b"\x01", hash_name)[:size]


def keys_of_traffic(secret: bytes, suite: Suite) -> Keys:
    """Return the keys of a traffic secret of TLS 1.3."""
    key = _expand_label(secret, b"key", suite.key_bytes, suite.hash)
    return Keys(b"", key, _expand_label(secret, b"iv", 12, suite.hash))


def next_traffic(secret: bytes, suite: Suite) -> bytes:
    """Return the traffic secret behind a KeyUpdate."""
    return _expand_label(secret, b"traffic upd", len(secret), suite.hash)


# --- TLS 1.2 --------------------------------------------------------------------------------------


def _prf(secret: bytes, seed: bytes, size: int, hash_name: str) -> bytes:
    """Return P_hash(*secret*, *seed*); *seed* begins with the label."""
    found, a = b"", seed
    while len(found) < size:
        a = hmac.digest(secret, a, hash_name)
        found += hmac.digest(secret, a + seed, hash_name)
    return found[:size]


def keys_of_master(
    master: bytes, client_random: bytes, server_random: bytes, suite: Suite
) -> tuple[Keys, Keys]:
    """Return the client's and the server's keys of a master secret of TLS 1.2."""
    mac_bytes = hashlib.new(suite.mac).digest_size if suite.mac else 0
    iv_bytes = {CBC: 0, CHACHA: 12}.get(suite.cipher, 4)
    size = 2 * (mac_bytes + suite.key_bytes + iv_bytes)
    block = _prf(master, b"key expansion" + server_random + client_random, size, suite.hash)
    parts, at = [], 0
    for part_bytes in (mac_bytes, mac_bytes, suite.key_bytes, suite.key_bytes, iv_bytes, iv_bytes):
        parts.append(block[at : at + part_bytes])
        at += part_bytes
    return Keys(*parts[::2]), Keys(*parts[1::2])
