"""URL paths: the operation of a canonical line, and the ids in a path."""

from __future__ import annotations

import re
from functools import lru_cache

from tracer.openstack import rest

__all__ = ["UUID", "operation_path", "split_target", "uuids"]

UUID = re.compile(rest.UUID)
"""A UUID as OpenStack writes it: lower case, with dashes."""

_ID = re.compile(rest.ID, re.VERBOSE)
_HOLDS_IDS, _WORDS = rest.HOLDS_IDS, rest.ID_WORDS


def split_target(target: str) -> tuple[str, str]:
    """Return path and query of a request target in origin or absolute form (RFC 9112 §3.2)."""
    # Only near the start: a query may hold a URL, too.
    if "://" in target[:10]:
        without_scheme = target.partition("://")[2]
        target = "/" + without_scheme.partition("/")[2]
    path, _, query = target.partition("?")
    return path, query


@lru_cache(maxsize=4096)
def operation_path(path: str) -> str:
    """Return *path* with `{id}` in place of each id.

    >>> operation_path("/v3/e114495f4b7d49c18a052454413cd3db/attachments")
    '/v3/{id}/attachments'
    """
    parts = path.split("/")
    # isalpha first: most parts are plain words, and it is far cheaper than the expression. A part behind a
    # collection (`/vms/…`) is an id even in an unknown form, if it has a digit and is no known word.
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
    """Return the UUIDs in *text*, in order, each once, at most *limit*."""
    found: dict[str, None] = {}
    # From dash to dash, with str.find: the expression alone would try each character of a long text. The
    # first dash of a UUID has 8 characters before it and 28 from it on.
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
