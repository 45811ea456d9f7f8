"""The tables that show a step, an owner or a state, and the marks of the statements of nova's quota check.

Sources: nova/db/api/models.py and nova/db/main/models.py (tables, columns), nova/quota.py and
nova/objects/quotas.py (the quota check), captures of Queens to Zed (how SQLAlchemy writes it).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from tracer.openstack.services import NOVA_API, NOVA_CONDUCTOR

__all__ = [
    "BEFORE_A_HOST",
    "CREATES",
    "FAULTS",
    "FAULT_TEXT",
    "FIRST_OF_A_SERVER",
    "HOST",
    "KEEPS_STATES",
    "NAME",
    "OBJECTS",
    "PROJECT",
    "PURPOSE",
    "QUOTA_HEAD_BYTES",
    "QUOTA_HINTS",
    "QUOTA_MARKS",
    "ROWS",
    "SERVER_COLUMN",
    "TABLES",
    "TASK_STATE",
    "VM_STATE",
    "Table",
    "ends_quota_check",
    "writer",
]

_API, _CELL, _QUOTA = "api", "cell", "quota"


class Table(NamedTuple):
    """What is known of one table."""

    name: str
    """Its name; a `*` at its end matches the rest of a name."""
    database: str
    """api: nova-api inserts, nova-conductor does the rest. cell: nova-conductor writes, for nova-compute too.
    quota: it is only read, by the quota check."""
    first_of_a_server: bool = False
    """An INSERT into it is the first statement about a server in any database, and names the server first."""
    ends_quota_check: bool = False
    """An INSERT into it follows the quota check at once."""
    keeps_states: bool = False
    """It holds the states of a server."""
    says_faults: bool = False
    """It holds the text with which nova records why a server is in error."""
    server_column: str = ""
    """An INSERT into it tells of the server in this column, and of what is in `columns`."""
    columns: tuple[str, ...] = ()
    holds_object: bool = False
    """A column of it holds the server as an object in JSON, its name included."""


# Columns.
VM_STATE, TASK_STATE = "vm_state", "task_state"
PROJECT = "project_id"
FAULT_TEXT = "message"
"""Column of the faults' table with the text. Of a time-out it is the bare class; `details` holds the rest."""
NAME, HOST, PURPOSE = "display_name", "host", "action"
"""Of a server: its name, the host that builds it (or has it); of a request: what it is for."""
CREATES = "create"
"""The purpose of the request that makes a server (nova/compute/instance_actions.py)."""
BEFORE_A_HOST = frozenset(("building", "scheduling", "error"))
"""vm_state of the row of a server that is being made; one that moves to another cell has another one."""

TABLES = (
    Table("request_specs", _API, first_of_a_server=True, ends_quota_check=True),
    Table("build_requests", _API, first_of_a_server=True, server_column="instance_uuid", holds_object=True),
    Table("instance_mappings", _API),
    Table("instances", _CELL, keeps_states=True, server_column="uuid", columns=(VM_STATE, NAME)),
    Table("instance_actions", _CELL, server_column="instance_uuid", columns=(PURPOSE,)),
    Table("instance_faults", _CELL, says_faults=True),
    Table("instance_*", _CELL),
    Table("block_device_mapping", _CELL),
    Table("services", _CELL),
    Table("compute_nodes", _CELL),
    Table("migrations", _CELL),
    Table("project_user_quotas", _QUOTA),
    Table("quotas", _QUOTA),
    Table("quota_classes", _QUOTA),
    Table("quota_usages", _QUOTA),
    Table("reservations", _QUOTA),
)
"""The first row that matches is used."""

# The SELECTs of the quota check (step 4c of the document) are separated from neutron's by these names, which
# are among the first columns.
QUOTA_MARKS = (
    "project_user_quotas",
    "quotas_hard_limit",
    "quota_classes",
    "count(instances.",
    "quota_usages",
    "quotas.hard_limit",
)
QUOTA_HINTS = ("quota", "count(")
"""Each mark contains one of these two. Nearly every SELECT has neither, and is not searched for marks."""
QUOTA_HEAD_BYTES = 600

# --- look-ups -------------------------------------------------------------------------------------

FIRST_OF_A_SERVER = frozenset(table.name for table in TABLES if table.first_of_a_server)
KEEPS_STATES = frozenset(table.name for table in TABLES if table.keeps_states)
SERVER_COLUMN = {table.name: table.server_column for table in TABLES if table.server_column}
ROWS = {table.name: (table.server_column, *table.columns) for table in TABLES if table.server_column}
"""Table -> the columns that are read of a row that is added."""
OBJECTS = next(table.name for table in TABLES if table.holds_object)
FAULTS = next(table.name for table in TABLES if table.says_faults)

_API_TABLES = frozenset(table.name for table in TABLES if table.database == _API)
_CELL_TABLES = re.compile(
    "|".join(
        re.escape(t.name[:-1]) + r"\w+" if t.name.endswith("*") else re.escape(t.name)
        for t in TABLES
        if t.database == _CELL
    )
)
_ENDS_QUOTA_CHECK = frozenset(table.name for table in TABLES if table.ends_quota_check)


def writer(verb: str, table: str, is_quota_read: bool) -> str:
    """Return the role that writes this table or reads the quota, '' if unknown; for nameless connections."""
    if is_quota_read or (table in _API_TABLES and verb == "INSERT"):
        return NOVA_API
    if table in _API_TABLES or _CELL_TABLES.fullmatch(table):
        return NOVA_CONDUCTOR
    return ""


def ends_quota_check(verb: str, table: str) -> bool:
    """Return whether a statement on *table* is the first after a request's quota check."""
    return verb == "INSERT" and table in _ENDS_QUOTA_CHECK
