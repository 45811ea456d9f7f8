"""All values that flow between the stages. Read this package first.

    Packet -> Segment -> Data | Gap | Closed -> Message -> Call -> Trace -> Verdict

Times are integers: nanoseconds since the Unix epoch, taken from the capture. Up to the messages the values
are NamedTuples, because a frozen dataclass for each packet costs more than the packet. Values that live on
and get more facts later (Capture, Connection, Call, Trace) are slotted dataclasses.
"""

from __future__ import annotations

from tracer.model.broker import NO_BROKER, Broker, BrokerEvent, BrokerEventKind, Returns
from tracer.model.calls import (
    CLIENT,
    SERVER,
    Call,
    ConnectFacts,
    End,
    Event,
    RestFacts,
    RpcFacts,
    SqlFacts,
    Trace,
)
from tracer.model.clocks import Clock
from tracer.model.messages import (
    AmqpContent,
    AmqpMethod,
    Heard,
    HttpRequest,
    HttpResponse,
    Message,
    SqlLogin,
    SqlResult,
    SqlStatement,
    Undecoded,
)
from tracer.model.packets import (
    Capture,
    Frame,
    Frames,
    Packet,
    PacketFields,
    Segment,
    SegmentFields,
    place_of,
    reverse_flow,
)
from tracer.model.streams import (
    BOTH,
    CALLS_OVER,
    FIREHOSE,
    TO_CLIENT,
    TO_SERVER,
    Closed,
    Connection,
    Data,
    Endpoint,
    Gap,
)
from tracer.model.verdicts import (
    Attempt,
    CallRecord,
    Conformance,
    Deviation,
    DeviationKind,
    Note,
    NoteKind,
    Outcome,
    Report,
    StepResult,
    StepStatus,
    Verdict,
)

__all__ = [
    "BOTH",
    "CALLS_OVER",
    "CLIENT",
    "FIREHOSE",
    "NO_BROKER",
    "SERVER",
    "TO_CLIENT",
    "TO_SERVER",
    "AmqpContent",
    "AmqpMethod",
    "Attempt",
    "Broker",
    "BrokerEvent",
    "BrokerEventKind",
    "Call",
    "CallRecord",
    "Capture",
    "Clock",
    "Closed",
    "Conformance",
    "ConnectFacts",
    "Connection",
    "Data",
    "Deviation",
    "DeviationKind",
    "End",
    "Endpoint",
    "Event",
    "Frame",
    "Frames",
    "Gap",
    "Heard",
    "HttpRequest",
    "HttpResponse",
    "Message",
    "Note",
    "NoteKind",
    "Outcome",
    "Packet",
    "PacketFields",
    "Report",
    "RestFacts",
    "Returns",
    "RpcFacts",
    "Segment",
    "SegmentFields",
    "SqlFacts",
    "SqlLogin",
    "SqlResult",
    "SqlStatement",
    "StepResult",
    "StepStatus",
    "Trace",
    "Undecoded",
    "Verdict",
    "place_of",
    "reverse_flow",
]
