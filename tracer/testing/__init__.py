"""Tools for tests: checked traffic for assertions, and synthetic traffic.

Checked
  traffic             checked captures: all traces, one trace, `conforms`
  claims              one step, and claims about it; why an assertion failed
  written             traces from canonical lines, to try out a grammar
Synthetic
  packets, messages   conversations as packets: HTTP, AMQP with oslo.messaging, MySQL
  cloud               a synthetic cloud: addresses of its services, and their connections
  creation, building  whole creations, steps 1 to 8c; each step can be made to fail
  upstream            the same in an ordinary OpenStack cloud: no VRM, nova's own states
  operations          deletes and stops of a server

`grammars/README.md` tests a new grammar with them.
"""

from tracer.testing.claims import CheckedStep, Claim
from tracer.testing.cloud import COLOCATED, COLOCATED_TAPS, SPREAD, Cloud, Layout
from tracer.testing.creation import Creation
from tracer.testing.operations import Operation
from tracer.testing.packets import Connection, Network
from tracer.testing.traffic import CheckedTrace, Traffic, check, conforms
from tracer.testing.upstream import UpstreamCreation
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
    "UpstreamCreation",
    "call",
    "check",
    "conforms",
    "written",
]
