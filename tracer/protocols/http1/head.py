"""The head of an HTTP/1.x message: finding it, parsing it, and replacing its secrets.

Parsing is lenient: LF alone ends a line, folded header lines are joined, unknown methods are accepted. The
search in the middle of a stream is strict, because a body may look like a head: only a start line with its
version counts. Secrets become digests here, before any other stage sees them.

Source: RFC 9112 §2-5; RFC 9110 §5, §9.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import unquote

from tracer.model.digest import digest
from tracer.openstack.rest import TOKEN_IN_PATH

__all__ = [
    "H2_PREFACE",
    "KEEP_BYTES",
    "METHODS",
    "Head",
    "begins_with",
    "find_start",
    "foreign",
    "parse_head",
    "parse_start",
    "read_fields",
    "without_secrets",
]

H2_PREFACE = b"PRI * HTTP/2.0\r\n"
"""The first bytes of an HTTP/2 connection (RFC 9113 §3.4), as far as a start line goes."""
_TLS_RECORD = re.compile(rb"[\x14-\x17]\x03[\x00-\x04]")

METHODS = (
    b"PROPPATCH", b"PROPFIND", b"OPTIONS", b"CONNECT", b"DELETE", b"SEARCH", b"UNLOCK", b"REPORT",
    b"PATCH", b"TRACE", b"MKCOL", b"POST", b"HEAD", b"COPY", b"MOVE", b"LOCK", b"PUT", b"GET",
)  # fmt: skip
"""Longest first, so that PROPPATCH is not mistaken for PATCH. Out of step, only these count as methods."""
VALUE_LIMIT = 4_096
"""Characters of a header value that are kept. Apache allows 8190 for a line."""
# A token (RFC 9110 §5.6.2).
_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}")
_STATUS = re.compile(rb"HTTP/1\.\d (\d{3})(?: (.*))?", re.DOTALL)

# --- what is secret -------------------------------------------------------------------------------

_SECRET_NAME = re.compile(
    r"token|secret|passw|cookie|authorization|credential|signature|api-?key|^x-auth-(?:user-)?key$"
)
_SECRET_PARAMETER = re.compile(r"token|secret|passw|signature|credential|^(?:temp_url_)?sig$", re.IGNORECASE)
_NESTED_SECRET = re.compile(r"(?:token|secret|passw\w*|signature)=", re.IGNORECASE)
_MAYBE_SECRET = ("token", "secret", "passw", "sig", "credential", "%")
"""A query without any of these holds no secret. Most queries are done with that: `in` is many times faster
than an expression that ignores case."""
_USERINFO = re.compile(r"^([A-Za-z][A-Za-z0-9+.\-]*://)[^/?#]*@")
_NESTED_USERINFO = re.compile(r"(?<=://)[^/?#&;\s]*@")
_TOKEN_IN_PATH = re.compile(rf"({re.escape(TOKEN_IN_PATH)})([^/?]+)")
_LINKS = frozenset(("location", "content-location", "referer"))
"""Headers whose value is a URL."""


def _is_secret(name: str) -> bool:
    """Return whether the value of header *name* (lower case) must not be kept."""
    # Request ids join calls, so they are kept whatever else the name holds.
    if name.startswith("x-openstack-") or name.endswith("-request-id"):
        return "token" in name and not name.endswith("-id")
    return _SECRET_NAME.search(name) is not None


def without_secrets(target: str) -> str:
    """Return *target* with digests in place of secret parameters, and without user and password."""
    if "@" in target:
        target = _USERINFO.sub(r"\1", target)
    if TOKEN_IN_PATH in target:
        # Keystone's v2 API has the token that is validated in the path.
        target = _TOKEN_IN_PATH.sub(lambda found: found[1] + digest(found[2]), target)
    path, mark, query = target.partition("?")
    if not mark or "=" not in query:
        return target
    if "@" in query:
        query = _NESTED_USERINFO.sub("", query)
        target = f"{path}?{query}"
    lower = query.lower()
    if not any(word in lower for word in _MAYBE_SECRET):
        return target
    return path + "?" + re.sub(r"([^=&;?#]*)=([^&;#]*)", _parameter, query)


def _parameter(found: re.Match[str]) -> str:
    name, value = found[1], found[2]
    # A console URL has its token in a nested query: path=%3Ftoken%3D…
    if value and (_SECRET_PARAMETER.search(unquote(name)) or _NESTED_SECRET.search(unquote(value) + "=")):
        value = digest(unquote(value))
    return f"{name}={value}"


# --- parsing --------------------------------------------------------------------------------------


class Head(NamedTuple):
    """The head of a request (`status` 0) or of a response (`method` and `target` '')."""

    method: str
    target: str
    status: int
    reason: str
    headers: dict[str, str]
    """Names in lower case, repeated ones joined by ', ', secrets as digests."""


# The usual status lines, by which most responses need no expression.
_USUAL = {
    f"HTTP/1.1 {status} {reason}".encode(): ("", "", status, reason)
    for status, reason in (
        (200, "OK"),
        (201, "Created"),
        (202, "Accepted"),
        (204, "No Content"),
        (404, "Not Found"),
    )
}


def parse_start(line: bytes) -> tuple[str, str, int, str] | None:
    """Return (method, target, status, reason) of a start line, without its line end; None if it is not one.

    Source: RFC 9112 §3, §4.
    """
    line = line.rstrip(b" \t\r")
    if line in _USUAL:
        return _USUAL[line]
    if line.startswith(b"HTTP/1."):
        found = _STATUS.fullmatch(line)
        if found is None:
            return None
        return "", "", int(found[1]), (found[2] or b"").decode("latin-1")[:VALUE_LIMIT]
    # From both ends: a target with blanks in it violates the grammar, but clients send it.
    method, _, rest = line.partition(b" ")
    target, _, version = rest.rpartition(b" ")
    if len(version) != 8 or not version.startswith(b"HTTP/1.") or not target.strip():
        return None
    if _METHOD.fullmatch(method) is None:
        return None
    return method.decode("latin-1"), without_secrets(target.strip().decode("latin-1")), 0, ""


def parse_head(head: bytes) -> Head | None:
    """Return the parsed *head* (start line and complete header lines); None if it has no start line.

    Lines that are not headers are left out. A line that begins with a blank continues the previous one.

    Source: RFC 9112 §5, §5.2 (obs-fold).
    """
    line, _, rest = head.partition(b"\n")
    start = parse_start(line)
    if start is None:
        return None
    raw: dict[str, str] = {}
    private: list[tuple[str, int]] = []
    name = ""
    # Latin-1 decodes any byte, and to one character each (RFC 9110 §5.5).
    for text in rest.decode("latin-1").split("\n"):
        written, colon, value = text.partition(":")
        # The cache holds names of proper lines only, so a hit needs no further checks.
        known = _KNOWN.get(written)
        if known is None or not colon:
            if text[:1] in (" ", "\t"):
                # The limit is checked before joining: many short lines must not cost quadratic time.
                if name and len(raw[name]) < VALUE_LIMIT:
                    raw[name] = f"{raw[name]} {text.strip()}".strip()
                continue
            if not colon:
                name = ""
                continue
            known = _learn(written)
        name, kind = known
        if not name:
            continue
        if name not in raw:
            raw[name] = value.strip()
            if kind:
                private.append(known)
        elif len(raw[name]) < VALUE_LIMIT:
            raw[name] = f"{raw[name]}, {value.strip()}"
    return Head(*start, _kept(raw, private, len(rest)))


def read_fields(fields: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the headers of HTTP/2 *fields* as `parse_head` does: joined, limited, secrets as digests.

    Source: RFC 9113 §8.2; §8.2.3 (a cookie may be split).
    """
    raw: dict[str, str] = {}
    private: list[tuple[str, int]] = []
    size = 0
    for written, value in fields:
        known = _KNOWN.get(written) or _learn(written)
        name, kind = known
        size += len(value)
        if name not in raw:
            raw[name] = value.strip()
            if kind:
                private.append(known)
        elif len(raw[name]) < VALUE_LIMIT:
            raw[name] = f"{raw[name]}{'; ' if name == 'cookie' else ', '}{value.strip()}"
    return _kept(raw, private, size)


def _kept(raw: dict[str, str], private: list[tuple[str, int]], size: int) -> dict[str, str]:
    """Return *raw*, the headers of a head of *size* characters, with digests and limited values."""
    # Digests last, since a repeated or folded header is complete only here.
    for name, kind in private:
        raw[name] = digest(raw[name]) if kind == _SECRET else without_secrets(raw[name])
    return raw if size <= VALUE_LIMIT else {name: value[:VALUE_LIMIT] for name, value in raw.items()}


_SECRET, _LINK = 1, 2
_KNOWN: dict[str, tuple[str, int]] = {}
"""Name as written -> its name in lower case, and 0, _SECRET (the value is one) or _LINK (a URL that may hold
one). A run sees some dozens of names, each of them thousands of times."""
_MOST_KNOWN = 2048
"""Limit of the cache, since names are chosen by the sender."""


def _learn(written: str) -> tuple[str, int]:
    name = written.strip().lower()
    known = name, _SECRET if _is_secret(name) else _LINK if name in _LINKS else 0
    if len(_KNOWN) < _MOST_KNOWN and len(written) < 64:
        _KNOWN[written] = known
    return known


# --- out of step ----------------------------------------------------------------------------------

_LINE_LIMIT = 8_192
"""Limit of a request line in the search; RFC 9112 §3 recommends that servers accept 8000 bytes."""
_CONFIRM_BYTES = 320
"""At least the longest match of the expressions below."""
# What follows the version must be a line end, and then a blank line or the name of a header.
_REQUEST_TAIL = re.compile(rb"HTTP/1\.[01]\r?\n(?:\r?\n|[\w\-]{1,64}:)")
_RESPONSE_START = re.compile(rb"HTTP/1\.[01] [1-5]\d\d(?: [^\r\n]{0,200})?\r?\n(?:\r?\n|[\w\-]{1,64}:)")
_BEHIND_LINE = rb"(?:\r?(?:\n(?:\r|[\w\-]{1,64})?)?)?"
_UNDECIDED = re.compile(
    rb"HTTP/1\.(?:[01](?:"
    + _BEHIND_LINE
    + rb"| (?:[1-5]\d{0,2})?| [1-5]\d\d(?: [^\r\n]{0,200})?"
    + _BEHIND_LINE
    + rb"))?\Z"
)
"""The incomplete beginnings of the two above, at the end of the buffer."""
_CUT_TAIL = re.compile(rb"HTTP/1\.[01](?: [1-5]\d\d(?: [^\r\n]{0,200})?)?\r?\n[\w\-]{0,64}\Z")
KEEP_BYTES = _LINE_LIMIT + _CONFIRM_BYTES
"""Bytes that must be kept before the offset that an unsuccessful search returned."""


def find_start(buffer: bytearray, at: int, final: bool = False) -> tuple[int, int]:
    """Return the offset of the first start line (-1 if none), and the offset to search from next time.

    A start line counts only if a blank line or the name of a header follows, because bodies quote request
    lines, too. With *final*, no more bytes will come and the name of the header may be cut.
    """
    while True:
        # The version stands in every start line and is rare elsewhere, so it is found first, with bytes.find.
        anchor = buffer.find(b"HTTP/1.", at)
        if anchor < 0:
            # The last 6 bytes may be the beginning of `HTTP/1.`.
            return -1, max(at, len(buffer) - 6)
        begin = -1
        if _RESPONSE_START.match(buffer, anchor):
            return anchor, anchor
        if _REQUEST_TAIL.match(buffer, anchor):
            begin = _request_begin(buffer, anchor)
        elif not final and _UNDECIDED.match(buffer, anchor):
            # More bytes will decide: search from this place again.
            return -1, anchor
        elif final and _CUT_TAIL.match(buffer, anchor):
            # A status follows the version in a response; a request line ends with the version.
            is_response = buffer[anchor + 8 : anchor + 9] == b" "
            begin = anchor if is_response else _request_begin(buffer, anchor)
        if begin >= 0:
            return begin, begin
        at = anchor + 7


def _request_begin(buffer: bytearray, version: int) -> int:
    """Return the start of the request line whose HTTP version is at *version*; -1 if there is none.

    Backwards from the version: a blank, the target without blanks, a blank, a known method.
    """
    floor = max(0, version - _LINE_LIMIT, buffer.rfind(b"\n", max(0, version - _LINE_LIMIT), version) + 1)
    if version - 1 < floor or buffer[version - 1] != 0x20:
        return -1
    space = buffer.rfind(b" ", floor, version - 1)
    if space < 0 or space == version - 2:
        return -1
    for method in METHODS:
        if buffer.endswith(method, floor, space):
            return space - len(method)
    return -1


def foreign(begun: bytes) -> str | None:
    """Return 'tls' or 'http2' if the first bytes of a stream show it, else None."""
    if _TLS_RECORD.match(begun):
        return "tls"
    # 14 bytes: without the line end, which may not be there yet.
    return "http2" if begun.startswith(H2_PREFACE[:14]) else None


def begins_with(begun: bytes, starts: tuple[bytes, ...]) -> bool | None:
    """Return whether *begun* begins with one of *starts*; None if it is too short to decide."""
    for start in starts:
        if begun.startswith(start):
            return True
        if start.startswith(begun):
            return None
    return False
