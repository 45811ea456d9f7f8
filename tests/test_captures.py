"""The shipped captures, judged against their truth, and their reports against golden ones."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tracer import engine
from tracer.capture.arguments import example_names

ROOT = Path(__file__).parent.parent
CAPTURES = ROOT / "captures"
GOLDEN = Path(__file__).parent / "golden"
NAMES = sorted(p.parent.name for p in CAPTURES.glob("*/truth.json"))
STALL_S = 20
"""The captures of stuck creations end sooner than the default of 60 s."""
MAX_BYTES = 2_000_000
MANY = 5
"""From so many creations on, a golden text is without -v and golden calls are those of the steps alone."""
SECRETS = ("gAAAA", "Admin-lab", "vdcpass")
"""Keystone's Fernet tokens begin with gAAAA; the others are passwords of the lab."""

Json = dict[str, Any]


def tracer(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `tracer` as a user does, at a fixed width."""
    environment = {k: v for k, v in os.environ.items() if k not in {"FORCE_COLOR", "CLICOLOR_FORCE"}}
    return subprocess.run(
        [sys.executable, "-m", "tracer", *arguments],
        cwd=ROOT,
        env=environment | {"COLUMNS": "160", "NO_COLOR": "1", "PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


def truth(name: str) -> Json:
    """What really happened."""
    found: Json = json.loads((CAPTURES / name / "truth.json").read_text(encoding="utf-8"))
    return found


@functools.cache
def report(name: str) -> tuple[int, Json]:
    """The exit code and what `check --format json` says."""
    run = tracer("check", f"captures/{name}", "--stall", str(STALL_S), "--format", "json")
    assert run.stdout, run.stderr
    return run.returncode, json.loads(run.stdout)


def traces(name: str) -> dict[str, Json]:
    """The traces by name."""
    found = report(name)[1]["traces"]
    named = {t["name"]: t for t in found}
    assert len(named) == len(found), "two traces of one name"
    return named


def compare(path: Path, now: str, update: bool) -> None:
    """Hold *now* to the golden file."""
    if update:
        path.parent.mkdir(exist_ok=True)
        path.write_text(now, encoding="utf-8")
    assert path.exists(), f"no golden file {path.name}: pytest --update-golden"
    assert now == path.read_text(encoding="utf-8"), "meant? pytest --update-golden, then read the diff"


def test_every_folder_is_an_example_and_has_its_truth() -> None:
    assert [p.name for p in sorted(CAPTURES.iterdir()) if p.is_dir()] == NAMES == example_names()


@pytest.mark.parametrize("name", NAMES)
def test_size_and_row_in_the_readme(name: str) -> None:
    files = list((CAPTURES / name).glob("*.zst"))
    assert files
    size = sum(f.stat().st_size for f in files)
    assert size < MAX_BYTES
    readme = (CAPTURES / "README.md").read_text(encoding="utf-8")
    rows = [row for row in readme.splitlines() if row.startswith(f"| {name} |")]
    assert len(rows) == 1
    packets = sum(truth(name)["packets"].values())
    assert f"| {size / 1000:,.0f} kB | {packets:,} |" in rows[0]


@pytest.mark.parametrize("name", NAMES)
def test_every_packet_is_read(name: str) -> None:
    read = {Path(c["path"]).name.removesuffix(".pcap.zst"): c["packets"] for c in report(name)[1]["captures"]}
    assert read == truth(name)["packets"]


@pytest.mark.parametrize("name", NAMES)
def test_each_creation_and_no_other(name: str) -> None:
    found, real = traces(name), truth(name)
    assert sorted(found) == sorted(c["name"] for c in real["creates"])
    for create in real["creates"]:
        trace = found[create["name"]]
        hosts = create.get("attempted_hosts") or []
        assert {k: trace[k] for k in ("request_id", "outcome", "compute_host", "attempts")} == {
            "request_id": create["request_id"],
            "outcome": create["outcome"],
            "compute_host": create["compute_host"],
            "attempts": hosts,
        }
        assert trace["server_id"] == (create["server_id"] or None)
        step = create["failed_step"]
        assert trace["stopped_at"] in (step if isinstance(step, list) else [step])
        if create["api_host"]:
            address = real["topology"][f"nova-api@{create['api_host']}"].rpartition(":")[0]
            assert trace["api_host"] == address
        if create["outcome"] == "active":
            assert trace["verdict"] == "conforms"
            assert trace["deviations"] == []
            assert {s["status"] for s in trace["steps"]} <= {"seen", "inferred", "skipped"}
        else:
            assert trace["verdict"] == "deviates"
            assert trace["deviations"]


@pytest.mark.parametrize("name", NAMES)
def test_exit_code(name: str) -> None:
    all_active = all(c["outcome"] == "active" for c in truth(name)["creates"])
    assert report(name)[0] == (0 if all_active else 1)


@pytest.mark.parametrize("name", NAMES)
def test_no_secret_is_printed(name: str) -> None:
    text = json.dumps(report(name)[1]) + tracer("calls", f"captures/{name}", "--format", "jsonl").stdout
    assert [secret for secret in SECRETS if secret in text] == []


@pytest.mark.parametrize("name", NAMES)
def test_golden_text(name: str, update_golden: bool) -> None:
    verbose = [] if len(truth(name)["creates"]) > MANY else ["-v"]
    run = tracer("check", f"captures/{name}", "--stall", str(STALL_S), *verbose)
    assert run.returncode in (0, 1), run.stderr
    compare(GOLDEN / f"{name}.txt", run.stdout, update_golden)


@pytest.mark.parametrize("name", NAMES)
def test_golden_calls(name: str, update_golden: bool) -> None:
    """Every call of every creation, with the step that it witnesses."""
    found = report(name)[1]["traces"]
    only_steps = len(found) > MANY
    lines = [
        json.dumps({"trace": trace["name"], "step": call["step"], "line": call["line"]}, ensure_ascii=False)
        for trace in sorted(found, key=lambda t: t["name"])
        for call in trace["calls"]
        if call["step"] or not only_steps
    ]
    compare(GOLDEN / f"{name}.jsonl", "\n".join(lines) + "\n", update_golden)


FAILING = {
    # scenario: step, peer, words of the cause, other words of the answer
    "fail-400": ("4b", "nova-api", "'flavorRef' is a required property", ""),
    "fail-401": (
        "4a",
        "nova-api",
        "keystone does not know the token that sc presented (404)",
        "keystone GET /v3/auth/tokens 404",
    ),
    "fail-quota-403": ("4c", "nova-api", "Quota exceeded for instances: Requested 1", ""),
    "fail-conductor-down": (
        "5",
        "nova-conductor",
        "never delivered: no consumer took it from the queue",
        "broker: cast schedule_and_build_instances of nova-api waits in queue conductor",
    ),
    "fail-scheduler-down": (
        "6",
        "nova-scheduler",
        "MessagingTimeout: no reply to message ID 9cab629451a9455791897a6f4b676c82",
        "was never answered; its caller gave up after 15.2 s",
    ),
    "fail-no-valid-host": (
        "6",
        "nova-scheduler",
        "No valid host was found",
        "placement offered no host with DISK_GB 1, MEMORY_MB 1024, VCPU 5000",
    ),
    "fail-neutron-down-midway": (
        "8b",
        "neutron-server",
        "refused the connection of nova-compute",
        "nova recorded: Build of instance",
    ),
}


def test_every_failing_scenario_is_looked_at() -> None:
    failing = {name for name in NAMES if any(c["outcome"] != "active" for c in truth(name)["creates"])}
    assert failing == set(FAILING)


@pytest.mark.parametrize("name", FAILING)
def test_the_text_alone_names_step_peer_and_cause(name: str) -> None:
    """In the first line of the VM that failed; the other questions' answers are below it."""
    step, peer, cause, answer = FAILING[name]
    lines = tracer("check", f"captures/{name}", "--stall", str(STALL_S)).stdout.splitlines()
    first = next(line for line in lines if line.startswith("✗"))
    assert f"step {step} " in first
    assert peer in first
    assert cause in first
    assert answer in "\n".join(lines)
    [deviation] = next(t for t in report(name)[1]["traces"] if t["verdict"] == "deviates")["deviations"]
    assert (deviation["step"], deviation["peer"]) == (step, peer)
    assert deviation["cause"] and deviation["expected"] and deviation["call"]


def test_several_broken_creations_are_clustered() -> None:
    """Two scenarios in one run: a row for each reason, in text and in JSON."""
    both = ["captures/fail-no-valid-host", "captures/fail-400", "captures/fail-quota-403"]
    text = tracer("check", *both).stdout
    assert "  VMs  what        step  who             why\n" in text
    assert (
        "    1  failed      6     nova-scheduler  NoValidHost: No valid host was found.  (fail-nvh)" in text
    )
    clusters = json.loads(tracer("check", *both, "--format", "json").stdout)["clusters"]
    assert {(c["count"], c["kind"], c["step"], c["peer"]) for c in clusters} == {
        (1, "failed", "6", "nova-scheduler"),
        (1, "failed", "4b", "nova-api"),
        (1, "failed", "4c", "nova-api"),
    }


def test_a_baseline_of_good_creations_names_what_is_slow(tmp_path: Path) -> None:
    """Learnt from 20 creations; against a cloud a hundred times faster all is slow, and nothing deviates."""
    usual = tmp_path / "usual.json"
    learnt = tracer("baseline", "captures/ok-concurrent-20", "-o", str(usual))
    assert (learnt.returncode, learnt.stderr) == (0, "tracer: learnt from 20 creations\n")
    document = json.loads(usual.read_text(encoding="utf-8"))
    assert (document["schema"], document["traces"]) == ("tracer.baseline/1", 20)
    for kinds in (*document["steps"].values(), document["total"]):
        for times in kinds.values():
            times.update({key: value / 100 for key, value in times.items() if key != "n"})
    usual.write_text(json.dumps(document), encoding="utf-8")
    run = tracer("check", "captures/ok-image", "--baseline", str(usual), "--format", "json")
    found = json.loads(run.stdout)
    assert (run.returncode, found["baseline"]) == (0, {"path": str(usual), "traces": 20})
    [trace] = found["traces"]
    slow = [note for note in trace["notes"] if note["kind"] == "slow"]
    assert slow[0]["message"].startswith(f"step {slow[0]['step']} (")
    assert "half of 20 good runs within" in slow[0]["message"]
    # 1 to 3 wait for 4, and are not named beside it.
    took = {note["step"] for note in slow if " took " in note["message"]}
    assert took >= {"4b", "8b"}
    assert took.isdisjoint({"1", "2", "3", None})
    step = next(step for step in trace["steps"] if step["step"] == "8b")
    assert step["usual_ms"] < step["duration_ms"]
    shown = tracer("check", "captures/ok-image", "--baseline", str(usual), "-v").stdout
    assert "usual" in shown and f"note: slow {slow[0]['step']}" in shown
    assert f"times compared with {usual}, of 20 good runs" in shown


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--allow", "unseen"], "--allow 'unseen': no kind 'unseen'; known: failed, stalled, missing"),
        (["--allow", "missing:9"], "--allow missing: cloudvm_create or openstack_create has no step '9'"),
        (["--where", "step=9"], "--where step: cloudvm_create or openstack_create has no step '9'"),
        (["--baseline", "README.md"], "--baseline README.md: not JSON; write one with `tracer baseline"),
        (["--baseline", "none.json"], "--baseline none.json: cannot be read: No such file"),
    ],
)
def test_what_cannot_be_is_2_and_one_line(arguments: list[str], words: str) -> None:
    """Before any packet is read."""
    run = tracer("check", "captures/ok-image", *arguments)
    assert (run.returncode, run.stdout, run.stderr.count("\n")) == (2, "", 1)
    assert words in run.stderr


def test_an_unknown_kind_in_the_topology_file_is_2(tmp_path: Path) -> None:
    """As with --allow; the file is named."""
    file = tmp_path / "topology.toml"
    file.write_text('allow = ["unobserved:4x"]')
    run = tracer("check", "captures/ok-image", "--topology", str(file))
    assert run.returncode == 2
    assert f"{file}: allow unobserved: cloudvm_create or openstack_create has no step '4x'" in run.stderr


def test_a_baseline_needs_a_good_creation(tmp_path: Path) -> None:
    """One line, 2, and no file."""
    run = tracer("baseline", "captures/fail-no-valid-host", "-o", str(tmp_path / "usual.json"))
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert "no creation to learn from (1 did not conform)" in run.stderr
    assert not (tmp_path / "usual.json").exists()


def test_the_message_that_a_log_names_is_found() -> None:
    """'Timed out waiting for a reply to message ID …' leads to the VM."""
    [trace] = report("fail-no-valid-host")[1]["traces"]
    asked = next(call for call in trace["calls"] if call["operation"] == "call select_destinations")
    run = tracer("check", "captures/fail-no-valid-host", "--where", f"id={asked['message_id']}")
    assert (run.returncode, "VM fail-nvh" in run.stdout) == (1, True)
    assert "fail-nvh" in tracer("show", "captures/fail-no-valid-host", "--trace", asked["message_id"]).stdout


def test_calls_of_a_time_span() -> None:
    """`calls` gives those that began in the span, with the index that they have without it."""
    path = str(CAPTURES / "ok-image")
    every = list(engine.calls([path], engine.Settings()))
    since_ns, until_ns = every[100].started_ns, every[200].started_ns
    span = list(engine.calls([path], engine.Settings(since_ns=since_ns, until_ns=until_ns)))
    assert span == [call for call in every if since_ns <= call.started_ns < until_ns]
    assert 0 < len(span) < len(every)


def test_a_baseline_of_too_few_is_warned_of(tmp_path: Path) -> None:
    """When it is written, not only when it is compared with."""
    learnt = tracer("baseline", "captures/ok-image", "-o", str(tmp_path / "one.json"))
    assert learnt.stderr == (
        "tracer: warning: 1 creation: too few to compare with, 5 are needed\ntracer: learnt from 1 creation\n"
    )
