"""The ciphers of records. This is the one module that needs the library `cryptography` (extra `tls`).

A cipher opens a record if key and number are right: the tag, or the MAC, proves it. Nothing is returned that
is not proved.

Source: RFC 8446 §5.2 to §5.4; RFC 5246 §6.2.3; RFC 5288 §3 (GCM), RFC 6655 §3 (CCM), RFC 7905 §2 (ChaCha20),
RFC 7366 §3 (Encrypt-then-MAC); counter blocks of GCM: NIST SP 800-38D §7.1.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Iterable, Iterator
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher as BlockCipher
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC as CBC_MODE
from cryptography.hazmat.primitives.ciphers.modes import ECB

from tracer.protocols.tls.records import APPLICATION, Record
from tracer.protocols.tls.schedule import Keys
from tracer.protocols.tls.suites import CBC, CCM, CHACHA, GCM, Suite

__all__ = ["NUMBERS", "Cipher", "TrafficCipher", "master_cipher", "traffic_cipher"]

NUMBERS = 4096
"""Record numbers that are tried at once; the first one is a multiple of it."""
_BLOCK = 16
_AAD_1_2 = struct.Struct(">QBHH")
_AAD_1_3 = struct.Struct(">BHH")


class Cipher(Protocol):
    """Opens the records of one direction and one key."""

    def open(self, number: int, record: Record) -> tuple[int, bytes] | None:
        """Return (ContentType, content) of *record*, the one with this *number*; None if it is not."""

    def size_bytes(self, body_bytes: int) -> int:
        """Return the length of the content of a record whose body has *body_bytes*; 0 if it is not sure."""


def _aead(suite: Suite, key: bytes) -> AESGCM | AESCCM | ChaCha20Poly1305:
    if suite.cipher == GCM:
        return AESGCM(key)
    if suite.cipher == CCM:
        return AESCCM(key, tag_length=suite.tag_bytes)
    return ChaCha20Poly1305(key)


# --- TLS 1.3 --------------------------------------------------------------------------------------


class TrafficCipher:
    """The AEAD of a traffic secret of TLS 1.3."""

    def __init__(self, suite: Suite, keys: Keys) -> None:
        self._aead = _aead(suite, keys.key)
        self._iv = int.from_bytes(keys.iv, "big")
        self._tag_bytes = suite.tag_bytes
        self._padded = False
        self._keys, self._suite = keys, suite

    def open(self, number: int, record: Record) -> tuple[int, bytes] | None:
        """Return (ContentType, content); the type stands behind the content and before the padding."""
        nonce = (self._iv ^ number).to_bytes(12, "big")
        head = _AAD_1_3.pack(record.kind, record.version, len(record.body))
        try:
            inner = self._aead.decrypt(nonce, record.body, head)
        except (InvalidTag, ValueError):
            return None
        content = inner.rstrip(b"\0")
        if not content:
            return None
        self._padded = self._padded or len(content) < len(inner)
        return content[-1], content[:-1]

    def size_bytes(self, body_bytes: int) -> int:
        """Return the length of the content, unless this end pads its records."""
        return 0 if self._padded else max(0, body_bytes - self._tag_bytes - 1)

    def find(self, record: Record, first: int, count: int) -> int | None:
        """Return the number of *record*, application data, among *count* from *first* on; None without.

        With AES-GCM the last byte of the content decides first, which is its type: the key stream of
        thousands of numbers is made at once. The tag proves what is left.
        """
        numbers: Iterable[int] = range(first, first + count)
        if self._suite.cipher == GCM:
            numbers = self._likely(record, first)
        return next((number for number in numbers if self.open(number, record) is not None), None)

    def _likely(self, record: Record, first: int) -> Iterator[int]:
        at = len(record.body) - self._tag_bytes - 1
        if at < 0:
            return
        # A counter block is the nonce and the block's number. The nonces of these numbers differ in their
        # last 12 bits only, which take all values: in this order they are the same for each secret.
        nonce = self._iv ^ first
        last = nonce & (NUMBERS - 1)
        beginning = (nonce ^ last).to_bytes(12, "big")
        blocks = bytearray((beginning + (2 + at // _BLOCK).to_bytes(4, "big")) * NUMBERS)
        blocks[10::_BLOCK] = _HIGH[beginning[10]]
        blocks[11::_BLOCK] = _LOW
        # Counter mode, of many counters at once.
        encryptor = BlockCipher(AES(self._keys.key), ECB()).encryptor()  # noqa: S305
        column = encryptor.update(blocks)[at % _BLOCK :: _BLOCK]
        wanted = bytes((record.body[at] ^ APPLICATION,))
        found = column.find(wanted)
        while found >= 0:
            yield first + (found ^ last)
            found = column.find(wanted, found + 1)


_LOW = bytes(value & 0xFF for value in range(NUMBERS))
_HIGH = {high: bytes(high | value >> 8 for value in range(NUMBERS)) for high in range(0, 256, 16)}
"""The last two bytes of `NUMBERS` nonces, by the upper half of the first of them."""


# --- TLS 1.2 --------------------------------------------------------------------------------------


class _Aead:
    """An AEAD of TLS 1.2: with a part of the nonce in the record, or without (ChaCha20)."""

    def __init__(self, suite: Suite, keys: Keys) -> None:
        self._aead = _aead(suite, keys.key)
        self._iv = keys.iv
        self._explicit_bytes = 0 if suite.cipher == CHACHA else 8
        self._around_bytes = self._explicit_bytes + suite.tag_bytes

    def open(self, number: int, record: Record) -> tuple[int, bytes] | None:
        body, size = record.body, len(record.body) - self._around_bytes
        if size < 0:
            return None
        if self._explicit_bytes:
            nonce, body = self._iv + body[:8], body[8:]
        else:
            nonce = (int.from_bytes(self._iv, "big") ^ number).to_bytes(12, "big")
        try:
            content = self._aead.decrypt(
                nonce, body, _AAD_1_2.pack(number, record.kind, record.version, size)
            )
        except InvalidTag:
            return None
        return record.kind, content

    def size_bytes(self, body_bytes: int) -> int:
        return max(0, body_bytes - self._around_bytes)


class _Cbc:
    """CBC with a MAC of the content, or (*then_mac*) of what is encrypted."""

    def __init__(self, suite: Suite, keys: Keys, then_mac: bool) -> None:
        self._aes = AES(keys.key)
        self._mac_key, self._hash = keys.mac, suite.mac
        self._mac_bytes = hashlib.new(suite.mac).digest_size
        self._then_mac = then_mac

    def open(self, number: int, record: Record) -> tuple[int, bytes] | None:
        body = record.body
        if self._then_mac:
            body, mac = body[: -self._mac_bytes], body[-self._mac_bytes :]
            if not self._is_mac(mac, number, record, body):
                return None
        if len(body) < 2 * _BLOCK or len(body) % _BLOCK:
            return None
        plain = self._decrypt(body)
        padding = plain[-1] + 1
        end = len(plain) - padding - (0 if self._then_mac else self._mac_bytes)
        if end < 0 or plain[-padding:] != plain[-1:] * padding:
            return None
        content = plain[:end]
        if not self._then_mac and not self._is_mac(plain[end:-padding], number, record, content):
            return None
        return record.kind, content

    def _decrypt(self, body: bytes) -> bytes:
        decryptor = BlockCipher(self._aes, CBC_MODE(body[:_BLOCK])).decryptor()
        return decryptor.update(body[_BLOCK:]) + decryptor.finalize()

    def _is_mac(self, mac: bytes, number: int, record: Record, of: bytes) -> bool:
        head = _AAD_1_2.pack(number, record.kind, record.version, len(of))
        return hmac.compare_digest(mac, hmac.digest(self._mac_key, head + of, self._hash))

    def size_bytes(self, body_bytes: int) -> int:
        return 0


# --- choosing -------------------------------------------------------------------------------------


def traffic_cipher(suite: Suite, keys: Keys) -> TrafficCipher:
    """Return the cipher of a traffic secret's *keys* (TLS 1.3)."""
    return TrafficCipher(suite, keys)


def master_cipher(suite: Suite, keys: Keys, then_mac: bool) -> Cipher:
    """Return the cipher of one direction's *keys* (TLS 1.2)."""
    return _Cbc(suite, keys, then_mac) if suite.cipher == CBC else _Aead(suite, keys)
