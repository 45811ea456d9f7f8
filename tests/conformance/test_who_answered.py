"""Who answered a request, the service or a proxy in front of it; and what the service did meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pika.spec
import pytest
from lab.agreement import is_told
from lab.judging import judge, only, statuses

from tracer.model import Verdict
from tracer.testing.cloud import IMAGE, NETWORK, PROJECT, QUOTA_READS, SPREAD, TOKEN, Cloud
from tracer.testing.creation import Creation
from tracer.testing.messages import method, publish, query, request, response, sql_rows
from tracer.testing.packets import RST, Connection

BEGUN = 100.1
GAVE_UP = 60.0
PAGE = b"<html><body><h1>%d Gateway\n</h1></body></html>"
BODY = {"server": {"name": "web-1", "imageRef": IMAGE, "networks": [{"uuid": NETWORK}]}}


class Asked(Creation):
    """A creation of which the request and some steps of nova-api are written, one by one."""

    def outer(self, status: int, took: float = GAVE_UP, answered: dict[str, str] | None = None) -> None:
        """The order, and the request to the proxy with its answer."""
        cloud, sc, front = self.cloud, self.cloud.address["sc"], self.cloud.address["lb-outside"]
        order = {"name": "web-1", "image": IMAGE}
        cloud.rest(
            100, "admin", "sc", "POST", "/sc/cloudhosts", status, took=took + 0.2, token="", body=order
        )
        made = cloud.network.connection(sc, front, 8774, BEGUN - 0.001)
        made.say(BEGUN, request("POST", "/v2.1/servers", {"X-Auth-Token": TOKEN}, BODY))
        headers = answered or {"Content-Type": "text/html"}
        made.hear(BEGUN + took, response(status, headers, PAGE % status))

    def inner(self) -> Connection:
        """The request behind the proxy, without an answer yet."""
        cloud, sc = self.cloud, self.cloud.address["sc"]
        made = cloud.network.connection(cloud.address["lb"], cloud.address["nova-api"], 8774, BEGUN)
        sent = {"X-Auth-Token": TOKEN, "X-Forwarded-For": sc}
        made.say(BEGUN + 0.001, request("POST", "/v2.1/servers", sent, BODY))
        self.now = BEGUN + 0.002
        return made

    def up_to(self, *steps: str) -> None:
        """Steps of nova-api that went well."""
        for step in steps:
            getattr(self, f"step_{step}")()


def told(folder: Path, cloud: Cloud) -> Verdict:
    Creation(cloud, 20, name="good").run()
    cloud.background(0, 250)
    (folder / "captures").mkdir()
    report = judge(cloud, folder / "captures")
    return next(v for v in report.verdicts if v.name == "web-1")


def agrees(verdict: Verdict, step: str, peer: str) -> None:
    """Headline, first finding and step table name one step, and one peer."""
    first = verdict.deviations[0]
    assert (verdict.outcome, verdict.stopped_at, first.kind, first.step) == ("rejected", step, "failed", step)
    assert verdict.summary.startswith(f"step {step} failed: ")
    assert is_told(first.message, verdict.summary)
    assert first.peer == peer
    assert [s.step for s in verdict.steps if s.status in ("failed", "missing")] == [step]


@pytest.mark.parametrize("status", [400, 403, 404, 408, 413, 429, 500, 502, 503, 504])
def test_a_proxy_that_answers_by_itself_is_the_hop(tmp_path: Path, status: int) -> None:
    asked = Asked(Cloud())
    asked.outer(status, 0.01)
    verdict = told(tmp_path, asked.cloud)
    agrees(verdict, "3", "lb")
    assert f"lb answered {status} by itself" in verdict.summary


def test_an_answer_with_a_request_id_is_the_services_though_its_leg_is_lost(tmp_path: Path) -> None:
    asked = Asked(Cloud())
    asked.outer(403, 0.01, {"X-OpenStack-Request-ID": asked.request_id})
    verdict = told(tmp_path, asked.cloud)
    assert "by itself" not in verdict.summary and verdict.stopped_at != "3"


def keystone(asked: Asked) -> None:
    asked.step_4a()
    rest(asked, "keystone", "GET", "/v3/auth/tokens", "silent", headers={"X-Subject-Token": TOKEN})


def rest(asked: Asked, callee: str, verb: str, target: str, how: int | str, **more: Any) -> None:
    asked.cloud.rest(asked.wait(), "nova-api", callee, verb, target, how, request_id=asked.request_id, **more)


def glance(asked: Asked) -> None:
    asked.up_to("4a")
    rest(asked, "glance-api", "GET", f"/v2/images/{IMAGE}", "silent")


def neutron_too_late(asked: Asked) -> None:
    asked.up_to("4a")
    rest(asked, "neutron-server", "GET", f"/v2.0/networks?id={NETWORK}", 200, took=80)


def placement(asked: Asked) -> None:
    asked.up_to("4a", "4b")
    rest(asked, "placement", "GET", f"/usages?project_id={PROJECT}", "silent")


def database(asked: Asked) -> None:
    asked.up_to("4a", "4b")
    made = asked.cloud.database("nova-api", asked.now)
    made.say(asked.wait(), query(QUOTA_READS[0]))
    made.hear(asked.wait(), sql_rows("10"))
    made.say(asked.wait(), query(QUOTA_READS[1]))


def insert(asked: Asked) -> None:
    asked.up_to("4a", "4b", "4c")
    made = asked.cloud.database("nova-api", asked.now)
    server = asked.server_ids[0]
    made.say(
        asked.wait(), query(f"INSERT INTO request_specs (instance_uuid, spec) VALUES ('{server}', '{{}}')")
    )


def connecting(asked: Asked, upto: int = 2, port: int = 5672) -> None:
    asked.up_to("4a", "4b", "4c", "4d")
    cloud, spec = asked.cloud, pika.spec
    made = cloud.network.connection(cloud.address["nova-api"], cloud.address["rabbitmq"], port, asked.wait())
    made.say(asked.wait(), b"AMQP\x00\x00\x09\x01")
    said = (
        (made.hear, spec.Connection.Start(0, 9, {"product": "RabbitMQ"}, "PLAIN", "en_US")),
        (made.say, spec.Connection.StartOk({"product": "py-amqp"}, "PLAIN", "\0a\0b", "en_US")),
        (made.hear, spec.Connection.Tune(2047, 131072, 60)),
        (made.say, spec.Connection.TuneOk(2047, 131072, 60)),
        (made.say, spec.Connection.Open("/")),
    )
    for speak, what in said[:upto]:
        speak(asked.wait(), method(what, 0))


def greeting_only(asked: Asked) -> None:
    connecting(asked, 0)


def unopened(asked: Asked) -> None:
    connecting(asked, 5)


def confirm(asked: Asked) -> None:
    asked.up_to("4a", "4b", "4c", "4d")
    args = {"build_requests": [{"nova_object.data": {"instance_uuid": asked.server_ids[0]}}]}
    body = asked.cloud.message("schedule_and_build_instances", args, asked.request_id)
    asked.cloud.publisher("nova-api").say(asked.wait(), publish("nova", "conductor", body))


HANGS = [
    (keystone, "4a", "keystone"),
    (glance, "4b", "glance-api"),
    (neutron_too_late, "4b", "neutron-server"),
    (placement, "4c", "placement"),
    (database, "4c", "db"),
    (insert, "4d", "db"),
    (greeting_only, "4e", "rabbitmq"),
    (connecting, "4e", "rabbitmq"),
    (unopened, "4e", "rabbitmq"),
    (confirm, "4e", "rabbitmq"),
]


@pytest.mark.parametrize(("hang", "step", "peer"), HANGS, ids=[hang.__name__ for hang, _, _ in HANGS])
def test_what_the_api_waited_for_when_the_proxy_gave_up(
    tmp_path: Path, hang: Any, step: str, peer: str
) -> None:
    asked = Asked(Cloud(SPREAD))
    asked.outer(504)
    inner = asked.inner()
    hang(asked)
    inner.close(BEGUN + GAVE_UP, by=0)
    verdict = told(tmp_path, asked.cloud)
    agrees(verdict, step, peer)
    assert peer in verdict.summary and "lb answered 504 by itself" in verdict.deviations[0].message


STEPS = ("4a", "4b", "4c", "4d")


@pytest.mark.parametrize("done", [(), STEPS[:2], STEPS[:3], STEPS])
def test_an_api_that_does_nothing_more_stopped_at_its_next_step(
    tmp_path: Path, done: tuple[str, ...]
) -> None:
    asked = Asked(Cloud(SPREAD))
    asked.outer(504)
    inner = asked.inner()
    asked.up_to(*done)
    inner.close(BEGUN + GAVE_UP, by=0)
    verdict = told(tmp_path, asked.cloud)
    agrees(verdict, {0: "3", 2: "4c", 3: "4d", 4: "4e"}[len(done)], "nova-api")
    assert "nova-api never answered" in verdict.summary


@pytest.mark.parametrize("how", [None, RST], ids=["fin", "reset"])
@pytest.mark.parametrize("done", [(), STEPS[:3]])
def test_an_api_that_closes_without_an_answer_died(
    tmp_path: Path, how: int | None, done: tuple[str, ...]
) -> None:
    asked = Asked(Cloud(SPREAD))
    asked.outer(502, 3.0)
    inner = asked.inner()
    asked.up_to(*done)
    inner.close(BEGUN + 2.9, **({} if how is None else {"how": how}))
    verdict = told(tmp_path, asked.cloud)
    agrees(verdict, "4d" if done else "3", "nova-api")
    assert "it died or was restarted" in verdict.summary


def test_a_short_handshake_of_a_health_check_is_no_call(tmp_path: Path) -> None:
    cloud = Cloud(SPREAD)
    Creation(cloud, 100).run()
    for at in range(30):
        made = cloud.network.connection(cloud.address["lb"], cloud.address["rabbitmq"], 5672, 90 + at)
        made.say(90.001 + at, b"AMQP\x00\x00\x09\x01")
        start = pika.spec.Connection.Start(0, 9, {"product": "RabbitMQ"}, "PLAIN", "en_US")
        made.hear(90.002 + at, method(start, 0))
        made.close(90.003 + at, by=0)
    cloud.background(0, 200)
    verdict = only(judge(cloud, tmp_path))
    assert verdict.verdict == "conforms" and not [c for c in verdict.calls if "CONNECT" in c.operation]
    assert "failed" not in statuses(verdict).values()
