"""Who failed a creation of which no call of a step failed: neutron's reports, nova's words, bad replies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lab.agreement import is_told
from lab.judging import judge, only, run, statuses

from tracer.model import Verdict
from tracer.openstack.faults import service_blamed
from tracer.testing.cloud import Cloud
from tracer.testing.creation import Creation

UNTIL_S = 600


def judged(folder: Path, breaks: dict[str, str], **more: Any) -> Verdict:
    return only(run(folder, hosts=({"compute1": breaks},), until=UNTIL_S, **more))


def agrees(verdict: Verdict, step: str | None, peer: str) -> None:
    """The headline, the finding, the table and the peer name one step and one service."""
    found = verdict.deviations[0]
    assert (verdict.stopped_at, found.step, found.peer) == (step, step, peer)
    assert is_told(found.message, verdict.summary)
    if step is not None:
        assert statuses(verdict)[step] == "failed"


# --- neutron's reports -------------------------------------------------------------------------------

REPORTS = [
    (
        "event 404",
        "nova-api",
        ["404", "os-server-external-events", "network-vif-plugged", "No instances found"],
    ),
    ("event 503", "nova-api", ["503", "os-server-external-events"]),
    ("event 207", "nova-api", ["answered 404 to", "network-vif-plugged"]),
    ("event unanswered", "nova-api", ["never answered", "network-vif-plugged"]),
    ("event failed", "neutron-server", ["network-vif-plugged with status failed"]),
    ("event never", "neutron-server", ["not seen to send network-vif-plugged", "gave up after 5.0 min"]),
    ("event freed", "neutron-server", ["never sent network-vif-plugged"]),
    ("event late", "neutron-server", ["network-vif-plugged only after 5.2 min", "given up after 5.0 min"]),
]


@pytest.mark.parametrize("how, who, words", REPORTS)
def test_a_bad_report_of_neutron(how: str, who: str, words: list[str], tmp_path: Path) -> None:
    """The VRM did all that it was asked; 8b owes that the port works, whoever failed to say or to hear it."""
    verdict = judged(tmp_path, {"8b": how})
    assert verdict.outcome == "error"
    agrees(verdict, "8b", who)
    assert statuses(verdict)["8c"] == "seen"
    assert [word for word in words if word not in verdict.deviations[0].message] == []


@pytest.mark.parametrize("how", ["event 404", "event never", "event failed"])
def test_the_report_is_what_was_expected(how: str, tmp_path: Path) -> None:
    """Not the call of nova-compute that was answered well."""
    (expected,) = judged(tmp_path, {"8b": how}).deviations[0].expected
    assert expected.startswith("REST neutron-server > nova-api POST ")
    assert expected.endswith("/os-server-external-events 2xx: network-vif-plugged")


def test_a_leg_that_was_never_seen_proves_no_silence(tmp_path: Path) -> None:
    """No report of neutron-server was ever captured: it may have come on another way."""
    summary = judged(tmp_path, {"8b": "event never"}).summary
    assert "neutron-server was not seen to send network-vif-plugged" in summary and "never" not in summary


@pytest.mark.parametrize("how", ["", "event ok", "event again"])
def test_good_reports_and_none(how: str, tmp_path: Path) -> None:
    """A healthy creation conforms with a report, with one refused and repeated, and without any."""
    verdict = judged(tmp_path, {"8b": how} if how else {})
    assert (verdict.outcome, verdict.verdict) == ("active", "conforms")


def test_a_report_is_missing_only_where_it_would_have_been_seen(tmp_path: Path) -> None:
    """What neutron sends is not captured: nova's words name the step, and nothing is told missing."""

    def without_neutron_as_client(cloud: Cloud) -> None:
        api, neutron = cloud.address["nova-api"], cloud.address["neutron-server"]
        cloud.network.events = [
            e for e in cloud.network.events if {e[1].client[0], e[1].server[0]} != {api, neutron}
        ]
        cloud.network.events = [e for e in cloud.network.events if e[1].server[0] != neutron]

    verdict = judged(tmp_path, {"8b": "event never"}, change=without_neutron_as_client)
    assert "never sent" not in verdict.summary
    assert verdict.outcome == "error"


# --- nova's own words --------------------------------------------------------------------------------

BINDING = "PortBindingFailed: Binding failed for port 7, please check neutron logs for more information."
NO_VOLUME = "VolumeNotCreated: Volume 7 did not finish being created even after we waited 9 seconds"
NO_DEVICE = "InvalidBDM: Block Device Mapping is Invalid: failed to get volume 7."
NO_ADDRESS = "NoMoreFixedIps: No fixed IP addresses available for network: 7"


@pytest.mark.parametrize("way", ["versioned", "legacy", "sql", "poll"])
@pytest.mark.parametrize(
    "words, step", [(BINDING, "8b"), (NO_ADDRESS, "8b"), (NO_VOLUME, "8a"), (NO_DEVICE, "8a")]
)
def test_nova_says_who_failed(way: str, words: str, step: str, tmp_path: Path) -> None:
    """However its words travel, they name the step; no VRM call was made, and 8c is not blamed.

    Nor is the service that the words name: no call of it is seen to have failed.
    """
    verdict = judged(tmp_path, {"8c": f"told {way}: {words}"})
    assert verdict.outcome == "error"
    agrees(verdict, step, "nova-compute")
    assert "because of" not in verdict.summary
    assert words.partition(": ")[2] in verdict.deviations[0].message
    assert statuses(verdict)["8c"] == "not_reached"


def test_a_notification_tells_its_host(tmp_path: Path) -> None:
    """The note says on which host it happened."""
    verdict = judged(tmp_path, {"8c": f"told versioned: {BINDING}"})
    (note,) = [n for n in verdict.notes if n.kind == "fault"]
    assert note.message == f"nova notified on compute1 (instance.create.error): {BINDING}"


def test_words_that_name_nobody(tmp_path: Path) -> None:
    """The state error names no step, nor do these words: between the last step seen and the next."""
    verdict = judged(tmp_path, {"8c": "told sql: Unknown trouble."})
    assert (verdict.outcome, verdict.stopped_at, verdict.stopped_between) == ("error", None, ("8b", "8c"))
    assert "Unknown trouble." in verdict.summary and "step 8c failed" not in verdict.summary


@pytest.mark.parametrize(
    "words, who",
    [
        (
            "Build of instance 1 aborted: Failed to allocate the network(s), not rescheduling.",
            "neutron-server",
        ),
        ("VirtualInterfaceCreateException: Virtual Interface creation failed", "neutron-server"),
        ("Build of instance 1 aborted: Failure prepping block device.", "cinder-api"),
        ("Exceeded maximum number of retries. Last exception: Binding failed for port 2", "neutron-server"),
        ("internal error: process exited while connecting to monitor", ""),
        ("Timed out waiting for a reply to message ID 7", ""),
        ("", ""),
    ],
)
def test_whom_words_blame(words: str, who: str) -> None:
    assert service_blamed(words) == who


# --- replies -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how, words",
    [
        ("late", "nova-conductor answered object_action of nova-compute too late, after 75 s"),
        ("never", "nova-conductor did not answer object_action of nova-compute in time"),
    ],
)
def test_a_reply_that_came_too_late_or_never(how: str, words: str, tmp_path: Path) -> None:
    """Its caller gave up: no step failed by itself, and no peer of a step is to blame."""
    verdict = judged(tmp_path, {"7": f"reply {how}"})
    assert (verdict.outcome, verdict.stopped_between) == ("error", ("7", "8b"))
    agrees(verdict, None, "nova-conductor")
    assert words in verdict.summary


@pytest.mark.parametrize("name", ["UnsupportedVersion", "RemoteError", "IncompatibleObjectVersion"])
def test_a_reply_with_an_exception(name: str, tmp_path: Path) -> None:
    """What it stopped hangs: the exception is why, and not a silence."""
    verdict = judged(tmp_path, {"7": f"reply {name}"})
    assert (verdict.outcome, verdict.stopped_at) == ("stuck", "8b")
    assert f"nova-conductor answered object_action of nova-compute with a failure: {name}" in verdict.summary
    assert "silence" not in verdict.summary
    assert name in verdict.deviations[0].cause
    means = [n.message for n in verdict.notes if n.kind == "reply"]
    assert bool(means) == (name != "RemoteError")


# --- placement ---------------------------------------------------------------------------------------


def claims(status: int, words: str) -> Any:
    def change(cloud: Cloud) -> None:
        for n in range(2):
            answer = {"errors": [{"status": status, "detail": words}]}
            cloud.rest(
                100.345 + n * 0.001, "nova-scheduler", "placement", "PUT", f"/allocations/{cloud.fresh_id()}",
                status, took=0.0005, agent="nova-scheduler", request_id=made[0].request_id, answer=answer,
            )  # fmt: skip

    made: list[Creation] = []
    return change, made


@pytest.mark.parametrize(
    "status, words",
    [
        (409, "There was a conflict: Inventory and/or allocations changed while attempting to allocate"),
        (500, "The server has either erred or is incapable of performing the requested operation."),
    ],
)
def test_a_claim_that_placement_refused(status: int, words: str, tmp_path: Path) -> None:
    """Neither no candidate nor a filter: placement refused the claim, and its words are quoted."""
    change, made = claims(status, words)
    cloud = Cloud()
    cloud.background(0, 260)
    made.append(Creation(cloud, breaks={"6": "filtered"}))
    made[0].run()
    change(cloud)
    verdict = only(judge(cloud, tmp_path))
    assert (verdict.outcome, verdict.stopped_at) == ("error", "6")
    asked = "with VCPU 5000, MEMORY_MB 512"
    found = f"step 6 failed: placement offered 2 hosts {asked} and refused the claim with {status}: {words}"
    assert verdict.deviations[0].message.startswith(found)
    (note,) = [n for n in verdict.notes if n.kind == "placement"]
    assert "no filter is the cause" in note.message


@pytest.mark.parametrize(
    "how, words", [("filtered", "and nova-scheduler refused them all"), ("failure", "no host")]
)
def test_no_candidate_and_a_filter(how: str, words: str, tmp_path: Path) -> None:
    """The two other answers of placement stay what they are."""
    verdict = only(run(tmp_path, breaks={"6": how}))
    assert words in verdict.summary and "claim" not in verdict.summary


def test_a_reply_after_which_its_caller_says_that_it_timed_out(tmp_path: Path) -> None:
    """How long it waits is not known; it names the message, and so the reply came too late for it."""
    verdict = judged(tmp_path, {"7": "reply late told"})
    agrees(verdict, None, "nova-conductor")
    said = "nova-conductor answered object_action of nova-compute only after 75 s"
    assert f"{said}, and nova-compute timed out waiting for it" in verdict.summary


class _Slow(Creation):
    """nova-conductor asks nova-scheduler, and gives up; the reply comes before that, or after it."""

    waits, answered = 180.0, 75.0

    def conduct(self) -> None:
        msg_id = self.cloud.fresh_id().replace("-", "")
        args = {"instance_uuids": self.server_ids, "spec_obj": {}}
        ask = self.cloud.message("select_destinations", args, self.request_id, "nova-conductor", msg_id)
        begun = self.wait()
        self.cloud.rpc(begun, "nova-conductor", "nova-scheduler", "nova", "scheduler", ask)
        if self.answered:
            reply = self.cloud.reply(msg_id, [])
            at = begun + self.answered
            self.cloud.rpc(at, "nova-scheduler", "nova-conductor", "", "reply_nova-conductor", reply)
        self.now = begun + self.waits
        self.put_in_error([0], f"no reply to message ID {msg_id}")


@pytest.mark.parametrize(
    "waits, answered, words",
    [
        (180, 0, "its caller gave up after 3.0 min"),
        (90, 0, "its caller gave up after 90.0 s"),
        (70, 0, "its caller gave up after 70.0 s"),
    ],
)
def test_how_long_a_caller_waited_is_known_where_nova_says_it(
    waits: float, answered: float, words: str, tmp_path: Path
) -> None:
    """The message of a time-out names the call; 60 s are only the default."""
    cloud = Cloud()
    cloud.background(0, 420)
    made = _Slow(cloud)
    made.waits, made.answered = waits, answered
    made.run()
    verdict = only(judge(cloud, tmp_path))
    assert (verdict.outcome, verdict.stopped_at) == ("error", "6")
    assert words in verdict.summary and "60 s" not in verdict.summary


def test_a_reply_that_came_in_time_is_not_called_late(tmp_path: Path) -> None:
    """After 75 s of 180 s that its caller waits."""
    cloud = Cloud()
    cloud.background(0, 420)
    _Slow(cloud).run()
    verdict = only(judge(cloud, tmp_path))
    assert verdict.outcome == "error" and "too late" not in verdict.summary
