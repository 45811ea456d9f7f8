"""Secrets of every kind, planted wherever a cloud says them: no output holds one, nor any file beside it."""

from __future__ import annotations

import base64
import json
import os
import re
import stat
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pika.frame
import pika.spec
import pyarrow.parquet
import pytest
from lab.hearing import Receiver
from lab.streams import pipes

from tracer.cli.formats import FORMATS
from tracer.testing.cloud import SECRETS, Cloud
from tracer.testing.creation import Creation
from tracer.testing.messages import mysql_packet, query, sql_error, sql_ok, sql_rows

CANARIES = {
    "X-Auth-Token": "gAAAAABcanary-auth-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "X-Subject-Token": "gAAAAABcanary-subject-AAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "X-Service-Token": "canaryservicetoken0001",
    "session of a VRM": "canaryvrmsession0002",
    "Basic": base64.b64encode(b"admin:canarybasic0003").decode(),
    "Basic, plain": "canarybasic0003",
    "Bearer": "canarybearer0004.e30.sig",
    "cookie": "canarycookie0005",
    "cookie that is set": "canarysetcookie0006",
    "query": "canaryquery0007",
    "signature": "canarysignature0008",
    "user in a URL": "canaryuserinfo0009",
    "adminPass": "canaryAdminPass0010",
    "user_data": base64.b64encode(b"canary user data 0011").decode(),
    "personality": base64.b64encode(b"canary personality 0012").decode(),
    "private key": "-----BEGIN RSA PRIVATE KEY-----canary0013",
    "password of a login": "canaryLogin0014",
    "password of a VRM": "canaryVrmPass0015",
    "RPC password": "canaryRpcPass0016",
    "RPC file": "canaryRpcFile0017",
    "RPC context": "canaryRpcContext0018",
    "RPC connection_info": "canaryChap0019",
    "RPC failure": "canaryRpcFailure0020",
    "SQL value": "canarySqlValue0021",
    "SQL user_data": "canarySqlUserData0022",
    "SQL row": "canarySqlRow0023",
    "SQL error": "canarySqlError0024",
    "REST error": "canaryRestError0025",
    "REST error, token": "gAAAAABcanary-error-AAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "VRM error": "canaryVrmError0026",
    "AMQPLAIN": "canaryAmqplain0027",
    "AMQP PLAIN": "canaryAmqpPlain0028",
    "MySQL login": "canaryMysqlLogin0029",
    "metadata": "canaryMetadataPass0030",
}
C = CANARIES
NAMES = {
    "escape": "\x1b]0;owned\x07web",
    "bidi": "\u202eweb\u2066",
    "formula": "=cmd|' /C calc'!A0",
}


def planted() -> Cloud:
    """A cloud that says all of `CANARIES`, and two creations, one of which fails with some of them."""
    cloud = Cloud()
    cloud.background(0, 150, every=20)
    Creation(cloud, at=20, name="good", volume=True).run()
    Creation(cloud, at=60, name="bad", breaks={"8c": "500"}).run()
    basic = {"Authorization": f"Basic {C['Basic']}", "Cookie": f"session={C['cookie']}"}
    service = {"X-Service-Token": C["X-Service-Token"], "X-Subject-Token": C["X-Subject-Token"]}
    server = {
        "name": "canary",
        "adminPass": C["adminPass"],
        "user_data": C["user_data"],
        "personality": [{"path": "/etc/motd", "contents": C["personality"]}],
        "metadata": {"admin_pass": C["metadata"]},
        "flavorRef": "1",
    }
    fault = {
        "badRequest": {
            "code": 400,
            "message": f"Invalid input: password={C['REST error']} token {C['REST error, token']}",
        }
    }
    cloud.from_outside(
        70,
        "nova-api",
        "POST",
        "/v2.1/servers",
        400,
        0.1,
        token=C["X-Auth-Token"],
        body={"server": server},
        answer=fault,
    )
    cloud.rest(
        71,
        "nova-api",
        "keystone",
        "GET",
        "/v3/auth/tokens",
        token=C["X-Auth-Token"],
        headers=basic | service,
        answer_headers={
            "X-Subject-Token": C["X-Subject-Token"],
            "Set-Cookie": f"a={C['cookie that is set']}",
        },
    )
    login = {
        "auth": {"identity": {"password": {"user": {"name": "u", "password": C["password of a login"]}}}}
    }
    cloud.rest(
        72,
        "sc",
        "keystone",
        "POST",
        "/v3/auth/tokens",
        401,
        token="",
        body=login,
        answer={"error": {"message": f"wrong password: {C['password of a login']}"}},
    )
    target = f"/v2/images?token={C['query']}&temp_url_sig={C['signature']}&x=http://u:{C['user in a URL']}@h/"
    cloud.rest(
        73,
        "nova-api",
        "glance-api",
        "GET",
        target,
        404,
        token=C["X-Auth-Token"],
        headers={"Authorization": f"Bearer {C['Bearer']}"},
        answer_headers={"Location": f"http://u:{C['user in a URL']}@h/?token={C['query']}"},
    )
    cloud.from_outside(
        74,
        "nova-api",
        "POST",
        "/v2.1/os-keypairs",
        201,
        0.1,
        body={"keypair": {"name": "k"}},
        answer={"keypair": {"name": "k", "private_key": C["private key"]}},
    )
    cloud.rest(
        75,
        "compute1",
        "vrm",
        "POST",
        "/service/session",
        401,
        token="",
        headers={"X-Auth-User": "u", "X-Auth-Key": C["password of a VRM"]},
        body={"password": C["password of a VRM"]},
        answer={"errorDes": f"session X-Auth-Token: {C['session of a VRM']}, password '{C['VRM error']}'"},
        answer_headers={"X-Auth-Token": C["session of a VRM"]},
    )
    cloud.rest(
        76,
        "compute1",
        "vrm",
        "POST",
        "/service/sites/1/vms",
        500,
        token=C["session of a VRM"],
        body={"osOptions": {"password": C["password of a VRM"]}},
        answer={"errorCode": "1", "errorDes": f"login failed, password={C['VRM error']}"},
    )
    arguments = {
        "new_pass": C["RPC password"],
        "admin_password": C["RPC password"],
        "injected_files": [["/etc/key", C["RPC file"]]],
        "connection_info": {"auth_password": C["RPC connection_info"]},
        "instance": {"user_data": C["user_data"], "adminPass": C["adminPass"]},
    }
    request_id = cloud.fresh_id("req-")
    body = cloud.message("set_admin_password", arguments, request_id, call="nova-api", msg_id="c" * 32)
    body = body.replace(SECRETS["token"].encode(), C["RPC context"].encode())
    cloud.rpc(77, "nova-api", "compute1", "nova", "compute.compute1", body)
    failure = {
        "class": "InstancePasswordSetFailed",
        "module": "nova.exception",
        "kwargs": {"password": C["RPC failure"]},
        "message": f"Failed to set admin password={C['RPC failure']}",
        "tb": [f"password='{C['RPC failure']}'"],
    }
    cloud.rpc(
        77.1, "compute1", "nova-api", "", "reply_nova-api", cloud.reply("c" * 32, None, json.dumps(failure))
    )
    database = cloud.database("nova-api", 78)
    for at, text, answer in (
        (
            78.0,
            "INSERT INTO instances (user_data, password)"
            f" VALUES ('{C['SQL user_data']}', '{C['SQL value']}')",
            sql_ok(),
        ),
        (78.1, "SELECT password FROM local_user", sql_rows(C["SQL row"])),
        (
            78.2,
            f"UPDATE local_user SET password='{C['SQL value']}'",
            sql_error(1062, f"Duplicate entry for password='{C['SQL error']}'"),
        ),
        (78.3, f"SET PASSWORD FOR 'nova' = PASSWORD('{C['SQL value']}')", sql_ok()),
    ):
        database.say(at, query(text))
        database.hear(at + 0.001, answer)
    _logins(cloud)
    return cloud


def _logins(cloud: Cloud) -> None:
    for number, (mechanism, response) in enumerate(
        {
            "PLAIN": f"\0nova\0{C['AMQP PLAIN']}",
            "AMQPLAIN": "\x05LOGINS\0\0\0\x04nova\x08PASSWORDS\0\0\0\x12" + C["AMQPLAIN"],
        }.items()
    ):
        made = cloud.network.connection(
            cloud.address["nova-api"], cloud.address["rabbitmq"], 5672, 79 + number
        )
        made.say(79.1 + number, b"AMQP\0\0\x09\x01")
        start = pika.spec.Connection.StartOk(
            {"product": "x", "password": C["AMQPLAIN"]}, mechanism, response, "en_US"
        )
        made.say(79.2 + number, bytes(pika.frame.Method(0, start).marshal()))
    made = cloud.network.connection(cloud.address["nova-api"], cloud.address["db"], 3306, 82)
    greeting = b"\x0a8.0\0" + bytes(4) + b"abcdefgh\0" + b"\xff\xff\x21\2\0\xff\xff\x15" + bytes(10)
    greeting += b"ijklmnopqrst\0mysql_clear_password\0"
    made.hear(82.1, mysql_packet(0, greeting))
    password = C["MySQL login"].encode() + b"\0"
    login = (0x000AA20D).to_bytes(4, "little") + bytes([0, 0, 0, 1, 33]) + bytes(23) + b"nova\0"
    made.say(
        82.2, mysql_packet(1, login + bytes([len(password)]) + password + b"nova\0mysql_clear_password\0")
    )
    made.hear(
        82.3, mysql_packet(2, sql_error(1045, f"Access denied (using password: {C['MySQL login']})")[4:])
    )


@pytest.fixture(scope="module")
def captures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return planted().network.write(tmp_path_factory.mktemp("planted"))


def leaks(content: bytes) -> list[str]:
    """Which canaries, and secrets of the test cloud, are in *content*: as they are, or escaped in JSON."""
    return [what for what, secret in {**SECRETS, **CANARIES}.items() if secret.encode() in content]


def unpacked(form: str, result: Path) -> bytes:
    """Return what *result* says, without its compression."""
    content = result.read_bytes()
    if form == "parquet":
        return repr(pyarrow.parquet.read_table(result).to_pylist()).encode()
    if form == "html":
        packed = re.findall(rb"eJ[\w+/]{40,}={0,2}|eN[\w+/]{40,}={0,2}", content)
        assert packed
        return content + b"".join(zlib.decompress(base64.b64decode(part)) for part in packed)
    return content


def tracer(folder: Path, *arguments: str, **options: object) -> tuple[int, bytes]:
    """Run the program with an empty folder for its temporary files; what it said, and left there."""
    left = folder / "temporary"
    left.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "tracer", *arguments],
        capture_output=True,
        env=os.environ | {"TMPDIR": str(left)},
        cwd=folder,
        check=False,
        timeout=100,
        **options,  # type: ignore[call-overload]
    )
    files = b"".join(path.read_bytes() for path in left.rglob("*") if path.is_file())
    return done.returncode, done.stdout + done.stderr + files


def test_all_canaries_are_in_the_captures(captures: list[str]) -> None:
    """Else nothing would be tested; AMQP and HTTP may cut none of them, so short ones are used."""
    content = b"".join(Path(path).read_bytes() for path in captures)
    assert set(CANARIES) - set(leaks(content)) <= {"Basic, plain"}


@pytest.mark.parametrize("form", ["text", *FORMATS])
def test_no_report_holds_a_secret(form: str, captures: list[str], tmp_path: Path) -> None:
    result = tmp_path / "result"
    more = ["-vv"] if form == "text" else ["--format", form]
    code, said = tracer(tmp_path, "check", *captures, *more, "-o", str(result))
    assert code == 1, said
    written = unpacked(form, result)
    assert b"good" in written or (form in ("har", "svg", "mermaid", "junit") and len(written) > 100)
    assert leaks(said + written) == []
    assert stat.S_IMODE(result.stat().st_mode) == 0o600


@pytest.mark.parametrize("arguments", [["calls"], ["calls", "--format", "jsonl"], ["show"]])
def test_no_list_of_calls_holds_a_secret(arguments: list[str], captures: list[str], tmp_path: Path) -> None:
    if arguments == ["show"]:
        _, found = tracer(tmp_path, "check", *captures, "--format", "json")
        ids = [trace["id"] for trace in json.loads(found.partition(b"\ntracer:")[0])["traces"]]
        said = b"".join(tracer(tmp_path, "show", *captures, "--trace", one, "-vv")[1] for one in ids)
        assert len(ids) >= 2
    else:
        _, said = tracer(tmp_path, *arguments, *captures)
    assert len(said) > 1000
    assert leaks(said) == []


def test_an_extract_holds_no_secret_and_is_its_owners(captures: list[str], tmp_path: Path) -> None:
    for name in ("good", "bad"):
        target = tmp_path / f"{name}.pcapng"
        code, said = tracer(tmp_path, "extract", *captures, "--trace", name, "-w", str(target))
        assert code == 0, said
        assert leaks(said + target.read_bytes()) == []
        assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_watch_tells_no_secret_anywhere(captures: list[str], tmp_path: Path) -> None:
    """Events, notifications, checkpoint."""
    kept = tmp_path / "kept.json"
    with Receiver().listening() as receiver, pipes(tmp_path, [Path(path) for path in captures]) as sources:
        given = [word for source in sources for word in ("-i", source)]
        _, said = tracer(tmp_path, "watch", *given, "--notify", receiver.url, "--checkpoint", str(kept))
    assert b'"event":"verdict"' in said
    assert receiver.bodies
    assert leaks(said + b"".join(receiver.bodies) + kept.read_bytes()) == []
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


# --- what acts on the reader's side -----------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    cloud = Cloud()
    cloud.background(0, 200, every=50)
    for number, name in enumerate(NAMES.values()):
        Creation(cloud, at=20 + 30 * number, name=name, breaks={"4c": "403"} if number else {}).run()
    yield cloud.network.write(tmp_path_factory.mktemp("hostile"))


@pytest.mark.parametrize("form", ["text", "calls", "calls jsonl", *(f for f in FORMATS if f != "parquet")])
def test_names_act_on_nothing(form: str, hostile: list[str], tmp_path: Path) -> None:
    """No escape sequence, no control of the direction of text, no cell that a spreadsheet runs."""
    if form.startswith("calls"):
        arguments = ["calls", *hostile, *(["--format", "jsonl"] if "jsonl" in form else [])]
    else:
        arguments = ["check", *hostile, *(["-vv"] if form == "text" else ["--format", form])]
    _, said = tracer(tmp_path, *arguments)
    text = said.decode()
    assert "web" in text or form.startswith("calls") or form == "har"
    for character in ("\x1b", "\x07", "\u202e", "\u2066"):
        assert character not in text, repr(text[max(0, text.index(character) - 40) :][:80])
    if form == "csv":
        assert "'=cmd" in text
        assert not [line for line in text.splitlines() if ",=" in line or ',"=' in line]
    if form in ("html", "svg", "mermaid"):
        assert "<script>alert" not in text
