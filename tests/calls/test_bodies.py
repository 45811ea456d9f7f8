"""What is read out of HTTP bodies, whole or cut, and what is never read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tracer.calls.bodies import clean, fault_text, read_answer, read_request, wants_body
from tracer.model import RestFacts
from tracer.openstack.rest import creates_server
from tracer.testing.cloud import QUOTA_TEXT, TOKEN

VM, VM2 = "145c135d-63cb-41ba-98cd-3235a30c2e27", "976eff23-e73e-4459-9068-3e78c469b377"
TASK = "/service/sites/43BC08E8/tasks/115"


def asked(body: Any, path: str = "/v2.1/servers") -> RestFacts:
    facts = RestFacts("POST", path, creates=creates_server("POST", path))
    read_request(facts, body if isinstance(body, bytes) else json.dumps(body).encode())
    return facts


def answered(body: Any, method: str = "POST", **headers: str) -> RestFacts:
    facts = RestFacts(method, "/v2.1/servers")
    read_answer(facts, body if isinstance(body, bytes) else json.dumps(body).encode(), headers)
    return facts


@pytest.mark.parametrize(
    "disks, volume",
    [
        ({}, False),
        ({"block_device_mapping_v2": [{"source_type": "volume", "destination_type": "volume"}]}, True),
        ({"block_device_mapping_v2": [{"source_type": "image", "destination_type": "volume"}]}, True),
        ({"block_device_mapping_v2": [{"source_type": "image", "destination_type": "local"}]}, False),
        ({"block_device_mapping": [{"volume_id": VM, "device_name": "vda"}]}, True),
        ({"block_device_mapping_v2": "volume"}, False),
        ({"block_device_mapping_v2": [7, None]}, False),
    ],
)
def test_a_boot_from_a_volume(disks: dict[str, Any], volume: bool) -> None:
    """The request names its disks: whether cinder will be needed is known from there."""
    assert asked({"server": {"name": "web-1", **disks}}).volume is volume


@pytest.mark.parametrize(
    "body, name",
    [
        ({"server": {"name": "web-1"}}, "web-1"),
        ({"server": {"name": "web-1", "min_count": 2}}, "web-1"),
        ({"server": {"name": "web-1", "min_count": 1, "max_count": 3}}, "web-1"),
        ({"server": {"name": "web-1"}, "os:scheduler_hints": {"group": VM}}, "web-1"),
        ({"os:scheduler_hints": {"group": VM}, "server": {"name": "web-1"}}, "web-1"),
        ({"name": "web-1", "flavor": "a"}, "web-1"),
        ({"server": {"name": 7, "min_count": "2"}}, ""),
        ({"server": {"name": "web-1", "min_count": -5, "max_count": 10**9}}, "web-1"),
        ([1, 2], ""),
        (b'{"server": {"name": "web-1", "imageRef": "ccf1', "web-1"),
        (b"name=web-1&password=x", "web-1"),
        (b"\xff\xfe\x00", ""),
    ],
)
def test_name_of_a_request(body: Any, name: str) -> None:
    """Of the server that is asked for; of a cut body what is left of it."""
    assert asked(body).name == name


@pytest.mark.parametrize(
    "body, ids",
    [
        ({"server": {"id": VM, "links": [{"href": f"http://x/{VM2}"}]}}, (VM,)),
        ({"servers": {VM: "BUILD", VM2: "BUILD"}}, (VM, VM2)),
        ({"servers": [{"id": VM}, {"id": VM2}]}, (VM, VM2)),
        ({"orderId": "7988585352804cc1b23b70f1afd9bef4", "serverId": VM}, (VM,)),
        ({"port": {"id": VM, "device_id": VM2}}, (VM,)),
        (b'{"server": {"id": "' + VM.encode() + b'", "lin', (VM,)),
        ({}, ()),
        (b"", ()),
    ],
)
def test_ids_of_what_an_answer_made(body: Any, ids: tuple[str, ...]) -> None:
    assert answered(body).answered_ids == ids


def test_the_location_names_the_server_when_the_body_is_lost() -> None:
    assert answered(b"", location=f"http://10.10.0.20:8774/v2.1/servers/{VM}").answered_ids == (VM,)


@pytest.mark.parametrize(
    "body, attribute, value",
    [
        ({"server": {"id": VM, "status": "ACTIVE"}}, "status_text", "ACTIVE"),
        ({"status": "failed", "reasonDes": "full"}, "status_text", "failed"),
        (b'{"server": {"status": "ERROR", "id": "1', "status_text", "ERROR"),
        ({"taskUri": TASK, "uri": "/service/sites/43BC08E8/vms/i-1"}, "task_uri", TASK),
        ({"taskUri": 5}, "task_uri", ""),
        ({"allocation_requests": []}, "candidates", 0),
        ({"allocation_requests": [{}, {}]}, "candidates", 2),
        (
            {"server": {"tenant_id": "e114495f4b7d49c18a052454413cd3db"}},
            "project_id",
            "e114495f4b7d49c18a052454413cd3db",
        ),
    ],
)
def test_states_of_an_answer(body: Any, attribute: str, value: object) -> None:
    assert getattr(answered(body, "GET"), attribute) == value


@pytest.mark.parametrize(
    "body, text",
    [
        ({"forbidden": {"code": 403, "message": QUOTA_TEXT}}, QUOTA_TEXT),
        ({"NeutronError": {"type": "X", "message": "No more IPs.", "detail": ""}}, "No more IPs."),
        ({"errors": [{"status": 409, "detail": "conflict"}]}, "conflict"),
        ({"error": {"code": 401, "message": "Unauthorized."}}, "Unauthorized."),
        ({"errorCode": "1", "errorDes": "lab: internal error"}, "lab: internal error"),
        ({"server": {"status": "ERROR", "fault": {"code": 500, "message": "Exhausted"}}}, "Exhausted"),
        (b"<html><head><title>503 Service Unavailable</title></head></html>", "503 Service Unavailable"),
        (b'{"forbidden": {"code": 403, "message": "Quota exc', "Quota exc"),
        (b"plain words", "plain words"),
        (b"", ""),
        (b"{}", ""),
        (b"[[[[[[[[[[", ""),
    ],
)
def test_the_words_of_a_fault(body: Any, text: str) -> None:
    assert fault_text(body if isinstance(body, bytes) else json.dumps(body).encode()) == text


@pytest.mark.parametrize(
    "text",
    [
        f"Invalid token {TOKEN}",
        "password=s3cret",
        "the adminPass: s3cret",
        "X-Auth-Token: s3cret",
        "secret = s3cret",
        "token " + "0123456789abcdef" * 4,
        "Invalid input for field/attribute adminPass. Value: s3cret. s3cret is too long",
        "Invalid input for field/attribute user_data. Value: s3cret",
        "Authorization: Basic s3cret",
        "amqp://nova:s3cret@rabbit is not reachable",
        "X-Auth-Token was s3cret",
        "{'adminPass': 's3cret s3cret'}",
        "1064 You have an error in your SQL syntax near 'user_data=s3cret'",
        "1062 Duplicate entry 's3cret' for key 'token'",
        "rabbit://nova:s3cret/s3cret@ctl1:5672/ is not reachable",
        "rabbit://nova:s3@cret@ctl1:5672,nova:s3cret@ctl2:5672/",
        "api_key=s3cret",
        "X-Auth-Key: s3cret",
        "the password is s3cret",
        "ran openstack --os-password s3cret server list",
        "ran mysql --password='s3cret s3cret' nova",
        "pass\x1b[0mword=s3cret",
    ],
)
def test_words_without_secrets(text: str) -> None:
    """What looks like a secret is not repeated, even in a fault."""
    shown = clean(text)
    assert TOKEN not in shown
    assert "s3cret" not in shown
    assert "0123456789abcdef" * 4 not in shown


@pytest.mark.parametrize(
    "text",
    [
        "The password is too short",
        "1062 for key 'uniq_instances0uuid'",
        "KeyError: 'host'",
        "Unable to establish connection to http://172.28.0.44:9696/v2.0/ports?name=a@b",
        "Invalid key_name provided.",
    ],
)
def test_words_that_are_no_secret(text: str) -> None:
    assert clean(text) == text


def test_words_reach_a_terminal_as_they_are_read() -> None:
    assert clean("a\x1b[31mred\x1b[0m\x07 b\x9b2J") == "ared b2J"


def test_words_are_one_short_line() -> None:
    assert clean("a\n\tb  c" + "x" * 999) == ("a b c" + "x" * 999)[:300]


@pytest.mark.parametrize(
    "method, target, status, wanted",
    [
        ("POST", "/v2.1/servers", 0, True),
        ("POST", "/v2.1/servers", 403, True),
        ("GET", f"/v2.1/servers/{VM}", 200, True),
        ("GET", TASK, 200, True),
        ("GET", "/allocation_candidates?limit=1", 200, True),
        ("GET", "/v2.0/networks", 200, False),
        ("GET", "/v2.0/networks", 503, True),
        ("GET", "/v2.0/networks?shared=True", 200, True),
        ("GET", "/v2.0/networks?id=x&shared=True", 200, False),
        ("POST", "/v3/auth/tokens", 0, False),
        ("POST", "/v3/auth/tokens", 201, False),
        ("POST", "/v3/auth/tokens", 401, False),
        ("POST", "/service/session", 0, False),
        ("POST", "/sc/login", 0, False),
        ("PUT", "/v2/images/x/file", 0, False),
    ],
)
def test_which_bodies_are_read(method: str, target: str, status: int, wanted: bool) -> None:
    """Those that name, make or refuse something; never one that holds credentials, or an image's bytes."""
    kind = "application/octet-stream" if target.endswith("/file") else "application/json"
    assert wants_body(method, target, {"content-type": kind}, status) is wanted


@pytest.mark.parametrize("fields", [1, 100, 101, 5000])
def test_a_form_may_have_any_number_of_fields(fields: int) -> None:
    """Any tenant can send one: the name is found, and nothing is raised."""
    facts = RestFacts("POST", "/sc/cloudhosts")
    read_request(facts, "&".join(["name=web-1", *(f"f{n}={n}" for n in range(fields))]).encode())
    assert facts.name == "web-1"
