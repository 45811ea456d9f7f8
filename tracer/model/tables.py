"""Tables of a bounded size: no traffic, however strange, fills the memory."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

__all__ = ["trim"]


def trim(table: OrderedDict[Any, Any], most: int) -> None:
    """Drop the oldest entries of *table* beyond *most*.

    An OrderedDict finds its oldest entry at once; a dict looks through those that were deleted before it.
    """
    while len(table) > most:
        table.popitem(last=False)
