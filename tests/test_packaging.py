"""What a wheel carries: grammars/ and captures/ lie outside the package and must be named, file by file."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

import tracer

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
INCLUDED: dict[str, str] = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]


def shipped() -> list[str]:
    """The files of grammars/ and captures/."""
    return sorted(
        path.relative_to(ROOT).as_posix()
        for folder in ("grammars", "captures")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and not path.name.startswith(".")
    )


def test_every_grammar_and_capture_is_named_in_pyproject() -> None:
    assert sorted(INCLUDED) == shipped()


def test_they_go_where_tracer_looks_for_them() -> None:
    assert {f"tracer/{source}" for source in INCLUDED} == set(INCLUDED.values())
    assert all(target == f"tracer/{source}" for source, target in INCLUDED.items())


def test_only_files_are_named() -> None:
    """A folder in force-include would pass by every exclude."""
    assert [source for source in INCLUDED if not (ROOT / source).is_file()] == []


def test_the_version_is_in_one_place() -> None:
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert "version" not in PROJECT["project"]
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|[ab]\d+|rc\d+)?", tracer.__version__)


def test_the_licence_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert [f"   {n}. " in text for n in range(1, 10)] == [True] * 9
    assert "END OF TERMS AND CONDITIONS" in text
    assert "APPENDIX: How to apply the Apache License to your work." in text


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without a network."""
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed; it comes with '.[test]'")
    folder = tmp_path_factory.mktemp("dist")
    build = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert build.returncode == 0, build.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_what_it_should_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {n for n in archive.namelist() if ".dist-info/" not in n}
    sources = {p.relative_to(ROOT).as_posix() for p in (ROOT / "tracer").rglob("*.py")}
    sources |= {p.relative_to(ROOT).as_posix() for p in (ROOT / "tracer/reports/html").glob("*.*")}
    sources |= {"tracer/README.md"}  # the architecture, beside the code
    marker = {"tracer/py.typed"} if (ROOT / "tracer" / "py.typed").exists() else set()
    assert names == sources | marker | set(INCLUDED.values())
    assert wheel.stat().st_size < 8_000_000


def test_the_wheel_says_who_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = HeaderParser().parsestr(archive.read(name).decode("utf-8"))
    assert (metadata["Name"], metadata["Version"]) == ("cloudvm-tracer", tracer.__version__)
    assert metadata["Requires-Python"] == ">=3.11"


def test_the_unpacked_wheel_works_anywhere(wheel: Path, tmp_path: Path) -> None:
    """As installed: from a folder without a checkout, with the wheel's own grammars and captures."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    ran = subprocess.run(
        [sys.executable, "-m", "tracer", "check", "example:ok-image"],
        cwd=elsewhere,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert (ran.returncode, ran.stdout.splitlines()[-2]) == (0, "1 trace: 1 conforms  (1 active)"), ran.stderr
