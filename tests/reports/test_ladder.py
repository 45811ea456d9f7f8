"""The ladder diagram of `tracer show`."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
from rich.cells import cell_len
from rich.console import Console

from tracer.model import Verdict
from tracer.reports.ladder import render


def drawn(
    build: SimpleNamespace, verdict: Verdict, width: int = 120, verbose: int = 0, encoding: str = "utf-8"
) -> str:
    """The diagram of one trace."""
    file = io.TextIOWrapper(io.BytesIO(), encoding, errors="replace", newline="\n")
    console = Console(file=file, width=width, highlight=False, markup=False, emoji=False, color_system=None)
    render(verdict, build.report(verdict), console, verbose)
    file.seek(0)
    return file.read()


# fmt: off
REFUSED_PORT = """
step    since   delta  admin  sc    lb   n-api keyst neutr  db   cond  sched comp
1      +0.000            │════▶│ POST /sc/cloudhosts 202 · 6.6 s   │     │     │             Ext#14
2      +0.404   0.404    │     │════▶│ POST /v2.1/servers 202 · 6.2 s    │     │             Ext#38
3      +0.405   0.001    │     │     │────▶│ POST /v2.1/servers 202 · 6.2 s    │             Int#50
4a     +0.801   0.396    │     │     │     │────▶│ GET /v3/auth/tokens 200 · 305 ms          Int#62
4c     +6.521   5.720    │     │     │     │────────────────▶│ SELECT project_user_… ok × 2  Int#110
4c     +6.553   0.032    │     │     │     │────────────────▶│ SELECT instances ok           Int#134
4d     +6.592   0.039    │     │     │     │────────────────▶│ INSERT request_specs ok       Int#146
4d     +6.605   0.013    │     │     │     │────────────────▶│ INSERT build_requests ok      Int#158
4e     +6.637   0.032    │     │     │     │──────────────────────▶│ cast schedule_and_… ok  Int#170
5      +6.667   0.030    │     │     │ call select_destinations ok │────▶│     │             Int#182
6      +7.602   0.935    │     │     │reply select_destinations ok │◀────│     │             Int#218
7      +7.735   0.133    │     │    cast build_and_run_instance ok │──────────▶│             Int#242
8b     +8.863   1.128    │    POST /v2.0/ports 503 × 3 │◀──────────────────────│             Int#266
"""
# fmt: on


def test_the_ladder_of_a_refused_port(build: SimpleNamespace) -> None:
    """A role a column, a call a row: since the start, since the row before, arrow, label, frame."""
    text = drawn(build, build.stopped_at_8b(), 100)
    assert text.splitlines()[5:19] == REFUSED_PORT.strip().splitlines()


def test_calls_outside_the_steps_need_v(build: SimpleNamespace) -> None:
    """They are counted, and drawn when asked for."""
    few, all_of_them = drawn(build, build.stopped_at_8b()), drawn(build, build.stopped_at_8b(), verbose=1)
    assert "allocation_candidates" not in few
    assert "7 calls outside the documented steps hidden" in few
    assert "GET /allocation_candidates 200" in all_of_them


def test_what_is_owed_is_a_dashed_row(build: SimpleNamespace) -> None:
    """The step that did not happen has its place in the order, and its debtor."""
    text = drawn(build, build.stuck())
    assert re.search(r"^8b +╌╌ \? applies for network – owed by nova-compute@compute2 ╌+$", text, re.M)
    assert "✗│" in next(line for line in text.splitlines() if line.startswith("7 "))


def test_unobserved_steps_stand_where_they_belong(build: SimpleNamespace) -> None:
    """Between the calls before and behind them; one row for one reason."""
    lines = drawn(build, build.unobserved()).splitlines()
    row = next(number for number, line in enumerate(lines) if "? 4a, 4c, 4d not observed" in line)
    assert lines[row - 1].startswith("3 ")
    assert lines[row + 1].startswith("4e ")


def test_another_attempt_begins_with_a_row(build: SimpleNamespace) -> None:
    """After a reschedule the host is another one."""
    lines = drawn(build, build.rescheduled()).splitlines()
    row = next(number for number, line in enumerate(lines) if "attempt 2 on compute1" in line)
    assert lines[row + 1].startswith("7 ")


def test_a_long_run_of_one_call_is_folded(build: SimpleNamespace) -> None:
    """A poll of 12 times is one row."""
    line = "Internal_base REST nova-compute > vrm GET /service/sites/{id}/tasks/{id} 200"
    polls = [build.record(100 + n, 12_000 + n, line, step="8c") for n in range(12)]
    text = drawn(build, build.verdict([*build.flow(), *polls]), 200)
    assert text.count("/tasks/{id}") == 1
    assert "× 12" in text


@pytest.mark.parametrize("width", [100, 120, 160, 200, 260])
def test_every_label_keeps_its_result(build: SimpleNamespace, width: int) -> None:
    """Operations are cut where there is no room; results never; rows stay within the width."""
    verdict = build.rescheduled()
    rows = [line for line in drawn(build, verdict, width, 1).splitlines() if re.match(r"..... *\+\d", line)]
    assert max(map(cell_len, rows)) <= width
    results = [re.search(r"(\d{3}|ok|refused)( × \d+)?( · [\d.]+ m?s)? ?[│─═▶✗ ]", row[22:]) for row in rows]
    assert all(results)


def test_all_roles_at_once_are_legible(build: SimpleNamespace) -> None:
    """16 roles and an unknown address in 100 columns: narrower columns, no deltas, no crash."""
    roles = ["sc", "lb", "nova-api", "keystone", "glance-api", "neutron-server", "cinder-api",
             "cinder-scheduler", "cinder-volume", "placement", "db", "nova-conductor", "nova-scheduler",
             "nova-compute", "vrm", "192.168.100.200"]  # fmt: skip
    calls = [
        build.record(n, n, f"Internal_base REST admin > {role} GET / 200", step="1")
        for n, role in enumerate(roles, 1)
    ]
    text = drawn(build, build.verdict(calls), 100)
    assert all(len(re.findall(r"200", line)) == 1 for line in text.splitlines() if line.startswith("1 "))
    assert "delta" not in text


def test_a_role_that_calls_itself_is_drawn(build: SimpleNamespace) -> None:
    """A loop instead of an arrow."""
    call = build.record(1, 0, "Internal_base RPC nova-compute > nova-compute cast x ok", step="7")
    assert "↺ cast x ok" in drawn(build, build.verdict([call]))


def test_a_trace_without_a_documented_call_shows_what_it_has(build: SimpleNamespace) -> None:
    """Better than an empty ladder."""
    call = build.record(1, 0, "Internal_base RPC nova-compute > nova-conductor call object_action ok")
    assert "object_action" in drawn(build, build.verdict([call]))
    assert drawn(build, build.verdict([]))


def test_hostile_text_stays_on_its_grid(build: SimpleNamespace) -> None:
    """Escapes are shown, wide characters do not move the columns."""
    verdict = build.hostile()
    wide = replace(verdict.calls[0], operation="POST /云主机")
    text = drawn(build, replace(verdict, calls=(wide, *verdict.calls[1:])), 200)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    assert "\\u4e91" in text


def test_an_ascii_terminal_gets_an_ascii_ladder(build: SimpleNamespace) -> None:
    """Arrows of > and -, and no question marks in their place."""
    text = drawn(build, build.stopped_at_8b(), encoding="ascii")
    [row] = [line for line in text.splitlines() if line.startswith("3 ")]
    assert "|------->|" in row.replace(" ", "") or "-->|" in row
    assert "?" not in row
