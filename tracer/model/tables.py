"""Tables of a bounded size: no traffic, however strange, fills the memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from typing import Any

from tracer.model.calls import Call

__all__ = ["forget", "trim"]


def trim(table: OrderedDict[Any, Any], most: int) -> None:
    """Drop the oldest entries of *table* beyond *most*.

    An OrderedDict finds its oldest entry at once; a dict looks through those that were deleted before it.
    """
    while len(table) > most:
        table.popitem(last=False)


def forget(table: OrderedDict[Any, Call], before_ns: int, kept: Collection[int] = ()) -> None:
    """Drop the calls that began before *before_ns*, except those with the serials *kept*.

    The table is in order of age, so the first young call ends the search.
    """
    old = []
    for key, call in table.items():
        if call.started_ns >= before_ns:
            break
        if call.serial not in kept:
            old.append(key)
    for key in old:
        del table[key]
