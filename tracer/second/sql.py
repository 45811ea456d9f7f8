"""MySQL messages, made from what tshark shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tracer.model import TO_SERVER, Connection, Frames, Message, SqlLogin, SqlResult, SqlStatement
from tracer.protocols.mysql import MySql
from tracer.protocols.mysql.packets import COMMANDS
from tracer.second.http import several
from tracer.second.tshark import Frame, Layer, layers

__all__ = ["read_mysql"]

PREPARED_LIMIT = 4_096
"""Prepared statements of one connection whose text is kept."""
TEXT_LIMIT = 64 << 10
_ANSWERLESS = ("quit", "close", "send_long_data")


@dataclass(slots=True)
class _State:
    exchange: int = 0
    waits: bool = False
    """The latest statement has no answer yet."""
    told: bool = False
    """It was wanted, and so its answer is told."""
    command: str = ""
    text: bytes = b""
    prepared: dict[str, bytes] = field(default_factory=dict)


def read_mysql(
    frame: Frame,
    connection: Connection,
    began_ns: int,
    at: Frames,
    direction: int,
    state: dict[str, Any],
    wanted: Callable[[bytes], bool] | None,
    skipped: Callable[[int, Frames], object],
) -> Iterator[Message]:
    """Yield the logins, statements and answers that *frame* shows; *wanted* and *skipped* as of `Options`."""
    known: _State = state.setdefault(MySql.name, _State())
    for layer in layers(frame, "mysql"):
        connection.protocol = MySql.name
        if direction == TO_SERVER:
            if "mysql_mysql_login_request" in layer:
                schema = str(layer.get("mysql_mysql_schema", ""))
                yield SqlLogin(connection, began_ns, at, schema, _attributes(layer))
            elif "mysql_mysql_command" in layer:
                known.command = COMMANDS.get(int(layer["mysql_mysql_command"]), "")
                known.exchange += 1
                known.text = _text(layer, known)[:TEXT_LIMIT]
                known.waits = known.command not in _ANSWERLESS
                known.told = wanted is None or wanted(known.text)
                if not known.told:
                    skipped(began_ns, at)
                    continue
                yield SqlStatement(
                    connection, known.exchange, began_ns, frame.time_ns, at, known.command, known.text, False
                )
        else:
            result = _answer(layer, known, connection, began_ns, frame, at)
            if result is not None:
                yield result


def _text(layer: Layer, known: _State) -> bytes:
    query = layer.get("mysql_mysql_query")
    if query is None:
        query = layer.get("mysql_mysql_schema", "") if known.command == "init_db" else None
    if query is not None:
        return "".join(str(part) for part in several(query)).encode("utf-8", "surrogateescape")
    number = str(layer.get("mysql_mysql_stmt_id", ""))
    return known.prepared.get(number, b"#" + number.encode()) if number else b""


def _answer(
    layer: Layer, known: _State, connection: Connection, began_ns: int, frame: Frame, at: Frames
) -> SqlResult | None:
    """Return the answer to the latest statement if *layer* begins it; rows that follow tell nothing more."""
    if not known.waits:
        return None
    known.waits = False
    if known.command == "prepare" and "mysql_mysql_stmt_id" in layer and len(known.prepared) < PREPARED_LIMIT:
        known.prepared[str(layer["mysql_mysql_stmt_id"])] = known.text
    if not known.told:
        return None
    code = layer.get("mysql_mysql_error_code")
    return SqlResult(
        connection,
        known.exchange,
        began_ns,
        frame.time_ns,
        at,
        code is None,
        int(code) if code is not None else 0,
        str(layer.get("mysql_mysql_error_message", "")) if code is not None else "",
        False,
    )


def _attributes(layer: Layer) -> dict[str, str]:
    names = several(layer.get("mysql_mysql_connattrs_name"))
    values = several(layer.get("mysql_mysql_connattrs_value"))
    return {str(name): str(value) for name, value in zip(names, values, strict=False)}
