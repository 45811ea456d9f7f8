"""Event logs, as the library that wrote them and pm4py read them."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import r4pm
from r4pm.bindings import locel_get_ob_by_id, num_events, num_objects

from tracer.engine import Settings, check
from tracer.model import Report
from tracer.reports import ocel


def log(report: Report) -> dict[str, Any]:
    """The written log."""
    written: dict[str, Any] = json.loads(b"".join(ocel.pieces(report)))
    return written


def about(log: dict[str, Any], event: dict[str, Any], kind: str) -> list[str]:
    """The names of the objects of that kind that an event is about."""
    kinds = {each["id"]: each["type"] for each in log["objects"]}
    ids = [each["objectId"] for each in event["relationships"]]
    return [name.partition(" ")[2] for name in ids if kinds[name] == kind]


def test_an_event_for_each_step_that_came(build: SimpleNamespace) -> None:
    verdict = build.stopped_at_8b()
    written = log(build.report(verdict))
    came = [step for step in verdict.steps if step.calls]
    assert sorted(event["type"] for event in written["events"]) == sorted(
        f"{step.step} {step.title}" for step in came
    )
    failed = next(event for event in written["events"] if event["type"].startswith("8b"))
    values = {each["name"]: each["value"] for each in failed["attributes"]}
    assert values["status"] == "failed"
    assert "POST /v2.0/ports 503" in values["line"]
    assert about(written, failed, "creation") == [verdict.id]
    assert about(written, failed, "service") == ["nova-compute", "neutron-server"]
    assert about(written, failed, "host") == [verdict.compute_host]


def test_every_attempt_has_its_events_on_its_host(build: SimpleNamespace) -> None:
    verdict = build.rescheduled()
    written = log(build.report(verdict))
    hosts = [about(written, event, "host") for event in written["events"] if event["type"].startswith("7 ")]
    assert hosts == [[attempt.host] for attempt in verdict.attempt_details]
    times = [event["time"] for event in written["events"]]
    assert times == sorted(times)


def test_creations_share_the_events_of_their_request(build: SimpleNamespace) -> None:
    verdict = build.conforming()
    several = [replace(verdict, id=f"{verdict.request_id}/{n}", server_id=f"server-{n}") for n in "123"]
    written = log(build.report(*several))
    assert len(written["events"]) == len(log(build.report(verdict))["events"])
    for event in written["events"]:
        assert about(written, event, "creation") == [each.id for each in several]
    assert Counter(each["type"] for each in written["objects"])["request"] == 1


def test_hostile_names_stay_apart(build: SimpleNamespace, tmp_path: Path) -> None:
    """Names that look alike once they are plain stay several; times that no calendar has are no events."""
    one = replace(build.hostile(), id="\x1b]0;x" + "A" * 5000 + "1", compute_host="\udc80")
    two = replace(one, id="\x1b]0;x" + "A" * 5000 + "2")
    odd = replace(one, id="odd", steps=tuple(replace(step, started_ns=2**80) for step in one.steps))
    path = tmp_path / "log.json"
    path.write_bytes(b"".join(ocel.pieces(build.report(one, two, odd))))
    written = json.loads(path.read_text())
    assert sum(each["type"] == "creation" for each in written["objects"]) == 3
    assert "\x1b" not in json.dumps(written, ensure_ascii=False)
    again = r4pm.import_item("SlimLinkedOCEL", str(path))
    assert num_events(again) == len(written["events"])
    assert num_objects(again) == len(written["objects"])


def test_nothing_is_left_behind(build: SimpleNamespace) -> None:
    before = r4pm.list_items()
    log(build.report(build.conforming()))
    with contextlib.suppress(StopIteration):
        next(ocel.pieces(build.report()))
    assert len(r4pm.list_items()) == len(before)


def written_to(folder: Path) -> Path:
    """The report on a real capture, written."""
    path = folder / "log.json"
    report = check(["example:fail-vrm-500-reschedule"], Settings(stall_s=20))
    path.write_bytes(b"".join(ocel.pieces(report)))
    return path


def test_others_read_it(tmp_path: Path) -> None:
    """Events and objects of a real capture, in r4pm."""
    path = written_to(tmp_path)
    again = r4pm.import_item("SlimLinkedOCEL", str(path))
    written = json.loads(path.read_text())
    assert num_events(again) == len(written["events"]) == 16
    assert locel_get_ob_by_id(again, "host compute1") is not None


@pytest.mark.long  # pm4py comes with the extra `oracle`
def test_pm4py_reads_it(tmp_path: Path) -> None:
    path = written_to(tmp_path)
    written = json.loads(path.read_text())
    standard = pytest.importorskip("pm4py.objects.ocel.importer.jsonocel.variants.ocel20_standard")
    read = standard.apply(str(path))
    assert len(read.events) == 16
    assert len(read.objects) == len(written["objects"])
    assert len(read.relations) == sum(len(event["relationships"]) for event in written["events"])
