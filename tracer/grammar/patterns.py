"""The legs that a terminal's pattern can match: plane, protocol, caller and callee."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from re import _parser  # how Python itself reads a pattern
from typing import Any, NamedTuple

__all__ = ["Leg", "LinePattern", "endless_part", "example_of", "expected_of", "holds_text", "legs_of"]

_RESULTS = re.compile(r" (?:\(\?:|\()?([^() ]+)\)*$")
_NOT_EXPECTED = frozenset({"?", "undelivered", "unacked", "none"})
"""Results with which a step counts as seen, but which a report must not name as the expected ones."""


_REPEATS = frozenset(("MAX_REPEAT", "MIN_REPEAT"))
_SAMPLE = frozenset(map(chr, range(0x20, 0x7F))) | {"\t", "é"}
"""Characters that stand for all: each class of a pattern that matters differs in one of them."""
_MANY = 16
"""So many repetitions of what can be split in two ways take 2**16 trials."""


_SHARED = 2
"""So many repetitions in a row may share a text: with a third, a line of 2,000 characters takes minutes."""


_WORD = 3
"""So many characters are a word."""


class Leg(NamedTuple):
    """Plane, protocol, caller and callee of a call; `*` stands for anything."""

    plane: str
    protocol: str
    caller: str
    callee: str


class LinePattern:
    """The regular expression of a terminal. It is compiled when a line is first compared with it.

    A run needs few of them: of two grammars one is chosen, and refusals are rare.
    """

    __slots__ = ("_fullmatch", "pattern")

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self._fullmatch: Callable[[str], re.Match[str] | None] | None = None

    def __reduce__(self) -> tuple[type[LinePattern], tuple[str]]:
        return LinePattern, (self.pattern,)

    def matches(self, line: str) -> bool:
        """Return whether the whole of *line* is such a line."""
        if self._fullmatch is None:
            self._fullmatch = re.compile(self.pattern).fullmatch
        return self._fullmatch(line) is not None


def legs_of(pattern: str) -> tuple[Leg, ...]:
    """Return the legs of a terminal's pattern, its simple alternatives written out, without repeats."""
    legs: dict[Leg, None] = {}
    for head in _heads(_parser.parse(pattern)):
        words = [("*" if "*" in word else word) for word in head.split(" ")]
        plane, protocol, caller, _, callee = (words + ["*"] * 5)[:5]
        legs[Leg(plane, protocol, caller, callee)] = None
    return tuple(legs)


def _heads(nodes: Any) -> list[str]:
    """Return all possible first five words of a parsed pattern; `*` for a part that is no plain text."""
    heads = [""]
    for kind, value in nodes:
        if min(head.count(" ") for head in heads) > 4:
            break  # all five words are complete
        endings = _texts(str(kind), value)
        joined = ((head + ending).split(" ") for head in heads for ending in endings)
        # Of a sixth word only its beginning is kept: the operations are many.
        heads = list(dict.fromkeys(" ".join((*words[:5], *[""][: len(words) - 5])) for words in joined))
        if len(heads) > 256:  # an arbitrary pattern and no list of alternatives: any leg may fit
            return ["*"]
    return heads


def _texts(kind: str, value: Any) -> list[str]:
    """Return all texts that one node of a parsed pattern can match, `*` where they cannot be listed."""
    if kind == "LITERAL":
        return [chr(value)]
    if kind == "SUBPATTERN":
        return _heads(value[-1])
    if kind == "BRANCH":
        return [text for branch in value[1] for text in _heads(branch)]
    if kind == "IN" and all(str(item[0]) == "LITERAL" for item in value):
        return [chr(item[1]) for item in value]
    if kind == "MAX_REPEAT" and value[:2] == (0, 1):
        return ["", *_heads(value[2])]
    if kind in ("AT", "ASSERT", "ASSERT_NOT"):
        return [""]
    return ["*"]


@lru_cache(maxsize=1024)
def example_of(pattern: str) -> str:
    """Return the plainest line that a terminal's pattern matches, without plane and result.

    As in `RPC nova-conductor > nova-scheduler call select_destinations`. Optional parts are left out, of
    alternatives the first is taken, and `…` stands for any text; but all callees are named that the same
    caller asks by the same protocol.
    """
    words = _plainest(_parser.parse(pattern)).split(" ")
    words = words[1:-1] if len(words) > 6 else words[1:]
    legs = legs_of(pattern)
    # Other callers and protocols are other calls: mixed with the first they would name one that is none.
    first = legs[0][1:3] if legs else ()
    callees = list(dict.fromkeys(leg.callee for leg in legs if leg[1:3] == first))
    if len(callees) > 1 and len(words) > 4:
        words[3:] = ["|".join(callees), words[4], "…"]
    return " ".join(words)


@lru_cache(maxsize=1024)
def expected_of(pattern: str) -> str:
    """Return `example_of` with the good results: `RPC nova-scheduler > nova-conductor reply … ok`."""
    found = _RESULTS.search(pattern)
    texts = found[1].split("|") if found else []
    results = [text.replace(r"\d", "x").replace("\\", "") for text in texts]
    good = [result for result in results if result not in _NOT_EXPECTED]
    if not good or not all(result.isalnum() for result in good):
        return example_of(pattern)
    return f"{example_of(pattern)} {'|'.join(good)}"


def _plainest(nodes: Any) -> str:
    """Return the plainest text that a parsed pattern matches."""
    text = ""
    for kind, value in nodes:
        name = str(kind)
        if name == "LITERAL":
            text += chr(value)
        elif name == "SUBPATTERN":
            text += _plainest(value[-1])
        elif name == "BRANCH":
            text += _plainest(value[1][0])
        elif name in ("MAX_REPEAT", "MIN_REPEAT"):
            least, _, what = value
            plain = _plainest(what)
            text += plain * min(least, 8)
        elif name == "IN" and str(value[0][0]) == "LITERAL":
            text += chr(value[0][1])
        elif name not in ("AT", "ASSERT", "ASSERT_NOT"):
            text += "…"
    return text.replace("……", "…")


# --- patterns that would take forever -------------------------------------------------------------


def endless_part(pattern: str) -> str | None:
    """Return, in words, why matching *pattern* may take far too long; None where nothing shows that.

    A repetition is safe if each turn of it begins or ends with a character that its own optional and repeated
    parts cannot take: then a text can be split into turns in one way only. Repetitions one after the other
    share a text in n**2 ways if they are two, and n**3 if they are three.
    """
    parsed = _parser.parse(pattern)
    found = _endless(parsed)
    if found is None and _shared(parsed, _NOTHING).most > _SHARED:
        found = f"more than {_SHARED} repetitions one after the other that can take the same characters"
    return found


def _endless(nodes: Any) -> str | None:
    for kind, value in nodes:
        name = str(kind)
        if name in _REPEATS:
            most, body = int(value[1]), value[2]
            if most > _MANY and _splits(body):
                return "a repetition within a repetition that can take the same characters"
            found = _endless(body)
        elif name == "BRANCH":
            found = next(filter(None, map(_endless, value[1])), None)
        elif name == "SUBPATTERN":
            found = _endless(value[-1])
        elif name in ("ASSERT", "ASSERT_NOT"):
            found = _endless(value[1])
        else:
            found = None
        if found is not None:
            return found
    return None


class _Row(NamedTuple):
    """Repetitions in a row that can share a text: each can take over what the ones beside it take."""

    often: int
    shared: frozenset[str]
    """What all of them can take."""
    between: tuple[frozenset[str], ...]
    """What stands behind the last one, and could be taken by it."""
    most: int
    """The longest row so far."""


_NOTHING = _Row(0, frozenset(), (), 0)


def _shared(nodes: Any, row: _Row) -> _Row:
    """Return the row of repetitions at the end of *nodes*, which come behind *row*."""
    for kind, value in _flat(nodes):
        name = str(kind)
        if name in _REPEATS and int(value[1]) > _MANY:
            row = _behind(row, _characters(value[2]))
            row = row._replace(most=max(row.most, _shared(value[2], _NOTHING).most))
        elif name in _REPEATS:
            # Optional, or some turns: each may hold repetitions.
            after = row
            for _ in range(min(int(value[1]), _SHARED + 1)):
                after = _shared(value[2], after)
            row = after if value[0] else max(row._replace(most=after.most), after, key=_length)
        elif name == "BRANCH":
            rows = [_shared(branch, row) for branch in value[1]]
            row = max(rows, key=_length)._replace(most=max(each.most for each in rows))
        elif name not in ("AT", "ASSERT", "ASSERT_NOT"):
            one = frozenset(_characters([(kind, value)]))
            row = (
                row._replace(between=(*row.between, one))
                if one & row.shared
                else _NOTHING._replace(most=row.most)
            )
    return row


def _behind(row: _Row, taken: set[str]) -> _Row:
    """Return *row* with a repetition that can take *taken* behind it."""
    kept = row.shared & taken
    # A word between them is not found in every place: there are few ways to share a text then.
    is_next = kept and len(row.between) < _WORD and all(one & kept for one in row.between)
    count, shared = (row.often + 1, kept) if is_next else (1, frozenset(taken))
    return _Row(count, shared, (), max(row.most, count))


def _length(row: _Row) -> int:
    return row.often


def _splits(body: Any) -> bool:
    """Return whether a text of several turns of *body* may be split into turns in more than one way."""
    parts = _flat(body)
    loose = _loose(parts)
    branches = [branch for kind, value in parts if str(kind) == "BRANCH" for branch in value[1]]
    firsts = [_characters(_flat(branch)[:1]) for branch in branches]
    if any(first & other for at, first in enumerate(firsts) for other in firsts[:at]):
        return True
    if not loose:
        return False
    ends = [part for part in (parts[0], parts[-1]) if str(part[0]) in ("LITERAL", "IN", "NOT_LITERAL")]
    return not any(loose.isdisjoint(_characters([part])) for part in ends)


def _loose(nodes: Any) -> set[str]:
    """Return the characters that the optional and repeated parts of *nodes* can take."""
    found: set[str] = set()
    for kind, value in _flat(nodes):
        if str(kind) in _REPEATS:
            found |= _characters(value[2]) if value[0] != value[1] else _loose(value[2])
        elif str(kind) == "BRANCH":
            found.update(*map(_loose, value[1]))
    return found


def _flat(nodes: Any) -> list[Any]:
    """Return the nodes with groups that stand once opened."""
    found: list[Any] = []
    for kind, value in nodes:
        found += _flat(value[-1]) if str(kind) == "SUBPATTERN" else [(kind, value)]
    return found


def _characters(nodes: Any) -> set[str]:
    """Return the characters of the sample that any part of *nodes* can take."""
    found: set[str] = set()
    for kind, value in nodes:
        name = str(kind)
        if name == "LITERAL":
            found.add(chr(value))
        elif name == "NOT_LITERAL":
            found |= _SAMPLE - {chr(value)}
        elif name == "IN":
            inside = set[str]().union(*(_class(str(item), what) for item, what in value))
            found |= _SAMPLE - inside if str(value[0][0]) == "NEGATE" else inside
        elif name in _REPEATS:
            found |= _characters(value[2])
        elif name == "BRANCH":
            found.update(*map(_characters, value[1]))
        elif name == "SUBPATTERN":
            found |= _characters(value[-1])
        elif name not in ("AT", "ASSERT", "ASSERT_NOT"):
            found |= _SAMPLE
    return found


_CLASSES = {"DIGIT": r"\d", "SPACE": r"\s", "WORD": r"\w"}


def _class(kind: str, value: Any) -> set[str]:
    """Return the characters of one item of a class."""
    if kind == "LITERAL":
        return {chr(value)}
    if kind == "RANGE":
        return {c for c in _SAMPLE if value[0] <= ord(c) <= value[1]}
    if kind != "CATEGORY":
        return set()
    name = str(value).removeprefix("CATEGORY_")
    inside = {c for c in _SAMPLE if re.match(_CLASSES.get(name.removeprefix("NOT_"), "."), c)}
    return set(_SAMPLE - inside) if name.startswith("NOT_") else inside


def holds_text(pattern: str, text: str) -> bool:
    """Return whether a line that *pattern* matches may hold *text*: some of its plainest lines are tried."""
    samples = [line for line in _samples(_parser.parse(pattern)) if re.fullmatch(pattern, line)]
    return not samples or any(text in line for line in samples)


_MOST_SAMPLES = 128
_ANY_TEXT = "x: x"
"""What stands for `.*`, which matches spaces as well."""


def _samples(nodes: Any) -> list[str]:
    """Return texts that a parsed pattern may match, with each of its alternatives."""
    samples = [""]
    for kind, value in nodes:
        endings = _spelt(str(kind), value)
        samples = [text + ending for text in samples for ending in endings][:_MOST_SAMPLES]
    return samples


def _spelt(kind: str, value: Any) -> list[str]:
    """Return texts that one node of a parsed pattern may match."""
    if kind == "LITERAL":
        return [chr(value)]
    if kind == "SUBPATTERN":
        return _samples(value[-1])
    if kind == "BRANCH":
        return [text for branch in value[1] for text in _samples(branch)]
    if kind in ("MAX_REPEAT", "MIN_REPEAT"):
        least, _, what = value
        if [str(inner) for inner, _ in what] == ["ANY"]:
            return [_ANY_TEXT]
        repeated = [text * max(1, min(least, 8)) for text in _samples(what)]
        return repeated if least else ["", *repeated]
    if kind in ("AT", "ASSERT", "ASSERT_NOT"):
        return [""]
    if kind == "IN":
        first, inner = str(value[0][0]), value[0][1]
        if first == "LITERAL":
            return [chr(inner)]
        if first == "RANGE":
            return [chr(inner[0])]
        return ["0" if "DIGIT" in str(inner) and "NOT" not in str(inner) else "x"]
    return ["x"]
