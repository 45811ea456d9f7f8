"""What a terminal's pattern says, and the private part of `re` that tells it."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from re import _parser  # type: ignore[attr-defined]

import pytest

from tracer.grammar import load
from tracer.grammar.patterns import Leg, endless_part, example_of, expected_of, legs_of

PATTERN = r"Internal_base RPC (?:nova\-api|nova\-conductor) > db (?:GET|PUT) /x\S+( y)? (?:ok|\?)"


def test_python_still_parses_patterns_as_we_read_them() -> None:
    """`re._parser` is private: when it goes or changes, tracer/grammar/patterns.py must change with it."""
    parsed = [(str(kind), value) for kind, value in _parser.parse("a[bc](d|e)?(?:f)*.")]
    kinds = [kind for kind, _ in parsed]
    assert kinds == ["LITERAL", "IN", "MAX_REPEAT", "MAX_REPEAT", "ANY"]
    assert parsed[0][1] == ord("a")
    assert [(str(kind), value) for kind, value in parsed[1][1]] == [
        ("LITERAL", ord("b")),
        ("LITERAL", ord("c")),
    ]
    least, most, inner = parsed[2][1]
    assert (least, most, str(inner[0][0])) == (0, 1, "SUBPATTERN")
    ((word, (_, choices)),) = _parser.parse("ab|cd")
    assert str(word) == "BRANCH"
    assert len(choices) == 2


def test_legs_are_written_out() -> None:
    assert legs_of(PATTERN) == (
        Leg("Internal_base", "RPC", "nova-api", "db"),
        Leg("Internal_base", "RPC", "nova-conductor", "db"),
    )


def test_the_plainest_line() -> None:
    """Of alternatives the first; `…` for what may be anything; what is optional is left out."""
    assert example_of(PATTERN) == "RPC nova-api > db GET /x…"
    assert expected_of(PATTERN) == "RPC nova-api > db GET /x… ok"


@pytest.mark.parametrize(
    "pattern, is_endless",
    [
        (r"(a+)+b", True),
        (r"(a*)*", True),
        (r"(\w+\s?)*$", True),
        (r"(\d{1,3})+y", True),
        (r"(a+|b)*c", True),
        (r"x(?:y(?:[a-z]*)+)z", True),
        (r"(.|a)*b", True),
        (r"(\/[^\/\s]+)*", False),
        (r"([a-z]+-)*x", False),
        (r"(foo|bar)+", False),
        (r"(a+){2}", False),
        (r"\S+ \S+(\.\d+)?", False),
    ],
)
def test_a_repetition_that_can_be_split_in_many_ways_is_endless(pattern: str, is_endless: bool) -> None:
    """Python's `re` tries all ways: 2**n of them for a path of n characters, which anyone may send."""
    assert (endless_part(pattern) is not None) is is_endless


@pytest.mark.parametrize(
    "pattern, is_endless",
    [
        (r"(\S+ )*(\S+ )*(\S+ )*x", True),
        (r"a.*b.*c.*d", True),
        (r".*.*.*x", True),
        (r"(.*a){3}", True),
        (r"[a-z]*[a-m]*[b-c]*!", True),
        (r"x(?:y|.*.*(z|.*))w", True),
        (r"(?:.*,)?(?:.*;)?.*", True),
        (r"[^ ]*/[^ ]*/[^ ]*/x", True),
        (r"a.*b.*c", False),
        (r"a.*quota.*exceeded.*d", False),
        (r"\S+ \S+ \S+ \S+ \S+", False),
        (r"[^/ ]*/[^/ ]*/[^/ ]*/[^/ ]*x", False),
        (r"\d+[a-z]+\d+[a-z]+\d+x", False),
        (r"(x|y)*z*(x|y)*", False),
        (r"a{1,9}b{1,9}a{1,9}b{1,9}", False),
    ],
)
def test_repetitions_in_a_row_that_can_share_a_text_are_endless_if_they_are_three(
    pattern: str, is_endless: bool
) -> None:
    """n**3 trials for n characters: minutes for 2,000 of them."""
    assert (endless_part(pattern) is not None) is is_endless


def test_a_line_of_any_length_is_matched_at_once() -> None:
    """Two repetitions take n**2 trials, and a path from outside may have a megabyte."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "slow.lark")
        path.write_text(
            """// Slow
%import common.NEWLINE
%ignore NEWLINE
start: step_1
begins: ASK
step_1: ASK  // ask
ASK: /Internal_base REST lb > nova-api POST .*a.*b 202/
"""
        )
        grammar = load(str(path))
    begun = time.process_time()
    assert not grammar.candidates(f"Internal_base REST lb > nova-api POST /{'a' * 1_000_000} 202")
    assert time.process_time() - begun < 1
    assert grammar.candidates("Internal_base REST lb > nova-api POST /a/b 202")
