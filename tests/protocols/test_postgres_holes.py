"""PostgreSQL with holes on both sides of a connection: no answer is given to the wrong statement."""

from __future__ import annotations

from collections.abc import Collection

from hypothesis import example, given
from hypothesis import strategies as st
from lab.postgres import READY, error, query
from lab.reading import one_by_one, segment_of

from tracer.capture.layers import Layers
from tracer.model import Capture, Message, Packet, Segment, SqlResult, SqlStatement
from tracer.protocols import PORTS, Decoders, Options
from tracer.reassembly import Reassembler
from tracer.testing.packets import Network

EXCHANGES = 24
LOST = st.sets(st.integers(0, EXCHANGES - 1))


def told(
    questions_lost: Collection[int], answers_lost: Collection[int], gap_s: float
) -> dict[int, int | None]:
    """Number of each statement that came -> the number that its answer holds, None without an answer."""
    network = Network()
    made = network.connection("10.0.0.1", "10.0.0.2", 5432, at=None)
    made.say(0, query("SELECT 9999"))
    made.hear(0.1, error("09999", "first") + READY)
    for number in range(EXCHANGES):
        at = 1 + number * gap_s
        made.say(at, query(f"SELECT {number}"), lost=number in questions_lost)
        made.hear(at + gap_s / 2, error(f"{number:05}", "told") + READY, lost=number in answers_lost)
    return _read(network)


def _read(network: Network) -> dict[int, int | None]:
    capture, layers = Capture(0, "all"), Layers()
    reassembler = Reassembler([capture], PORTS)
    decoders = Decoders(PORTS, Options(), reassembler.turn)
    segments, last_ns = [], 0
    for frame, (time_ns, data) in enumerate(network.packets()["all"], 1):
        segment = segment_of(layers, Packet(time_ns, data, len(data), 1, (0, frame)))
        assert isinstance(segment, Segment)
        segments.append(segment)
        last_ns = time_ns
    messages: list[Message] = []
    for event in (*reassembler.read(one_by_one(segments)), *reassembler.flush(last_ns)):
        messages += decoders.receive(event)
    asked = {m.exchange: int(m.text.split()[1]) for m in messages if isinstance(m, SqlStatement)}
    found: dict[int, int | None] = dict.fromkeys(asked.values())
    for message in messages:
        if isinstance(message, SqlResult) and message.exchange:
            found[asked[message.exchange]] = int(message.error_code)
    return found


@given(LOST, LOST, st.sampled_from([0.001, 0.05, 0.4]))
@example({1, 2, 4}, {1, 2, 4}, 0.001)
@example({3, 7}, {2, 8}, 0.4)
@example(set(range(1, 20)), set(range(19)), 0.05)
def test_no_answer_is_another_statements(
    questions_lost: set[int], answers_lost: set[int], gap_s: float
) -> None:
    """Whatever is missing, on either side, and however fast they talk."""
    for asked, answered in told(questions_lost, answers_lost, gap_s).items():
        assert answered in (None, asked)


@given(LOST, st.sampled_from([0.001, 0.05, 0.4]))
@example({0, 1, 4, 6, 7}, 0.001)
@example(set(range(0, EXCHANGES, 2)), 0.05)
def test_exchanges_that_are_whole_are_whole_behind_holes(lost: set[int], gap_s: float) -> None:
    """Of some exchanges question and answer are missing, as in an extract: the others are as they were."""
    expected = {n: n for n in range(EXCHANGES) if n not in lost}
    found = told(lost, lost, gap_s)
    assert {asked: answered for asked, answered in found.items() if asked != 9999} == expected
