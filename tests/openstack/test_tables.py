"""The tables fit each other, and the grammars' vocabulary."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import tracer.openstack
from tracer.grammar.files import grammars_dir
from tracer.openstack import rest, rpc, services, sql

ROOM = Path(tracer.openstack.__file__).parent


def vocabulary() -> str:
    """The terminals of grammars/openstack.lark, without comments."""
    lines = (grammars_dir() / "openstack.lark").read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not line.startswith("//"))


def named(before: str) -> set[str]:
    """What follows *before* in the vocabulary: a name, or several in an expression."""
    found = re.findall(rf'(?:{before})(?:" /| |/)?\(?([a-z_|]+)', vocabulary())
    return {name for names in found for name in names.split("|") if name}


def test_every_role_of_a_table_is_a_service() -> None:
    of_methods = {method.sender for method in rpc.METHODS if method.sender}
    assert of_methods <= services.ROLES
    assert {path.role for path in rest.PATHS} <= services.ROLES
    written = {sql.writer("INSERT", table.name, False) for table in sql.TABLES} - {""}
    assert written <= services.ROLES


def test_every_method_of_the_grammars_is_in_the_table() -> None:
    found = named("cast |call |reply ")
    assert {"schedule_and_build_instances", "select_destinations", "stop_instance"} <= found
    assert found <= {method.name for method in rpc.METHODS}


def test_every_table_of_the_grammars_is_in_the_table() -> None:
    found = named("SELECT |INSERT |UPDATE ")
    assert {"instances", "quota_usages", "instance_actions", "instance_mappings"} <= found
    assert found <= {table.name for table in sql.TABLES}


def test_every_role_of_the_grammars_is_a_service() -> None:
    ends = re.findall(r'(?:REST|RPC|SQL) (\S+) > ([a-z-]+)[ "]', vocabulary())
    found = {role for pair in ends for role in pair if re.fullmatch("[a-z-]+", role)}
    assert {"admin", "lb", "nova-api", "db", "vrm"} <= found
    assert found <= services.ROLES


def test_the_room_needs_nothing_of_the_house() -> None:
    """Tables are below everything: they import each other, and little of the standard library."""
    imported = set()
    for path in ROOM.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module or "")
    ours = {name for name in imported if name.startswith("tracer")}
    assert all(name.startswith("tracer.openstack") for name in ours)
    assert imported - ours <= {"__future__", "collections.abc", "functools", "re", "typing"}


def test_every_module_names_its_sources() -> None:
    """A row without a source is hearsay."""
    for path in ROOM.glob("[!_]*.py"):
        text = path.read_text(encoding="utf-8")
        assert re.search(r"Sources?[.:]|nova/|oslo_messaging/", text), path.name
