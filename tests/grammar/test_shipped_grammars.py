"""The shipped grammars hold the documented steps, as the captures show them on the wire.

The lines follow two real creations, message by message: an image boot and a volume boot of nova 26.2.2.
"""

from __future__ import annotations

import pytest
from lab.plain import tokens

from tracer.alignment.alignment import MISSING, Alignment, Extra, Missing, Sync, align
from tracer.grammar import NEAR, Grammar, load
from tracer.grammar.patterns import Leg, example_of, expected_of

EXT, INT = "External_api", "Internal_base"
APPLY = f"{EXT} REST admin > sc POST /sc/cloudhosts 202"
ASK = f"{EXT} REST sc > lb POST /v2.1/servers 202"
PASS_ON = f"{INT} REST lb > nova-api POST /v2.1/servers 202"
AUTHENTICATE = f"{INT} REST nova-api > keystone GET /v3/auth/tokens 200"
IMAGE = f"{INT} REST nova-api > glance-api GET /v2/images/{{id}} 200"
NETWORKS = f"{INT} REST nova-api > neutron-server GET /v2.0/networks 200"
VOLUME = f"{INT} REST nova-api > cinder-api GET /v3/{{id}}/volumes/{{id}} 200"
RESERVE = f"{INT} REST nova-api > cinder-api POST /v3/{{id}}/attachments 200"
QUOTAS = [
    f"{INT} SQL nova-api > db SELECT {table} ok"
    for table in ("project_user_quotas", "instances", "quotas", "quota_classes")
]
RECORDS = [
    f"{INT} SQL nova-api > db INSERT {table} ok"
    for table in ("request_specs", "build_requests", "instance_mappings")
]
BUILD_VM = f"{INT} RPC nova-api > nova-conductor cast schedule_and_build_instances ok"
SELECT = f"{INT} RPC nova-conductor > nova-scheduler call select_destinations ok"
SELECTED = f"{INT} RPC nova-scheduler > nova-conductor reply select_destinations ok"
RUN = f"{INT} RPC nova-conductor > nova-compute cast build_and_run_instance ok"
GET_VOLUME = f"{INT} REST nova-compute > cinder-api GET /v3/{{id}}/volumes/{{id}} 200"
ATTACH = f"{INT} REST nova-compute > cinder-api PUT /v3/{{id}}/attachments/{{id}} 200"
ATTACHED = f"{INT} REST nova-compute > cinder-api POST /v3/{{id}}/attachments/{{id}}/action 204"
PORT = f"{INT} REST nova-compute > neutron-server POST /v2.0/ports 201"
BIND = f"{INT} REST nova-compute > neutron-server PUT /v2.0/ports/{{id}} 200"
CREATE = f"{INT} REST nova-compute > vrm POST /service/sites/{{id}}/vms 202"
TASK = f"{INT} REST nova-compute > vrm GET /service/sites/{{id}}/tasks/{{id}} 200"
START = f"{INT} REST nova-compute > vrm POST /service/sites/{{id}}/vms/{{id}}/action/start 200"
RESCHEDULE = f"{INT} RPC nova-compute > nova-conductor cast build_instances ok"
PORT_500 = f"{INT} REST nova-compute > neutron-server POST /v2.0/ports 500"
PORT_REFUSED = f"{INT} REST nova-compute > neutron-server CONNECT :9696 refused"
CREATE_500 = f"{INT} REST nova-compute > vrm POST /service/sites/{{id}}/vms 500"
STORAGE_RPC = f"{INT} RPC nova-compute > cinder-api call attachment_update ok"
NETWORK_RPC = f"{INT} RPC nova-compute > neutron-server call create_port ok"

REQUEST = [APPLY, ASK, PASS_ON]
ACCEPTED = [*REQUEST, AUTHENTICATE, IMAGE, NETWORKS, *QUOTAS, *RECORDS, BUILD_VM]
SCHEDULED = [*ACCEPTED, SELECT, SELECTED]
STARTED = [CREATE, TASK, TASK, START, TASK]
IMAGE_BOOT = [*SCHEDULED, RUN, PORT, BIND, *STARTED]
VOLUME_BOOT = [
    *REQUEST, AUTHENTICATE, VOLUME, NETWORKS, *QUOTAS, VOLUME, RESERVE, *RECORDS, BUILD_VM, SELECT, SELECTED,
    RUN, GET_VOLUME, ATTACH, PORT, ATTACHED, BIND, *STARTED,
]  # fmt: skip
NOISE = [
    f"{INT} REST neutron-server > keystone GET /v3/auth/tokens 200",
    f"{INT} REST nova-api > keystone POST /v3/auth/tokens 201",
    f"{INT} REST nova-api > keystone GET / 300",
    f"{INT} REST nova-api > glance-api GET / 300",
    f"{EXT} REST admin > sc POST /sc/login 302",
    f"{EXT} REST admin > sc GET /sc/cloudhosts/{{id}} 200",
    f"{EXT} REST sc > lb POST /v3/auth/tokens 201",
    f"{EXT} REST sc > lb GET /v2.1/servers/{{id}} 200",
    f"{INT} REST nova-scheduler > placement GET /allocation_candidates 200",
    f"{INT} REST nova-compute > neutron-server GET /v2.0/floatingips 404",
    f"{INT} REST nova-compute > neutron-server GET /v2.0/networks 200",
    f"{INT} REST neutron-server > lb POST /v2.1/os-server-external-events 200",
    f"{INT} RPC nova-api > nova-compute cast external_instance_event ok",
    f"{INT} RPC nova-compute > nova-conductor call object_action ok",
    f"{INT} RPC nova-conductor > nova-compute reply object_action ok",
    f"{INT} SQL nova-conductor > db INSERT instances ok",
    f"{INT} SQL nova-conductor > db UPDATE instances ok",
    f"{INT} REST nova-compute > vrm POST /service/session 200",
    f"{INT} REST nova-compute > vrm POST /service/sites/{{id}}/vms 401",
    f"{INT} REST nova-compute > vrm GET /service/sites/{{id}}/tasks/{{id}} 401",
]


@pytest.fixture(scope="module")
def create() -> Grammar:
    return load("cloudvm_create")


@pytest.fixture(scope="module")
def literal() -> Grammar:
    return load("cloudvm_create_literal")


def aligned(grammar: Grammar, lines: list[str], complete: bool = True) -> Alignment:
    """Align the lines that are in the grammar's alphabet."""
    events = [grammar.candidates(line) for line in lines]
    return align(grammar.automaton, [event for event in events if event], complete=complete)


def defects(alignment: Alignment) -> list[str]:
    """What is not as it should be: 'failed 8b', 'missing 5', 'extra'."""
    words = []
    for edit in alignment.edits:
        match edit:
            case Missing(symbol):
                words.append(f"missing {symbol.step}")
            case Extra():
                words.append("extra")
            case Sync(_, symbol, kind) if kind != "sync":
                words.append(f"{kind} {symbol.step}")
    return words


DOCUMENTED = [
    ("1", "required", "apply for a cloud host"),
    ("2", "required", "ask the LB's reverse-proxy address to create the cloud host"),
    ("3", "required", "pass the request on to one nova-api"),
    ("4a", "inferred", "authenticate the requester"),
    ("4b", "inferred", "verify that the message is legitimate"),
    ("4c", "required", "check the user's quota"),
    ("4d", "required", "generate the task and record the request"),
    ("4e", "required", "ask for a VM to be created"),
    ("5", "required", "ask for a suitable host"),
    ("6", "required", "select a host by filter, weight and randomness; return it"),
    ("7", "required", "ask the host's nova-compute to create the VM"),
    ("8a", "optional", "apply for storage"),
    ("8b", "required", "apply for network"),
    ("8c", "required", "ask the VRM to start the VM"),
]


@pytest.mark.parametrize("name", ["cloudvm_create", "cloudvm_create_literal"])
def test_holds_the_documented_steps(name: str) -> None:
    """All steps of the article, in its order, with title and presence."""
    grammar = load(name)
    assert [(step.name, step.presence, step.title) for step in grammar.steps] == DOCUMENTED
    for step in grammar.steps:
        with open(step.path, encoding="utf-8") as file:
            assert f"step_{step.name}: " in file.read().splitlines()[step.rule_line - 1]


LEGS = [
    ("1", [(EXT, "REST", "admin", "sc")]),
    ("2", [(EXT, "REST", caller, callee) for caller in ("sc", "admin") for callee in ("lb", "nova-api")]),
    ("3", [(INT, "REST", "lb", "nova-api")]),
    ("4a", [(INT, "REST", "nova-api", "keystone")]),
    ("4d", [(INT, "SQL", "nova-api", "db")]),
    ("4e", [(INT, "RPC", "nova-api", "nova-conductor")]),
    ("5", [(INT, "RPC", "nova-conductor", "nova-scheduler")]),
    ("6", [(INT, "RPC", "nova-scheduler", "nova-conductor")]),
    ("7", [(INT, "RPC", "nova-conductor", "nova-compute")]),
    ("8b", [(INT, "REST", "nova-compute", "neutron-server"), (INT, "RPC", "nova-compute", "neutron-server")]),
    ("8c", [("*", "REST", "nova-compute", "vrm")]),
]


@pytest.mark.parametrize("step, legs", LEGS)
def test_who_calls_whom(create: Grammar, step: str, legs: list[tuple[str, ...]]) -> None:
    """Each step's leg is the documented one; the VRM may be on any plane."""
    assert create.legs(step) == tuple(Leg(*leg) for leg in legs)


SERIAL = {
    "image boot": IMAGE_BOOT,
    "token cached": [line for line in IMAGE_BOOT if line != AUTHENTICATE],
    "nothing inferred seen": [*REQUEST, *QUOTAS, *RECORDS, BUILD_VM, SELECT, SELECTED, RUN, PORT, *STARTED],
    "volume boot, one after the other": [*SCHEDULED, RUN, GET_VOLUME, ATTACH, ATTACHED, PORT, BIND, *STARTED],
    "network before storage": [*SCHEDULED, RUN, PORT, BIND, ATTACH, ATTACHED, *STARTED],
    "by RPC": [*SCHEDULED, RUN, STORAGE_RPC, NETWORK_RPC, *STARTED],
    "answers not in the capture": [line[: line.rindex(" ")] + " ?" for line in IMAGE_BOOT],
    "VRM elsewhere": [line.replace(INT, "External_om") if " vrm " in line else line for line in IMAGE_BOOT],
    "clone": [*SCHEDULED, RUN, PORT, CREATE.replace("/vms", "/vms/{id}/action/clone")],
    "retry after 500": [*SCHEDULED, RUN, PORT_500, RESCHEDULE, RUN, PORT, BIND, *STARTED],
    "retry after VRM 500": [*SCHEDULED, RUN, PORT, BIND, CREATE_500, BIND, RESCHEDULE, RUN, PORT, *STARTED],
    "retry without a refusal": [*SCHEDULED, RUN, PORT, CREATE, TASK, RESCHEDULE, RUN, PORT, BIND, *STARTED],
    "clean-up before the retry": [*SCHEDULED, RUN, PORT, CREATE, TASK, BIND, RESCHEDULE, RUN, PORT, *STARTED],
    "two retries": [
        *SCHEDULED, *[RUN, ATTACH, PORT_REFUSED, PORT_500, ATTACHED, RESCHEDULE] * 2, RUN, PORT, CREATE,
    ],
    "scheduled again": [*SCHEDULED, RUN, PORT_500, RESCHEDULE, SELECT, SELECTED, RUN, PORT, *STARTED],
}  # fmt: skip


@pytest.mark.parametrize("name", SERIAL)
def test_plain_lark_agrees_on_serial_traces(create: Grammar, name: str) -> None:
    """A conforming trace whose interleavings are serial conforms for us and parses in plain Lark."""
    lines = SERIAL[name]
    assert defects(aligned(create, lines)) == []
    assert aligned(create, lines).cost == 0
    for parser in ("lalr", "earley"):
        assert tokens(create, parser, lines) == lines


INTERLEAVED = {
    "volume boot as captured": VOLUME_BOOT,
    "look-ups between quota queries": [
        *REQUEST, AUTHENTICATE, QUOTAS[0], IMAGE, *QUOTAS, NETWORKS, *RECORDS,
        *IMAGE_BOOT[len(ACCEPTED) - 1 :],
    ],
    "unified limits": [
        *REQUEST, f"{INT} REST nova-api > keystone GET /v3/limits 200",
        f"{INT} REST nova-api > placement GET /usages 200", *RECORDS, *IMAGE_BOOT[len(ACCEPTED) - 1 :],
    ],
    "API paths behind a front": [
        APPLY, ASK.replace("/v2.1", "/compute/v2.1"), PASS_ON.replace("/v2.1", "/v2/{id}"), *IMAGE_BOOT[3:],
    ],
    "published, never delivered, then delivered elsewhere": [
        line.replace(" ok", " undelivered") if line == BUILD_VM else line for line in IMAGE_BOOT
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", INTERLEAVED)
def test_interleaved_traces_conform(create: Grammar, name: str) -> None:
    """4b and 4c, 8a and 8b run side by side."""
    assert aligned(create, INTERLEAVED[name]).cost == 0


@pytest.mark.parametrize("line", NOISE)
def test_what_else_a_healthy_creation_holds_is_outside_of_the_alphabet(create: Grammar, line: str) -> None:
    """Calls outside of the steps, harmless refusals among them, are no symbol and no near miss."""
    assert create.candidates(line) == ()


def without(lines: list[str], *gone: str) -> list[str]:
    return [line for line in lines if line not in gone]


def instead(lines: list[str], old: str, *new: str) -> list[str]:
    position = lines.index(old)
    return [*lines[:position], *new, *lines[position + 1 :]]


DEVIATING = [
    ("step 5 missing", without(IMAGE_BOOT, SELECT), ["missing 5"]),
    ("step 8b missing", without(IMAGE_BOOT, PORT, BIND), ["missing 8b"]),
    ("quota unchecked", without(IMAGE_BOOT, *QUOTAS), ["missing 4c"]),
    ("two steps missing", without(IMAGE_BOOT, SELECT, SELECTED), ["missing 5", "missing 6"]),
    (
        "reply before call",
        [*ACCEPTED, SELECTED, SELECT, *IMAGE_BOOT[len(SCHEDULED) :]],
        ["missing 5", "extra"],
    ),
    ("VM started before its network", [*SCHEDULED, RUN, *STARTED, PORT], ["missing 8b", "extra"]),
    ("wrong plane", instead(IMAGE_BOOT, PASS_ON, PASS_ON.replace(INT, EXT)), ["plane 3"]),
    ("a failed try within the host", instead(IMAGE_BOOT, PORT, PORT_500, PORT), ["failed 8b"]),
    ("retry unannounced", [*SCHEDULED, RUN, PORT_500, RUN, PORT, *STARTED], ["missing None"]),
]


@pytest.mark.parametrize(
    "lines, found", [case[1:] for case in DEVIATING], ids=[case[0] for case in DEVIATING]
)
def test_deviations_of_a_finished_creation(create: Grammar, lines: list[str], found: list[str]) -> None:
    """The VM is there, but the way to it was not the documented one."""
    assert defects(aligned(create, lines)) == found


REFUSED_OUTSIDE = [line.replace("202", "403") for line in REQUEST]
STOPPED = [
    # what, calls, defects, the next symbol that is owed
    ("quota exceeded", [*REFUSED_OUTSIDE, AUTHENTICATE, *QUOTAS], ["failed 1", "failed 2", "failed 3"], "4d"),
    ("token unknown", [*REFUSED_OUTSIDE, AUTHENTICATE.replace("200", "404")],
     ["failed 1", "failed 2", "failed 3", "failed 4a"], "4c"),
    ("keystone down",
     [*REQUEST, f"{INT} REST nova-api > keystone CONNECT :5000 refused"], ["failed 4a"], "4c"),
    ("image unknown", [*REQUEST, AUTHENTICATE, IMAGE.replace("200", "404")], ["failed 4b"], "4c"),
    ("neutron down early", [*REQUEST, f"{INT} REST nova-api > neutron-server CONNECT :9696 refused"],
     ["failed 4b"], "4c"),
    ("INSERT fails", [*ACCEPTED[:-4], RECORDS[0].replace(" ok", " error")], ["failed 4d"], "4e"),
    ("broker down",
     [*ACCEPTED[:-1], f"{INT} RPC nova-api > rabbitmq CONNECT :5672 refused"], ["failed 4e"], "5"),
    ("broker returns it",
     instead(ACCEPTED, BUILD_VM, BUILD_VM.replace(" ok", " unroutable")), ["failed 4e"], "5"),
    ("nova-conductor down",
     instead(ACCEPTED, BUILD_VM, BUILD_VM.replace(" ok", " undelivered")), [], "5"),
    ("nova-scheduler down", [*ACCEPTED, SELECT.replace(" ok", " undelivered")], [], "6"),
    ("no valid host", [*ACCEPTED, SELECT, SELECTED.replace(" ok", " failure")], ["failed 6"], "7"),
    ("nova-compute down", [*SCHEDULED, RUN.replace(" ok", " undelivered")], [], "8b"),
    ("VRM hangs", [*SCHEDULED, RUN, PORT, BIND, CREATE, TASK, TASK], [], None),
]  # fmt: skip


@pytest.mark.parametrize(
    "lines, found, owed", [case[1:] for case in STOPPED], ids=[case[0] for case in STOPPED]
)
def test_creations_that_stopped(
    create: Grammar, lines: list[str], found: list[str], owed: str | None
) -> None:
    """Up to where it came, what failed, and what is owed next; what was not reached is not missing."""
    alignment = aligned(create, lines, complete=False)
    assert defects(alignment) == found
    assert next((symbol.step for symbol in create.automaton.finish(alignment.state)), None) == owed


ATTEMPTS = [
    ([*SCHEDULED, RUN, PORT_500], "8b"),
    ([*SCHEDULED, RUN, PORT_REFUSED, PORT_REFUSED], "8b"),
    ([*SCHEDULED, RUN, ATTACH.replace("200", "500")], "8a"),
    ([*SCHEDULED, RUN, PORT, BIND, CREATE_500, BIND], "8c"),
    ([*SCHEDULED, RUN, PORT, f"{EXT} REST nova-compute > vrm CONNECT :7070 refused"], "8c"),
    ([*SCHEDULED, RUN, PORT_500, RESCHEDULE, RUN, PORT_500, RESCHEDULE], "8b"),
]


@pytest.mark.parametrize("lines, step", ATTEMPTS)
def test_a_failed_attempt_tells_its_step(create: Grammar, lines: list[str], step: str) -> None:
    """A refusal on the host is a call of that step with the role `refused`, and costs nothing by itself."""
    alignment = aligned(create, lines, complete=False)
    refused = [m.symbol.step for m in alignment.edits if isinstance(m, Sync) and m.symbol.role == "refused"]
    assert alignment.cost == 0
    assert set(refused) == {step}


def test_the_default_grammar_notes_another_mode(create: Grammar) -> None:
    """REST at 8a and 8b is accepted and noted; RPC, the documented mode, is accepted without a note."""
    notes = {(s.step, s.note) for line in (ATTACH, PORT) for s in create.symbols(line) if s.role == "step"}
    assert notes == {("8a", "mode"), ("8b", "mode")}
    notes = {(s.step, s.note) for line in (STORAGE_RPC, NETWORK_RPC) for s in create.symbols(line)}
    assert notes == {("8a", ""), ("8b", "")}


def test_the_literal_grammar_accepts_the_documented_mode_only(literal: Grammar) -> None:
    """REST at 8a and 8b is then one defect a call, not missing and extra."""
    assert aligned(literal, SERIAL["by RPC"]).cost == 0
    found = aligned(literal, VOLUME_BOOT)
    assert defects(found) == ["mode 8a", "mode 8b", "mode 8a", "mode 8b"]
    assert found.cost == 4 * NEAR["mode"]


BEGINNINGS = [(APPLY, True), (ASK, True), (PASS_ON, True), (ASK.replace("202", "503"), True), (SELECT, False)]


@pytest.mark.parametrize("line, begins", BEGINNINGS)
def test_what_begins_a_creation(create: Grammar, line: str, begins: bool) -> None:
    """The request, on whichever leg it is seen first, whatever became of it."""
    assert create.starts(line) is begins


def test_the_automaton_is_small(create: Grammar) -> None:
    """Fifteen states and no more than that: the flow is a line with two short loops."""
    assert len(create.automaton.arcs) == 15
    assert create.automaton.finish_distance[0] == 11


def test_a_missing_step_costs_as_much_as_it_should(create: Grammar) -> None:
    """One missing step is one defect, however many calls usually witness it."""
    assert aligned(create, without(IMAGE_BOOT, *RECORDS)).cost == MISSING


@pytest.mark.parametrize(
    "terminal, line",
    [
        ("APPLY", "REST admin > sc POST …"),
        ("CREATE_SERVER", "REST sc > lb|nova-api POST …"),
        ("VERIFY", "REST nova-api > glance-api|neutron-server|cinder-api GET …"),
        ("QUOTA", "SQL nova-api > db SELECT project_user_quotas"),
        ("SELECT_HOST", "RPC nova-conductor > nova-scheduler call select_destinations"),
        ("NETWORK_REST", "REST nova-compute > neutron-server POST /v2.0/ports"),
        ("NETWORK", "RPC nova-compute > neutron-server call …"),
        ("VM_CREATE", "REST nova-compute > vrm POST /service/sites/…/vms"),
    ],
)
def test_what_is_expected_is_told_by_the_plainest_line(terminal: str, line: str) -> None:
    """Of a terminal's pattern: nothing optional, the first alternative, … for what may be anything."""
    assert example_of(load("cloudvm_create").terminals[terminal].pattern) == line


@pytest.mark.parametrize(
    "terminal, line",
    [
        ("AUTHENTICATE", "REST nova-api > keystone GET /v3/auth/tokens 2xx|3xx"),
        ("SELECT_HOST", "RPC nova-conductor > nova-scheduler call select_destinations ok"),
        ("VM_REFUSED", "REST nova-compute > vrm CONNECT :…"),
    ],
)
def test_what_is_expected_has_its_good_results(terminal: str, line: str) -> None:
    """Not what a step may have had too: no answer yet. None where the pattern has no plain results."""
    assert expected_of(load("cloudvm_create").terminals[terminal].pattern) == line
