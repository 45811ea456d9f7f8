"""The tables: who writes them, and what they tell."""

from __future__ import annotations

import pytest

from tracer.calls.sql import is_quota, wants_statement
from tracer.openstack import sql


@pytest.mark.parametrize(
    "verb, table, role",
    [
        ("INSERT", "request_specs", "nova-api"),
        ("INSERT", "build_requests", "nova-api"),
        ("INSERT", "instance_mappings", "nova-api"),
        ("UPDATE", "instance_mappings", "nova-conductor"),
        ("DELETE", "build_requests", "nova-conductor"),
        ("INSERT", "instances", "nova-conductor"),
        ("UPDATE", "instance_extra", "nova-conductor"),
        ("INSERT", "instance_faults", "nova-conductor"),
        ("UPDATE", "services", "nova-conductor"),
        ("UPDATE", "compute_nodes", "nova-conductor"),
        ("SELECT", "quotas", ""),
        ("INSERT", "ports", ""),
        ("INSERT", "", ""),
    ],
)
def test_who_writes_a_table(verb: str, table: str, role: str) -> None:
    """Nova-api inserts into its own database; what follows, and the cells', is nova-conductor's."""
    assert sql.writer(verb, table, False) == role


def test_the_quota_is_read_by_nova_api() -> None:
    assert sql.writer("SELECT", "instances", True) == "nova-api"


@pytest.mark.parametrize("mark", sql.QUOTA_MARKS)
def test_a_read_of_the_quota_is_wanted_by_its_marks(mark: str) -> None:
    """Each mark is found by a hint, and only as far as the first columns reach."""
    assert any(hint in mark for hint in sql.QUOTA_HINTS)
    text = f"SELECT {mark} FROM somewhere".encode()
    assert is_quota(text)
    assert wants_statement(text)
    assert not wants_statement(b"SELECT " + b"a, " * (sql.QUOTA_HEAD_BYTES // 3) + mark.encode())


def test_the_first_that_a_database_hears_of_a_server() -> None:
    assert {"request_specs", "build_requests"} == sql.FIRST_OF_A_SERVER
    assert sql.ends_quota_check("INSERT", "request_specs")
    assert not sql.ends_quota_check("SELECT", "request_specs")
    assert not sql.ends_quota_check("INSERT", "build_requests")


def test_where_nova_records_why() -> None:
    assert (sql.FAULTS, sql.FAULT_TEXT) == ("instance_faults", "message")
