"""What is found in paths and texts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tracer.calls.paths import UUID, uuids

PIECES = st.sampled_from(
    [
        "0123abcd-0123-4567-89ab-0123456789ab",
        "ffffffff-",
        "0123-",
        "-",
        "--",
        "a",
        "0123456789ab",
        " ",
        "é",
        "G",
    ]
)


@given(st.lists(PIECES, max_size=30).map("".join), st.integers(1, 4))
def test_uuids_are_those_of_the_expression(text: str, limit: int) -> None:
    """Found from dash to dash: the same, in the same order, as by trying every place."""
    expected = dict.fromkeys(found.group() for found in UUID.finditer(text))
    assert uuids(text, limit) == tuple(expected)[:limit]
