"""The values of correlation: calls with their facts, and traces."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from tracer.model.packets import Frame, Frames
from tracer.model.streams import Connection, Endpoint

__all__ = [
    "CLIENT",
    "CLIENT_SILENT",
    "CLOSED_UNANSWERED",
    "SERVER",
    "Call",
    "ConnectFacts",
    "End",
    "Event",
    "RestFacts",
    "RpcFacts",
    "SqlFacts",
    "Trace",
]


class End(NamedTuple):
    """One end of a connection. Roles are assigned to ends."""

    connection: Connection
    side: int
    """CLIENT or SERVER."""

    @property
    def endpoint(self) -> Endpoint:
        """Its address and port."""
        return self.connection.server if self.side == SERVER else self.connection.client


CLIENT = 0
SERVER = 1
CLOSED_UNANSWERED = "closed the connection without an answer"
"""How the error begins of a call whose server ended the connection instead."""
CLIENT_SILENT = "its client did not answer"
"""The error of a connection to the broker in whose handshake the client went no further."""


class Event(NamedTuple):
    """What neutron or cinder tells nova of one server: a port is plugged, a volume is extended."""

    name: str
    """network-vif-plugged"""
    server_id: str
    tag: str
    """The port or the volume."""
    status: str
    """completed · failed"""
    code: int = 0
    """What nova answered to this event of several; 0 where the answer has one status for all."""


@dataclass(slots=True, eq=False)
class RestFacts:
    """The facts of a REST call that correlation and topology need; no body is kept."""

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
    """The X-Forwarded-For header."""
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
    ids: tuple[str, ...] = ()
    """UUIDs (and other resource ids) in path, query and body of the request."""
    answered_ids: tuple[str, ...] = ()
    """UUIDs of the resources that the answer made or describes: servers, port, attachment."""
    project_id: str = ""
    task_uri: str = ""
    """VRM: the task that the answer names."""
    vm_uri: str = ""
    """VRM: the virtual machine that the answer names."""
    creates: bool = False
    """It is a POST to the collection of servers: it creates servers."""
    server_id: str = ""
    """The server in the path."""
    action: str = ""
    """The action of a POST to `/action`, which only its body holds: os-stop, reboot …"""
    status_text: str = ""
    """`status` in the answer's body: ACTIVE, ERROR, success, failed, running."""
    condition: str = ""
    """What a good answer says of the resource in it: good · open (work on it is not done) · bad."""
    said: str = ""
    """The words that say so: 'binding:vif_type is binding_failed'. Empty with a good condition."""
    candidates: int | None = None
    """Placement: how many allocation candidates the answer holds."""
    volume: bool = False
    """The request of a server boots it from a volume."""
    networks: str = ""
    """What the request of a server says of networks: none (it wants none), unnamed (it leaves them to the
    cloud); empty where it names some or asks for one, or is not read."""
    listed: int | None = None
    """How many networks the answer lists, to the question for those that a project may use."""
    events: tuple[Event, ...] = ()
    """POST /os-server-external-events: what it tells, each of one server."""
    broken: bool = False
    """Bytes of the request or of the answer are not in the capture."""

    @property
    def forwarded_from(self) -> str:
        """The address that the last proxy had the request from; empty without one.

        Each proxy appends to X-Forwarded-For whom it received from; what is before that comes from outside.
        """
        return self.forwarded_for.rpartition(",")[2].strip()


@dataclass(slots=True, eq=False)
class RpcFacts:
    """The facts of an RPC message that correlation and topology need."""

    method: str
    mode: str
    """call · cast · fanout · reply · notify"""
    exchange: str = ""
    routing_key: str = ""
    msg_id: str = ""
    unique_id: str = ""
    request_id: str = ""
    global_request_id: str = ""
    project_id: str = ""
    ids: tuple[str, ...] = ()
    """Instance UUIDs, in order."""
    vm_state: str = ""
    """Instance.save: the new state."""
    task_state: str = ""
    """Instance.save: what nova is doing with the server, after the save; empty when nothing."""
    action: str = ""
    """What it does to an object, as grammars match it: `Instance.save spawning`. Empty for most objects."""
    fault: str = ""
    """Its sender's text of why a server is in error, or why a host gives up."""
    object_method: str = ""
    """Instance.save, Service.save …"""
    event_error: str = ""
    """InstanceActionEvent: the exception with which what the host did has ended; empty when it ended well."""
    binary: str = ""
    """Service.save: the program that reports."""
    failure: str = ""
    """A reply's failure: class and message."""
    told_by: str = ""
    """Notification: the host whose service says so."""
    published: bool = False
    delivered: bool = False
    consumer: End | None = None
    """The connection it was delivered on."""
    redelivered: int = 0
    """How often it was delivered after the first time, as far as is seen."""
    dead: str = ""
    """Why the broker took it from its queue and passed it on as a dead letter: expired, delivery_limit …"""
    unconfirmed: bool = False
    """Its publisher waits for the broker's confirm, which was not seen."""
    broken: bool = False
    answered_ns: int | None = None
    """Call: time at which its reply was published (or delivered, if the publish was not seen)."""


@dataclass(slots=True, eq=False)
class SqlFacts:
    """The facts of an SQL statement that correlation and topology need; its text is not kept."""

    verb: str
    table: str
    ids: tuple[str, ...] = ()
    request_id: str = ""
    project_id: str = ""
    vm_state: str = ""
    action: str = ""
    """UPDATE instances: the state that it writes, as grammars match it."""
    quota: bool = False
    """It reads limits or usage that nova-api's quota check reads."""
    broken: bool = False
    fault: str = ""
    """INSERT instance_faults: nova's text of why the VM is in error."""
    server_id: str = ""
    """INSERT: the server of the row, of tables that tell of one."""
    name: str = ""
    """INSERT: the name of this server."""
    purpose: str = ""
    """INSERT instance_actions: what the request is for: create, reboot …"""
    host: str = ""
    """UPDATE instances: the host that it writes, which has taken the server."""


@dataclass(slots=True, eq=False)
class ConnectFacts:
    """A connection that was refused or never answered."""

    attempts: int = 1


@dataclass(slots=True, eq=False)
class Call:
    """One REST request with its answer, one RPC message with its fate, one SQL statement, or one
    failed connection.

    It is yielded when it begins, and the same object again when its answer or its fate is known.
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
    """The leg towards the proxy, if this call is the leg behind it."""
    back: Call | None = None
    """The leg behind the proxy, if this call is the leg towards it."""
    closed: bool = False
    """Nothing more is expected of it."""
    parent: Call | None = None
    """The call that it belongs to: a reply to the call that it answers, a token validation to the request
    whose token is validated."""
    fate: Frames = ()
    """RPC: the frames in which its consumer acknowledges or rejects it."""

    @property
    def asked(self) -> str:
        """The operation as grammars match it, with the action from the body of a REST request."""
        action = self.facts.action if isinstance(self.facts, RestFacts) else ""
        return f"{self.operation}/{action}" if action else self.operation


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
    """The workflow creates the server; False if it acts on an existing one."""
    created: Call | None = None
    """The request that began it (POST /servers): the seen leg nearest to nova-api."""
    active_ns: int | None = None
    """Time at which the VM was first seen to be active."""
    active_call: Call | None = None
    """The call that shows it."""
    failed_ns: int | None = None
    failed_call: Call | None = None
    """The call that shows the error state."""
    deleted_ns: int | None = None
    """Time at which its user asked to delete the VM, before it was active or in error."""
    deleted_call: Call | None = None
    """The call that shows it: the request where it was captured, as near to its user as it was."""
    shared: bool = False
    """One request created several VMs."""
    curtailed: bool = False
    """Some of its calls may have been dropped by a limit of memory."""
