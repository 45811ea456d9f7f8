"""SQL calls: a statement with its result; which are wanted; what is read of them."""

from __future__ import annotations

import pytest
from lab import postgres
from lab.judging import built, told

from tracer.calls.sql import SqlCalls, is_quota, wants_statement
from tracer.model import Connection, Endpoint, SqlFacts, SqlStatement
from tracer.testing.cloud import PROJECT, QUOTA_READS
from tracer.testing.messages import mysql_login, query, sql_error, sql_ok, sql_rows
from tracer.testing.packets import ACK, RST, Network

API, DB = "172.28.0.11", "172.28.0.51"
VM = "145c135d-63cb-41ba-98cd-3235a30c2e27"


@pytest.mark.parametrize("joined", [False, True])
def test_a_statement_and_its_result_are_one_call(joined: bool) -> None:
    """Verb and table as the operation, ok or error as the result; ids, project and state are read."""
    network = Network()
    made = network.connection(API, DB, 3306, None if joined else 0)
    if not joined:
        mysql_login(made, 0.1, "nova_api", program_name="nova-api")
    made.say(1, query(f"INSERT INTO build_requests (instance_uuid, project_id) VALUES ('{VM}', '{PROJECT}')"))
    made.hear(1.1, sql_ok())
    made.say(2, query(f"UPDATE instances SET vm_state='error' WHERE instances.uuid = '{VM}'"))
    made.hear(2.1, sql_error(1205, "Lock wait timeout exceeded"))
    first, second = built(network)
    assert told((first, second)) == ["INSERT build_requests ok", "UPDATE instances error"]
    assert second.error == "1205 Lock wait timeout exceeded"
    assert isinstance(first.facts, SqlFacts) and isinstance(second.facts, SqlFacts)
    assert first.facts.ids == second.facts.ids == (VM,)
    assert second.facts.vm_state == "error"


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("UPDATE instances SET vm_state='building', task_state='spawning' WHERE uuid = 'a'", "spawning"),
        ("UPDATE instances SET vm_state='active', task_state=NULL WHERE task_state = 'spawning'", "active"),
        ("UPDATE instances SET host='compute1' WHERE instances.task_state = 'spawning'", ""),
        ("UPDATE instances SET host='compute1'\nWHERE instances.vm_state = 'error'", ""),
        ("UPDATE volumes SET vm_state='active'", ""),
    ],
)
def test_the_state_that_an_update_writes(text: str, action: str) -> None:
    """What stands in the condition was there before."""
    network = Network()
    made = network.connection(API, DB, 3306)
    made.say(1, query(text))
    made.hear(1.1, sql_ok())
    (call,) = built(network)
    assert isinstance(call.facts, SqlFacts) and call.facts.action == action


@pytest.mark.parametrize(
    "text, operation",
    [
        ("INSERT INTO `nova_api`.`request_specs` (x) VALUES (1)", "INSERT request_specs"),
        ("insert  ignore into nova_api.request_specs values (1)", "INSERT request_specs"),
        ("INSERT INTO request_specs(instance_uuid) VALUES (1)", "INSERT request_specs"),
        ("REPLACE INTO a VALUES (1)", "REPLACE a"),
        ("DELETE FROM build_requests WHERE id = 1", "DELETE build_requests"),
        ("UPDATE instances SET vm_state='active'", "UPDATE instances"),
        (QUOTA_READS[0], "SELECT project_user_quotas"),
        (QUOTA_READS[1], "SELECT instances"),
    ],
)
def test_verb_and_table(text: str, operation: str) -> None:
    """Whatever quotes, schema and case; the first table that is read from."""
    network = Network()
    made = network.connection(API, DB, 3306)
    made.say(1, query(text))
    made.hear(1.1, sql_rows("1") if text.startswith("SELECT") else sql_ok())
    assert told(built(network)) == [f"{operation} ok"]


@pytest.mark.parametrize(
    "text, operation",
    [
        (b"SELECT id FROM projec", "SELECT ?"),
        (b"UPDATE nova_ap", "UPDATE ?"),
        (b"INSERT INTO request_specs\x00 VALUES", "INSERT ?"),
        (b"INSERT INTO request_specs (instance_uuid", "INSERT request_specs"),
        (b"SELECT id FROM projects WHERE", "SELECT projects"),
        (b"SELE", "?"),
        (b"COMMIT /* ", "COMMIT"),
    ],
)
def test_a_name_that_is_cut_is_not_known(text: bytes, operation: str) -> None:
    """By the snap length or a hole: what is left may be its beginning, or the schema before it."""
    link = Connection(1, Endpoint(API, 40000), Endpoint(DB, 3306), 0)
    statement = SqlStatement(link, 1, 1, 1, ((0, 1),), "query", text, truncated=True)
    assert SqlCalls(lambda: 1).statement(statement).operation == operation


@pytest.mark.parametrize(
    "text, wanted",
    [
        *((text, True) for text in QUOTA_READS),
        ("INSERT INTO a VALUES (1)", True),
        ("update a set b=1", True),
        ("DELETE FROM a", True),
        ("ROLLBACK", False),
        ("rollback", False),
        ("SELECT 1", False),
        ("SELECT instances.id FROM instances", False),
        ("SELECT quotas.limit FROM quotas", False),  # neutron's
        ("COMMIT", False),
        ("BEGIN", False),
        ("", False),
    ],
)
def test_which_statements_are_wanted(text: str, wanted: bool) -> None:
    """Writes, and the reads of nova's quota check."""
    assert bool(wants_statement(text.encode())) is wanted


@pytest.mark.parametrize("text", QUOTA_READS)
def test_reads_of_the_quota(text: str) -> None:
    assert is_quota(text.encode())


def test_skipped_statements_are_no_calls_and_do_not_shift_results() -> None:
    """Results go to their own statements, though most statements are not kept."""
    network = Network()
    made = network.connection(API, DB, 3306)
    for n in range(5):
        made.say(n + 1, query("SELECT 1"))
        made.hear(n + 1.1, sql_rows("1"))
        made.say(n + 1.2, query(f"INSERT INTO t{n} VALUES (1)"))
        made.hear(n + 1.3, sql_error(1062, "Duplicate entry") if n == 3 else sql_ok())
    assert told(built(network)) == [f"INSERT t{n} {'error' if n == 3 else 'ok'}" for n in range(5)]


@pytest.mark.parametrize("closes, result", [(True, "none"), (False, "?")])
def test_no_result(closes: bool, result: str) -> None:
    """The server closes without one: none. The capture ends first: ?."""
    network = Network()
    made = network.connection(API, DB, 3306, 0)
    mysql_login(made, 0.1, "nova_api")
    made.say(1, query("INSERT INTO a VALUES (1)"))
    if closes:
        made.close(2)
    assert told(built(network)) == [f"INSERT a {result}"]


def test_a_result_that_could_not_be_seen_is_not_told_to_be_absent() -> None:
    """Only what the client sends is captured: the result may have come."""
    network = Network()
    made = network.connection(API, DB, 3306)
    made.say(1, query("INSERT INTO a VALUES (1)"))
    made.close(3, RST | ACK, by=0)
    made.hear(2, b"", lost=True)
    (call,) = built(network)
    assert call.result == "?"


def test_the_end_of_the_connection_is_evidence_of_no_result() -> None:
    network = Network()
    made = network.connection(API, DB, 3306, 0)
    mysql_login(made, 0.1, "nova_api")
    made.say(1, query("INSERT INTO a VALUES (1)"))
    made.close(3)
    (call,) = built(network)
    assert (call.result, call.error) == ("none", "closed the connection without an answer")
    assert call.ended_ns is not None and call.ended_ns - call.started_ns > 1_900_000_000
    assert len(call.frames) > 1


def test_repr_of_a_call_holds_no_text() -> None:
    """Statements carry user data and passwords: only verb, table and ids stay; errors lose long values."""
    network = Network()
    made = network.connection(API, DB, 3306, 0)
    mysql_login(made, 0.1, "nova_api")
    made.say(1, query("""INSERT INTO request_specs (spec) VALUES ('{"admin_password": "s3cret-a"}')"""))
    made.hear(1.1, sql_error(1064, f"You have an error near 'password={'s3cret' * 20}'"))
    (call,) = built(network)
    assert "s3cret" not in repr(call)


_DETAILS = "Traceback: Timed out waiting for a reply to message ID 0f9e8d7c6b5a49382716051423324150"


@pytest.mark.parametrize(
    "columns, values, words",
    [
        ("code, message, details", "500, 'No valid host was found. ', 'x'", "No valid host was found."),
        ("message, code", "'Can\\'t reach it', 500", "Can't reach it"),
        ("message, code", "'It''s (so), they say', 500", "It's (so), they say"),
        ("created_at, deleted_at, message", "'2026-11-22 07:04:08', NULL, 'gone'", "gone"),
        (
            "message, details",
            f"'MessagingTimeout', '{_DETAILS}'",
            "MessagingTimeout: no reply to message ID 0f9e8d7c6b5a49382716051423324150",
        ),
        ("message", "'admin_pass=s3cret was refused'", "admin_… was refused"),
        ("code, details", "500, 'x'", ""),
        ("code, message", "500, 'cut in the mid", ""),
        ("message", "", ""),
    ],
)
def test_the_fault_that_nova_records(columns: str, values: str, words: str) -> None:
    """Why a VM is in error, out of INSERT instance_faults; of a time-out with the message that it was for."""
    network = Network()
    made = network.connection(API, DB, 3306)
    made.say(1, query(f"INSERT INTO instance_faults ({columns}) VALUES ({values})"))
    made.hear(1.1, sql_ok())
    (call,) = built(network)
    assert isinstance(call.facts, SqlFacts)
    assert call.facts.fault == words


def test_a_quoted_value_may_hold_the_word_where() -> None:
    """A tenant names the server: what follows in the statement is still what is set."""
    network = Network()
    made = network.connection(API, DB, 3306)
    text = "UPDATE instances SET display_name='just where it''s \\' where', vm_state='error' WHERE uuid = 'a'"
    made.say(1, query(text))
    made.hear(1.1, sql_ok())
    (call,) = built(network)
    assert isinstance(call.facts, SqlFacts) and call.facts.vm_state == "error"


def test_parameters_of_postgresql_are_read_in_their_places() -> None:
    """As a statement without parameters: ids, project, states and the text of a fault, with casts."""
    network = Network()
    made = network.connection(API, DB, 5432, 0)
    made.say(0.1, postgres.startup())
    made.hear(0.2, postgres.LOGGED_IN)
    update = 'UPDATE "instances" SET vm_state=$1::VARCHAR, task_state=$2 WHERE instances.uuid = $3'
    made.say(1, postgres.extended(update, b"building", b"spawning", VM.encode()))
    made.hear(1.1, postgres.done("UPDATE 1") + postgres.READY)
    insert = "INSERT INTO public.instance_faults (instance_uuid, code, message) VALUES ($1, $2::INTEGER, $3)"
    made.say(2, postgres.extended(insert, VM.encode(), b"500", b"No valid host, isn't it"))
    made.hear(2.1, postgres.done() + postgres.READY)
    read = "SELECT quotas.hard_limit FROM quotas WHERE quotas.project_id = $1"
    made.say(3, postgres.extended(read, PROJECT.encode(), binary=True))
    made.hear(3.1, postgres.error("57014", "canceling statement due to user request") + postgres.READY)
    calls = built(network)
    assert told(calls) == ["UPDATE instances ok", "INSERT instance_faults ok", "SELECT quotas error"]
    state, fault, quota = (call.facts for call in calls)
    assert isinstance(state, SqlFacts) and isinstance(fault, SqlFacts) and isinstance(quota, SqlFacts)
    assert (state.ids, state.action) == ((VM,), "spawning")
    assert (fault.ids, fault.fault) == ((VM,), "No valid host, isn't it")
    assert quota.quota and quota.project_id == PROJECT
    assert calls[2].error == "57014 canceling statement due to user request"


def test_a_prepare_executes_nothing_and_an_unknown_execute_says_so() -> None:
    """What it executes was prepared before the capture began, so it may be any statement."""
    network = Network()
    made = network.connection(API, DB, 5432)
    prepare = postgres.parse("INSERT INTO build_requests (a) VALUES ($1)", "s2") + postgres.SYNC
    made.say(1, prepare)
    made.hear(1.1, postgres.message("1") + postgres.READY)
    made.say(2, postgres.bind(VM.encode(), name="s1") + postgres.execute() + postgres.SYNC)
    made.hear(2.1, postgres.message("2") + postgres.done() + postgres.READY)
    calls = built(network)
    assert told(calls) == ["PREPARE build_requests ok", "EXECUTE ok"]
    hidden = calls[1].facts
    assert isinstance(hidden, SqlFacts) and hidden.broken and not hidden.table
    assert wants_statement(b"#s1")


def test_a_parameter_that_stands_in_many_places_does_not_multiply() -> None:
    """Its text is searched up to a limit."""
    network = Network()
    made = network.connection(API, DB, 5432, 0)
    made.say(0.1, postgres.startup())
    made.say(1, postgres.extended("UPDATE t SET a = " + "$1," * 9_000, b"x" * 60_000))
    (call,) = built(network)
    assert call.operation == "UPDATE t"
