"""What a URL path says: the operation of a canonical line, and the ids in it."""

from __future__ import annotations

import re
from functools import lru_cache

from tracer.openstack import rest

__all__ = ["UUID", "operation_path", "split_target", "uuids"]

UUID = re.compile(rest.UUID)
"""As OpenStack writes them: lower case, with dashes."""

_ID = re.compile(rest.ID, re.VERBOSE)
_HOLDS_IDS, _WORDS = rest.HOLDS_IDS, rest.ID_WORDS


def split_target(target: str) -> tuple[str, str]:
    """Return path and query of a request target in origin or absolute form (RFC 9112 §3.2)."""
    if "://" in target[:10]:
        rest = target.partition("://")[2]
        target = "/" + rest.partition("/")[2]
    path, _, query = target.partition("?")
    return path, query


@lru_cache(maxsize=4096)
def operation_path(path: str) -> str:
    """Return *path* with `{id}` in the place of ids.

    >>> operation_path("/v3/e114495f4b7d49c18a052454413cd3db/attachments")
    '/v3/{id}/attachments'
    """
    parts = path.split("/")
    for i, part in enumerate(parts):
        if (
            part
            and not part.isalpha()
            and (
                _ID.fullmatch(part)
                or (
                    i and parts[i - 1] in _HOLDS_IDS and part not in _WORDS and any(c.isdigit() for c in part)
                )
            )
        ):
            parts[i] = "{id}"
    return "/".join(parts)


def uuids(text: str, limit: int = 64) -> tuple[str, ...]:
    """Return the different UUIDs in *text*, in order, at most *limit*."""
    found: dict[str, None] = {}
    # From dash to dash: the expression alone would try each character of a body or statement.
    at = text.find("-", 8)
    while at >= 0:
        candidate = text[at - 8 : at + 28]
        if UUID.fullmatch(candidate):
            found[candidate] = None
            if len(found) >= limit:
                break
            at += 35
        at = text.find("-", at + 1)
    return tuple(found)
