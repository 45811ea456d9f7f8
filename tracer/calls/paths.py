"""What a URL path says: the operation of a canonical line, and the ids in it."""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["UUID", "creates_server", "operation_path", "server_named", "split_target", "uuids"]

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
"""As OpenStack writes them: lower case, with dashes."""

_SERVERS = re.compile(r"(?:/[a-z]+)?/v2(?:\.\d+)?(?:/(?!servers$)[^/]+)?/servers/?")
_SERVER = re.compile(rf"/servers/({UUID.pattern})(?:/|$)")

_ID = re.compile(
    r"""(?x)
    [0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}
    | (?=[0-9a-fA-F]*\d) [0-9a-fA-F]{6,}     # project ids, FusionCompute's sites
    | \d+
    | [a-z]{1,4}-[0-9a-fA-F]{6,}             # FusionCompute's i-00000072
    | urn:.*
    | req-.*
    """
)
_COLLECTIONS = frozenset({"sites", "vms", "tasks", "hosts", "volumes", "servers", "ports", "attachments"})
"""What follows these is an id unless it is a known word."""
_WORDS = frozenset({"action", "detail", "default", "defaults", "summary"})


def split_target(target: str) -> tuple[str, str]:
    """Return path and query of a request target in origin or absolute form (RFC 9112 §3.2)."""
    if "://" in target[:10]:
        rest = target.partition("://")[2]
        target = "/" + rest.partition("/")[2]
    path, _, query = target.partition("?")
    return path, query


def creates_server(method: str, path: str) -> bool:
    """Tell whether this request makes servers: a POST to all of them, with or without prefix and project."""
    return method == "POST" and _SERVERS.fullmatch(path) is not None


def server_named(path: str) -> str:
    """Return the server that *path* is about, or nothing.

    >>> server_named("/v2.1/servers/8450a932-0b29-461a-8419-ffccd7096a3d/action")
    '8450a932-0b29-461a-8419-ffccd7096a3d'
    """
    found = _SERVER.search(path)
    return found[1] if found else ""


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
                    i
                    and parts[i - 1] in _COLLECTIONS
                    and part not in _WORDS
                    and any(c.isdigit() for c in part)
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
