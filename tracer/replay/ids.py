"""Maps recorded ids and tokens to live ones.

Pairs are learnt by comparing a live answer with the recorded one: values at the same place that differ are
taken for the same object's ids. The same place is the same path in JSON, and the same segment in a URL.
Members of lists are paired by name if they have unique names, else by position.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from tracer.model.tables import trim

__all__ = ["Ids", "candidates", "ids_of_answer"]

MOST = 100_000
"""Most ids that are kept; the oldest are dropped first."""
DEEPEST = 64
_UUID = r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
_ID = re.compile(rf"{_UUID}|[0-9a-fA-F]{{32}}")
_WORD = re.compile(r"[A-Za-z0-9_~\-]{4,}(?:\.[A-Za-z0-9_~\-]+)*={0,2}")
_FOUND = re.compile(rf"{_UUID}|(?<![0-9A-Za-z])[0-9a-fA-F]{{32}}(?![0-9A-Za-z])")
_ID_NAME = re.compile(r"(?:^|[a-z_\-])(?:id|uuid|urn)$", re.IGNORECASE)
_TIMES = re.compile(r"\d{4}-\d\d-\d\d[T ]")


def candidates(text: str) -> set[str]:
    """Return all words in *text* that may be an id or a token."""
    return {found[0] for found in _WORD.finditer(text)} | {found[0] for found in _FOUND.finditer(text)}


def ids_of_answer(body: bytes, location: str, token: str) -> set[str]:
    """Return the ids and tokens of a recorded answer, for which the live answer may hold others."""
    found = {token} if token else set()
    with suppress(ValueError, RecursionError):
        found.update(_ids(json.loads(body), "", 0))
    found.update(_segments(location))
    return found


class Ids:
    """The mapping of recorded ids to live ids."""

    def __init__(self) -> None:
        self._live: OrderedDict[str, str] = OrderedDict()
        self.learnt = 0

    def __len__(self) -> int:
        return len(self._live)

    def learn(self, recorded: str, live: str) -> None:
        """Map *recorded* to *live*. The first mapping stays: an object is created before it is listed."""
        if recorded == live or not recorded or not live or recorded in self._live:
            return
        self._put(recorded, live)
        self.learnt += 1
        if "-" in recorded and _ID.fullmatch(recorded) and _ID.fullmatch(live):
            # Some services write the same UUID without dashes.
            self._put(recorded.replace("-", ""), live.replace("-", ""))

    def _put(self, recorded: str, live: str) -> None:
        self._live.setdefault(recorded, live)
        trim(self._live, MOST)

    def learn_json(self, recorded: bytes, live: bytes) -> None:
        """Learn from two bodies; bodies that are not JSON are ignored."""
        try:
            ours, theirs = json.loads(recorded), json.loads(live)
        except (ValueError, RecursionError):
            return
        for its, other in _pairs(ours, theirs, "", 0):
            self.learn(its, other)

    def learn_url(self, recorded: str, live: str) -> None:
        """Learn from two URLs."""
        for its, other in _url_pairs(recorded, live):
            self.learn(its, other)

    def mapped(self, text: str) -> str:
        """Return *text* with every known recorded id replaced by its live id."""
        live = self._live
        if not live:
            return text

        def inner(found: re.Match[str]) -> str:
            return live.get(found[0], found[0])

        def outer(found: re.Match[str]) -> str:
            # The whole word first, which may be a token; then the ids inside it.
            word = found[0]
            known = live.get(word)
            return known if known is not None else _FOUND.sub(inner, word)

        return _WORD.sub(outer, text)


def _pairs(ours: Any, theirs: Any, name: str, depth: int) -> Iterator[tuple[str, str]]:
    """Yield the ids at the same places of two JSON values; *name* is the key that holds the value."""
    # Answers come from a live system, but the nesting of a recorded one may be anything.
    if depth > DEEPEST:
        return
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            if key in theirs:
                yield from _pairs(value, theirs[key], key, depth + 1)
    elif isinstance(ours, list) and isinstance(theirs, list):
        for one, other in _paired(ours, theirs):
            yield from _pairs(one, other, name, depth + 1)
    elif isinstance(ours, str) and isinstance(theirs, str) and ours != theirs:
        if "/" in ours:
            yield from _url_pairs(ours, theirs)
        elif _ID.fullmatch(ours) or (_ID_NAME.search(name) and not _TIMES.match(ours)):
            yield ours, theirs


def _ids(value: Any, name: str, depth: int) -> Iterator[str]:
    """Yield the recorded ids that `_pairs` could yield for *value*."""
    if depth > DEEPEST:
        return
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _ids(inner, key, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _ids(inner, name, depth + 1)
    elif isinstance(value, str):
        if "/" in value:
            yield from _segments(value)
        elif _ID.fullmatch(value) or (_ID_NAME.search(name) and not _TIMES.match(value)):
            yield value


def _segments(url: str) -> list[str]:
    found = re.split(r"[/?&=]", url)
    return [each for each in found if _ID.fullmatch(each)] + [each for each in found[-1:] if len(each) >= 4]


def _paired(ours: list[Any], theirs: list[Any]) -> list[tuple[Any, Any]]:
    """Return the pairs of members of two lists that describe the same object."""
    one, other = _by_name(ours), _by_name(theirs)
    pairs = []
    if one is not None and other is not None:
        pairs = [(value, other[name]) for name, value in one.items() if name in other]
        # The rest, whose names differ too, is paired by position.
        ours = [value for name, value in one.items() if name not in other]
        theirs = [value for name, value in other.items() if name not in one]
    return pairs + (list(zip(ours, theirs, strict=True)) if len(ours) == len(theirs) else [])


def _by_name(members: list[Any]) -> dict[str, Any] | None:
    """Return name -> member of a list; None unless each member has a unique name."""
    for key in ("name", "rel"):
        names = [each.get(key) if isinstance(each, dict) else None for each in members]
        named = {name: each for name, each in zip(names, members, strict=True) if isinstance(name, str)}
        if len(named) == len(members):
            return named
    return None


def _url_pairs(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    """Yield ids at the same places of two URLs; *ours* and *theirs* may be paths."""
    # Without scheme and host: these differ between the recorded and the live system.
    one, other = (re.sub(r"^[A-Za-z][A-Za-z0-9+.\-]*://[^/]*", "", url) for url in (ours, theirs))
    segments = [re.split(r"[/?&=]", each) for each in (one, other)]
    if len(segments[0]) != len(segments[1]):
        return
    different = [(a, b) for a, b in zip(*segments, strict=True) if a != b]
    for a, b in different:
        # If only one segment differs, it is an id even if it does not look like one.
        if _ID.fullmatch(a) or (len(different) == 1 and len(segments[0]) > 2 and len(a) >= 4):
            yield a, b
