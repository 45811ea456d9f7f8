"""Modules of the doors and of the small packages import each other one way, inside of functions too."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "tracer"
PACKAGES = (
    *("capture", "cli", "protocols", "pytest_plugin", "reassembly"),
    *("recording", "replay", "reports", "testing"),
)


def name_of(path: Path) -> str:
    return ".".join(("tracer", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


def imports(path: Path, modules: set[str]) -> set[str]:
    """The modules of *modules* that the file imports; `from package import module` is that module."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (names & modules) or {str(node.module)}
    return (found & modules) - {name_of(path)}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_imports_one_that_imports_it(package: str) -> None:
    paths = {name_of(path): path for path in (ROOT / package).rglob("*.py")}
    graph = {name: imports(path, set(paths)) for name, path in paths.items()}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as cycle:
        pytest.fail(" -> ".join(reversed(cycle.args[1])))


def test_what_commands_share_imports_no_other_module_of_the_command_line() -> None:
    modules = {name_of(path) for path in (ROOT / "cli").glob("*.py")}
    assert imports(ROOT / "cli" / "common.py", modules) == set()


def test_the_package_of_the_command_line_loads_none_of_its_modules() -> None:
    """The entry point loads the program when it is called: a module of the package can be imported alone."""
    program = "import sys, tracer.cli; print(*sorted(name for name in sys.modules if name[:6] == 'tracer'))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == ["tracer", "tracer.cli"]
