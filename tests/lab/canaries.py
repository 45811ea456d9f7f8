"""Secrets of every kind, said in traffic wherever a cloud says them, each beside something that is told."""

from __future__ import annotations

import base64
import json
from typing import Any

import pika.frame
import pika.spec

from tracer.testing.cloud import PROJECT, SECRETS, Cloud
from tracer.testing.creation import Creation
from tracer.testing.messages import envelope, mysql_packet, nova_object, query, sql_error, sql_ok, sql_rows

__all__ = ["CANARIES", "LOGINS", "NEIGHBOURS", "leaks", "planted", "rpc_bodies"]

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
    "RPC service_catalog": "canaryCatalogPass0031",
    "RPC fault": "canaryRpcFault0032",
    "RPC traceback": "canaryRpcTraceback0033",
    "notification": "canaryNotified0034",
    "notification, context": "canaryNotifiedContext0035",
    "notification, user_data": "canaryNotifiedUserData0036",
    "returned message": "canaryReturned0037",
    "SQL key_pairs": "canaryKeyPair0038",
    "SQL prepared": "canaryPrepared0040",
    "prepared value": "canaryPreparedValue0041",
    "token in a path": "canarypathtoken0042",
    "token as a name": "gAAAAABcanary-name-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "password in a name": "canaryNamePass0043",
    "form": "canaryFormPass0045",
    "console": "canaryConsole0046",
}
C = CANARIES


def _request_id(number: int) -> str:
    return f"req-00000000-0000-4000-8000-0000000ca{number:03d}"


NEIGHBOURS = {
    "canary-server": ("X-Auth-Token", "adminPass", "user_data", "personality", "metadata"),
    "canary-fault": ("REST error", "REST error, token"),
    _request_id(71): ("X-Subject-Token", "X-Service-Token", "Basic", "Basic, plain", "cookie",
                      "cookie that is set"),
    _request_id(72): ("password of a login",),
    _request_id(73): ("query", "signature", "user in a URL", "Bearer"),
    _request_id(74): ("private key",),
    _request_id(83): ("token in a path",),
    _request_id(84): ("form",),
    _request_id(85): ("console",),
    "/service/session": ("password of a VRM",),
    "canary-vrm-fault": ("session of a VRM", "VRM error"),
    "c" * 32: ("RPC password", "RPC file", "RPC context", "RPC connection_info", "RPC service_catalog"),
    "canary-failure": ("RPC failure",),
    "canary-rpc-fault": ("RPC fault", "RPC traceback"),
    "canary-notified": ("notification", "notification, context", "notification, user_data"),
    "canary-nobodys-queue": ("returned message",),
    "INSERT instances": ("SQL value", "SQL user_data"),
    "SELECT local_user": ("SQL row",),
    "canary-sql-error": ("SQL error",),
    "INSERT key_pairs": ("SQL key_pairs", "SQL prepared", "prepared value"),
    "canary-name": ("token as a name", "password in a name"),
}  # fmt: skip
"""What is told of the message that holds these canaries: it was read, and they were left out of it."""
LOGINS = {"AMQPLAIN", "AMQP PLAIN", "MySQL login"}
"""Nothing is told of a login."""


def leaks(content: bytes) -> list[str]:
    """Return which canaries, and secrets of the test cloud, are in *content*, also as JSON escapes them."""
    found = {**SECRETS, **CANARIES}
    return [what for what, secret in found.items() if secret.encode() in content]


def planted() -> Cloud:
    """A cloud that says all of `CANARIES`, and two creations, one of which fails with some of them."""
    cloud = Cloud()
    cloud.background(0, 150, every=20)
    Creation(cloud, at=20, name="good", volume=True).run()
    bad = Creation(cloud, at=60, name="bad", breaks={"8c": "500"})
    bad.run()
    Creation(cloud, at=100, name=f"canary-name {C['token as a name']}", breaks={"4c": "403"}).run()
    named = f"canary-name password={C['password in a name']}"
    Creation(cloud, at=110, name=named, breaks={"4c": "403"}).run()
    basic = {"Authorization": f"Basic {C['Basic']}", "Cookie": f"session={C['cookie']}"}
    service = {"X-Service-Token": C["X-Service-Token"], "X-Subject-Token": C["X-Subject-Token"]}
    server = {
        "name": "canary-server",
        "adminPass": C["adminPass"],
        "user_data": C["user_data"],
        "personality": [{"path": "/etc/motd", "contents": C["personality"]}],
        "metadata": {"admin_pass": C["metadata"]},
        "flavorRef": "1",
    }
    fault = {
        "badRequest": {
            "code": 400,
            "message": f"canary-fault: password={C['REST error']} token {C['REST error, token']}",
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
            **_told(71),
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
        answer_headers=_told(72),
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
        answer_headers={"Location": f"http://u:{C['user in a URL']}@h/?token={C['query']}", **_told(73)},
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
        answer_headers=_told(74),
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
    quoted = f"session X-Auth-Token: {C['session of a VRM']}, password={C['VRM error']}"
    cloud.rest(
        76,
        "compute1",
        "vrm",
        "POST",
        "/service/sites/1/vms",
        500,
        token=C["session of a VRM"],
        body={"osOptions": {"password": C["password of a VRM"]}},
        answer={"errorCode": "1", "errorDes": f"canary-vrm-fault: {quoted}"},
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
    catalog = json.dumps([{"endpoints": [{"url": f"http://u:{C['RPC service_catalog']}@h/"}]}])
    context = f'{C["RPC context"]}", "_context_service_catalog": {catalog}, "_context_x": "'
    body = body.replace(SECRETS["token"].encode(), json.dumps(context)[1:-1].encode())
    cloud.rpc(77, "nova-api", "compute1", "nova", "compute.compute1", body)
    failure = {
        "class": "InstancePasswordSetFailed",
        "module": "nova.exception",
        "kwargs": {"password": C["RPC failure"]},
        "message": f"canary-failure: admin password={C['RPC failure']}",
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
            sql_error(1062, f"canary-sql-error for password='{C['SQL error']}'"),
        ),
        (78.3, f"SET PASSWORD FOR 'nova' = PASSWORD('{C['SQL value']}')", sql_ok()),
    ):
        database.say(at, query(text))
        database.hear(at + 0.001, answer)
    _say_more(cloud, bad)
    _logins(cloud)
    return cloud


def _told(number: int) -> dict[str, str]:
    return {"X-OpenStack-Request-ID": _request_id(number)}


def _say_more(cloud: Cloud, bad: Creation) -> None:
    cloud.rest(83, "nova-api", "keystone", "GET", f"/v2.0/tokens/{C['token in a path']}",
               answer_headers=_told(83))  # fmt: skip
    cloud.from_outside(84, "nova-api", "POST", "/v2.1/servers/x/action", 202, 0.1, answer_headers=_told(84),
                       body={"changePassword": {"adminPass": C["form"]}})  # fmt: skip
    console = {"remote_console": {"url": f"http://h:6080/vnc_auto.html?token={C['console']}"}}
    cloud.from_outside(85, "nova-api", "POST", "/v2.1/servers/x/remote-consoles", 200, 0.1,
                       answer=console, answer_headers=_told(85))  # fmt: skip
    for at, body in rpc_bodies(cloud, bad):
        key = "canary-nobodys-queue" if C["returned message"].encode() in body else "conductor"
        fate = "unroutable" if key != "conductor" else "ok"
        cloud.rpc(at, "compute1", "nova-conductor", "nova", key, body, fate)
    database = cloud.database("nova-api", 92)
    prepared = f"INSERT INTO key_pairs (name, private_key) VALUES (?, '{C['SQL prepared']}')"
    database.say(92.0, query(f"INSERT INTO key_pairs (private_key) VALUES ('{C['SQL key_pairs']}')"))
    database.hear(92.1, sql_ok())
    database.say(92.2, mysql_packet(0, b"\x16" + prepared.encode()))
    database.hear(92.3, mysql_packet(1, b"\0\1\0\0\0\0\0\1\0\0\0\0"))
    value = C["prepared value"].encode()
    given = b"\x17\1\0\0\0\0\1\0\0\0\0\1\xfd\0" + bytes([len(value)]) + value
    database.say(92.4, mysql_packet(0, given))
    database.hear(92.5, sql_ok())


def rpc_bodies(cloud: Cloud, bad: Creation) -> list[tuple[float, bytes]]:
    """Return messages of a host about the server of *bad*: a fault, a notification, one that nobody takes."""
    fault = nova_object(
        "InstanceFault",
        instance_uuid=bad.server_ids[0],
        code=500,
        message=f"canary-rpc-fault: password={C['RPC fault']}",
        details=f"Traceback (most recent call last):\n password='{C['RPC traceback']}'",
        host="compute1",
    )
    arguments = {"objinst": fault, "objmethod": "create", "args": [], "kwargs": {}}
    exception = nova_object(
        "ExceptionPayload",
        exception="canary-notified",
        exception_message=f"password={C['notification']}",
        traceback=f"password='{C['notification']}'",
    )
    payload = nova_object(
        "InstanceCreatePayload",
        uuid=bad.server_ids[0],
        host="compute1",
        fault=exception,
        user_data=C["notification, user_data"],
        keypairs=[{"private_key": C["notification, user_data"]}],
    )
    notification: dict[str, Any] = {
        "message_id": cloud.fresh_id(),
        "publisher_id": "nova-compute:compute1",
        "event_type": "instance.create.error",
        "priority": "ERROR",
        "payload": payload,
        "timestamp": "2026-11-22 06:48:21",
        "_unique_id": "d" * 32,
        "_context_request_id": bad.request_id,
        "_context_project_id": PROJECT,
        "_context_auth_token": C["notification, context"],
    }
    return [
        (61.5, cloud.message("object_action", arguments, bad.request_id, call="compute1")),
        (61.6, envelope(notification)),
        (91, cloud.message("run_canary", {"password": C["returned message"]}, cloud.fresh_id("req-"))),
    ]


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
