"""What an INSERT or an UPDATE tells of a server: values of the row, column by column."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

from tracer.calls.bodies import named
from tracer.openstack import sql

__all__ = ["Row", "row_of", "set_host"]

MOST_COLUMNS = 100
"""More columns than any of nova's tables has."""

_COLUMNS = re.compile(
    rb"(?is)\s*insert\s+into\s+(?:[`\"]?\w+[`\"]?\.){0,2}[`\"]?\w+[`\"]?\s*\(([^)]{1,2000})\)\s*values\s*\("
)
# A quoted value (PostgreSQL: E'…' with escapes, a cast behind it) or a bare word, then what ends it. It spans
# no parenthesis, so a function call ends the search.
_VALUE = re.compile(rb"(?s)\s*(?:[Ee]?'((?:[^'\\]|\\.|'')*+)'(?:::[\w ]{1,40})?|([^',()]{1,64}))\s*(,|\))")
_NAME_IN_OBJECT = re.compile(rb"(?<!\\)(\\?)\"" + sql.NAME.encode() + rb"\1\":\s*\1\"([^\"\\]{1,255})\1\"")
_HOST = re.compile(rb"[\s,]" + sql.HOST.encode() + rb"\s*=\s*'([^'\\]{1,255})'")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class Row(NamedTuple):
    """What a row that is added tells of a server; '' for what it does not hold."""

    server_id: str = ""
    name: str = ""
    vm_state: str = ""
    purpose: str = ""
    """What the request is for whose record this is: create, reboot …"""


_NO_ROW = Row()


def row_of(text: bytes, table: str) -> Row:
    """Return what the first row of the INSERT *text* into *table* tells of a server."""
    wanted = sql.ROWS.get(table)
    if wanted is None:
        return _NO_ROW
    values = _values(text, wanted)
    server_id = values.get(sql.SERVER_COLUMN[table], "")
    name = values.get(sql.NAME, "")
    if not name and table == sql.OBJECTS:
        found = _NAME_IN_OBJECT.search(text)
        name = found.group(2).decode("utf-8", "replace") if found else ""
    return Row(
        server_id if _UUID.fullmatch(server_id) else "",
        named(name),
        values.get(sql.VM_STATE, ""),
        values.get(sql.PURPOSE, ""),
    )


def set_host(text: bytes, end: int) -> str:
    """Return the host that an UPDATE sets before *end*, where its condition begins; '' for none."""
    found = _HOST.search(text, 0, end)
    return found.group(1).decode("utf-8", "replace") if found else ""


def _values(text: bytes, wanted: Collection[str]) -> dict[str, str]:
    """Return column -> value of the columns *wanted*, as far as the values can be read one after another."""
    head = _COLUMNS.match(text)
    if head is None:
        return {}
    at = head.end()
    found: dict[str, str] = {}
    for column in head.group(1).split(b",")[:MOST_COLUMNS]:
        value = _VALUE.match(text, at)
        if value is None:
            break
        at = value.end()
        name = column.strip(b' `"\r\n\t').decode("latin-1")
        if name in wanted and value.group(1) is not None:
            found[name] = value.group(1).replace(b"''", b"'").decode("utf-8", "replace")[:255]
        if len(found) == len(wanted) or value.group(3) == b")":
            break
    return found
