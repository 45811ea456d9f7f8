"""Creations that are known from the database alone: the record of a new server begins their traces.

Statements are often clear where REST and RPC are encrypted. A request that can be read begins its own trace
(requests.py), and a message as well; what they made is no second one.
"""

# The record comes while the request is open, and names the server that its answer will name. So a request
# that is not known to have made another server may have made this one; where several may have, nothing is
# joined and nothing begun: their traces are there already.

from __future__ import annotations

from tracer.correlation.call_store import CallStore
from tracer.correlation.requests import SKEW_NS, Request, rest
from tracer.model import Call, SqlFacts
from tracer.openstack import sql

__all__ = ["is_new_server", "name_in_records", "recorded", "request_id_in_records"]


def is_new_server(facts: SqlFacts) -> bool:
    """Return whether a statement adds the row of a server that is being made.

    A server that is moved to another cell gets a new row as well, with the state that it has.
    """
    if facts.verb != "INSERT" or not facts.server_id or facts.purpose:
        return False
    return facts.table not in sql.KEEPS_STATES or facts.vm_state in sql.BEFORE_A_HOST


def request_id_in_records(calls: list[Call]) -> str:
    """Return the id of the request that made a server, as nova recorded it; '' where it did not."""
    facts = (call.facts for call in calls)
    found = (f for f in facts if isinstance(f, SqlFacts) and f.purpose == sql.CREATES)
    return next((each.request_id for each in found if each.request_id), "")


def name_in_records(calls: list[Call], server_id: str) -> str:
    """Return the name of *server_id* in the rows that were added for it; '' where none holds it."""
    rows = [f for f in (call.facts for call in calls) if isinstance(f, SqlFacts) and f.server_id == server_id]
    # The column before the object in JSON, of which a part is read.
    rows.sort(key=lambda facts: facts.table not in sql.KEEPS_STATES)
    return next((facts.name for facts in rows if facts.name), "")


def recorded(store: CallStore, requests: list[Request]) -> list[Request]:
    """Return requests for the new servers in the database that none of *requests* has made.

    There are such only where requests cannot be read. A server of one of *requests* whose answer does not
    name it is added to that request.
    """
    if not store.records:
        return []
    is_dark = not store.reads_requests or store.may_hide_requests()
    owned = {server_id for request in requests for server_id in request.server_ids}
    lone = [(server_id, call) for server_id, call in store.records.items() if server_id not in owned]
    known = {request.request_id: request for request in requests if request.request_id}
    made: dict[str, Request] = {}
    asking = [request for request in requests if request.legs and not request.server_ids]
    for server_id, call in lone:
        calls = store.by_uuid.get(server_id)
        request_id = request_id_in_records(calls)
        same = known.get(request_id) or made.get(request_id)
        if same is not None and (is_dark or same.server_ids):
            # Of several VMs of a request its answer names one; the messages that name all may be dark.
            same.server_ids.append(server_id)
            continue
        if not is_dark:
            continue
        askers = [request for request in asking if _may_have_made(request, call)]
        if askers:
            _join(askers, request_id, server_id, calls)
            continue
        made[request_id or server_id] = Request(request_id=request_id, server_ids=[server_id])
    return list(made.values())


def _may_have_made(request: Request, record: Call) -> bool:
    """Return whether *request*, which names no server, was open when *record* was written.

    A judgement of the request (4xx) is made before anything is written.
    """
    first = request.first
    if first is None or any(400 <= rest(leg).status < 500 for leg in request.legs):
        return False
    until_ns = first.ended_ns if first.ended_ns is not None else record.started_ns
    return first.started_ns - SKEW_NS <= record.started_ns <= until_ns + SKEW_NS


def _join(askers: list[Request], request_id: str, server_id: str, calls: list[Call]) -> None:
    """Give the server to the one request that may have made it; to none of several."""
    if len(askers) > 1:
        return
    asker = askers[0]
    if request_id and asker.request_id and asker.request_id != request_id:
        return
    if any(rest(leg).status >= 500 for leg in asker.legs):
        # There is no such server: the statements are part of a request that failed.
        asker.add(call for call in calls if isinstance(call.facts, SqlFacts))
        return
    asker.request_id = asker.request_id or request_id
    asker.server_ids.append(server_id)
