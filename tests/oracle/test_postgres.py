"""A real PostgreSQL, asked in every way that psycopg knows: our statements are those of tshark."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from lab.ours import decode
from lab.postgres_server import PASSWORD, captured, server, why_not
from lab.shark import tshark

from tracer.model import Message, SqlLogin, SqlResult, SqlStatement, Undecoded

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

VM = "145c135d-63cb-41ba-98cd-3235a30c2e27"


@dataclass
class Talk:
    """What was said to the server, as we read it and as tshark does."""

    messages: list[Message]
    queries: list[str]
    """Texts of Query and Parse, in order."""
    kinds: Counter[str]
    """Types of messages, in tshark's words."""
    codes: list[str]
    """SQLSTATEs of the errors."""

    @property
    def statements(self) -> list[SqlStatement]:
        return [each for each in self.messages if isinstance(each, SqlStatement)]


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Talk]:
    path = tmp_path_factory.mktemp("postgres") / "lo.pcap"
    with server() as port:
        with captured(port, path):
            _ask(port)
        fields = ["-e", "pgsql.query", "-e", "pgsql.type", "-e", "pgsql.code"]
        options = ["-E", "occurrence=a", "-E", "separator=|", "-E", "aggregator=\x1f"]
        run = subprocess.run(
            [tshark(), "-n", "-r", str(path), "-d", f"tcp.port=={port},pgsql", "-Y", "pgsql", "-T", "fields",
             *fields, *options],
            capture_output=True, text=True, check=True, timeout=120,
        )  # fmt: skip
        lines = [line.split("|") for line in run.stdout.splitlines()]
        queries, kinds, codes = (
            [value for line in lines for value in line[column].split("\x1f") if value] for column in range(3)
        )
        messages, _ = decode([path], {port: "postgres"})
        yield Talk(messages, queries, Counter(kinds), codes)


def _ask(port: int) -> None:
    """Simple and extended, text and binary, prepared, in pipelines, copied, failed, cancelled."""
    import psycopg

    place = f"host=127.0.0.1 port={port} user=postgres password={PASSWORD} application_name=nova-api"
    with psycopg.connect(place, autocommit=True, cursor_factory=psycopg.ClientCursor) as simple:
        simple.execute("CREATE TABLE build_requests (id serial, instance_uuid varchar(36), spec text)")
        simple.execute("INSERT INTO build_requests (instance_uuid) VALUES (%s) RETURNING id", [VM])
        simple.execute("SELECT generate_series(1, 2000), 'x'")
        with pytest.raises(psycopg.errors.UndefinedTable):
            simple.execute("SELECT 1 FROM nothing")
        simple.execute("LISTEN a; NOTIFY a, 'b'; DO $$BEGIN RAISE NOTICE 'told'; END$$")
        with simple.cursor().copy("COPY build_requests (spec) FROM STDIN") as into:
            for number in range(500):
                into.write_row([f"row {number} {'y' * 50}"])
        with simple.cursor().copy("COPY build_requests TO STDOUT") as out:
            assert sum(1 for _ in out) > 1
    with psycopg.connect(place) as extended:
        for binary in (False, True):
            extended.cursor(binary=binary).execute(
                "INSERT INTO build_requests (instance_uuid, spec) VALUES (%t, %t)", [VM, None]
            )
            extended.execute("SELECT %b::uuid, %b::int8", [VM, 7])
        for number in range(8):
            update = "UPDATE build_requests SET spec = %s WHERE id = %s"
            extended.execute(update, ["z" * 3_000, number], prepare=True)
        extended.cursor().executemany("INSERT INTO build_requests (spec) VALUES (%s)", [["a"], ["b"], ["c"]])
        extended.commit()
        with pytest.raises(psycopg.errors.DivisionByZero), extended.pipeline():
            for number in range(40):
                extended.execute("SELECT %s::int", [number])
            extended.execute("SELECT 1 / %s::int", [0])
            extended.execute("SELECT 'never'")
        extended.rollback()
        with extended.cursor("named") as some:
            some.itersize = 5
            assert len(list(some.execute("SELECT generate_series(1, 12)"))) == 12
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(place.replace(PASSWORD, "wrong"))


def test_our_statements_are_those_of_tshark(talk: Talk) -> None:
    """Each query, and each parsed statement that is executed or is not; as many as they are."""
    ours = Counter(each.command for each in talk.statements)
    assert ours["query"] == talk.kinds["Simple query"]
    assert ours["execute"] == talk.kinds["Execute"]
    assert ours["quit"] == talk.kinds["Termination"]
    texts = [each.text.decode() for each in talk.statements if each.command != "quit"]
    assert set(texts) == set(talk.queries)
    parsed = talk.kinds["Parse"] + ours["query"]
    assert len(talk.queries) == parsed and len(texts) >= parsed
    assert not [each for each in talk.messages if isinstance(each, Undecoded)]


def test_every_statement_has_its_own_result(talk: Talk) -> None:
    """None is missing, and the errors are those of tshark."""
    results = [each for each in talk.messages if isinstance(each, SqlResult)]
    asked = {(each.connection.number, each.exchange) for each in talk.statements if each.command != "quit"}
    answered = [(each.connection.number, each.exchange) for each in results if each.exchange]
    assert sorted(answered) == sorted(asked)
    # 00000 is that of a notice.
    codes = {each.error_code for each in results if not each.ok}
    assert codes == set(talk.codes) - {"00000"} == {"42P01", "22012", "28P01"}


def test_parameters_are_in_their_places_in_both_forms(talk: Talk) -> None:
    """Text and binary alike."""
    insert = b"INSERT INTO build_requests (instance_uuid, spec)"
    assert [each.values for each in talk.statements if each.text.startswith(insert)] == [
        (VM.encode(), None)
    ] * 2
    assert [each.values for each in talk.statements if b"::uuid" in each.text] == [(VM.encode(), b"7")] * 2


def test_the_login_is_told_and_its_password_is_not(talk: Talk) -> None:
    """SCRAM; of the attributes the name of the program is known."""
    logins = [each for each in talk.messages if isinstance(each, SqlLogin)]
    assert {each.attributes["application_name"] for each in logins if each.attributes} == {"nova-api"}
    assert PASSWORD not in str([tuple(each) for each in talk.messages])
