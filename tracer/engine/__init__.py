"""Joins the stages: from captures to verdicts. No other package imports all of them.

captures      CAPTURE arguments -> open captures; their segments in time order
stages        segments -> traces, for files and for live traffic
workflows     the grammar that each trace is checked against
results       traces -> report; the list of all calls
run           the three together: `check` and `calls`
baseline      step times of good creations: learning and comparing
comparison    the differences between two reports
second_opinion, cross_check   captures decoded by tshark; both decoders compared
"""

from tracer.engine.baseline import learn
from tracer.engine.captures import (
    OpenCaptures,
    Progress,
    known_planes,
    open_captures,
    open_resolved,
    reopen,
    resolve_captures,
)
from tracer.engine.keys import require_key_log
from tracer.engine.results import report_on
from tracer.engine.run import calls, check, given_topology, read, require_known_allowances
from tracer.engine.stages import Listeners, Stages, rare_collections, trace_id
from tracer.engine.workflows import Workflows, load_workflows, one_workflow
from tracer.settings import Settings

__all__ = [
    "Listeners",
    "OpenCaptures",
    "Progress",
    "Settings",
    "Stages",
    "Workflows",
    "calls",
    "check",
    "given_topology",
    "known_planes",
    "learn",
    "load_workflows",
    "one_workflow",
    "open_captures",
    "open_resolved",
    "rare_collections",
    "read",
    "reopen",
    "report_on",
    "require_key_log",
    "require_known_allowances",
    "resolve_captures",
    "trace_id",
]
