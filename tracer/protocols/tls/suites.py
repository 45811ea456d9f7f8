"""The cipher suites that can be decrypted: their ciphers, keys and hashes.

The way in which the keys were agreed does not matter: the key log holds the secrets that follow from it.

Source: the IANA registry "TLS Cipher Suites"; RFC 8446 §B.4, RFC 5246 §A.5, RFC 5288, 5289, 5487, 6655, 7251,
7905, 8442.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["CBC", "CCM", "CHACHA", "GCM", "OF_SECRET", "SUITES", "Suite"]

GCM, CCM, CHACHA, CBC = "AES-GCM", "AES-CCM", "ChaCha20-Poly1305", "AES-CBC"


class Suite(NamedTuple):
    """What a suite means for records."""

    cipher: str
    key_bytes: int
    hash: str
    """Of the key schedule, as hashlib names it."""
    mac: str = ""
    """Of the records, with CBC."""
    tag_bytes: int = 16


_ROWS = (
    # TLS 1.3.
    (Suite(GCM, 16, "sha256"), "1301"),
    (Suite(GCM, 32, "sha384"), "1302"),
    (Suite(CHACHA, 32, "sha256"), "1303"),
    (Suite(CCM, 16, "sha256"), "1304"),
    (Suite(CCM, 16, "sha256", tag_bytes=8), "1305"),
    # TLS 1.2: RSA, DHE, ECDHE, static DH and ECDH, anonymous, PSK.
    (
        Suite(GCM, 16, "sha256"),
        "009C 009E 00A0 00A2 00A4 00A6 00A8 00AA 00AC C02B C02D C02F C031 D001",
    ),
    (
        Suite(GCM, 32, "sha384"),
        "009D 009F 00A1 00A3 00A5 00A7 00A9 00AB 00AD C02C C02E C030 C032 D002",
    ),
    (Suite(CHACHA, 32, "sha256"), "CCA8 CCA9 CCAA CCAB CCAC CCAD CCAE"),
    (Suite(CCM, 16, "sha256"), "C09C C09E C0A4 C0A6 C0AC D005"),
    (Suite(CCM, 32, "sha256"), "C09D C09F C0A5 C0A7 C0AD"),
    (Suite(CCM, 16, "sha256", tag_bytes=8), "C0A0 C0A2 C0A8 C0AA C0AE D003"),
    (Suite(CCM, 32, "sha256", tag_bytes=8), "C0A1 C0A3 C0A9 C0AB C0AF"),
    (
        Suite(CBC, 16, "sha256", "sha1"),
        "002F 0030 0031 0032 0033 0034 008C 0090 0094 C004 C009 C00E C013 C018 C035",
    ),
    (
        Suite(CBC, 32, "sha256", "sha1"),
        "0035 0036 0037 0038 0039 003A 008D 0091 0095 C005 C00A C00F C014 C019 C036",
    ),
    (
        Suite(CBC, 16, "sha256", "sha256"),
        "003C 003E 003F 0040 0067 006C 00AE 00B2 00B6 C023 C025 C027 C029 C037",
    ),
    (Suite(CBC, 32, "sha256", "sha256"), "003D 0068 0069 006A 006B 006D"),
    (Suite(CBC, 32, "sha384", "sha384"), "00AF 00B3 00B7 C024 C026 C028 C02A C038"),
)

SUITES = {int(number, 16): suite for suite, numbers in _ROWS for number in numbers.split()}
"""Number of a suite -> what it means."""
OF_SECRET = {32: (SUITES[0x1301], SUITES[0x1303]), 48: (SUITES[0x1302],)}
"""Length of a traffic secret of TLS 1.3 -> the suites that it may be of; those with CCM are hardly used."""
