"""Wherever foreign bytes enter, mutated ones raise nothing. `benchmarks/fuzz.py` does more of it."""

from __future__ import annotations

import random
from contextlib import nullcontext

import pytest
from benchmarks import fuzz

EXECUTIONS = 200


@pytest.mark.parametrize("name", [name for name in fuzz.ENTRIES if name != "stages"])
def test_nothing_is_raised(name: str) -> None:
    count = max(3, int(EXECUTIONS * min(1.0, fuzz.ENTRIES[name].weight)))
    assert [(found.error, [part.hex() for part in found.parts]) for found in fuzz.fuzz(name, count, 1)] == []


@pytest.mark.parametrize("name", list(fuzz.ENTRIES))
def test_what_is_mutated_is_valid(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the fuzzer would see no more than the first check of an entry."""
    monkeypatch.setattr(fuzz, "suppress", lambda *kinds: nullcontext())
    entry = fuzz.ENTRIES[name]
    assert fuzz.failure(entry.run, entry.seeds()[0]) == ""


def test_a_finding_is_made_small_and_told_once() -> None:
    def takes(parts: list[bytes]) -> None:
        if any(b"7" in part for part in parts):
            raise ValueError("seven")

    parts = [b"some", b"other 1234567890 text", b"parts"]
    error = fuzz.failure(takes, parts)
    assert error.startswith("ValueError at test_fuzz.py:")
    assert fuzz.minimised(takes, parts, error) == [b"7"]


def test_mutations_follow_the_seed() -> None:
    parts = [b"GET / HTTP/1.1\r\n\r\n", b"\x01abc"]
    made = [
        [fuzz.mutated(parts, chance) for _ in range(50)] for chance in (random.Random(1), random.Random(1))
    ]
    assert made[0] == made[1]
    assert len({tuple(one) for one in made[0]}) > 40
