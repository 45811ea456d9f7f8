"""The small cloud of the examples, used as its README says: a copy of the folder, elsewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import small_cloud

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "tests" / "examples" / "small_cloud"
README = (EXAMPLE / "README.md").read_text(encoding="utf-8")
WHY_NOT = small_cloud.why_not()
MINE = """

@pytest.mark.tracer(allow=["unobserved:4c", "unobserved:4d"])
def test_mine(tracer, cloud):
    with tracer.record(cloud.interfaces) as traffic:
        cloud.boot("web-2")
    assert traffic.only(name="web-2").conforms()
"""


def run(
    folder: Path, installed: list[str], *arguments: str, more: str = "", **environment: str
) -> tuple[int, str]:
    """pytest on a copy of the example, with *more* tests: its exit code and what it says."""
    copy = folder / "small_cloud"
    shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    with (copy / "test_small_cloud.py").open("a", encoding="utf-8") as tests:
        tests.write(more)
    path = [str(ROOT), *(entry for entry in sys.path if str(EXAMPLE) not in entry)]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "small_cloud", "-rs", *installed, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path), "COLUMNS": "160"} | environment,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    return ran.returncode, ran.stdout


@pytest.mark.long
@pytest.mark.skipif(WHY_NOT is not None, reason=f"a small cloud {WHY_NOT}")
def test_a_copy_says_what_broke(tmp_path: Path, installed: list[str]) -> None:
    """The whole message, with SQLite for a database; a test that allows what nobody can see then passes."""
    assert re.search(r"^sudo BREAK=8b pytest small_cloud ", README, re.MULTILINE)
    made = ("-k", "documented or 4d or mine")
    code, told = run(tmp_path, installed, *made, more=MINE, BREAK="8b", DATABASE="sqlite")
    assert code == 1, told
    assert "1 failed, 1 passed, 1 skipped" in told, told
    kept = tmp_path / "tracer-captures/small_cloud_test_small_cloud.py/test_a_creation_goes_as_documented"
    for words in (
        "deviates: step 8b failed: neutron-server answered 409 to POST /v2.0/ports: No more addresses.",
        f"captures: {kept} (secrets overwritten)",
        "expected REST nova-compute > neutron-server POST /v2.0/ports 2xx|3xx: apply for network",
        "8b    FAILED ",
        "4d    unobserved ",
        "tracer ladder",
        "without MariaDB nothing on the wire shows this step",
    ):
        assert words in told, told
    assert list(kept.glob("*.pcapng"))
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]


def test_where_there_can_be_none_it_is_skipped_and_says_why(tmp_path: Path, installed: list[str]) -> None:
    """But not in a pipeline."""
    code, told = run(tmp_path, installed, "-k", "documented", PATH="/nowhere", CI="")
    assert (code, "1 skipped" in told) == (0, True), told
    assert "a small cloud needs network namespaces (Linux, with iproute2)" in told
    shutil.rmtree(tmp_path / "small_cloud")
    code, told = run(tmp_path, installed, "-k", "documented", PATH="/nowhere", CI="true")
    assert (code, "1 error" in told) == (1, True), told


def test_its_readme_names_all_its_parts() -> None:
    for path in EXAMPLE.glob("*.py"):
        assert f"`{path.name}`" in README
    for service in small_cloud.HOSTS:
        assert re.search(rf"\b{service}\b", README, re.IGNORECASE), service
