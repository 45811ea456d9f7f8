"""Imports run one way: the packages in their order, and no module in a cycle."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent

LEVELS = (
    {"cli", "pytest_plugin"},
    {"live", "recording", "replay", "testing"},
    {"engine"},
    {"second"},
    {
        "alignment",
        "calls",
        "capture",
        "conformance",
        "correlation",
        "grammar",
        "protocols",
        "reassembly",
        "reports",
        "topology",
    },
    {"openstack"},
    {"errors", "model", "settings"},
)
"""The packages of tracer, the doors first. Each imports those of later levels, and none of its own."""

WITHIN_A_LEVEL = {
    ("alignment", "grammar"): "a trace is aligned with the automaton that a grammar was compiled to",
    ("conformance", "alignment"): "a verdict reads the moves of an alignment",
    ("conformance", "grammar"): "a verdict names steps, and asks the grammar who calls whom in them",
}
"""(importer, imported) -> why, of packages of one level."""

APART = {
    ("live", "reports"): "a live run tells events; the command line chooses who shows them",
}
"""(importer, imported) -> why not, of packages whose levels would allow it."""


class Import(NamedTuple):
    importer: str
    imported: str
    is_local: bool
    """Inside of a function: it comes about only when that is called."""


def package_of(module: str) -> str:
    """Return the box of the picture that *module* is in; '' for tracer itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


@cache
def modules() -> dict[str, Path]:
    """Return all modules of tracer by their names."""
    found = {}
    for path in sorted((ROOT / "tracer").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports() -> tuple[Import, ...]:
    """Return all imports of tracer's modules by each other, those for type checkers left out."""
    found = []
    for module, path in modules().items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node, is_local in _statements(tree, is_local=False):
            found += [Import(module, name, is_local) for name in _imported(node) if name != module]
    return tuple(found)


def _statements(tree: ast.AST, *, is_local: bool) -> Iterator[tuple[ast.AST, bool]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield other, is_local
            continue
        yield node, is_local
        inside = is_local or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        yield from _statements(node, is_local=inside)


def _imported(node: ast.AST) -> Iterator[str]:
    """Yield the modules of tracer that an import statement names."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in modules())
    elif isinstance(node, ast.ImportFrom):
        assert not node.level and node.module, "imports are absolute"
        for alias in node.names:
            name = f"{node.module}.{alias.name}"
            if name in modules():
                yield name
            elif node.module in modules():
                yield node.module


def test_every_package_is_in_the_order() -> None:
    """And nothing is in the order that is not there."""
    named = [name for level in LEVELS for name in level]
    assert len(named) == len(set(named))
    assert {package_of(module) for module in modules()} - {"", "__main__"} == set(named)


def test_the_imports_are_seen() -> None:
    """Of each kind one that is known: at the top, inside of a function, of a module as a name."""
    assert Import("tracer.live.watch", "tracer.engine", False) in imports()
    assert Import("tracer.cli.watch", "tracer.live.run", True) in imports()
    assert Import("tracer.engine.run", "tracer.engine.results", False) in imports()


def _level(package: str) -> int:
    return next(number for number, level in enumerate(LEVELS) if package in level)


def _breaks(each: Import) -> bool:
    importer, imported = package_of(each.importer), package_of(each.imported)
    if importer == imported or importer == "__main__":
        return False
    if not imported:
        # The version; what tracer/__init__.py itself imports is held below.
        return False
    if not importer:
        return True
    if _level(importer) == _level(imported):
        return (importer, imported) not in WITHIN_A_LEVEL
    return _level(importer) > _level(imported) or (importer, imported) in APART


def test_imports_run_one_way() -> None:
    """From the doors to the model, also inside of functions."""
    assert [each for each in imports() if _breaks(each)] == []


def test_the_top_of_the_package_imports_nothing() -> None:
    """`tracer --help` and the loading of the plugin pay for what it does."""
    assert [each for each in imports() if each.importer == "tracer"] == []


@pytest.mark.parametrize("pair", sorted(WITHIN_A_LEVEL))
def test_exceptions_are_used(pair: tuple[str, str]) -> None:
    """One that is none any more is to be taken from the list."""
    assert any((package_of(each.importer), package_of(each.imported)) == pair for each in imports())


# --- within a package -------------------------------------------------------------------------------


def _cycle(module: str, *, with_local: bool) -> list[str]:
    """Return a cycle of imports among the modules whose names begin with *module*; empty without one."""
    edges: dict[str, set[str]] = {}
    for each in imports():
        if (with_local or not each.is_local) and each.importer.startswith(module):
            edges.setdefault(each.importer, set())
            if each.imported.startswith(module):
                edges[each.importer].add(each.imported)
    try:
        list(TopologicalSorter(edges).static_order())
    except CycleError as cycle:
        return list(reversed(cycle.args[1]))
    return []


def test_no_module_imports_itself_by_others() -> None:
    """No cycle of imports at the top of modules: each can be imported first, and read by itself."""
    assert _cycle("tracer", with_local=False) == []


@pytest.mark.parametrize("package", sorted({package for level in LEVELS for package in level}))
def test_no_module_of_a_package_imports_itself_by_others(package: str) -> None:
    """Inside of functions neither."""
    assert _cycle(f"tracer.{package}", with_local=True) == []


def test_what_commands_share_imports_no_other_module_of_the_command_line() -> None:
    shared = [each.imported for each in imports() if each.importer == "tracer.cli.common"]
    assert [name for name in shared if package_of(name) == "cli"] == []


def test_the_package_of_the_command_line_loads_none_of_its_modules() -> None:
    """The entry point loads the program when it is called: a module of the package can be imported alone."""
    program = "import sys, tracer.cli; print(*sorted(name for name in sys.modules if name[:6] == 'tracer'))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == ["tracer", "tracer.cli"]
