"""Knowledge of the cloud stands in tracer/openstack alone, knowledge of steps in the grammars alone.

The vocabulary is made of the tables, so that a new row is held everywhere from then on. Docstrings may give
examples; tracer/testing makes clouds up and says what is in them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import tracer
from tracer.grammar.files import grammars_dir
from tracer.model import FIREHOSE
from tracer.openstack import rest, rpc, services, sql, states
from tracer.protocols import BUILTIN

HOUSE = Path(tracer.__file__).parent
KNOWS = ("openstack", "testing")
OTHER_MEANINGS = {
    ("conformance/answers.py", "placement"): "a kind of note",
    ("model/verdicts.py", "placement"): "a kind of note",
    ("reports/glossary.py", "placement"): "a kind of note",
    ("reports/trace.py", "placement"): "a kind of note",
}
"""Words of our own that are spelt like one of the cloud's."""
KNOW_DECODERS = ("model", "openstack", "protocols", "second", "testing")
NAMED_DECODERS = {
    ("live/hold_up.py", "amqp091"): "whose closing ends consumers",
    ("live/hold_up.py", FIREHOSE): "whose closing ends consumers",
    ("recording/redaction.py", "postgres"): "rows are redacted by its framing",
    ("replay/run.py", "amqp091"): "what is replayed onto a broker",
    ("reports/otlp.py", "mysql"): "OpenTelemetry's name of the database",
    ("reports/otlp.py", "postgres"): "OpenTelemetry's name of the database",
}
"""Decoders that a module names because its work is about that protocol alone."""

WORDS: dict[str, str] = {
    **dict.fromkeys(services.ROLES, "a role"),
    **dict.fromkeys(services.ROLE_OF_TOPIC, "a topic"),
    **dict.fromkeys(services.ROLE_OF_PROGRAM, "a program"),
    **dict.fromkeys((services.FANOUT, services.FANOUT_QUEUE), "a piece of a queue's name"),
    **dict.fromkeys((method.name for method in rpc.METHODS), "an RPC method"),
    **dict.fromkeys((table.name for table in sql.TABLES), "an SQL table"),
    **dict.fromkeys(sql.QUOTA_MARKS, "a mark of the quota check"),
    **dict.fromkeys((*states.STATE_OF_STATUS, states.TASK_SUCCEEDED), "a state"),
    **dict.fromkeys((rest.REQUEST_ID, rest.COMPUTE_REQUEST_ID, rest.TOKEN, rest.SUBJECT_TOKEN), "a header"),
}


def sources() -> list[Path]:
    found = sorted(HOUSE.rglob("*.py"))
    return [path for path in found if path.relative_to(HOUSE).parts[0] not in KNOWS]


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Line and value of each text in *source*, docstrings aside."""
    tree = ast.parse(source)
    said = {
        id(statement.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        for statement in node.body
        if isinstance(statement, ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in said:
            if isinstance(node.value, str):
                yield node.lineno, node.value
            elif isinstance(node.value, bytes):
                yield node.lineno, node.value.decode("latin-1")


def knowledge(text: str) -> str:
    """What of the cloud *text* is, or holds; a path also where an expression escapes it."""
    plain = text.replace("\\", "")
    held = next((fragment for fragment in rest.FRAGMENTS if fragment in plain), "")
    return WORDS.get(text, "") or (held and f"a path ({held})")


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(HOUSE).as_posix())
def test_no_text_names_a_piece_of_the_cloud(path: Path) -> None:
    here = path.relative_to(HOUSE).as_posix()
    found = [
        f"{here}:{line}: {text!r} is {what}; ask tracer.openstack"
        for line, text in texts(path.read_text(encoding="utf-8"))
        if (what := knowledge(text)) and (here, text) not in OTHER_MEANINGS
    ]
    assert found == []


def test_no_other_module_names_a_decoder() -> None:
    """What else depends on the protocol of a connection asks `CALLS_OVER`, so a new one is a row there."""
    names = {decoder.name for decoder in BUILTIN} | {FIREHOSE}
    found = {
        (path.relative_to(HOUSE).as_posix(), text)
        for path in sources()
        if path.relative_to(HOUSE).parts[0] not in KNOW_DECODERS
        for _, text in texts(path.read_text(encoding="utf-8"))
        if text in names
    }
    assert found == set(NAMED_DECODERS)


STEPS = {
    name
    for path in grammars_dir().glob("*.lark")
    for name in re.findall(r"^step_(\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
}
"""Names of the steps of all grammars that come with tracer."""
NAMED = re.compile(rf"(?:\bsteps? |\b[a-z]+[:=])(?:{'|'.join(sorted(STEPS))})\b")
NO_STEPS = {
    ("cli/options.py", "1"): "a speed",
    ("topology/file.py", ': allow must be a list of texts such as ["unobserved:4c"]'): "an example",
}
"""Texts that are spelt like a step and name none."""


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(HOUSE).as_posix())
def test_no_text_names_a_step(path: Path) -> None:
    """What a judgement needs to know of a step, the grammar says or it follows from it."""
    here = path.relative_to(HOUSE).as_posix()
    found = [
        f"{here}:{line}: {text!r} names a step; derive it from the grammar"
        for line, text in texts(path.read_text(encoding="utf-8"))
        if (text in STEPS or NAMED.search(text)) and (here, text) not in NO_STEPS
    ]
    assert found == []


def test_there_are_steps_to_look_for() -> None:
    assert {"1", "4c", "8b"} <= STEPS
    assert NAMED.search("stopped at step 8b") and NAMED.search("missing:4c")
    assert not NAMED.search("step by step, 4 of them")


def test_words_of_our_own_are_still_said() -> None:
    """A word that nobody says any more needs no excuse."""
    said = {
        (path.relative_to(HOUSE).as_posix(), text)
        for path in sources()
        for _, text in texts(path.read_text(encoding="utf-8"))
    }
    assert set(OTHER_MEANINGS) <= said


@pytest.mark.parametrize(
    "source, found",
    [
        ('x = "nova-api"', True),
        ('"""nova-api"""', False),
        ('def f():\n    """nova-api"""', False),
        ('class A:\n    x: str\n    """nova-api"""', False),
        ('x = b"select_destinations"', True),
        ('x = f"{host}/v3/auth/tokens"', True),
        (r'x = r"/v2\.0/tokens/(.*)"', True),
        ('x = "ACTIVE"', True),
        ('x = "the API of nova-api"', False),
    ],
)
def test_what_counts_as_naming(source: str, found: bool) -> None:
    assert any(knowledge(text) for _, text in texts(source)) is found
