"""Tables, as DuckDB reads them."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pytest

from tracer.cli import main
from tracer.reports import parquet

README = Path(__file__).parent.parent.parent / "README.md"
CAPTURE = "example:fail-vrm-500-reschedule"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both tables of a capture, and the same as JSON."""
    folder = tmp_path_factory.mktemp("tables")
    for command, form, name in (
        ("check", "parquet", "steps.parquet"),
        ("calls", "parquet", "calls.parquet"),
        ("check", "json", "report.json"),
        ("calls", "jsonl", "calls.jsonl"),
    ):
        with pytest.raises(SystemExit) as end:
            main([command, CAPTURE, "--format", form, "-o", str(folder / name), "-q"])
        assert end.value.code == 0
    return folder


def rows(query: str, folder: Path) -> list[dict[str, Any]]:
    """What DuckDB answers, with tables of that folder."""
    with duckdb.connect() as connection:
        found = connection.sql(re.sub(r"'(\w+\.parquet)'", rf"'{folder}/\1'", query))
        return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]


def test_steps_are_those_of_the_json(folder: Path) -> None:
    (trace,) = json.loads((folder / "report.json").read_text())["traces"]
    found = rows("SELECT * EXCLUDE started, epoch_us(started) AS us FROM 'steps.parquet'", folder)
    assert len(found) == len(trace["steps"])
    for row, step in zip(found, trace["steps"], strict=True):
        assert row["trace"] == trace["id"]
        for key in ("name", "server_id", "verdict", "outcome", "compute_host"):
            assert row[key] == trace[key]
        for key in ("step", "title", "status", "calls", "reason"):
            assert row[key] == step[key]
        assert row["duration_ms"] == pytest.approx(step["duration_ms"], abs=0.051)
        assert (row["us"] is None) == (step["started"] is None)


def test_calls_are_those_of_the_json_lines(folder: Path) -> None:
    lines = [json.loads(line) for line in (folder / "calls.jsonl").read_text().splitlines()]
    seconds = "strftime(started AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%S.%fZ') AS started"
    found = rows(f"SELECT * REPLACE ({seconds}) FROM 'calls.parquet'", folder)
    assert [row.pop("duration_ms") for row in found] == [
        pytest.approx(line.pop("duration_ms"), abs=0.051) for line in lines
    ]
    assert found == lines


def test_the_query_of_the_readme(folder: Path) -> None:
    (query,) = re.findall(r"```sql\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    found = rows(query, folder)
    assert len(found) == 10
    assert list(found[0].values()) == ["1", "sc", "POST /sc/cloudhosts", 1, pytest.approx(619.8)]
    assert [row["p95_ms"] for row in found] == sorted((row["p95_ms"] for row in found), reverse=True)
    ports = next(row for row in found if row["operation"] == "POST /v2.0/ports")
    assert (ports["step"], ports["callee"]) == ("8b", "neutron-server")


def test_rows_come_in_groups(build: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is written is given away before the next rows are read."""
    monkeypatch.setattr(parquet, "_GROUP_ROWS", 10)
    calls = build.conforming().calls
    read = 0

    def counted() -> Any:
        nonlocal read
        for call in calls:
            read += 1
            yield call

    table = parquet.call_pieces(counted())
    parts = [next(table)]
    assert read == 10
    parts += table
    (tmp_path / "calls.parquet").write_bytes(b"".join(parts))
    assert len(rows("SELECT * FROM 'calls.parquet'", tmp_path)) == len(calls)
    groups = rows("SELECT DISTINCT row_group_id FROM parquet_metadata('calls.parquet')", tmp_path)
    assert len(groups) == -(-len(calls) // 10)


def test_nothing_and_nonsense_are_tables_too(build: SimpleNamespace, tmp_path: Path) -> None:
    hostile = build.hostile()
    call = replace(hostile.calls[0], started_ns=2**70, operation="\udc80\x1b[31m" + "A" * 100_000)
    hostile = replace(hostile, calls=(call,))
    for number, report in enumerate((build.report(), build.report(hostile))):
        path = tmp_path / f"{number}.parquet"
        path.write_bytes(b"".join(parquet.pieces(report)))
        found = rows(f"SELECT * FROM '{path.name}'", tmp_path)
        assert len(found) == sum(len(verdict.steps) for verdict in report.verdicts)
    (tmp_path / "2.parquet").write_bytes(b"".join(parquet.call_pieces(hostile.calls)))
    (row,) = rows("SELECT operation FROM '2.parquet'", tmp_path)
    assert len(row["operation"]) < 10_000


@pytest.mark.parametrize("command", ["check", "calls"])
def test_a_terminal_gets_no_table(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    with pytest.raises(SystemExit) as end:
        main([command, "example:fail-400", "--format", "parquet"])
    assert end.value.code == 2
    assert "name a file with -o" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["check", "calls"])
def test_what_is_not_installed_is_said_before_the_work(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "tracer.reports.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SystemExit) as end:
        main([command, "no-such-capture.pcap", "--format", "parquet"])
    assert end.value.code == 2
    assert "pip install 'cloudvm-tracer[parquet]'" in capsys.readouterr().err
