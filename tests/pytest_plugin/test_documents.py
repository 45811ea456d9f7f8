"""What README and the pipelines to copy say of the plugin is run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
# The second example needs interfaces to record from: test_recording.py.
EXAMPLE, _ = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
(ALONE,) = re.findall(r"^(pytest --tracer-check \S+ .*)$", README, re.MULTILINE)
PIPELINES = sorted((ROOT / "tests" / "examples" / "pipelines").iterdir())
COMMAND = re.compile(r"\b((?:pytest --tracer-check|tracer check) boot [^\n|']*)")


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """One line of a shell in which `tracer` and `pytest` are those of this environment."""
    known = any(point.name == "tracer" for point in entry_points(group="pytest11"))
    plugin = "" if known else "-p tracer.pytest_plugin"
    functions = (
        f'tracer() {{ "{sys.executable}" -m tracer "$@"; }}; '
        f'pytest() {{ "{sys.executable}" -m pytest {plugin} "$@"; }}; '
    )
    return subprocess.run(
        ["bash", "-c", functions + line],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "NO_COLOR": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )


def test_the_example_of_the_readme_passes(tmp_path: Path) -> None:
    (tmp_path / "test_boot.py").write_text(EXAMPLE, encoding="utf-8")
    (tmp_path / "captures").symlink_to(ROOT / "captures")
    ran = shell("pytest --strict-markers", tmp_path)
    assert ran.returncode == 0, ran.stdout
    assert "1 passed" in ran.stdout


def test_the_command_of_the_readme(tmp_path: Path) -> None:
    """One of two creations is refused, and the report says so."""
    (tmp_path / "captures").symlink_to(ROOT / "captures")
    ran = shell(ALONE, tmp_path)
    assert ran.returncode == 1, ran.stdout
    assert "1 failed, 1 passed" in ran.stdout
    assert (tmp_path / "report.xml").exists()


@pytest.mark.parametrize(
    "pipeline",
    [
        pytest.param(path, id=path.name, marks=[pytest.mark.long] if number else [])
        for number, path in enumerate(PIPELINES)
    ],
)
def test_a_pipeline(pipeline: Path, tmp_path: Path) -> None:
    """Its command writes a report, and fails or not as the creation did."""
    (command,) = COMMAND.findall(pipeline.read_text(encoding="utf-8"))
    boot = tmp_path / "boot"
    boot.symlink_to(ROOT / "captures" / "ok-volume")
    assert shell(command, tmp_path).returncode == 0
    boot.unlink()
    boot.symlink_to(ROOT / "captures" / "fail-quota-403")
    assert shell(command, tmp_path).returncode == 1
    assert "step 4c failed" in (tmp_path / "report.xml").read_text(encoding="utf-8")
    assert f"tests/examples/pipelines/{pipeline.name}" in README
