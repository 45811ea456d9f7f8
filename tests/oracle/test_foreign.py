"""Captures and expectations of other projects (see the folder's README): agreement, difference by difference.

deepflow's `.result` files are the parsed messages of its captures, packetbeat's captures are held against
tshark, and tcpdump's malformed ones, with damaged versions of real captures, against nothing: no crash,
no hang.
"""

from __future__ import annotations

import json
import random
import re
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest
from lab.ours import counts, decode, kind_of
from lab.shark import folder, plain, shown

from tracer import engine
from tracer.errors import SourceError
from tracer.model import (
    AmqpContent,
    AmqpMethod,
    HttpRequest,
    HttpResponse,
    Message,
    Report,
    SqlLogin,
    SqlResult,
    SqlStatement,
    Undecoded,
)
from tracer.protocols.mysql.packets import COMMANDS

FOREIGN = "TRACER_FOREIGN_CAPTURES"
MYSQL_PORTS = {port: "mysql" for port in (3307, 6033, 13001, 20130, 2883, 30130)}
"""On which other people's MySQL listens: what a topology file would say, and tshark's decode-as."""


def deepflow(name: str) -> tuple[list[Message], str]:
    """Return our messages of a capture of deepflow, and its expectations."""
    path = folder(FOREIGN) / "deepflow" / name
    messages, _ = decode([path.with_suffix(".pcap")], MYSQL_PORTS)
    return messages, path.with_suffix(".result").read_text()


# --- deepflow: HTTP -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["client-ip", "httpv1", "istio-tcp-frag", "sw8"])
def test_http_as_deepflow(name: str) -> None:
    """Methods, targets and status codes in order. No difference in the four captures of HTTP/1."""
    messages, result = deepflow(f"http/{name}")
    theirs = [
        (method.upper(), path)
        for kind, method, path in re.findall(
            r'proto: Http1, msg_type: (\w+),.*? method: (\w+), path: "([^"]*)"', result
        )
        if kind == "Request"
    ]
    assert [(m.method, m.target) for m in messages if isinstance(m, HttpRequest)] == theirs != []
    statuses = [int(code) for code in re.findall(r"status_code: Some\((\d+)\)", result)]
    assert [m.status for m in messages if isinstance(m, HttpResponse)] == statuses


HTTP2 = {
    # capture: (requests and statuses as tshark shows them, whose table was not seen)
    "grpc-segmented": (["/agent.Synchronizer/Push"], [], False),
    "grpc-server-stream": (["/timeseriesquery.TimeSeriesQueryService/ServerStreamQuery"], [200], False),
    "grpc-service-name": (["/StreamingService/ClientStreamRPC"], [200], False),
    "grpc-unary": (["/agent.Synchronizer/Sync"], [], False),
    "h2c_ascii": (["/hipstershop.CartService/GetCart"], [200], False),
    "http2-multi": (["", ""], [200, 200], True),
}


@pytest.mark.parametrize("name", HTTP2)
def test_http2_as_deepflow(name: str) -> None:
    """Paths and statuses; of a connection that began earlier the paths stay unknown, for deepflow too."""
    messages, _ = decode([folder(FOREIGN) / "deepflow" / "http" / f"{name}.pcap"])
    paths, statuses, unknown = HTTP2[name]
    assert [m.target for m in messages if isinstance(m, HttpRequest)] == paths
    assert [m.status for m in messages if isinstance(m, HttpResponse)] == statuses
    assert any(isinstance(m, Undecoded) for m in messages) is unknown


# --- deepflow: AMQP -------------------------------------------------------------------------------

AMQP_DIFFERENCES = {
    # (capture, method): (ours, deepflow's, who is right and why)
    ("amqp-error", "channel.close"): (
        2, 3, "ours, and tshark: deepflow tells an error close as response and as request, frame 51"
    ),
}  # fmt: skip


def _hyphens(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()


@pytest.mark.parametrize("name", ["amqp1", "amqp2", "amqp3", "amqp-error"])
def test_amqp_as_deepflow(name: str) -> None:
    """Every method, as often; the one difference is in the table."""
    messages, result = deepflow(f"amqp/{name}")
    ours = Counter(m.name for m in messages if isinstance(m, AmqpMethod | AmqpContent))
    theirs: Counter[str] = Counter()
    for one, two in re.findall(r"class_id: (\w+), method_id: (\w+)", result):
        theirs[f"{_hyphens(one)}.{_hyphens(two)}"] += 1
    different = {
        (name, method): (ours[method], theirs[method])
        for method in {*ours, *theirs}
        if ours[method] != theirs[method]
    }
    assert different == {key: row[:2] for key, row in AMQP_DIFFERENCES.items() if key[0] == name}


# --- deepflow: MySQL ------------------------------------------------------------------------------

PLAIN_MYSQL = [
    "binary-in-sql",
    "large-response",
    "mysql",
    "mysql-database",
    "mysql-error",
    "mysql-exec",
    "mysql-login-error",
    "mysql-statement",
    "mysql-statement-id",
    "mysql-table-alter",
    "mysql-table-create",
    "mysql-table-delete",
    "mysql-table-desc",
    "mysql-table-destroy",
    "mysql-table-insert",
    "mysql-table-select",
    "mysql-table-update",
    "truncate-1024",
]
MYSQL_DIFFERENCES = {
    # capture: (answers of ours, of deepflow's, who is right and why)
    "mysql-statement": (
        8, 6,
        "ours: the server answers eight times (frames 68 71 76 79 89 90 95 96, as tshark shows, too); "
        "deepflow calls two of them 'Other'",
    ),
}  # fmt: skip
_TEXT_OF = {"query", "prepare", "init_db"}


@pytest.mark.parametrize("name", PLAIN_MYSQL)
def test_mysql_as_deepflow(name: str) -> None:
    """Logins, commands with their texts in order, and answers, good and bad; differences in the table.

    Not a difference, but told in other words: deepflow's request_resource of an execute is its parameters,
    and it tells the OK to a login, which is no command's answer.
    """
    messages, result = deepflow(f"mysql/{name}")
    rows = [json.loads(line[: line.rindex("}") + 1]) for line in result.splitlines() if line[:1] == "{"]
    requests = [r for r in rows if r["msg_type"] in ("Request", "Session") and r["request_type"]]
    theirs = [(COMMANDS[r["request_type"]], r.get("request_resource", "")) for r in requests]
    ours = [(m.command, m.text.decode(errors="replace")) for m in messages if isinstance(m, SqlStatement)]
    assert [command for command, _ in ours] == [command for command, _ in theirs]
    for (command, text), (_, resource) in zip(ours, theirs, strict=True):
        if command in _TEXT_OF:
            # deepflow keeps the beginning of a long text, and drops what is not text.
            assert _letters(text).startswith(_letters(resource)[:60])
    logins = [r["request_resource"] for r in rows if r.get("request_resource", "").startswith("Login ")]
    schemas = [text.partition(" db: ")[2] for text in logins]
    assert [m.schema for m in messages if isinstance(m, SqlLogin)] == schemas
    answers = [r for r in rows if r["msg_type"] == "Response"]
    if logins and answers[0]["response_status"] == "ok":
        del answers[0]
    good = [m.ok for m in messages if isinstance(m, SqlResult)]
    if name in MYSQL_DIFFERENCES:
        assert (len(good), len(answers)) == MYSQL_DIFFERENCES[name][:2]
        assert all(good)
    else:
        assert good == [r["response_status"] == "ok" for r in answers]


def _letters(text: str) -> str:
    return "".join(text.split()).encode("ascii", "ignore").decode()


@pytest.mark.parametrize("name", ["mysql-compressed-response", "partial-packet-compressed", "mysql-use"])
def test_compressed_mysql_is_read(name: str) -> None:
    """The statements are deepflow's, and each has its answer. (mysql-use: nothing in it is really compressed,
    but it has the compressed protocol's headers; tshark passes over them by luck.)"""
    messages, result = deepflow(f"mysql/{name}")
    rows = [json.loads(line[: line.rindex("}") + 1]) for line in result.splitlines() if line[:1] == "{"]
    theirs = [row["request_resource"] for row in rows if row["msg_type"] == "Request"]
    assert [m.text.decode() for m in messages if isinstance(m, SqlStatement)] == theirs
    assert [m.ok for m in messages if isinstance(m, SqlResult)] == [True] * len(theirs)
    assert not any(isinstance(m, Undecoded) for m in messages)


def test_keep_alive_probes_make_no_holes() -> None:
    """mysql-statement begins with the probes of seven idle connections: no byte of theirs is missing."""
    _, (capture,) = decode([folder(FOREIGN) / "deepflow" / "mysql" / "mysql-statement.pcap"], MYSQL_PORTS)
    assert (capture.gaps, capture.lost_bytes) == (0, 0)


# --- packetbeat and deepflow against tshark -------------------------------------------------------

TSHARK_DIFFERENCES = {
    # (capture, kind): (ours, tshark's, who is right and why)
    ("gap_in_stream", "response"): (
        1, 0, "ours: 200 with a hole of 49,152 bytes in its body, flagged truncated; tshark waits for ever"
    ),
    ("http_100_continue", "response"): (
        1, 2, "both: tshark shows the interim 100 as a response; it does not answer the request"
    ),
    ("istio-tcp-frag", "response"): (
        1, 0, "ours, and deepflow: the capture ends in the middle of the answer's head"
    ),
    ("client-ip", "request"): (
        1, 0, "ours, and deepflow: the last 308 bytes are not in the capture, the head is"
    ),
    ("client-ip", "response"): (
        1, 0, "ours, and deepflow: a chunked answer whose last chunk is not in the capture"
    ),
}  # fmt: skip
PACKETBEAT = [
    "802.1q-q-in-q-icmp",
    "amqp_channel_error",
    "amqp_emit_receive",
    "amqp_publish",
    "gap_in_stream",
    "http2-16-ssl",
    "http_100_continue",
    "http_10_connection_close",
    "http_basicauth",
    "http_get_2k_file",
    "http_minitwit",
    "http_over_vlan",
    "http_post",
    "http_post_json",
    "http_realip",
    "http_unmatched",
    "http_unmatched_timeout",
    "http_url_params",
    "http_x_forwarded_for",
    "mysql_affected_rows",
    "mysql_connection",
    "mysql_err_database_not_selected",
    "mysql_int_string_operations",
    "mysql_long",
    "mysql_long_result",
    "mysql_prepare_statement",
    "mysql_windows_lineending",
    "mysql_with_gap",
    "mysql_with_whitespaces",
    "tls-sample1",
    "tls-sample2",
    "tls-version-13",
]
DEEPFLOW = [
    "amqp/amqp1",
    "amqp/amqp-error",
    "http/client-ip",
    "http/httpv1",
    "http/istio-tcp-frag",
    "http/sw8",
    "mysql/171-mysql",
    "mysql/mysql-statement",
    "mysql/mysql-use",
    "mysql/truncate-1024",
]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.long] if number % 6 else [])
        for number, name in enumerate(
            [*(f"packetbeat/{n}" for n in PACKETBEAT), *(f"deepflow/{n}" for n in DEEPFLOW)]
        )
    ],
)
def test_as_tshark(name: str) -> None:
    """The same messages on the same frames; each difference is in the table with the side that is right."""
    path = folder(FOREIGN) / f"{name}.pcap"
    messages, _ = decode([path], MYSQL_PORTS)
    options = [word for port in MYSQL_PORTS for word in ("-d", f"tcp.port=={port},mysql")]
    theirs = shown(path, *options)
    ours, short = counts(messages), name.rpartition("/")[2]
    different = {
        (short, kind): (ours[kind], count) for kind, count in theirs.counts().items() if ours[kind] != count
    }
    assert different == {key: row[:2] for key, row in TSHARK_DIFFERENCES.items() if key[0] == short}
    for kind, frames in theirs.frames.items():
        if (short, kind) not in different:
            assert sorted(m.frames[0][1] for m in messages if kind_of(m) == kind) == sorted(frames)


def test_every_capture_of_packetbeat_is_compared() -> None:
    """None is left out."""
    assert sorted(PACKETBEAT) == sorted(path.stem for path in (folder(FOREIGN) / "packetbeat").glob("*.pcap"))


# --- hostile files --------------------------------------------------------------------------------


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block when it takes longer."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run(path: Path, seconds: float) -> Report | None:
    """Take *path* through both pipelines; return the report, or None if it could not be read at all."""
    with at_most(seconds):
        try:
            list(engine.calls([str(path)], engine.Settings()))
            return engine.check([str(path)], engine.Settings())
        except SourceError as error:
            assert str(error).strip()
            return None


def test_malformed_captures_neither_crash_nor_hang() -> None:
    """All of tcpdump's, through `calls` and `check`: a report or a word of what is wrong, in time."""
    paths = sorted((folder(FOREIGN) / "tcpdump-malformed").glob("*.pcap*"))
    assert len(paths) > 100
    read = sum(run(path, 10) is not None for path in paths)
    assert read > 100


def test_other_peoples_captures_go_through_the_whole_pipeline() -> None:
    """deepflow's and packetbeat's, HTTP/2, TLS, tunnels and all: no crash, and no creation of a server."""
    paths = sorted((folder(FOREIGN) / "packetbeat").glob("*.pcap"))
    paths += sorted((folder(FOREIGN) / "deepflow").rglob("*.pcap"))
    assert len(paths) > 60
    for path in paths:
        report = run(path, 30)
        assert report is not None and not report.verdicts


REAL = ["fail-no-valid-host/Internal_base", "fail-quota-403/External_api", "colo-ok/compute2-any"]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("how", ["cut off", "bits", "bytes of one packet", "a piece left out"])
def test_damaged_files_neither_crash_nor_hang(name: str, how: str, seed: int, tmp_path: Path) -> None:
    """A real capture cut off anywhere, or with bits, bytes or a piece wrong, also in record headers."""
    rng = random.Random(f"{name} {how} {seed}")
    data = bytearray(plain(CAPTURES / f"{name}.pcap.zst", tmp_path).read_bytes())
    if how == "cut off":
        del data[rng.randrange(24, len(data)) :]
    elif how == "bits":
        for _ in range(max(1, len(data) // 2000)):
            data[rng.randrange(24, len(data))] ^= 1 << rng.randrange(8)
    elif how == "bytes of one packet":
        at = rng.randrange(24, len(data) - 200)
        data[at : at + 100] = rng.randbytes(100)
    else:
        at = rng.randrange(24, len(data) - 5000)
        del data[at : at + rng.randrange(1, 4000)]
    damaged = tmp_path / "damaged.pcap"
    damaged.write_bytes(data)
    assert run(damaged, 60)


CAPTURES = Path(__file__).parents[2] / "captures"


@pytest.mark.parametrize("seed", range(12))
def test_damaged_payloads_neither_crash_nor_hang(seed: int, tmp_path: Path) -> None:
    """Record headers whole, bits in the packets wrong: sequence numbers, lengths, types of frames."""
    rng = random.Random(seed)
    data = bytearray(plain(CAPTURES / "fail-no-valid-host/Internal_base.pcap.zst", tmp_path).read_bytes())
    at = 24
    while at + 16 <= len(data):
        size = int.from_bytes(data[at + 8 : at + 12], "little")
        for _ in range(rng.randrange(3) if rng.random() < 0.3 else 0):
            data[at + 16 + rng.randrange(size)] = rng.randrange(256)
        at += 16 + size
    damaged = tmp_path / "damaged.pcap"
    damaged.write_bytes(data)
    assert run(damaged, 60)
