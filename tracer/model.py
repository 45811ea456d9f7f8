"""All the nouns that flow between the stages. Read this file first.

    Packet -> Segment -> Data | Gap | Closed -> Message -> Call -> Trace -> Verdict

Times are integers: nanoseconds since the Unix epoch, taken from the capture. Below the message level
the nouns are NamedTuples (a frozen dataclass per packet costs more than the packet). What lives on
and is filled as the wire tells more (Capture, Connection, Call, Trace) is a slotted dataclass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = [
    "CLIENT",
    "SERVER",
    "TO_CLIENT",
    "TO_SERVER",
    "AmqpContent",
    "AmqpMethod",
    "Attempt",
    "Call",
    "CallRecord",
    "Capture",
    "Closed",
    "ConnectFacts",
    "Connection",
    "Data",
    "Deviation",
    "End",
    "Endpoint",
    "Frame",
    "Frames",
    "Gap",
    "HttpRequest",
    "HttpResponse",
    "Message",
    "Note",
    "Packet",
    "PacketFields",
    "Report",
    "RestFacts",
    "RpcFacts",
    "Segment",
    "SegmentFields",
    "SqlFacts",
    "SqlLogin",
    "SqlResult",
    "SqlStatement",
    "StepResult",
    "Trace",
    "Undecoded",
    "Verdict",
]

# --- evidence -------------------------------------------------------------------------------------


Frame = tuple[int, int]
"""Where a packet is found: the position of its capture in the run's list of captures, and its number
there, 1-based, as Wireshark's `frame.number`: what a person types into Wireshark."""

Frames = tuple[Frame, ...]
"""Evidence. Of a packet: one frame for each capture point that saw it. Of a message: the frame on
which Wireshark shows the message first, then the others."""

# --- captures and packets -------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class Capture:
    """One capture as it is read: its name, its counters, what went wrong in it."""

    number: int
    path: str
    """As reached from the argument."""
    plane: str | None = None
    """The plane this capture was recorded on; None for a capture point (a host's `-i any`)."""
    packets: int = 0
    size_bytes: int = 0
    """Captured bytes of packets, without record headers."""
    first_ns: int | None = None
    last_ns: int | None = None
    truncated_packets: int = 0
    """Packets cut by the snap length."""
    interfaces: dict[int, str] = field(default_factory=dict)
    """pcapng: number of an interface over the whole file -> its name."""
    anomalies: Counter[str] = field(default_factory=Counter)
    """What was wrong in the file or in its packets, in words -> how often. A file that breaks off
    holds 'file ends inside a record' or the like."""
    broke_off: bool = False
    """The file ends (or turns to garbage) before its end: nothing after that is known."""
    planes: set[str] = field(default_factory=set)
    """Planes seen in it (filled by the pipeline)."""
    calls: int = 0
    skipped_statements: int = 0
    duplicate_segments: int = 0
    reordered_segments: int = 0
    gaps: int = 0
    lost_bytes: int = 0
    undecoded_streams: int = 0
    undecoded: Counter[str] = field(default_factory=Counter)
    """Why streams of this capture were not decoded -> how many."""


class Packet(NamedTuple):
    """One captured packet, not looked into."""

    time_ns: int
    data: bytes
    """From the link layer on, as captured."""
    wire_bytes: int
    """Its length on the wire; more than `len(data)` when the snap length cut it."""
    link_type: int
    """A LINKTYPE_ number, upper bits masked off."""
    frame: Frame
    interface: int = 0
    """pcapng: key in `Capture.interfaces`."""


PacketFields = tuple[int, bytes, int, int, Frame, int]
"""A Packet, or the same fields in a plain tuple: what goes from stage to stage, since there are hundreds
of thousands and a named tuple costs ten times as much to make. `Packet._make` gives the names back."""


class Segment(NamedTuple):
    """One TCP segment."""

    time_ns: int
    flow: bytes
    """Source address, destination address (4 or 16 bytes each), source port, destination port
    (2 bytes each), then the tunnel id where there is one (4 bytes). The reverse direction has the
    addresses and the ports swapped."""
    seq: int
    ack: int
    flags: int
    """FIN 1, SYN 2, RST 4, PSH 8, ACK 16."""
    payload: bytes
    """Cut to the IP length, so that Ethernet padding never shows."""
    missing_bytes: int
    """Bytes of the payload that the snap length cut away, behind `payload`."""
    ip_id: int
    """IPv4 identification; tells a packet seen twice from a retransmission. 0 for IPv6."""
    frames: Frames
    vlan: int = 0
    """Outermost 802.1Q id, 0 without a tag."""
    interface: int = 0


SegmentFields = tuple[int, bytes, int, int, int, bytes, int, int, Frames, int, int]
"""A Segment, or the same fields in a plain tuple, as with PacketFields."""


# --- connections and streams ----------------------------------------------------------------------


class Endpoint(NamedTuple):
    address: str
    """Textual IPv4 or IPv6 address."""
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


TO_SERVER = 0
TO_CLIENT = 1


@dataclass(slots=True, eq=False)
class Connection:
    """One TCP connection between a client and a server.

    A port that is used again is another connection. Roles are learnt later, so this holds only what
    the packets say.
    """

    number: int
    client: Endpoint
    server: Endpoint
    first_ns: int
    joined: bool = False
    """True when it began before the capture: no SYN was seen."""
    certain: bool = True
    """False while it is a guess which end is the server."""
    vlan: int = 0
    interface: int = 0
    captures: list[int] = field(default_factory=list)
    """Capture points that saw it, the first one first."""
    protocol: str | None = None
    """Name of its decoder, once known."""
    gaps: int = 0
    lost_bytes: int = 0
    client_role: str = ""
    """What the client says of itself on it (User-Agent, AMQP connection name), as a role."""
    server_role: str = ""
    """What the requests say of the server, as a role."""
    seen: int = 0
    """Bit 1: packets to the server were seen; bit 2: packets to the client."""
    deaf: bool = False
    """True while its decoder has no use for the server's bytes: they are followed and not handed on."""


class Data(NamedTuple):
    """The next bytes of one direction of a connection, in order, each byte once."""

    connection: Connection
    direction: int
    """TO_SERVER or TO_CLIENT."""
    time_ns: int
    payload: bytes
    frames: Frames


class Gap(NamedTuple):
    """Bytes of one direction that are not in the capture; the next Data follows behind them."""

    connection: Connection
    direction: int
    time_ns: int
    """When it was noticed."""
    size_bytes: int
    """0 when unknown (a whole part of the stream is gone)."""
    since_ns: int = 0
    """Time of the last byte before the hole."""
    frames: Frames = ()


class Closed(NamedTuple):
    """A connection has ended, or was never established."""

    connection: Connection
    time_ns: int
    how: str
    """fin · reset · refused (SYN answered by RST) · unanswered (SYN answered by nothing) · reused
    (the same ports began again) · idle (forgotten for its age) · end (the capture ends)."""
    direction: int = TO_SERVER
    """Which direction said so, for fin and reset. fin closes one direction, all others both."""
    frames: Frames = ()
    attempts: int = 1
    """SYNs seen, for refused and unanswered."""


# --- messages -------------------------------------------------------------------------------------
# What the wire says may hold secrets, and a traceback prints what it finds: the repr of a message has no
# header, no query and no body.


def _path(target: str) -> str:
    return target.partition("?")[0].rpartition("@")[2][:200]


def _place(frames: Frames) -> str:
    return f"frame {frames[0][0]}#{frames[0][1]}" if frames else "no frame"


class HttpRequest(NamedTuple):
    """One HTTP/1.x request.

    Emitted when its head is complete, or, when the decoder was asked for its body, with the body.
    """

    connection: Connection
    exchange: int
    """Pairs it with its response: n-th exchange of this connection. Increases across a gap."""
    time_ns: int
    """First byte."""
    end_ns: int
    frames: Frames
    """Last frame first (Wireshark shows the message there), then the first one."""
    method: str
    target: str
    """As sent: path and query, or absolute form."""
    headers: dict[str, str]
    """Names in lower case; secrets are digests; values of a repeated header joined by ', '."""
    body: bytes
    """Decoded (chunked, gzip, deflate); empty unless asked for."""
    truncated: bool
    """Bytes of it are not in the capture."""
    direction: int = TO_SERVER

    def __repr__(self) -> str:
        what = f"{self.method} {_path(self.target)}"
        return f"HttpRequest({what}, {len(self.body)} bytes, {_place(self.frames)})"


class HttpResponse(NamedTuple):
    """One final HTTP/1.x response (1xx are not emitted, but for 101)."""

    connection: Connection
    exchange: int
    time_ns: int
    end_ns: int
    frames: Frames
    status: int
    reason: str
    headers: dict[str, str]
    body: bytes
    truncated: bool

    def __repr__(self) -> str:
        return f"HttpResponse({self.status}, {len(self.body)} bytes, {_place(self.frames)})"


class AmqpMethod(NamedTuple):
    """One AMQP method that carries no content."""

    connection: Connection
    direction: int
    time_ns: int
    frames: Frames
    channel: int
    name: str
    """As in the specification: 'basic.ack', 'connection.start-ok', 'queue.declare' ..."""
    arguments: dict[str, str | int | bool]
    """By the specification's names with '_'; only those that a stage needs; no credentials."""


class AmqpContent(NamedTuple):
    """One AMQP message: method, properties and body."""

    connection: Connection
    direction: int
    time_ns: int
    """First byte of its method frame."""
    end_ns: int
    frames: Frames
    """The frame where its method starts first (as Wireshark), then the last one."""
    channel: int
    name: str
    """basic.publish · basic.deliver · basic.return · basic.get-ok"""
    arguments: dict[str, str | int | bool]
    """exchange, routing_key, delivery_tag, consumer_tag, redelivered, mandatory, reply_code, reply_text."""
    properties: dict[str, str | int]
    """content_type, correlation_id, reply_to, expiration, message_id, ...; headers are not decoded,
    but for 'compression'."""
    body: bytes
    """What of it is in the capture, at most the decoder's limit."""
    body_bytes: int
    """Its declared size."""
    truncated: bool

    def __repr__(self) -> str:
        return f"AmqpContent({self.name}, {self.body_bytes} bytes, {_place(self.frames)})"


class SqlLogin(NamedTuple):
    """The client's handshake response. User and password are not read."""

    connection: Connection
    time_ns: int
    frames: Frames
    schema: str
    attributes: dict[str, str]
    """Connection attributes such as _pid, program_name, _client_name."""


class SqlStatement(NamedTuple):
    """One command of a MySQL client."""

    connection: Connection
    exchange: int
    time_ns: int
    end_ns: int
    frames: Frames
    command: str
    """query · prepare · execute · init_db · quit · ping · … (lower case)"""
    text: bytes
    """The statement; for execute the text that was prepared, or b'#7' when that was not seen."""
    truncated: bool

    def __repr__(self) -> str:
        return f"SqlStatement({self.command}, {len(self.text)} bytes, {_place(self.frames)})"


class SqlResult(NamedTuple):
    """The answer to one statement; rows are not parsed."""

    connection: Connection
    exchange: int
    time_ns: int
    end_ns: int
    frames: Frames
    ok: bool
    error_code: int
    error_text: str
    truncated: bool


class Undecoded(NamedTuple):
    """From here on this connection (direction) cannot be read."""

    connection: Connection
    time_ns: int
    reason: str
    """tls · compressed · http2 · websocket · unknown protocol · garbage …"""
    frames: Frames


Message = (
    HttpRequest | HttpResponse | AmqpMethod | AmqpContent | SqlLogin | SqlStatement | SqlResult | Undecoded
)

# --- calls ----------------------------------------------------------------------------------------


class End(NamedTuple):
    """One end of a connection: what a role belongs to."""

    connection: Connection
    side: int
    """CLIENT or SERVER."""

    @property
    def endpoint(self) -> Endpoint:
        return self.connection.server if self.side == SERVER else self.connection.client


CLIENT = 0
SERVER = 1


@dataclass(slots=True, eq=False)
class RestFacts:
    """What correlation and topology need of a REST call; no body is kept."""

    method: str
    path: str
    """As sent, without query."""
    query: str = ""
    status: int = 0
    """0 while there is no answer."""
    host: str = ""
    """The Host header."""
    user_agent: str = ""
    forwarded_for: str = ""
    request_id: str = ""
    """X-OpenStack-Request-ID of the request: the caller's request."""
    answered_id: str = ""
    """X-OpenStack-Request-ID of the answer: the callee's own."""
    token: str = ""
    """Digest of X-Auth-Token."""
    subject_token: str = ""
    """Digest of X-Subject-Token."""
    name: str = ""
    """A server's name in the body of the request."""
    count: int = 1
    """How many servers were asked for."""
    ids: tuple[str, ...] = ()
    """UUIDs (and other resource ids) in path, query and body of the request."""
    answered_ids: tuple[str, ...] = ()
    """UUIDs of what the answer made or describes: servers, port, attachment."""
    project_id: str = ""
    task_uri: str = ""
    """VRM: the task that the answer names."""
    vm_uri: str = ""
    """VRM: the virtual machine that the answer names."""
    creates: bool = False
    """It is a POST to all servers: it asks for new ones."""
    server_id: str = ""
    """The server that the path is about."""
    action: str = ""
    """What a POST to `/action` asks for, which only its body tells: os-stop, reboot …"""
    status_text: str = ""
    """`status` in the answer's body: ACTIVE, ERROR, success, failed, running."""
    candidates: int | None = None
    """Placement: how many allocation candidates the answer holds."""
    volume: bool = False
    """The request of a server boots it from a volume."""
    broken: bool = False
    """Bytes of the request or of the answer are not in the capture."""


@dataclass(slots=True, eq=False)
class RpcFacts:
    """What correlation and topology need of an RPC message."""

    method: str
    mode: str
    """call · cast · fanout · reply · notify"""
    exchange: str = ""
    routing_key: str = ""
    msg_id: str = ""
    reply_queue: str = ""
    unique_id: str = ""
    request_id: str = ""
    global_request_id: str = ""
    project_id: str = ""
    ids: tuple[str, ...] = ()
    """Instance UUIDs, in order."""
    hosts: tuple[str, ...] = ()
    """Hosts that a reply of select_destinations selects, without alternates."""
    vm_state: str = ""
    """Instance.save: the state that is saved."""
    object_method: str = ""
    """Instance.save, Service.save …"""
    binary: str = ""
    """Service.save: the program that reports."""
    failure: str = ""
    """A reply's failure: class and message."""
    published: bool = False
    delivered: bool = False
    acknowledged: bool = False
    confirmed: bool = False
    """The broker confirmed the publish."""
    consumer: End | None = None
    """The connection it was delivered on."""
    redelivered: bool = False
    broken: bool = False
    no_ack: bool = False
    """Its consumer acknowledges nothing: to the broker, delivered is done."""
    answered_ns: int | None = None
    """Of a call: when its reply was published (or delivered, where only that is seen)."""


@dataclass(slots=True, eq=False)
class SqlFacts:
    """What correlation and topology need of an SQL statement; its text is not kept."""

    verb: str
    table: str
    ids: tuple[str, ...] = ()
    request_id: str = ""
    project_id: str = ""
    vm_state: str = ""
    schema: str = ""
    quota: bool = False
    """It reads limits or usage that nova-api's quota check reads."""
    broken: bool = False
    fault: str = ""
    """INSERT instance_faults: why the VM is in error, in nova's own words."""


@dataclass(slots=True, eq=False)
class ConnectFacts:
    """A connection that was refused or never answered."""

    attempts: int = 1


@dataclass(slots=True, eq=False)
class Call:
    """One REST request with its answer, one RPC message with its fate, one SQL statement, or one
    failed connection.

    It is yielded when it begins and once more when its answer or its fate is known; in between it
    is the same object.
    """

    serial: int
    """Order of recognition, from 1."""
    protocol: str
    """REST · RPC · SQL"""
    operation: str
    result: str
    """As in the canonical line."""
    started_ns: int
    ended_ns: int | None
    """None while there is no answer."""
    frames: list[Frame]
    caller: End | None
    callee: End | None
    facts: RestFacts | RpcFacts | SqlFacts | ConnectFacts
    connection: Connection
    """Where it was seen first."""
    error: str = ""
    """The fault's own text, such as 'Quota exceeded for instances …'."""
    index: int = 0
    """Its number in the run, in time order from 1."""
    front: Call | None = None
    """The leg towards a proxy, of which this call is the leg behind it."""
    back: Call | None = None
    """The leg behind a proxy, of which this call is the leg towards it."""
    closed: bool = False
    """Nothing more is expected of it."""
    parent: Call | None = None
    """What it belongs to: of a reply the call that it answers; of a token validation the request whose
    token is validated."""

    @property
    def asked(self) -> str:
        """The operation as grammars match it: with the action that only the body tells."""
        action = getattr(self.facts, "action", "")
        return f"{self.operation}/{action}" if action else self.operation


# --- traces ---------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class Trace:
    """The calls of one VM's creation (or of another workflow's single run)."""

    number: int
    """Order in which traces were opened, from 1."""
    request_id: str = ""
    server_id: str = ""
    project_id: str = ""
    name: str = ""
    calls: list[Call] = field(default_factory=list)
    """Calls of this trace, in order of start."""
    ambiguous: set[int] = field(default_factory=set)
    """Serials of the calls that may belong to another trace as well."""
    polls: list[Call] = field(default_factory=list)
    """Calls that look at the VM from outside; they never keep a trace alive."""
    creates: bool = True
    """The workflow makes the server; else it does something to one that is there."""
    created: Call | None = None
    """The request that began it (POST /servers), the leg nearest to nova-api that was seen."""
    active_ns: int | None = None
    """When the VM was seen to be active, and by which call."""
    active_call: Call | None = None
    failed_ns: int | None = None
    failed_call: Call | None = None
    """The call that told the error state."""
    shared: bool = False
    """One request made several VMs."""


# --- verdicts: plain values for the reports ---------------------------------------------------------


@dataclass(slots=True, frozen=True)
class CallRecord:
    """A call as it is shown: roles, planes and evidence resolved."""

    index: int
    plane: str
    protocol: str
    caller: str
    callee: str
    operation: str
    result: str
    started_ns: int
    duration_ns: int | None
    evidence: tuple[tuple[str, int], ...]
    """(path, frame); the first one is where Wireshark shows the message."""
    step: str | None = None
    """The documented step it is a witness of."""
    ambiguous: bool = False
    error: str = ""
    via: str = ""
    """'lb' when it went through a proxy."""
    caller_address: str = ""
    callee_address: str = ""
    request_id: str = ""
    """The id to grep for in the callee's log."""
    traces: tuple[str, ...] = ()
    """Ids of the traces it belongs to."""
    action: str = ""
    """What a POST to `/action` asks for."""
    message_id: str = ""
    """RPC: the id that oslo.messaging names when it waits for the reply in vain."""
    queue: str = ""
    """RPC: the routing key, which names the queue."""

    @property
    def line(self) -> str:
        """The canonical line, interface.md: `<plane> <protocol> <caller> > <callee> <operation> <result>`."""
        return f"{self.plane} {self.protocol} {self.caller} > {self.callee} {self.operation} {self.result}"

    @property
    def matched(self) -> str:
        """The line as grammars match it: an action that only the body tells ends the path.

        `… POST /v2.1/servers/{id}/action/os-stop 202`
        """
        action = f"/{self.action}" if self.action else ""
        ends = f"{self.plane} {self.protocol} {self.caller} > {self.callee}"
        return f"{ends} {self.operation}{action} {self.result}"


@dataclass(slots=True, frozen=True)
class StepResult:
    """What became of one documented step in one trace."""

    step: str
    """4a"""
    title: str
    status: str
    """seen · inferred · failed · missing · unobserved · skipped · not_reached"""
    started_ns: int | None = None
    duration_ns: int | None = None
    calls: tuple[CallRecord, ...] = ()
    reason: str = ""
    """Why it is unobserved, and which capture point would show it; or who owes it."""
    waited_ns: int | None = None
    """How long nothing documented happened before it; None where that is not known."""
    usual_ns: int | None = None
    """Against a baseline: how long it takes on average in good creations, and in 95 % of them at most."""
    usual_p95_ns: int | None = None


@dataclass(slots=True, frozen=True)
class Deviation:
    kind: str
    """failed · stalled · missing · extra · order · plane · mode · late"""
    step: str | None
    message: str
    call: CallRecord | None = None
    expected: tuple[str, ...] = ()
    peer: str = ""
    """The role that failed, or that owes what never came."""
    cause: str = ""
    """The fault's own words, or what the last call did."""


@dataclass(slots=True, frozen=True)
class Note:
    kind: str
    """mode · retry · slow · ambiguous · allowed · placement · reply · broker · fault · …"""
    step: str | None
    message: str
    call: CallRecord | None = None
    """What shows it."""


@dataclass(slots=True, frozen=True)
class Attempt:
    """One host's try at building the VM."""

    host: str
    stopped_at: str | None
    error: str
    started_ns: int
    duration_ns: int | None
    steps: tuple[StepResult, ...] = ()
    """Steps 7 to 8c of this attempt."""


@dataclass(slots=True, frozen=True)
class Verdict:
    """One trace checked against a grammar."""

    id: str
    request_id: str | None
    server_id: str | None
    project_id: str | None
    name: str | None
    verdict: str
    """conforms · deviates · inconclusive"""
    outcome: str
    """active (done) · rejected · error · stuck · unfinished"""
    stopped_at: str | None
    stopped_between: tuple[str, str] | None
    api_host: str | None
    compute_host: str | None
    attempts: tuple[str, ...]
    attempt_details: tuple[Attempt, ...]
    started_ns: int
    ended_ns: int
    summary: str
    steps: tuple[StepResult, ...]
    deviations: tuple[Deviation, ...]
    notes: tuple[Note, ...]
    calls: tuple[CallRecord, ...]
    log_ids: tuple[tuple[str, str], ...] = ()
    """(service, request id to grep for in its log)"""


@dataclass(slots=True, frozen=True)
class Report:
    """One run of `tracer check`."""

    grammar: str
    captures: Sequence[Capture]
    verdicts: Sequence[Verdict]
    partial: bool = False
    """True when the run was interrupted."""
    seen: tuple[tuple[str, int], ...] = ()
    """What the captures held instead, for a run without a trace: (words, count)."""
    advice: tuple[str, ...] = ()
    """What the captures could not show, and what to capture next time."""
    baseline: tuple[str, int] | None = None
    """What step times were compared with: the file, and how many creations it was learnt from."""
    remarks: tuple[str, ...] = ()
    """What looks like a slip in what was asked for; for standard error."""
    forgotten: tuple[tuple[str, int], ...] = ()
    """What was dropped for lack of room: (what, how often). Traces may lack calls then."""
