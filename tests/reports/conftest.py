"""Reports built by hand from model values: six creations as real captures show them, without a pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from tracer.model import Attempt, CallRecord, Capture, Deviation, Note, Report, StepResult, Verdict

T0 = 1_767_250_412_739_000_000
"""2026-01-01T06:53:32.739Z"""
MS = 1_000_000
EXT, INT = "captures/External_api.pcap", "captures/Internal_base.pcap.zst"

TITLES = {
    "1": "applies for a cloud host",
    "2": "asks to create the cloud host",
    "3": "the same request",
    "4a": "authenticates the requester",
    "4b": "verifies that the message is legitimate",
    "4c": "checks the user's quota",
    "4d": "generates the task and records the request",
    "4e": "asks for a VM to be created",
    "5": "asks for a suitable host",
    "6": "selects by filter, weight and randomness; returns the host",
    "7": "asks that host's nova-compute to create the VM",
    "8a": "applies for storage",
    "8b": "applies for network",
    "8c": "asks the VRM to start the VM",
}

# (step, ms since the start, duration in ms, canonical line)
FLOW: list[tuple[str | None, float, float | None, str]] = [
    ("1", 0, 6642, "External_api REST admin > sc POST /sc/cloudhosts 202"),
    (None, 3, 394, "External_api REST sc > lb POST /v3/auth/tokens 201"),
    ("2", 404, 6236, "External_api REST sc > lb POST /v2.1/servers 202"),
    ("3", 405, 6235, "Internal_base REST lb > nova-api POST /v2.1/servers 202"),
    ("4a", 801, 305, "Internal_base REST nova-api > keystone GET /v3/auth/tokens 200"),
    (None, 1341, 367, "Internal_base REST nova-api > keystone POST /v3/auth/tokens 201"),
    (None, 1715, 954, "Internal_base REST nova-api > glance-api GET /v2/images/{id} 200"),
    (None, 3042, 1318, "Internal_base REST nova-api > neutron-server GET /v2.0/networks 200"),
    ("4c", 6521, 5, "Internal_base SQL nova-api > db SELECT project_user_quotas ok"),
    ("4c", 6526, 3, "Internal_base SQL nova-api > db SELECT project_user_quotas ok"),
    ("4c", 6553, 4, "Internal_base SQL nova-api > db SELECT instances ok"),
    ("4d", 6592, 9, "Internal_base SQL nova-api > db INSERT request_specs ok"),
    ("4d", 6605, 4, "Internal_base SQL nova-api > db INSERT build_requests ok"),
    ("4e", 6637, 0.5, "Internal_base RPC nova-api > nova-conductor cast schedule_and_build_instances ok"),
    ("5", 6667, 0.6, "Internal_base RPC nova-conductor > nova-scheduler call select_destinations ok"),
    (None, 6674, 264, "Internal_base REST nova-scheduler > placement GET /allocation_candidates 200"),
    (None, 7394, 197, "Internal_base REST nova-scheduler > placement PUT /allocations/{id} 204"),
    ("6", 7602, 0.4, "Internal_base RPC nova-scheduler > nova-conductor reply select_destinations ok"),
    (None, 7642, 1, "Internal_base SQL nova-conductor > db INSERT instances ok"),
    ("7", 7735, 0.5, "Internal_base RPC nova-conductor > nova-compute cast build_and_run_instance ok"),
    (None, 7772, 82, "Internal_base RPC nova-compute > nova-conductor call object_action ok"),
    ("8b", 8863, 1505, "Internal_base REST nova-compute > neutron-server POST /v2.0/ports 201"),
    ("8b", 10400, 812, "Internal_base REST nova-compute > neutron-server PUT /v2.0/ports/{id} 200"),
    ("8c", 11300, 41, "Internal_base REST nova-compute > vrm POST /service/sites/{id}/vms 200"),
    (
        "8c",
        11350,
        12,
        "Internal_base REST nova-compute > vrm POST /service/sites/{id}/vms/{id}/action/start 200",
    ),
]
OPTIONAL = {"4a": "inferred", "4b": "inferred", "8a": "skipped"}


def record(index: int, at_ms: float, line: str, duration_ms: float | None = 1, **more: Any) -> CallRecord:
    """A call from its canonical line; its frames follow from its index."""
    plane, protocol, caller, _, callee, *operation, result = line.split(" ")
    path = EXT if plane == "External_api" else INT
    values: dict[str, Any] = {
        "evidence": ((path, 12 * index + 2), (path, 12 * index + 30)),
        "request_id": "req-f2afd727-5c1b-4f3c-9a6e-0b7f4b2f9d01" if protocol == "REST" else "",
    }
    return CallRecord(
        index=index,
        plane=plane,
        protocol=protocol,
        caller=caller,
        callee=callee,
        operation=" ".join(operation),
        result=result,
        started_ns=T0 + round(at_ms * MS),
        duration_ns=None if duration_ms is None else round(duration_ms * MS),
        **(values | more),
    )


def flow(until: str = "8c") -> list[CallRecord]:
    """The calls of a good creation, up to and with a step."""
    cut = max(n for n, row in enumerate(FLOW) if row[0] == until) + 1
    return [
        record(n, at, line, duration, step=step)
        for n, (step, at, duration, line) in enumerate(FLOW[:cut], start=1)
    ]


def steps(calls: Sequence[CallRecord], **status: str) -> tuple[StepResult, ...]:
    """The step table that follows from the calls; `_8b='failed'` overrides a status."""
    found = []
    for name, title in TITLES.items():
        own = tuple(call for call in calls if call.step == name)
        state = status.get(f"_{name}") or ("seen" if own else OPTIONAL.get(name, "not_reached"))
        start = own[0].started_ns if own else None
        end = max((call.started_ns + (call.duration_ns or 0) for call in own), default=None)
        length = None if start is None or end is None else end - start
        found.append(StepResult(name, title, state, start, length, own))
    return tuple(found)


def verdict(calls: Sequence[CallRecord], **more: Any) -> Verdict:
    """A conforming creation of web-1, unless *more* says otherwise."""
    values: dict[str, Any] = {
        "id": "req-da31b12e-f49d-4bbf-83a2-21ef1429fb6c",
        "request_id": "req-da31b12e-f49d-4bbf-83a2-21ef1429fb6c",
        "server_id": "9f6acf79-0dff-4a6c-aaf7-a824b4544d46",
        "project_id": "e114495f4b7d49c18a052454413cd3db",
        "name": "web-1",
        "verdict": "conforms",
        "outcome": "active",
        "stopped_at": None,
        "stopped_between": None,
        "api_host": "172.28.0.11",
        "compute_host": "compute1",
        "attempts": ("compute1",),
        "attempt_details": (Attempt("compute1", None, "", T0 + 7735 * MS, 3630 * MS),),
        "started_ns": T0,
        "ended_ns": T0 + 11362 * MS,
        "summary": "active on compute1 after 11.4 s",
        "steps": steps(calls),
        "deviations": (),
        "notes": (Note("mode", "8b", "documented as RPC, observed as REST"),),
        "calls": tuple(calls),
    }
    return Verdict(**(values | more))


def conforming(number: int = 1) -> Verdict:
    """A creation as documented; *number* gives it a name and ids of its own."""
    request = f"req-{number:08x}-f49d-4bbf-83a2-21ef1429fb6c"
    server = f"{number:08x}-0dff-4a6c-aaf7-a824b4544d46"
    return verdict(flow(), id=request, request_id=request, server_id=server, name=f"web-{number}")


def stopped_at_8b() -> Verdict:
    """neutron-server refuses the port, three times."""
    fault = "Networking service is temporarily unavailable: no agent for binding host compute1"
    line = "Internal_base REST nova-compute > neutron-server POST /v2.0/ports 503"
    refused = [
        record(
            22 + n, 8863 + 900 * n, line, 840 + n, step="8b", error=fault, callee_address="172.28.0.44:9696"
        )
        for n in range(3)
    ]
    calls = [*flow("7"), *refused]
    calls = [replace(call, index=n) for n, call in enumerate(calls, start=1)]
    failed = calls[-1]
    message = "neutron-server answered 503 to POST /v2.0/ports"
    return verdict(
        calls,
        verdict="deviates",
        outcome="error",
        stopped_at="8b",
        summary=f"stopped at step 8b after 3.1 s: {message}",
        ended_ns=T0 + 11505 * MS,
        steps=steps(calls, _8b="failed"),
        deviations=(Deviation("failed", "8b", message, failed, (line[:-3] + "2xx",)),),
        attempt_details=(Attempt("compute1", "8b", fault, T0 + 7735 * MS, 3770 * MS),),
        log_ids=(
            ("nova-api", "req-da31b12e-f49d-4bbf-83a2-21ef1429fb6c"),
            ("nova-conductor", "req-da31b12e-f49d-4bbf-83a2-21ef1429fb6c"),
            ("nova-compute", "req-da31b12e-f49d-4bbf-83a2-21ef1429fb6c"),
            ("neutron-server", "req-f2afd727-5c1b-4f3c-9a6e-0b7f4b2f9d01"),
        ),
    )


def rescheduled() -> Verdict:
    """The VRM of compute2 refuses the connection; compute1 is tried next and fails likewise."""
    first = flow("7")
    second = [
        record(
            30,
            9900,
            "Internal_base REST nova-compute > vrm CONNECT :7070 refused",
            0.3,
            step="8c",
            error="Connection refused",
        ),
        record(31, 10100, "Internal_base RPC nova-compute > nova-conductor cast build_instances ok", 0.5),
        record(
            32,
            10400,
            "Internal_base RPC nova-conductor > nova-compute cast build_and_run_instance ok",
            0.6,
            step="7",
        ),
        record(
            33, 11000, "Internal_base REST nova-compute > neutron-server POST /v2.0/ports 201", 900, step="8b"
        ),
        record(
            34,
            12100,
            "Internal_base REST nova-compute > vrm CONNECT :7070 refused",
            0.3,
            step="8c",
            error="Connection refused",
        ),
    ]
    calls = [*first, *second]
    earlier = steps([*first[-2:], second[0]], _8c="failed", _8b="not_reached")
    last = steps(second[2:], _8c="failed")
    message = "vrm (172.28.0.61) refused the connection of nova-compute (172.28.0.31)"
    return verdict(
        calls,
        id="req-2f3ede67-dfd3-4dad-b7aa-44c3ba175b86",
        request_id="req-2f3ede67-dfd3-4dad-b7aa-44c3ba175b86",
        server_id="8450a932-0b29-461a-8419-ffccd7096a3d",
        name="vrm-down",
        verdict="deviates",
        outcome="error",
        stopped_at="8c",
        compute_host="compute1",
        attempts=("compute2", "compute1"),
        attempt_details=(
            Attempt("compute2", "8c", "Connection refused", T0 + 7735 * MS, 2165 * MS, earlier[-4:]),
            Attempt("compute1", "8c", "Connection refused", T0 + 10400 * MS, 1700 * MS, last[-4:]),
        ),
        summary=f"stopped at step 8c after 12.1 s: {message}",
        ended_ns=T0 + 12101 * MS,
        steps=(*steps(first)[:10], *last[10:]),
        deviations=(Deviation("failed", "8c", message, second[-1]),),
        notes=(
            Note("retry", "7", "rescheduled: compute2 → compute1"),
            Note("mode", "8b", "documented as RPC, observed as REST"),
        ),
    )


def stuck() -> Verdict:
    """The cast to compute2 lies in a queue that nobody reads."""
    calls = flow("6")
    cast = record(
        30,
        7735,
        "Internal_base RPC nova-conductor > nova-compute cast build_and_run_instance undelivered",
        None,
        step="7",
    )
    calls.append(cast)
    table = steps(calls, _8b="missing")
    owed = "owed by nova-compute@compute2"
    return verdict(
        calls,
        id="req-11a4e031-9278-4d80-b544-40a4d41ed53f",
        request_id="req-11a4e031-9278-4d80-b544-40a4d41ed53f",
        server_id="98a7861f-7d3e-42ee-9171-b7407f27fcf5",
        name="fail-cdown",
        verdict="deviates",
        outcome="stuck",
        stopped_at="8b",
        compute_host="compute2",
        attempts=("compute2",),
        attempt_details=(),
        summary="stuck before step 8b for 92 s: build_and_run_instance was published for compute.compute2 and"
        " never delivered: no consumer on the queue",
        ended_ns=T0 + 7736 * MS,
        steps=tuple(replace(step, reason=owed) if step.step == "8b" else step for step in table),
        deviations=(
            Deviation(
                "stalled",
                "8b",
                "published for compute.compute2 and never delivered: no consumer",
                cast,
                ("Internal_base REST nova-compute > neutron-server POST /v2.0/ports 2xx",),
            ),
        ),
    )


def unobserved() -> Verdict:
    """Taps between the hosts do not see what stays on the controller."""
    hidden = {"4a", "4c", "4d", "5", "6"}
    calls = [call for call in flow() if call.step not in hidden and call.caller != "nova-scheduler"]
    why = "both ends are on controller1; a capture of its loopback would show it"
    table = steps(calls, **{f"_{name}": "unobserved" for name in hidden})
    return verdict(
        calls,
        id="req-77777777-9278-4d80-b544-40a4d41ed53f",
        request_id="req-77777777-9278-4d80-b544-40a4d41ed53f",
        server_id="77777777-7d3e-42ee-9171-b7407f27fcf5",
        name="tapped",
        verdict="inconclusive",
        summary="active on compute1 after 11.4 s, but 5 steps could not be observed",
        steps=tuple(replace(step, reason=why) if step.step in hidden else step for step in table),
        notes=(),
    )


HOSTILE_NAME = "[red]x[/red]\x1b[2J\x1b]0;owned\x07\r\nroot\u202etxt.exe\u2066" + "A" * 10_000 + "\ud800"


def hostile() -> Verdict:
    """Everything that came from the wire tries to get out of its place."""
    calls = flow("4e")
    nasty = replace(calls[2], operation=f"POST /{HOSTILE_NAME}", result="500", error=HOSTILE_NAME)
    return verdict(
        [*calls[:2], nasty, *calls[3:]],
        id="req-" + HOSTILE_NAME,
        request_id="req-" + HOSTILE_NAME,
        server_id=None,
        name=HOSTILE_NAME,
        verdict="deviates",
        outcome="rejected",
        stopped_at="2",
        summary=f"rejected at step 2: {HOSTILE_NAME}",
        steps=steps([nasty], _2="failed"),
        deviations=(Deviation("failed", "2", HOSTILE_NAME, nasty, (HOSTILE_NAME,)),),
        notes=(Note("mode", "2", HOSTILE_NAME),),
        log_ids=((HOSTILE_NAME, HOSTILE_NAME),),
    )


def captures() -> list[Capture]:
    """The captures of two planes, undamaged."""
    outer = Capture(
        0,
        EXT,
        "External_api",
        packets=406,
        size_bytes=151_000,
        first_ns=T0 - MS,
        last_ns=T0 + 150_000 * MS,
        planes={"External_api"},
        calls=61,
    )
    inner = Capture(
        1,
        INT,
        "Internal_base",
        packets=36_943,
        size_bytes=12_507_064,
        first_ns=T0 - 2 * MS,
        last_ns=T0 + 150_000 * MS,
        planes={"Internal_base"},
        calls=1234,
        skipped_statements=40_000,
    )
    return [outer, inner]


def damaged() -> Capture:
    """A capture in which about everything went wrong."""
    capture = Capture(
        2,
        "captures/ctl-any.pcap",
        None,
        packets=9000,
        size_bytes=4_000_000,
        first_ns=T0,
        last_ns=T0 + 60_000 * MS,
        truncated_packets=12,
        duplicate_segments=31,
        gaps=3,
        lost_bytes=48_211,
        reordered_segments=1,
        undecoded_streams=3,
        broke_off=True,
    )
    capture.undecoded.update({"tls": 2, "http2": 1})
    capture.anomalies.update({"file ends inside a record": 1})
    return capture


def report(*verdicts: Verdict, **more: Any) -> Report:
    """A report on the two planes' captures."""
    return Report(
        **({"grammar": "cloudvm_create", "captures": captures(), "verdicts": list(verdicts)} | more)
    )


@pytest.fixture
def build() -> SimpleNamespace:
    """The builders of this file."""
    return SimpleNamespace(**{name: value for name, value in globals().items() if not name.startswith("_")})
