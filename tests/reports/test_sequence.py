"""The sequence diagram before it is drawn: rows, and the marks between them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from tracer.model import Deviation
from tracer.openstack.services import FLOW
from tracer.reports.sequence import Mark, Row, entries, in_flow_order, marks, rows


def test_roles_stand_in_the_order_of_the_flow_and_strangers_behind() -> None:
    assert in_flow_order(["vrm", "10.0.0.9", "db", "admin", "db"]) == ["admin", "db", "vrm", "10.0.0.9"]
    assert len(set(FLOW)) == len(FLOW)


def test_alike_calls_in_a_row_are_one_row(build: SimpleNamespace) -> None:
    found = [(row.call.operation, row.count) for row in rows(build.conforming()) if row.call.step == "4c"]
    assert found == [("SELECT project_user_quotas", 2), ("SELECT instances", 1)]


def test_a_row_ends_with_its_last_call(build: SimpleNamespace) -> None:
    verdict = build.stopped_at_8b()
    last = rows(verdict)[-1]
    assert (last.count, last.ended_ns) == (3, max(c.started_ns + c.duration_ns for c in verdict.calls[-3:]))


def test_every_call_is_in_one_row(build: SimpleNamespace) -> None:
    for verdict in (build.conforming(), build.rescheduled(), build.stuck(), build.hostile()):
        assert sum(row.count for row in rows(verdict, every=True)) == len(verdict.calls)
        assert sum(row.count for row in rows(verdict)) == sum(call.step is not None for call in verdict.calls)


def test_a_trace_without_a_witness_shows_all_calls(build: SimpleNamespace) -> None:
    calls = tuple(replace(call, step=None) for call in build.flow("3"))
    assert len(rows(replace(build.conforming(), calls=calls))) == len(calls)


@pytest.mark.parametrize(
    ("which", "found"),
    [
        ("conforming", []),
        ("stopped_at_8b", [(23, "deviation", "8b", None), (23, "rest", "", None)]),
        ("rescheduled", [(22, "attempt", "", None), (25, "deviation", "8c", None)]),
        ("stuck", [(19, "missing", "8b", ("nova-compute", "neutron-server")), (19, "rest", "", None)]),
    ],
)
def test_marks_stand_where_they_belong(
    build: SimpleNamespace, which: str, found: list[tuple[int, str, str, tuple[str, str] | None]]
) -> None:
    verdict = getattr(build, which)()
    assert [(mark.before, mark.kind, mark.step, mark.ends) for mark in marks(verdict)] == found


def test_a_missing_step_stands_before_what_came_after_it(build: SimpleNamespace) -> None:
    calls = [call for call in build.flow() if call.step != "5"]
    verdict = replace(
        build.conforming(),
        calls=tuple(calls),
        steps=build.steps(calls, _5="missing"),
        deviations=(
            Deviation("missing", "5", "step 5 never came", None, ("RPC nova-conductor > nova-scheduler: x",)),
        ),
    )
    drawn = list(entries(verdict))
    at = next(n for n, entry in enumerate(drawn) if isinstance(entry, Mark))
    before, after = drawn[at - 1], drawn[at + 1]
    assert isinstance(before, Row)
    assert isinstance(after, Row)
    assert (before.call.step, after.call.step) == ("4e", "6")
    assert drawn[at].ends == ("nova-conductor", "nova-scheduler")  # type: ignore[union-attr]


def test_steps_that_are_unseen_for_one_reason_at_one_place_share_a_mark(build: SimpleNamespace) -> None:
    words = [mark.words.partition(" not observed")[0] for mark in marks(build.unobserved())]
    assert words == ["4a, 4c, 4d", "5, 6"]
