"""The head of an HTTP/1.x message: where one begins, what it says, and what of it is secret.

Lenient where senders are: LF alone ends a line, folded header lines are joined, unknown methods pass.
Strict where a byte stream must be told from a body: only a start line with its version counts.
Secrets become digests here, before anything else sees them.

Source: RFC 9112 §2-5; RFC 9110 §5, §9.
"""

from __future__ import annotations

import re
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
]

H2_PREFACE = b"PRI * HTTP/2.0\r\n"
"""What an HTTP/2 connection begins with (RFC 9113 §3.4)."""
_TLS_RECORD = re.compile(rb"[\x14-\x17]\x03[\x00-\x04]")

METHODS = (
    b"PROPPATCH", b"PROPFIND", b"OPTIONS", b"CONNECT", b"DELETE", b"SEARCH", b"UNLOCK", b"REPORT",
    b"PATCH", b"TRACE", b"MKCOL", b"POST", b"HEAD", b"COPY", b"MOVE", b"LOCK", b"PUT", b"GET",
)  # fmt: skip
"""Longest first, so that PROPPATCH is not taken for PATCH. Out of step only these count as methods."""
VALUE_LIMIT = 4_096
"""Of one header value. nova's largest are request ids; Apache allows 8190 for a line."""
_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}")
_STATUS = re.compile(rb"HTTP/1\.\d (\d{3})(?: (.*))?", re.DOTALL)

# --- what is secret -------------------------------------------------------------------------------

_SECRET_NAME = re.compile(
    r"token|secret|passw|cookie|authorization|credential|signature|api-?key|^x-auth-(?:user-)?key$"
)
_SECRET_PARAMETER = re.compile(r"token|secret|passw|signature|credential|^(?:temp_url_)?sig$", re.IGNORECASE)
_NESTED_SECRET = re.compile(r"(?:token|secret|passw\w*|signature)=", re.IGNORECASE)
_MAYBE_SECRET = re.compile(r"token|secret|passw|sig|credential|%", re.IGNORECASE)
"""Without any of these there is no secret in a query; most need no closer look."""
_USERINFO = re.compile(r"^([A-Za-z][A-Za-z0-9+.\-]*://)[^/?#]*@")
_TOKEN_IN_PATH = re.compile(rf"({re.escape(TOKEN_IN_PATH)})([^/?]+)")
_LINKS = frozenset(("location", "content-location", "referer"))
"""Headers whose value is a URL."""


def _is_secret(name: str) -> bool:
    """Return whether the value of header *name* (lower case) must not be kept."""
    if name.startswith("x-openstack-") or name.endswith("-request-id"):
        return "token" in name and not name.endswith("-id")
    return _SECRET_NAME.search(name) is not None


def _without_secrets(target: str) -> str:
    """Return *target* with secret parameter values as digests and without user and password."""
    if "@" in target:
        target = _USERINFO.sub(r"\1", target)
    if TOKEN_IN_PATH in target:
        # Keystone's v2 API put the token to be validated into the path.
        target = _TOKEN_IN_PATH.sub(lambda found: found[1] + digest(found[2]), target)
    path, mark, query = target.partition("?")
    if not mark or "=" not in query or not _MAYBE_SECRET.search(query):
        return target
    return path + "?" + re.sub(r"([^=&;?#]*)=([^&;#]*)", _parameter, query)


def _parameter(found: re.Match[str]) -> str:
    name, value = found[1], found[2]
    # A console URL carries its token one level down: path=%3Ftoken%3D…
    if value and (_SECRET_PARAMETER.search(unquote(name)) or _NESTED_SECRET.search(unquote(value) + "=")):
        value = digest(unquote(value))
    return f"{name}={value}"


# --- parsing --------------------------------------------------------------------------------------


class Head(NamedTuple):
    """A request's or a response's head; `status` is 0 for a request."""

    method: str
    target: str
    status: int
    reason: str
    headers: dict[str, str]
    """Names in lower case, repeated ones joined by ', ', secrets as digests."""


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
    """Return (method, target, status, reason) of a start line without its line end, or None.

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
    method, _, rest = line.partition(b" ")
    target, _, version = rest.rpartition(b" ")
    if len(version) != 8 or not version.startswith(b"HTTP/1.") or not target.strip():
        return None
    if _METHOD.fullmatch(method) is None:
        return None
    return method.decode("latin-1"), _without_secrets(target.strip().decode("latin-1")), 0, ""


def parse_head(head: bytes) -> Head | None:
    """Return what *head* (start line and complete header lines) says, or None if it is none.

    Lines that are no header are left out; a line that begins with a blank continues the one before.

    Source: RFC 9112 §5, §5.2 (obs-fold).
    """
    line, _, rest = head.partition(b"\n")
    start = parse_start(line)
    if start is None:
        return None
    raw: dict[str, str] = {}
    private: list[tuple[str, int]] = []
    name = ""
    for text in rest.decode("latin-1").split("\n"):
        written, colon, value = text.partition(":")
        # Only names of proper lines are among the known ones.
        known = _KNOWN.get(written)
        if known is None or not colon:
            if text[:1] in (" ", "\t"):
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
    for name, kind in private:
        raw[name] = digest(raw[name]) if kind == _SECRET else _without_secrets(raw[name])
    if len(rest) > VALUE_LIMIT:
        raw = {name: value[:VALUE_LIMIT] for name, value in raw.items()}
    return Head(*start, raw)


_SECRET, _LINK = 1, 2
_KNOWN: dict[str, tuple[str, int]] = {}
"""Header as written -> its name in lower case, and whether its value is a secret or may hold one. A run
sees some dozens of names, each thousands of times."""
_MOST_KNOWN = 2048


def _learn(written: str) -> tuple[str, int]:
    name = written.strip().lower()
    known = name, _SECRET if _is_secret(name) else _LINK if name in _LINKS else 0
    if len(_KNOWN) < _MOST_KNOWN and len(written) < 64:
        _KNOWN[written] = known
    return known


# --- out of step ----------------------------------------------------------------------------------

_LINE_LIMIT = 8_192
"""Of a request line out of step: what every server accepts (RFC 9112 §3 asks for 8000)."""
_CONFIRM_BYTES = 320
"""No confirmation below is longer."""
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
"""The beginnings of the two above."""
_CUT_TAIL = re.compile(rb"HTTP/1\.[01](?: [1-5]\d\d(?: [^\r\n]{0,200})?)?\r?\n[\w\-]{0,64}\Z")
KEEP_BYTES = _LINE_LIMIT + _CONFIRM_BYTES
"""A search that found nothing must keep so many bytes before the place it returned."""


def find_start(buffer: bytearray, at: int, final: bool = False) -> tuple[int, int]:
    """Return (offset of the first start line or -1, offset from where to search on).

    A start line counts only with a blank line or the name of a header behind it: bodies quote request
    lines, too. With *final*, no more bytes will come and a header name may be cut off.
    """
    while True:
        anchor = buffer.find(b"HTTP/1.", at)
        if anchor < 0:
            return -1, max(at, len(buffer) - 6)
        begin = -1
        if _RESPONSE_START.match(buffer, anchor):
            return anchor, anchor
        if _REQUEST_TAIL.match(buffer, anchor):
            begin = _request_begin(buffer, anchor)
        elif not final and _UNDECIDED.match(buffer, anchor):
            return -1, anchor
        elif final and _CUT_TAIL.match(buffer, anchor):
            is_response = buffer[anchor + 8 : anchor + 9] == b" "
            begin = anchor if is_response else _request_begin(buffer, anchor)
        if begin >= 0:
            return begin, begin
        at = anchor + 7


def _request_begin(buffer: bytearray, version: int) -> int:
    """Return where the request line begins whose HTTP version is at *version*, or -1."""
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
    """Return what a stream that does not begin as HTTP/1 is instead, if its first bytes say so."""
    if _TLS_RECORD.match(begun):
        return "tls"
    return "http2" if begun.startswith(H2_PREFACE[:14]) else None


def begins_with(begun: bytes, starts: tuple[bytes, ...]) -> bool | None:
    """Return whether a stream that goes on with *begun* begins a message; None while it is undecided."""
    for start in starts:
        if begun.startswith(start):
            return True
        if start.startswith(begun):
            return None
    return False
