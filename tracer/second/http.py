"""HTTP/1.x and HTTP/2 messages, made from what tshark shows. Secrets are digested as our decoder does."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

from tracer.model import TO_SERVER, Connection, Frames, HttpRequest, HttpResponse, Message
from tracer.model.tables import trim
from tracer.protocols.http1 import Http1
from tracer.protocols.http1.head import read_fields, without_secrets
from tracer.protocols.http2 import Http2
from tracer.second.tshark import Frame, Layer, layers, yes

__all__ = ["read_http1", "read_http2"]

BODY_LIMIT = 256 << 10
REMEMBERED = 1_024
"""Requests of one connection whose answer may still come."""
_HEX = re.compile(r"(?:[0-9a-f]{2}:)*[0-9a-f]{2}")


class _Exchanges:
    """Numbers of the requests of one connection, by the frame that shows each."""

    def __init__(self) -> None:
        self.last = 0
        self.asked: OrderedDict[int, list[int]] = OrderedDict()

    def request(self, frame: int) -> int:
        self.last += 1
        self.asked.setdefault(frame, []).append(self.last)
        trim(self.asked, REMEMBERED)
        return self.last

    def response(self, frame: int) -> int:
        waiting = self.asked.get(frame)
        if waiting:
            return waiting.pop(0)
        self.last += 1
        return self.last


def several(value: Any) -> list[Any]:
    """Return the values of a field that is there once, several times, or not."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def octets(value: Any) -> bytes:
    """Return the bytes of a field, which some versions write as text and others in hexadecimal."""
    text = "".join(str(part) for part in several(value))
    if _HEX.fullmatch(text):
        return bytes.fromhex(text.replace(":", ""))
    return text.encode("utf-8", "surrogateescape")


def _fields(lines: Iterable[Any]) -> Iterator[tuple[str, str]]:
    for line in lines:
        name, colon, value = str(line).partition(":")
        if colon:
            yield name, value.strip()


def read_http1(
    frame: Frame, connection: Connection, began_ns: int, at: Frames, direction: int, state: dict[str, Any]
) -> Iterator[Message]:
    """Yield the requests and final responses that *frame* shows."""
    for layer in layers(frame, "http"):
        method, code = layer.get("http_http_request_method"), layer.get("http_http_response_code")
        if method is None and code is None:
            continue
        connection.protocol = connection.protocol or Http1.name
        exchanges: _Exchanges = state.setdefault(Http1.name, _Exchanges())
        key = "http_http_request_line" if method is not None else "http_http_response_line"
        headers = read_fields(_fields(several(layer.get(key))))
        body = octets(layer.get("http_http_file_data"))[:BODY_LIMIT]
        if method is not None:
            target = str(layer.get("http_http_request_uri", ""))
            yield HttpRequest(
                connection,
                exchanges.request(frame.number),
                began_ns,
                frame.time_ns,
                at,
                str(several(method)[0]),
                without_secrets(target),
                headers,
                body,
                _is_cut(headers, body),
                direction,
            )
            continue
        status = int(several(code)[0])
        if 100 <= status < 200 and status != 101:
            continue
        asked = int(layer.get("http_http_request_in", 0))
        yield HttpResponse(
            connection,
            exchanges.response(asked),
            began_ns,
            frame.time_ns,
            at,
            status,
            str(layer.get("http_http_response_phrase", "")),
            headers,
            body,
            status not in (204, 304) and _is_cut(headers, body),
        )


def _is_cut(headers: dict[str, str], body: bytes) -> bool:
    """Return whether a body is declared and not shown; one of a HEAD request is taken for cut, too."""
    size = headers.get("content-length", "0").strip()
    return not body and size.isascii() and size.isdigit() and int(size) > 0


def read_http2(
    frame: Frame, connection: Connection, began_ns: int, at: Frames, direction: int, state: dict[str, Any]
) -> Iterator[Message]:
    """Yield the requests and responses whose stream ends in *frame*."""
    open_: OrderedDict[tuple[int, int], dict[str, Any]] = state.setdefault(Http2.name, OrderedDict())
    for layer in _streams(frame):
        stream = int(layer.get("http2_http2_streamid", 0))
        if not stream % 2:
            continue
        connection.protocol = Http2.name
        kept = open_.setdefault((direction, stream), {"body": b"", "head": None})
        trim(open_, REMEMBERED)
        names = [str(name) for name in several(layer.get("http2_http2_header_name"))]
        values = [str(value) for value in several(layer.get("http2_http2_header_value"))]
        if names and kept["head"] is None:
            fields = [*zip(names, values, strict=False)]
            status = dict(fields).get(":status", "")
            if not (status.isdigit() and int(status) < 200):
                kept["head"], kept["began_ns"], kept["at"] = fields, began_ns, at
        kept["body"] += octets(layer.get("http2_http2_data_data"))[: BODY_LIMIT - len(kept["body"])]
        if _ends(layer):
            del open_[direction, stream]
            if kept["head"] is not None:
                yield _http2_message(connection, stream, kept, frame, at, direction)


def _streams(frame: Frame) -> Iterator[Layer]:
    for layer in layers(frame, "http2"):
        inner = layer.get("http2_http2_stream")
        if isinstance(inner, dict | list):
            yield from (each for each in several(inner) if isinstance(each, dict))
        else:
            yield layer


def _ends(layer: Layer) -> bool:
    return any(yes(value) for value in several(layer.get("http2_http2_flags_end_stream")))


def _http2_message(
    connection: Connection, stream: int, kept: dict[str, Any], frame: Frame, at: Frames, direction: int
) -> Message:
    pseudo = {name: value for name, value in kept["head"] if name.startswith(":")}
    headers = read_fields((name, value) for name, value in kept["head"] if not name.startswith(":"))
    where = kept["at"] if kept["at"] == at else kept["at"] + at
    times = (kept["began_ns"], frame.time_ns, where)
    if direction == TO_SERVER:
        headers.setdefault("host", pseudo.get(":authority", ""))
        method, path = pseudo.get(":method", "?"), without_secrets(pseudo.get(":path", ""))
        cut = method == "?" or not path
        return HttpRequest(connection, stream, *times, method, path, headers, kept["body"], cut, direction)
    status = pseudo.get(":status", "")
    code = int(status) if status.isdigit() else 0
    return HttpResponse(connection, stream, *times, code, "", headers, kept["body"], not code)
