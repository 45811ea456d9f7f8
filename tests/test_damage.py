"""Damaged captures: what loses nothing changes no verdict; what loses something leads to no false claim.

The captures are the small ones of captures/.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from lab import damage as D
from lab.captures import SHARED, needs_shared

from tracer.engine import Settings, check
from tracer.reports.json import render

CAPTURES = Path(__file__).parent.parent / "captures"
STALL_S = 20.0

Json = dict[str, Any]
Packets = list[tuple[int, bytes, int]]
Files = dict[str, tuple[int, Packets]]
"""Name of the file up to its first dot -> link type, packets"""

SMALL = (
    "ok-image",
    "ok-volume",
    "fail-vrm-500-reschedule",
    "fail-quota-403",
    "fail-no-valid-host",
    "fail-conductor-down",
    "fail-neutron-down-midway",
    "colo-ok",
)


def each(harm: Callable[[Packets, int], Packets]) -> Callable[[Files], Files]:
    """The same damage to each file."""
    return lambda files: {name: (link, harm(packets, link)) for name, (link, packets) in files.items()}


def from_share(share: float) -> Callable[[Files], Files]:
    """All captures started when this share of all packets had passed."""

    def harm(files: Files) -> Files:
        start_ns = D.time_at([packets for _, packets in files.values()], share)
        return each(lambda packets, _: D.since(packets, start_ns))(files)

    return harm


def without(*names: str) -> Callable[[Files], Files]:
    """Some capture files missing."""
    return lambda files: {name: file for name, file in files.items() if name not in names}


def stopped(name: str, share: float) -> Callable[[Files], Files]:
    """One capture file ends at a *share* of its packets, the others go on."""
    return lambda files: {
        each: (link, D.without_end(packets, 1 - share) if each == name else packets)
        for each, (link, packets) in files.items()
    }


def off(point: str, milliseconds: int) -> Callable[[Files], Files]:
    """The clock of one capture point off."""
    return lambda files: {
        name: (link, D.shift(packets, milliseconds * 1_000_000) if name == point else packets)
        for name, (link, packets) in files.items()
    }


LOSSLESS: dict[str, Callable[[Files], Files]] = {
    "2 % displaced by 1-3 records": each(lambda p, _: D.reorder(p)),
    "2 % came in another order": each(lambda p, _: D.reorder(p, keep_times=False)),
    "each packet twice": each(lambda p, _: D.duplicate(p)),
    "2 % retransmitted": each(D.retransmit),
    "super-segments": each(D.super_segments),
    "AMQP segments ignore frames": each(D.coalesce),
}
"""Each loses nothing: everything must be as in the undamaged capture."""

ETHERNET_ONLY: dict[str, Callable[[Files], Files]] = {
    "QinQ": each(lambda p, _: D.qinq(p)),
    "VXLAN": each(lambda p, _: D.vxlan(p)),
}
"""Likewise; for taps, not for `-i any`."""

CLOCKS: dict[str, Callable[[Files], Files]] = {
    f"{point} {by:+} ms": off(point, by) for point in ("ctl-any", "compute2-any") for by in (-3, 3, 5)
}
"""Likewise; for captures of several points."""

VRM_PORT = 7070
STOPPED = (
    *(("Internal_base", share) for share in (0.3, 0.5, 0.7, 0.9)),
    ("External_api", 0.5),
    *(("ctl-any", share) for share in (0.5, 0.8)),
)
"""Files that end too early, and the share of their packets that they hold."""
LEFT_OUT = {
    "without External_api": ("External_api",),
    "without Internal_base": ("Internal_base",),
    "without the compute nodes": ("compute1-any", "compute2-any"),
    "without the controller": ("ctl-any",),
    "without the SC": ("sc-any",),
}
"""Files that are missing."""

LOSSY: dict[str, Callable[[Files], Files]] = {
    "0.1 % lost": each(lambda p, _: D.lose(p, 0.001)),
    "1 % lost": each(lambda p, _: D.lose(p, 0.01)),
    "10 % lost": each(lambda p, _: D.lose(p, 0.1)),
    "AMQP segments ignore frames, started 35 % in": lambda files: from_share(0.35)(
        LOSSLESS["AMQP segments ignore frames"](files)
    ),
    "started 10 % in": from_share(0.10),
    "started 35 % in": from_share(0.35),
    "each file started 20 % in": each(lambda p, _: D.without_front(p, 0.2)),
    "stopped at half": each(lambda p, _: D.without_end(p, 0.5)),
    **{f"{name} stopped at {share:.0%}": stopped(name, share) for name, share in STOPPED},
    "client to server only": each(lambda p, link: D.one_direction(p, link, True)),
    "server to client only": each(lambda p, link: D.one_direction(p, link, False)),
    "snap length 256": each(lambda p, _: D.snap(p, 256)),
    "snap length 96": each(lambda p, _: D.snap(p, 96)),
    "1 % with wrong bytes": each(lambda p, _: D.corrupt(p)),
    **{damage: without(*names) for damage, names in LEFT_OUT.items()},
    **{
        f"without port {port}": each(lambda p, link, port=port: D.without_port(p, link, port))  # type: ignore[misc]
        for port in (8774, 5672, 3306, 5000, 9696, VRM_PORT)
    },
}
"""Each loses something: less may be known, and nothing wrong may be said."""

NEVER_AT_THE_VRM = ("fail-no-valid-host", "fail-conductor-down", "fail-neutron-down-midway")
"""These creations end before anybody asks the VRM: nothing is on its port."""


def concerns(damage: str, scenario: str) -> bool:
    """Tell whether a damage of LOSSY changes the captures of a scenario."""
    names = {path.name.partition(".")[0] for path in (CAPTURES / scenario).glob("*.pcap.zst")}
    of = LEFT_OUT.get(damage) or [
        name for name, share in STOPPED if damage == f"{name} stopped at {share:.0%}"
    ]
    if damage == f"without port {VRM_PORT}":
        return scenario not in NEVER_AT_THE_VRM
    return not of or bool(names.intersection(of))


def in_turn(damages: Iterable[str], scenarios: Sequence[str]) -> list[Any]:
    """Each damage with each scenario that it concerns; in a short run with one of these."""
    cases = []
    for number, damage in enumerate(damages):
        concerned = [scenario for scenario in scenarios if concerns(damage, scenario)]
        for place, scenario in enumerate(concerned):
            marks = [] if place == number % len(concerned) else [pytest.mark.long]
            cases.append(pytest.param(scenario, damage, marks=marks, id=f"{damage}-{scenario}"))
    return cases


KNOWN: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
    ("ok-volume", "without External_api", {"outcome": "active", "unobserved": {"1", "2"}}),
    ("ok-volume", "without port 8774", {"outcome": "active"}),
    ("ok-volume", "without port 3306", {"outcome": "active", "unobserved": {"4c", "4d"}}),
    ("ok-volume", "without port 5672", {"outcome": "active", "unobserved": {"4e", "5", "6", "7"}}),
    ("ok-volume", "without port 9696", {"outcome": "active", "unobserved": {"8b"}}),
    ("ok-volume", "without port 7070", {"outcome": "active", "unobserved": set()}),
    ("ok-volume", "without port 5000", {"outcome": "active", "unobserved": set()}),
    ("ok-volume", "without Internal_base", {"outcome": "active"}),
    ("ok-volume", "0.1 % lost", {"outcome": "active"}),
    ("ok-image", "started 35 % in", {"outcome": "active"}),
    ("fail-vrm-500-reschedule", "without External_api", {"outcome": "active", "unobserved": {"1", "2"}}),
    ("fail-quota-403", "without External_api", {"outcome": "rejected", "stopped_at": "4c"}),
    ("fail-quota-403", "without port 3306", {"outcome": "rejected", "stopped_at": "4c"}),
    ("fail-no-valid-host", "without External_api", {"outcome": "error", "stopped_at": "6"}),
    ("fail-no-valid-host", "without port 3306", {"outcome": "error", "stopped_at": "6"}),
    ("fail-neutron-down-midway", "without port 3306", {"outcome": "error", "stopped_at": "8b"}),
    ("fail-neutron-down-midway", "without External_api", {"outcome": "error", "stopped_at": "8b"}),
    ("fail-conductor-down", "without port 3306", {"outcome": "stuck", "stopped_at": "5"}),
    ("colo-ok", "without the SC", {"outcome": "active"}),
    ("colo-ok", "without the compute nodes", {"outcome": "active"}),
)
"""What is still in a damaged capture must be said of its last creation; `unobserved`: required steps."""


@cache
def undamaged(scenario: str) -> Files:
    paths = sorted((CAPTURES / scenario).glob("*.pcap.zst"))
    assert paths, f"captures/{scenario} is not there"
    return {path.name.partition(".")[0]: D.read(path) for path in paths}


def truths(scenario: str) -> list[Json]:
    path = CAPTURES / scenario / "truth.json"
    creates: list[Json] = json.loads(path.read_text(encoding="utf-8"))["creates"]
    return creates


def checked(folder: Path) -> Json:
    """What `tracer check FOLDER --format json --stall 20` says."""
    found: Json = json.loads(render(check([str(folder)], Settings(stall_s=STALL_S))))
    return found


@cache
def baseline(scenario: str) -> Json:
    return checked(CAPTURES / scenario)


def report(files: Files, folder: Path) -> Json:
    folder.mkdir(exist_ok=True)
    for name, (link, packets) in files.items():
        D.write(folder / f"{name}.pcap", packets, link)
    return checked(folder)


def harmed(scenario: str, harm: Callable[[Files], Files], folder: Path) -> Json:
    """The report on a damaged scenario."""
    files = undamaged(scenario)
    worse = harm(files)
    assert worse and worse != files, "the same capture as before: this damage is none here"
    return report(worse, folder)


def answer(trace: Json) -> Json:
    """What a report says of a creation, apart from times and frames."""
    members = ("id", "request_id", "server_id", "project_id", "name", "verdict", "outcome")
    members += ("stopped_at", "api_host", "compute_host", "attempts")
    return {key: trace[key] for key in members} | {
        "steps": [(step["step"], step["status"]) for step in trace["steps"]],
        "deviations": [(d["kind"], d["step"]) for d in trace["deviations"]],
    }


def owner(trace: Json, creates: list[Json]) -> Json | None:
    """The creation that a trace is about, by the most trustworthy id that it has."""
    for key in ("server_id", "request_id", "name"):
        if trace[key]:
            found = [c for c in creates if c.get(key) == trace[key]]
            if found or key != "name":
                return found[0] if found else None
    return None


def false_claims(report: Json, before: Json, creates: list[Json]) -> Iterator[str]:
    """Say each thing in a report that is not so. Less than the whole truth is none of them."""
    left = list(creates)
    undamaged_traces = {owner(trace, creates)["name"]: trace for trace in before["traces"]}  # type: ignore[index]
    for trace in report["traces"]:
        who, nameless = trace["id"], not (trace["server_id"] or trace["request_id"] or trace["name"])
        create = owner(trace, left) or (left[0] if nameless and left else None)
        if create is None:
            yield f"{who}: no such creation, or a second trace of one"
            continue
        left.remove(create)
        yield from _false_of(trace, undamaged_traces[create["name"]], create)


def _false_of(trace: Json, whole: Json, create: Json) -> Iterator[str]:
    who, outcome, real = create["name"], trace["outcome"], create["outcome"]
    for key in ("request_id", "server_id", "name"):
        if trace[key] and create.get(key) and trace[key] != create[key]:
            yield f"{who}: {key} {trace[key]}, is {create[key]}"
    if outcome not in (real, "unfinished"):
        yield f"{who}: outcome {outcome}, was {real}"
    known = {(d["kind"], d["step"]) for d in whole["deviations"]}
    for deviation in trace["deviations"]:
        # Of a failure whose place is lost no step is named.
        if deviation["step"] and (deviation["kind"], deviation["step"]) not in known:
            yield f"{who}: {deviation['kind']} {deviation['step']}: {deviation['message']}"
    if real == "active" and trace["verdict"] == "deviates":
        yield f"{who}: deviates"
    step = create["failed_step"]
    steps = step if isinstance(step, list) else [step]
    if outcome == real and trace["stopped_at"] not in (*steps, None):
        yield f"{who}: stopped at {trace['stopped_at']}, was {step}"
    hosts = iter(create.get("attempted_hosts") or [])
    if not all(host in hosts for host in trace["attempts"]):
        yield f"{who}: attempts {trace['attempts']}, were {create.get('attempted_hosts')}"
    before = {s["step"]: s["status"] for s in whole["steps"]}
    for result in trace["steps"]:
        name, status, was = result["step"], result["status"], before[result["step"]]
        if status in ("missing", "failed") and status != was:
            yield f"{who}: step {name} {status}, was {was}"
        if was in ("seen", "failed") and status == "skipped":
            yield f"{who}: step {name} skipped, was {was}"


@pytest.mark.parametrize(
    ("scenario", "damage"),
    in_turn(LOSSLESS, ["ok-volume", "fail-vrm-500-reschedule", "fail-neutron-down-midway", "colo-ok"]),
)
def test_nothing_lost_nothing_changed(scenario: str, damage: str, tmp_path: Path) -> None:
    found = harmed(scenario, LOSSLESS[damage], tmp_path)
    assert [answer(t) for t in found["traces"]] == [answer(t) for t in baseline(scenario)["traces"]]


@pytest.mark.parametrize("scenario", ["ok-volume", "fail-no-valid-host"])
@pytest.mark.parametrize("damage", ETHERNET_ONLY)
def test_tunnels_change_nothing(scenario: str, damage: str, tmp_path: Path) -> None:
    found = harmed(scenario, ETHERNET_ONLY[damage], tmp_path)
    assert [answer(t) for t in found["traces"]] == [answer(t) for t in baseline(scenario)["traces"]]


@pytest.mark.parametrize("damage", CLOCKS)
def test_a_wrong_clock_changes_nothing(damage: str, tmp_path: Path) -> None:
    found = harmed("colo-ok", CLOCKS[damage], tmp_path)
    assert [answer(t) for t in found["traces"]] == [answer(t) for t in baseline("colo-ok")["traces"]]


@pytest.mark.parametrize("container", ["pcapng", "gz", "zst", "nanoseconds", "rotated"])
@pytest.mark.parametrize("scenario", ["ok-volume", "colo-ok"])
def test_the_container_changes_nothing(scenario: str, container: str, tmp_path: Path) -> None:
    files = undamaged(scenario)
    if container == "pcapng":
        interfaces = [(name, link, packets) for name, (link, packets) in files.items()]
        (tmp_path / "all.pcapng").write_bytes(D.pcapng(interfaces))
    for name, (link, packets) in files.items():
        if container in ("gz", "zst"):
            D.write(tmp_path / f"{name}.pcap.{container}", packets, link)
        elif container == "nanoseconds":
            D.write(tmp_path / f"{name}.pcap", packets, link, unit_ns=1)
        elif container == "rotated":
            for number, part in enumerate(D.rotated(packets, 3)):
                D.write(tmp_path / f"{name}.pcap{number}", part, link)
    found = checked(tmp_path)
    assert [answer(t) for t in found["traces"]] == [answer(t) for t in baseline(scenario)["traces"]]


@pytest.mark.parametrize(
    ("scenario", "alone"),
    in_turn(["", "Internal_base"], [*(s for s in SMALL if not s.startswith("colo")), "fail-400", "fail-401"]),
)
def test_the_names_of_the_files_change_nothing(scenario: str, alone: str, tmp_path: Path) -> None:
    """Without the planes' names: they are inferred from the traffic, also of one plane alone."""
    files = {name: file for name, file in undamaged(scenario).items() if alone in name}
    renamed = {f"{'cb'[name.startswith('I')]}-{name[-3:]}": file for name, file in files.items()}
    named, other = (report(each, tmp_path / str(n)) for n, each in enumerate((files, renamed)))
    assert [answer(t) for t in other["traces"]] == [answer(t) for t in named["traces"]]


@pytest.mark.parametrize(("scenario", "damage"), in_turn(LOSSY, SMALL))
def test_no_false_claim(scenario: str, damage: str, tmp_path: Path) -> None:
    found = harmed(scenario, LOSSY[damage], tmp_path)
    assert list(false_claims(found, baseline(scenario), truths(scenario))) == []


@needs_shared
@pytest.mark.parametrize(("cloud", "at"), [("nosc", 43), ("nolb", 49)])
def test_a_packet_lost_before_the_request_on_its_connection(cloud: str, at: int, tmp_path: Path) -> None:
    """The answer of the request is then known before the request, and all that it caused stays its own."""
    for path in (SHARED / f"{cloud}-ok-image-midstream").glob("*.pcap.zst"):
        link, packets = D.read(path)
        if path.name.startswith("External_api"):
            assert b"GET /v2.1/flavors" in packets[at][1]
            del packets[at]
        D.write(tmp_path / f"{path.name.partition('.')[0]}.pcap", packets, link)
    (trace,) = checked(tmp_path)["traces"]
    assert trace["outcome"] == "active"
    assert [d["step"] for d in trace["deviations"] if d["kind"] == "missing"] == []
    assert len(trace["calls"]) > 20


@pytest.mark.parametrize(("scenario", "share"), in_turn(["0.1", "0.5", "0.9"], SMALL))
def test_a_file_that_breaks_off(scenario: str, share: str, tmp_path: Path) -> None:
    for name, (link, packets) in undamaged(scenario).items():
        (tmp_path / f"{name}.pcap").write_bytes(D.cut_bytes(D.pcap(packets, link), float(share)))
    found = checked(tmp_path)
    assert list(false_claims(found, baseline(scenario), truths(scenario))) == []


@pytest.mark.long
@pytest.mark.parametrize("damage", ["1 % lost", "started 10 % in"])
def test_no_false_claim_among_twenty(damage: str, tmp_path: Path) -> None:
    scenario = "ok-concurrent-20"
    found = harmed(scenario, LOSSY[damage], tmp_path)
    assert list(false_claims(found, baseline(scenario), truths(scenario))) == []
    # Of two, nothing is left that begins a creation: no POST, no message of steps 4e and 7.
    assert len(found["traces"]) >= 18


@pytest.mark.parametrize(
    ("scenario", "damage", "wanted"), KNOWN, ids=lambda v: v if isinstance(v, str) else ""
)
def test_what_is_left_is_said(scenario: str, damage: str, wanted: Mapping[str, Any], tmp_path: Path) -> None:
    found = harmed(scenario, LOSSY[damage], tmp_path)
    assert len(found["traces"]) == len(truths(scenario))
    trace = found["traces"][-1]
    facts = {"outcome": trace["outcome"], "stopped_at": trace["stopped_at"]}
    facts["unobserved"] = {
        step["step"] for step in trace["steps"] if step["status"] == "unobserved" and step["step"] != "8a"
    }
    assert {key: facts[key] for key in wanted} == dict(wanted)


def test_damage_is_repeatable_and_pure() -> None:
    """The same seed gives the same damage, and the packets that went in are as before."""
    link, packets = undamaged("fail-no-valid-host")["Internal_base"]
    before = list(packets)
    for harm in (*LOSSLESS.values(), LOSSY["1 % lost"], LOSSY["1 % with wrong bytes"]):
        once, again = (harm({"a": (link, packets)})["a"][1] for _ in range(2))
        assert once == again
        assert packets == before


def test_damage_that_loses_nothing_keeps_every_byte() -> None:
    """Joined or split, the streams of each direction are the same."""

    def streams(link: int, packets: Packets) -> dict[Any, int]:
        sizes: dict[Any, int] = {}
        for _, frame, _ in packets:
            at = D.segment(frame, link)
            if at:
                flow = (at.source, at.destination)
                sizes[flow] = sizes.get(flow, 0) + len(frame[at.data : at.end])
        return sizes

    link, packets = undamaged("fail-no-valid-host")["Internal_base"]
    for name in ("super-segments", "AMQP segments ignore frames", "2 % displaced by 1-3 records"):
        changed = LOSSLESS[name]({"a": (link, packets)})["a"][1]
        assert streams(link, changed) == streams(link, packets), name
