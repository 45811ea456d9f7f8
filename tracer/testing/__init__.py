"""What tests are made of: checked traffic to assert about, and traffic made to measure.

Checked
  traffic             captures checked: all traces, one trace, `conforms`
  claims              one step, and what may be claimed; why an assertion failed
  written             calls and traces from canonical lines: to try out a grammar
Made
  packets, messages   conversations as packets: HTTP, AMQP with oslo.messaging, MySQL
  cloud               a cloud to make traffic in: where its services are, and how they speak
  creation, building  whole creations, steps 1 to 8c, each of which can be broken
  operations          deletes and stops of a server

`grammars/README.md` tests a new grammar with them.
"""

from tracer.testing.claims import CheckedStep, Claim
from tracer.testing.cloud import COLOCATED, COLOCATED_TAPS, SPREAD, Cloud, Layout
from tracer.testing.creation import Creation
from tracer.testing.operations import Operation
from tracer.testing.packets import Connection, Network
from tracer.testing.traffic import CheckedTrace, Traffic, check, conforms
from tracer.testing.written import call, written

__all__ = [
    "COLOCATED",
    "COLOCATED_TAPS",
    "SPREAD",
    "CheckedStep",
    "CheckedTrace",
    "Claim",
    "Cloud",
    "Connection",
    "Creation",
    "Layout",
    "Network",
    "Operation",
    "Traffic",
    "call",
    "check",
    "conforms",
    "written",
]
