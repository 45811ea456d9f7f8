"""Reassembly: segments of a conversation in, events out. Tables first, then what holds for all streams."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lab.long import examples

from tracer.model import TO_CLIENT, TO_SERVER, Capture, Closed, Connection, Data, Gap, Segment
from tracer.reassembly import connections, ordering, reassembler
from tracer.reassembly.halves import HOLE_NS, Event
from tracer.reassembly.ordering import HOLE_PACKETS, LATE_NS, PENDING_BYTES
from tracer.reassembly.reassembler import UNANSWERED_NS, Reassembler

CLIENT, SERVER = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))
SECOND = 1_000_000_000
START_NS = 1_700_000_000 * SECOND
TEXT = bytes(range(256)) * 8


class Talk:
    """Two ends and what a capture sees of them. C and S are the next numbers of client and server.

    Sequence numbers in the calls are relative to the ISN: 1 is the first byte. Events are told as
    short tuples: ('>', b'bytes'), ('< gap', 3), ('fin', '>') ...
    """

    def __init__(
        self, client_isn: int = 1000, server_isn: int = 5000, ports: tuple[int, int] = (40000, 8774)
    ) -> None:
        self.capture = Capture(0, "test.pcap")
        self.reassembler = Reassembler([self.capture], {8774, 5672, 3306})
        self.isn = {">": client_isn, "<": server_isn}
        self.ports = ports
        self.now_ns = START_NS
        self.number = 0
        self.events: list[Event] = []

    def send(
        self, way: str, seq: int, payload: bytes = b"", flags: str = "A", ack: int | None = None,
        *, missing: int = 0, after_ns: int = 1000, ip_id: int = 0,
    ) -> Talk:  # fmt: skip
        """Show one segment *after_ns* later; *ack* is relative to the other end's ISN."""
        self.number += 1
        self.now_ns += after_ns
        client, server = (port.to_bytes(2, "big") for port in self.ports)
        flow = CLIENT + SERVER + client + server if way == ">" else SERVER + CLIENT + server + client
        other = "<" if way == ">" else ">"
        segment = Segment(
            self.now_ns,
            flow,
            (self.isn[way] + seq) & 0xFFFFFFFF,
            (self.isn[other] + ack) & 0xFFFFFFFF if ack is not None else (self.isn[other] + 1) & 0xFFFFFFFF,
            sum({"F": 1, "S": 2, "R": 4, "P": 8, "A": 16}[flag] for flag in flags),
            payload,
            missing,
            ip_id or self.number,
            ((0, self.number),),
        )
        self.events += self.reassembler.read(((segment,),))
        return self

    def hello(self) -> Talk:
        return self.send(">", 0, flags="S").send("<", 0, flags="SA", ack=1).send(">", 1)

    def end(self) -> Talk:
        self.events += self.reassembler.flush(self.now_ns)
        return self

    def told(self) -> list[tuple[object, ...]]:
        return [_told(event) for event in self.events]

    def stream(self, way: str) -> bytes:
        """Return the bytes of one direction; a hole of known size is dots."""
        direction = TO_SERVER if way == ">" else TO_CLIENT
        parts = []
        for event in self.events:
            if isinstance(event, Data) and event.direction == direction:
                parts.append(event.payload)
            elif isinstance(event, Gap) and event.direction == direction:
                parts.append(b"." * event.size_bytes)
        return b"".join(parts)

    @property
    def connections(self) -> list[Connection]:
        return list({event.connection.number: event.connection for event in self.events}.values())


def _told(event: Event) -> tuple[object, ...]:
    way = "<" if event.direction == TO_CLIENT else ">"
    if isinstance(event, Data):
        return way, event.payload
    if isinstance(event, Gap):
        return f"{way} gap", event.size_bytes
    return (event.how, way) if event.how in ("fin", "reset") else (event.how,)


# --- one direction, table -------------------------------------------------------------------------

Pieces = Sequence[tuple[int, bytes]]

ONE_DIRECTION: list[tuple[str, Pieces, bytes, int, int]] = [
    # what, (seq, payload) in the order seen, stream, duplicates counted, reordered counted
    ("in order", [(1, b"abc"), (4, b"def"), (7, b"g")], b"abcdefg", 0, 0),
    ("two swapped", [(4, b"def"), (1, b"abc"), (7, b"g")], b"abcdefg", 0, 1),
    ("reversed", [(7, b"g"), (4, b"def"), (1, b"abc")], b"abcdefg", 0, 1),
    ("retransmitted", [(1, b"abc"), (1, b"abc"), (4, b"def")], b"abcdef", 1, 0),
    ("retransmitted later", [(1, b"abc"), (4, b"def"), (1, b"abc"), (7, b"g")], b"abcdefg", 1, 0),
    ("duplicate of what waits", [(4, b"def"), (4, b"def"), (1, b"abc")], b"abcdef", 1, 1),
    ("shorter copy of what waits", [(4, b"def"), (4, b"d"), (1, b"abc")], b"abcdef", 1, 1),
    ("longer copy of what waits", [(4, b"d"), (4, b"def"), (1, b"abc")], b"abcdef", 0, 1),
    ("overlap of old and new", [(1, b"abcd"), (3, b"cdef")], b"abcdef", 0, 0),
    ("overlap with other bytes: the first wins", [(1, b"abcd"), (3, b"XXef")], b"abcdef", 0, 0),
    ("repacked: two as one", [(1, b"ab"), (3, b"cd"), (1, b"abcdef")], b"abcdef", 0, 0),
    ("repacked while waiting", [(3, b"cd"), (5, b"ef"), (1, b"abcdef")], b"abcdef", 2, 1),
    ("contained in what waits", [(3, b"cdef"), (4, b"d"), (1, b"ab")], b"abcdef", 1, 1),
    ("one byte that was there: keep-alive probe", [(1, b"abc"), (3, b"\0"), (4, b"def")], b"abcdef", 0, 0),
    ("one byte far behind", [(1, b"abc"), (4, b"def"), (1, b"a")], b"abcdef", 1, 0),
]


@pytest.mark.parametrize("isn", [1000, 0xFFFFFFF0, 0xFFFFFFFE, 0xFFFFFFFF, 0x7FFFFFFD])
@pytest.mark.parametrize("case", ONE_DIRECTION, ids=[case[0] for case in ONE_DIRECTION])
def test_each_byte_of_a_direction_comes_once_and_in_order(
    case: tuple[str, Pieces, bytes, int, int], isn: int
) -> None:
    """Whatever the order and the copies, the stream is the same, at any sequence number."""
    _, pieces, stream, duplicates, reordered = case
    talk = Talk(client_isn=isn).hello()
    for seq, payload in pieces:
        talk.send(">", seq, payload)
    assert talk.stream(">") == stream
    assert (talk.capture.duplicate_segments, talk.capture.reordered_segments) == (duplicates, reordered)
    assert talk.capture.gaps == 0


def test_numbers_wrap_in_the_middle_of_a_segment() -> None:
    """A segment that begins below 2^32 and ends above it is followed by small numbers."""
    talk = Talk(client_isn=0xFFFFFFF0, server_isn=0xFFFFFFFF).hello()
    talk.send(">", 1, b"x" * 40).send(">", 51, b"z" * 10).send(">", 41, b"y" * 10)
    talk.send("<", 1, b"answer")
    assert talk.stream(">") == b"x" * 40 + b"y" * 10 + b"z" * 10
    assert talk.stream("<") == b"answer"


# --- conversations --------------------------------------------------------------------------------


def test_handshake_exchange_and_both_ends_close() -> None:
    """SYN and FIN take a number each; a FIN ends its direction, with its frame."""
    talk = Talk().hello().send(">", 1, b"GET").send("<", 1, b"OK", ack=4)
    talk.send(">", 4, flags="FA", ack=3).send("<", 3, flags="FA", ack=5).send(">", 5, ack=4).end()
    assert talk.told() == [(">", b"GET"), ("<", b"OK"), ("fin", ">"), ("fin", "<")]
    assert [event.frames for event in talk.events if isinstance(event, Closed)] == [
        ((0, 6),),
        ((0, 7),),
    ]
    connection = talk.connections[0]
    assert (str(connection.client), str(connection.server)) == ("10.0.0.1:40000", "10.0.0.2:8774")
    assert not connection.joined and connection.certain
    assert connection.captures == [0]


def test_fin_with_data() -> None:
    """The data of a segment with FIN comes before the end."""
    talk = Talk().hello().send(">", 1, b"bye", "FPA")
    assert talk.told() == [(">", b"bye"), ("fin", ">")]


def test_fin_before_its_data_waits() -> None:
    """A FIN that overtook the last data ends the stream behind that data, and at once."""
    talk = Talk().hello().send(">", 4, flags="FA").send(">", 1, b"abc")
    assert talk.told() == [(">", b"abc"), ("fin", ">")]


def test_fin_behind_two_holes_is_not_forgotten() -> None:
    """Lost data before a FIN is a gap each, and the FIN still ends the direction."""
    talk = Talk().hello().send(">", 4, b"def").send(">", 10, flags="FA")
    talk.send("<", 1, b"late", after_ns=2 * SECOND).send("<", 5, b"later", after_ns=2 * SECOND)
    told = [one for one in talk.told() if one[0] != "<"]
    assert told == [("> gap", 3), (">", b"def"), ("> gap", 3), ("fin", ">")]


def test_a_fin_behind_a_hole_keeps_its_time() -> None:
    """The direction ended when the FIN was captured, not with the last data before it."""
    talk = Talk().hello().send(">", 4, b"def").send(">", 7, flags="FA", after_ns=5 * SECOND // 10)
    fin_ns = talk.now_ns
    talk.end()
    (closed,) = (event for event in talk.events if isinstance(event, Closed) and event.how == "fin")
    assert (closed.time_ns, closed.frames) == (fin_ns, ((0, 5),))


def test_retransmitted_fin_ends_once() -> None:
    """A FIN seen again is not a second end."""
    talk = Talk().hello().send(">", 1, b"x").send(">", 2, flags="FA").send(">", 2, flags="FA").end()
    assert talk.told() == [(">", b"x"), ("fin", ">"), ("end",)]


def test_reset_ends_both_directions_and_gives_out_what_waits() -> None:
    """An RST declares holes lost, and nothing comes behind it."""
    talk = Talk().hello().send(">", 5, b"efg").send("<", 1, flags="RA")
    assert talk.told() == [("> gap", 4), (">", b"efg"), ("reset", "<")]


def test_data_in_flight_behind_a_reset_is_nobodys() -> None:
    """What the other end had sent before the RST reached it was not received: no Data behind Closed."""
    talk = Talk().hello().send(">", 1, b"GET").send(">", 4, flags="R").send("<", 1, b"HTTP/1.1").end()
    assert talk.told() == [(">", b"GET"), ("reset", ">")]


def test_data_behind_a_fin_is_no_data() -> None:
    """Bytes numbered behind the FIN do not exist; repetitions of earlier ones are counted."""
    talk = Talk().hello().send(">", 1, b"abc", "FA").send(">", 4, b"!").send(">", 1, b"abc").end()
    assert talk.told() == [(">", b"abc"), ("fin", ">"), ("end",)]
    assert talk.capture.duplicate_segments == 2


# --- SYN without a connection ---------------------------------------------------------------------


@pytest.mark.parametrize("attempts", [1, 3])
def test_syn_answered_by_reset_is_refused(attempts: int) -> None:
    """Refused is a fact of its own, with every SYN counted and the frames of question and answer."""
    talk = Talk()
    for _ in range(attempts):
        talk.send(">", 0, flags="S", after_ns=SECOND)
    talk.send("<", 0, flags="RA", ack=1).end()
    (closed,) = talk.events
    assert isinstance(closed, Closed)
    assert (closed.how, closed.attempts, closed.connection.joined) == ("refused", attempts, False)
    assert closed.frames == ((0, 1), (0, attempts + 1))


def test_a_syn_seen_twice_is_one_attempt() -> None:
    """A mirror port shows each packet twice: the same IP identification is the same packet."""
    talk = Talk().send(">", 0, flags="S", ip_id=77).send(">", 0, flags="S", ip_id=77)
    talk.send("<", 0, flags="RA", ip_id=1).send("<", 0, flags="RA", ip_id=1).end()
    assert [(e.how, e.attempts) for e in talk.events if isinstance(e, Closed)] == [("refused", 1)]


def test_a_copy_of_the_refused_syn_refuses_nothing_again() -> None:
    """Copies of SYN and RST a moment later (another capture point) are not another try."""
    talk = Talk().send(">", 0, flags="S").send("<", 0, flags="RA")
    talk.send(">", 0, flags="S").send("<", 0, flags="RA").end()
    assert talk.told() == [("refused",)]


def test_a_second_try_on_the_same_ports_is_refused_again() -> None:
    """Half a second later it is another try, with the same number (Windows) or a new one."""
    talk = Talk().send(">", 0, flags="S").send("<", 0, flags="RA")
    talk.send(">", 0, flags="S", after_ns=SECOND // 2).send("<", 0, flags="RA")
    talk.send(">", 777, flags="S", after_ns=SECOND // 2).send("<", 0, flags="RA", ack=778).end()
    assert talk.told() == [("refused",)] * 3
    assert len(talk.connections) == 3


def test_syn_answered_by_nothing() -> None:
    """Three seconds of silence after the last SYN: unanswered, with the number of SYNs."""
    talk = Talk().send(">", 0, flags="S").send(">", 0, flags="S", after_ns=SECOND)
    talk.now_ns += UNANSWERED_NS
    other = Talk(ports=(40001, 8774))
    other.reassembler, other.capture, other.now_ns = talk.reassembler, talk.capture, talk.now_ns
    other.hello()
    assert [_told(event) for event in other.events] == [("unanswered",)]
    assert isinstance(other.events[0], Closed) and other.events[0].attempts == 2


def test_a_syn_just_before_the_end_of_the_capture_says_nothing() -> None:
    """Its answer may lie behind the end."""
    assert Talk().send(">", 0, flags="S").end().told() == []


def test_late_answer_opens_the_connection_anew() -> None:
    """An answer after the connection was called unanswered is a connection with all its data."""
    talk = Talk().send(">", 0, flags="S")
    talk.send("<", 0, flags="SA", after_ns=UNANSWERED_NS + 2 * SECOND)
    talk.send(">", 1).send(">", 1, b"GET").send("<", 1, b"OK").end()
    assert talk.told() == [("unanswered",), (">", b"GET"), ("<", b"OK"), ("end",)]
    assert str(talk.connections[-1].server) == "10.0.0.2:8774"
    assert not talk.connections[-1].joined


def test_late_data_opens_an_unanswered_connection_anew() -> None:
    """The answer was lost to the capture; data proves that there was one."""
    talk = Talk().send(">", 0, flags="S").send(">", 1, b"GET", after_ns=UNANSWERED_NS + 2 * SECOND).end()
    assert talk.told() == [("unanswered",), (">", b"GET"), ("end",)]


def test_the_clients_ack_alone_proves_an_answer() -> None:
    """Where only the client's packets are seen, a silent connection is not called unanswered."""
    talk = Talk().send(">", 0, flags="S").send(">", 1)
    talk.send(">", 1, b"GET", after_ns=2 * UNANSWERED_NS).end()
    assert talk.told() == [(">", b"GET"), ("end",)]


# --- holes ----------------------------------------------------------------------------------------


def test_a_hole_is_lost_after_48_later_packets_of_its_connection() -> None:
    """The 48th packet behind the hole declares it, not the 47th; the gap has the hole's size."""
    talk = Talk().hello().send(">", 1, b"ab").send(">", 7, b"g")
    for i in range(HOLE_PACKETS - 2):
        talk.send(">", 8 + i, b"h", after_ns=0 if i else LATE_NS)
    assert talk.stream(">") == b"ab"
    talk.send(">", 8 + HOLE_PACKETS - 2, b"z")
    assert talk.stream(">") == b"ab....g" + b"h" * (HOLE_PACKETS - 2) + b"z"
    assert (talk.capture.gaps, talk.capture.lost_bytes) == (1, 4)
    assert talk.connections[0].gaps == 1


def test_however_many_packets_come_a_hole_stays_open_for_as_long_as_one_may_be_late() -> None:
    """A busy connection sends 48 packets within a millisecond."""
    talk = Talk().hello().send(">", 3, b"c")
    for i in range(4 * HOLE_PACKETS):
        talk.send(">", 4 + i, b"d")
    talk.send(">", 1, b"ab", after_ns=LATE_NS // 2).end()
    assert talk.stream(">") == b"abc" + b"d" * 4 * HOLE_PACKETS
    assert talk.capture.gaps == 0


def test_packets_of_the_other_direction_count_too() -> None:
    """A question that was lost is known to be lost when the answers have gone on for 48 packets."""
    talk = Talk().hello().send(">", 5, b"efg")
    for i in range(HOLE_PACKETS):
        talk.send("<", 1 + i, b"x", after_ns=1000 if i else LATE_NS)
    assert talk.stream(">") == b"....efg"
    assert talk.stream("<") == b"x" * HOLE_PACKETS


def test_packets_of_other_connections_do_not_count() -> None:
    """A slow connection beside a busy one keeps its hole open."""
    talk = Talk().hello().send(">", 5, b"efg")
    busy = Talk(ports=(40001, 8774))
    busy.reassembler, busy.now_ns = talk.reassembler, talk.now_ns
    busy.hello()
    for i in range(3 * HOLE_PACKETS):
        busy.send(">", 1 + i, b"x")
    talk.send(">", 1, b"abcd")
    assert talk.stream(">") == b"abcdefg"


def test_a_hole_is_lost_after_a_second_of_capture_time() -> None:
    """Any packet of any connection shows that the time is over; the gap tells when it began."""
    talk = Talk().hello().send(">", 1, b"ab").send(">", 7, b"g")
    before_ns = talk.now_ns
    talk.send("<", 1, after_ns=HOLE_NS + SECOND)
    assert talk.told() == [(">", b"ab"), ("> gap", 4), (">", b"g")]
    gap = talk.events[1]
    assert isinstance(gap, Gap)
    assert gap.since_ns == before_ns - 1000 and gap.time_ns == talk.now_ns


def test_the_end_of_the_capture_declares_what_is_open() -> None:
    """Nothing that was captured is kept back."""
    talk = Talk().hello().send(">", 4, b"d").send(">", 7, b"g").end()
    assert talk.told() == [("> gap", 3), (">", b"d"), ("> gap", 2), (">", b"g"), ("end",)]


def test_a_hole_found_late_is_filled_late() -> None:
    """The missing segment 47 packets later still fills the hole."""
    talk = Talk().hello().send(">", 3, b"c")
    for i in range(HOLE_PACKETS - 2):
        talk.send(">", 4 + i, b"d")
    talk.send(">", 1, b"ab").end()
    assert talk.stream(">") == b"abc" + b"d" * (HOLE_PACKETS - 2)
    assert talk.capture.gaps == 0


def test_holes_do_not_queue() -> None:
    """With every tenth packet lost each hole is 48 packets old when it is declared, the 20th as the first."""
    talk = Talk().hello()
    longest = 0
    for i in range(400):
        if i % 10 != 5:
            talk.send(">", 1 + i, b"x", after_ns=LATE_NS // 40)
        longest = max(longest, 1 + i - len(talk.stream(">")))
    assert longest <= HOLE_PACKETS + 12
    talk.end()
    assert talk.stream(">") == b"".join(b"." if i % 10 == 5 else b"x" for i in range(400))


@pytest.mark.parametrize("how", ["end", "time", "packets"])
def test_holes_of_both_directions_are_given_up_in_the_order_of_what_came(how: str) -> None:
    """Of a conversation of which parts are missing: each answer stays behind its question."""
    talk = Talk().send(">", 1, b"q0").send("<", 1, b"a0", ack=3)
    for number in (1, 2, 3):
        # Before each, four bytes of either direction are missing.
        talk.send(">", 1 + 6 * number, b"q%d" % number, ack=1 + 6 * number)
        talk.send("<", 1 + 6 * number, b"a%d" % number, ack=3 + 6 * number)
    if how == "end":
        talk.end()
    elif how == "time":
        talk.send(">", 21, b"", after_ns=2 * HOLE_NS)
    else:
        for _ in range(HOLE_PACKETS + 8):
            talk.send(">", 21, b"", after_ns=LATE_NS // 40)
    said = [event[1] for event in talk.told() if len(event) > 1 and isinstance(event[1], bytes)]
    assert said == [b"q0", b"a0", b"q1", b"a1", b"q2", b"a2", b"q3", b"a3"]


def test_a_hole_begins_behind_the_data_that_show_that_nothing_of_it_had_come() -> None:
    """The server answered q0 knowing no more than q0: what is missing of the client came later than that."""
    talk = Talk().send(">", 1, b"q0").send("<", 5, b"a0", ack=3).send(">", 7, b"q1").end()
    [answered_ns] = [e.time_ns for e in talk.events if isinstance(e, Data) and e.payload == b"a0"]
    [gap] = [event for event in talk.events if isinstance(event, Gap) and event.direction == TO_SERVER]
    assert gap.since_ns == answered_ns


# --- packets that were captured late ---------------------------------------------------------------


def payloads(talk: Talk) -> list[tuple[str, bytes]]:
    """The data in the order of the events."""
    return [
        ("<" if event.direction == TO_CLIENT else ">", event.payload)
        for event in talk.events
        if isinstance(event, Data)
    ]


def test_an_answer_waits_for_the_question_that_it_acknowledges() -> None:
    """The question was captured after its answer: it is handed on before it, with an earlier time."""
    talk = Talk().hello().send(">", 1, b"q1").send("<", 1, b"a1", ack=3)
    talk.send("<", 3, b"a2", ack=5).send(">", 3, b"q2", ack=3, after_ns=LATE_NS // 2)
    talk.send(">", 5, b"q3", ack=5).send("<", 5, b"a3", ack=7).end()
    said = [(">", b"q1"), ("<", b"a1"), (">", b"q2"), ("<", b"a2"), (">", b"q3"), ("<", b"a3")]
    assert payloads(talk) == said
    times = [event.time_ns for event in talk.events if isinstance(event, Data)]
    assert times == sorted(times) and len(set(times)) == len(times)
    assert (talk.capture.gaps, talk.capture.reordered_segments) == (0, 1)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 0, 3, 2), (3, 0, 2, 1), (2, 3, 0, 1)])
def test_a_conversation_is_the_same_in_whatever_order_it_is_captured(order: tuple[int, ...]) -> None:
    """Of two questions and their answers."""
    sent = [(">", 1, b"q1", 1), ("<", 1, b"a1", 3), (">", 3, b"q2", 3), ("<", 3, b"a2", 5)]
    talk = Talk().hello()
    for place in order:
        way, seq, payload, ack = sent[place]
        talk.send(way, seq, payload, ack=ack)
    talk.end()
    assert payloads(talk) == [(way, payload) for way, _, payload, _ in sent]
    assert talk.capture.gaps == 0


def test_of_a_question_that_never_comes_the_answer_waits_for_a_second() -> None:
    """What comes behind the question tells that it is lost; answers to it wait no more."""
    talk = Talk().hello().send(">", 1, b"q1").send("<", 1, b"a1", ack=3).send("<", 3, b"a2", ack=13)
    assert payloads(talk) == [(">", b"q1"), ("<", b"a1")]
    talk.send("<", 5, b"a3", ack=13, after_ns=HOLE_NS + SECOND).send("<", 7, b"a4", ack=13)
    assert talk.told()[2:] == [("<", b"a2"), ("<", b"a3"), ("<", b"a4")]
    talk.send(">", 13, b"q3", ack=9).end()
    assert talk.stream(">") == b"q1" + b"." * 10 + b"q3"


@pytest.mark.parametrize("ack", [9_000, 200_000_000, -1_000_000_000])
def test_a_damaged_acknowledgement_costs_no_byte(ack: int) -> None:
    """It names bytes that the other end never sent, or sent long ago."""
    talk = Talk().hello()
    talk.send(">", 1, b"q", ack=ack).send("<", 1, b"a", ack=9_000)
    talk.send(">", 2, b"r", ack=2, after_ns=HOLE_NS + SECOND)
    for number in range(200):
        talk.send("<", 2 + number, b"b", ack=3)
    assert (talk.stream(">"), talk.stream("<")) == (b"qr", b"a" + b"b" * 200)


def test_the_number_of_a_fin_is_no_byte_to_wait_for() -> None:
    """The server answers after the client's FIN, which was captured late."""
    talk = Talk().hello().send(">", 1, b"q").send("<", 1, b"a", ack=3).send(">", 2, flags="FA", ack=2)
    assert payloads(talk) == [(">", b"q"), ("<", b"a")]
    assert talk.end().capture.gaps == 0


def test_the_begin_of_a_message_that_came_late_has_the_time_of_its_rest_at_the_latest() -> None:
    """Its head was captured 60 ms after its body; both were sent when the body came."""
    talk = Talk().hello().send(">", 5, b"body")
    body_ns = talk.now_ns
    talk.send(">", 1, b"head", after_ns=60_000_000)
    assert [(e.payload, e.time_ns) for e in talk.events if isinstance(e, Data)] == [
        (b"head", body_ns - 1),
        (b"body", body_ns),
    ]


def test_what_lies_before_the_first_byte_of_a_joined_connection_is_missing_and_no_duplicate() -> None:
    """It was captured late. The stream was begun behind it, so it is not read; that it is lost is known."""
    talk = Talk().send(">", 5, b"efg")
    first_ns = talk.now_ns
    talk.send(">", 1, b"abcd", after_ns=LATE_NS // 2).send(">", 1, b"abcd").send(">", 8, b"h")
    assert talk.told() == [(">", b"efg"), ("> gap", 4), (">", b"h")]
    gap = talk.events[1]
    assert isinstance(gap, Gap) and gap.passed and gap.since_ns == first_ns
    assert (talk.capture.gaps, talk.capture.lost_bytes, talk.capture.duplicate_segments) == (1, 4, 1)
    # Much later it is sent again, and of a connection whose begin was seen all of it was seen.
    talk.send(">", -3, b"wxyz", after_ns=HOLE_NS)
    begun = Talk().hello().send(">", 1, b"abc").send(">", 1, b"abc")
    assert (talk.capture.gaps, begun.capture.gaps) == (1, 0)


def test_a_reset_tells_what_it_acknowledges() -> None:
    """The client has the answer that the capture lacks, and ends the connection by a reset."""
    talk = Talk().hello().send(">", 1, b"q").send(">", 2, flags="RA", ack=12)
    assert talk.told() == [(">", b"q"), ("< gap", 11), ("reset", ">")]


def test_what_waits_is_bounded() -> None:
    """A sender far ahead of a hole does not fill the memory: the hole is given up before 48 packets."""
    talk = Talk().hello()
    piece = b"x" * 60_000
    for i in range(HOLE_PACKETS * 2):
        talk.send(">", 2 + i * len(piece), piece)
        held = talk.now_ns and (1 + i) * len(piece) - max(0, len(talk.stream(">")) - 1)
        assert held <= PENDING_BYTES + len(piece)
    assert talk.capture.gaps == 1


def test_what_waits_is_bounded_over_all_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many connections with a hole each stay under the bound in all."""
    monkeypatch.setattr(ordering, "PENDING_TOTAL_BYTES", 10_000)
    talk = Talk()
    total = received = 0
    for port in range(40000, 40100):
        one = Talk(ports=(port, 8774))
        one.reassembler, one.capture, one.now_ns = talk.reassembler, talk.capture, START_NS
        one.hello().send(">", 2, b"x" * 500)
        total += 500
        received += len(one.stream(">").replace(b".", b""))
        assert total - received <= 10_000


def test_bytes_that_the_snap_length_cut_are_a_gap_behind_the_rest() -> None:
    """The head of the segment is there, its size is known, and the stream stays in step."""
    talk = Talk().hello().send(">", 1, b"ab", missing=8).send(">", 11, b"cd")
    assert talk.told() == [(">", b"ab"), ("> gap", 8), (">", b"cd")]
    gap = talk.events[1]
    assert isinstance(gap, Gap) and gap.since_ns == gap.time_ns
    assert talk.capture.lost_bytes == 8


def test_cut_segments_out_of_order() -> None:
    """They wait and join as whole ones do."""
    talk = Talk().hello().send(">", 11, b"cd", missing=3).send(">", 1, b"ab", missing=8).send(">", 16, b"e")
    assert talk.stream(">") == b"ab........cd...e"


def test_a_repetition_of_a_cut_segment_is_no_second_gap() -> None:
    """Its numbers were passed, with or without bytes."""
    talk = Talk().hello().send(">", 1, b"ab", missing=8).send(">", 1, b"ab", missing=8)
    assert talk.told() == [(">", b"ab"), ("> gap", 8)]
    assert talk.capture.duplicate_segments == 1


def test_a_longer_repetition_adds_its_new_part() -> None:
    """What is behind the known part, and what is cut of it."""
    talk = Talk().hello().send(">", 1, b"abcd").send(">", 1, b"abcdef", missing=2)
    assert talk.told() == [(">", b"abcd"), (">", b"ef"), ("> gap", 2)]


@pytest.mark.parametrize(
    ("acked", "lost"), [(4, None), (5, None), (6, 2), (104, 100)], ids=["all", "fin", "two", "hundred"]
)
def test_lost_at_the_tail_is_known_from_acknowledgements(acked: int, lost: int | None) -> None:
    """Data that the other end acknowledged and nobody saw is a gap; one more number may be the FIN."""
    talk = Talk().hello().send(">", 1, b"abc").send("<", 1, ack=acked).end()
    assert talk.told() == [(">", b"abc"), *([("> gap", lost)] if lost else []), ("end",)]


def test_an_acknowledgement_before_its_data_is_no_loss() -> None:
    """A mirror port shows an ACK before the data it acknowledges (zeek #335)."""
    talk = Talk().hello().send("<", 1, ack=101).send(">", 1, b"x" * 100).send("<", 1, b"OK", ack=101).end()
    assert talk.told() == [(">", b"x" * 100), ("<", b"OK"), ("end",)]


def test_a_segment_without_ack_flag_acknowledges_nothing() -> None:
    """Its acknowledgement number is any value."""
    talk = Talk().hello().send(">", 1, b"abc").send("<", 1, b"x", flags="P", ack=5000).end()
    assert talk.told() == [(">", b"abc"), ("<", b"x"), ("end",)]


# --- joined in the middle, one direction, reuse ---------------------------------------------------


def test_joined_in_the_middle() -> None:
    """Without a SYN the stream begins where it is first seen, and the connection says so."""
    talk = Talk().send("<", 700, b"rest").send(">", 300, b"GET").send("<", 704, b"OK").end()
    assert talk.told() == [("<", b"rest"), (">", b"GET"), ("<", b"OK"), ("end",)]
    connection = talk.connections[0]
    assert connection.joined and connection.certain
    assert str(connection.server) == "10.0.0.2:8774"


def test_a_keep_alive_probe_as_first_packet_makes_no_hole() -> None:
    """Its number is one behind; RabbitMQ's and MySQL's idle connections begin a capture so."""
    talk = Talk().send(">", 99).send("<", 500, ack=100).send(">", 100, b"GET")
    assert talk.told() == [(">", b"GET")]
    assert talk.capture.gaps == 0


def test_an_acknowledgement_as_first_packet() -> None:
    """Its number is that of the next byte."""
    talk = Talk().send(">", 100).send(">", 100, b"GET").send(">", 103, b"x")
    assert talk.told() == [(">", b"GET"), (">", b"x")]


@pytest.mark.parametrize("way", [">", "<"])
def test_one_direction_alone(way: str) -> None:
    """Half of the traffic (asymmetric routing) gives its half of the stream."""
    talk = Talk()
    if way == ">":
        talk.send(">", 0, flags="S").send(">", 1)
    else:
        talk.send("<", 0, flags="SA")
    talk.send(way, 1, b"abc").send(way, 4, b"def").send(way, 7, flags="FA").end()
    assert talk.told() == [(way, b"abc"), (way, b"def"), ("fin", way), ("end",)]
    assert str(talk.connections[0].server) == "10.0.0.2:8774"


def test_port_reuse_after_the_end() -> None:
    """A SYN with another number is another connection."""
    talk = Talk().hello().send(">", 1, b"one").send(">", 4, flags="FA").send("<", 1, flags="FA")
    talk.isn = {">": 90000, "<": 80000}
    talk.hello().send(">", 1, b"two").end()
    assert talk.told() == [(">", b"one"), ("fin", ">"), ("fin", "<"), (">", b"two"), ("end",)]
    assert [c.joined for c in talk.connections] == [False, False]


@pytest.mark.parametrize("isn", [90_000, 1_000 - 5_000, 1_002, 0x90000000])
def test_port_reuse_without_an_end(isn: int) -> None:
    """A SYN with any other number, even one behind or inside the old stream, closes it as reused."""
    talk = Talk().hello().send(">", 1, b"x" * 9000)
    talk.isn = {">": isn & 0xFFFFFFFF, "<": 80000}
    talk.hello().send(">", 1, b"two").end()
    assert talk.told() == [(">", b"x" * 9000), ("reused",), (">", b"two"), ("end",)]


@pytest.mark.parametrize("isn", [0x90000000, 0x50000000, 0xF0000000])
def test_port_reuse_whose_syn_was_lost(isn: int) -> None:
    """Numbers that are far off, ahead or behind, are a stream that goes on there: a gap of unknown size."""
    talk = Talk(client_isn=1000).hello().send(">", 1, b"one")
    talk.isn[">"] = isn
    talk.send(">", 1, b"two").send(">", 4, b"more").end()
    assert talk.told() == [(">", b"one"), ("> gap", 0), (">", b"two"), (">", b"more"), ("end",)]


def test_one_damaged_sequence_number_does_not_cost_the_connection() -> None:
    """The stream takes up again where it was."""
    talk = Talk().hello().send(">", 1, b"one").send(">", 0x60000000, b"???").send(">", 4, b"two")
    talk.send(">", 7, b"three").end()
    assert [one for one in talk.told() if one[0] == ">"] == [
        (">", b"one"), (">", b"???"), (">", b"two"), (">", b"three")
    ]  # fmt: skip
    assert talk.capture.lost_bytes == 0


def test_an_absurd_jump_gives_out_what_waits_first() -> None:
    """Sizes of gaps are never negative."""
    talk = Talk().hello().send(">", 4, b"def")
    talk.send(">", 0x60000000, b"far").send(">", 0x60000003, b"away").end()
    assert talk.told() == [
        ("> gap", 3), (">", b"def"), ("> gap", 0), (">", b"far"), (">", b"away"), ("end",)
    ]  # fmt: skip


def test_port_reuse_after_the_end_without_syn() -> None:
    """Data with quite other numbers on closed ports is a connection that was joined."""
    talk = Talk().hello().send(">", 1, b"one", "FA").send("<", 1, flags="FA")
    talk.isn = {">": 0x70000000, "<": 0x20000000}
    talk.send(">", 1, b"two").send("<", 1, b"OK").end()
    assert talk.told()[-3:] == [(">", b"two"), ("<", b"OK"), ("end",)]
    assert talk.connections[-1].joined


def test_data_before_its_syn() -> None:
    """A reordered capture: the data is not lost, nor is the connection taken for a joined one."""
    talk = Talk().send(">", 1, b"GET").send(">", 0, flags="S")
    talk.send("<", 0, flags="SA").send("<", 1, b"OK").end()
    assert talk.told() == [(">", b"GET"), ("<", b"OK"), ("end",)]
    assert [c.joined for c in talk.connections] == [False]


def test_answer_before_its_syn() -> None:
    """SYN and SYN-ACK swapped are one connection with the right ends."""
    talk = Talk(ports=(3000, 40000)).send("<", 0, flags="SA").send(">", 0, flags="S")
    talk.send(">", 1, b"GET").end()
    assert talk.told() == [(">", b"GET"), ("end",)]
    assert str(talk.connections[0].client) == "10.0.0.1:3000"


def test_a_repeated_handshake_packet_changes_nothing() -> None:
    """SYN and SYN-ACK again, in mid-conversation, belong to the same connection."""
    talk = Talk().hello().send(">", 1, b"a").send(">", 0, flags="S").send("<", 0, flags="SA")
    talk.send(">", 2, b"b").end()
    assert talk.told() == [(">", b"a"), (">", b"b"), ("end",)]


# --- who is the server ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ports", "way", "server", "certain"),
    [
        ((40000, 8774), ">", 8774, True),
        ((40000, 8774), "<", 8774, True),
        ((8774, 40000), ">", 8774, True),
        ((40000, 7777), ">", 7777, False),
        ((40000, 7777), "<", 7777, False),
        ((3306, 8774), ">", 8774, False),
    ],
)
def test_who_is_the_server_of_a_joined_connection(
    ports: tuple[int, int], way: str, server: int, certain: bool
) -> None:
    """A known port, else the lower one, which is a guess."""
    talk = Talk(ports=ports).send(way, 1, b"x")
    connection = talk.connections[0]
    assert (connection.server.port, connection.certain) == (server, certain)


def test_turn_makes_the_server_the_client() -> None:
    """When the bytes show that the guess was wrong: ends and directions change places, once."""
    talk = Talk(ports=(7777, 40000)).send(">", 1, b"GET")
    connection = talk.connections[0]
    assert (connection.server.port, talk.told()) == (7777, [("<", b"GET")])
    talk.reassembler.turn(connection)
    talk.reassembler.turn(connection)
    talk.send(">", 4, b"more").send("<", 1, b"OK")
    assert (connection.client.port, connection.server.port) == (7777, 40000)
    assert connection.certain
    assert talk.told()[1:] == [(">", b"more"), ("<", b"OK")]


def test_a_certain_connection_does_not_turn() -> None:
    """A SYN said who is who."""
    talk = Talk(ports=(7777, 40000)).hello().send(">", 1, b"GET")
    talk.reassembler.turn(talk.connections[0])
    assert talk.connections[0].server.port == 40000


# --- forgetting -----------------------------------------------------------------------------------


def test_idle_connections_are_forgotten_and_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """After two hours without a packet the connection ends as idle; what comes then is a joined one."""
    talk = Talk().hello().send(">", 1, b"GET")
    talk.send(">", 4, b"HEAD", after_ns=connections.FORGET_IDLE_NS + reassembler.FORGET_EVERY_NS)
    assert talk.told()[:2] == [(">", b"GET"), ("idle",)]


def test_closed_connections_leave_no_trace() -> None:
    """A minute after both FINs nothing of them is remembered."""
    talk = Talk()
    for port in range(40000, 40050):
        one = Talk(ports=(port, 8774))
        one.reassembler, one.now_ns = talk.reassembler, talk.now_ns
        one.hello().send(">", 1, flags="FA").send("<", 1, flags="FA", ack=2)
    talk.ports = (50000, 8774)
    talk.hello().send(">", 1, b"x", after_ns=3 * connections.FORGET_CLOSED_NS)
    assert len(talk.reassembler._connections.halves) == 2


def test_the_number_of_connections_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many at once: the oldest are given up, both of their directions, and counted."""
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 100)
    talk = Talk()
    for port in range(20000, 20400):
        talk.ports = (port, 8774)
        talk.hello().send(">", 1, b"x", after_ns=SECOND // 4)
    assert len(talk.reassembler._connections.halves) <= 250
    assert talk.reassembler.evicted >= 200
    assert len(talk.reassembler._connections.halves) % 2 == 0
    assert sum(one == ("idle",) for one in talk.told()) == talk.reassembler.evicted


def test_a_flood_of_attempts_is_counted_and_forgotten_but_for_clients_that_are_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Addresses of their own, no answer; who speaks elsewhere still has its unanswered attempt told."""
    monkeypatch.setattr(connections, "MAX_ATTEMPTS", 80)
    capture = [Capture(0, "x")]
    flooded = Reassembler(capture, [8774])
    ends, port = bytes([10, 0, 0, 1, 10, 0, 0, 9]), (8774).to_bytes(2, "big")

    def one(number: int, flow: bytes, flags: int, payload: bytes = b"") -> Segment:
        return Segment(number, flow, 1, 0, flags, payload, 0, 0, ((0, number),))

    some = [one(1, ends + b"\x11\x11" + port, 2), one(2, ends + b"\x11\x12" + port, 16, b"GET")]
    some += [one(3 + n, b"\x0b\0" + n.to_bytes(2, "big") + ends[4:] + b"\1\1" + port, 2) for n in range(900)]
    told = []
    for event in flooded.read([some]):
        event.connection.protocol = "http1"
        told.append(event)
    assert flooded.unanswered > 800
    told += flooded.expire(10 * SECOND)
    failed = [event for event in told if isinstance(event, Closed)]
    assert ("10.0.0.1", 0x1111) in {event.connection.client for event in failed}
    assert {event.how for event in failed} == {"unanswered"}
    assert len(failed) + flooded.unanswered == 901
    assert not flooded._attempts._asked


@pytest.mark.parametrize("role", ["", "nova-api"])
def test_connections_that_carried_little_make_room(role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go first, those that told who speaks stay; what one still says opens it anew."""
    monkeypatch.setattr(connections, "LIGHT_CONNECTIONS", 50)
    monkeypatch.setattr(connections, "LIGHT_BYTES", 20 * 1_200)
    talk = Talk()
    talk.reassembler._connections._room = 100
    for port in range(20000, 20400):
        talk.ports = (port, 8774)
        talk.hello().send(">", 1, b"x")
        talk.connections[-1].server_role = role
        talk.connections[-1].protocol = "http1" if role else None
    if role:
        assert talk.reassembler.evicted == 0
        return
    assert talk.reassembler.evicted >= 300
    assert len(talk.reassembler._connections.halves) <= 2 * (50 + 20) + 2
    talk.ports = (20000, 8774)
    talk.send(">", 2, b"y")
    assert talk.told()[-1] == (">", b"y")
    assert talk.connections[-1].joined


# --- what holds for all streams -------------------------------------------------------------------


def cut(text: bytes, sizes: Sequence[int]) -> list[tuple[int, bytes]]:
    """Return *text* as (relative sequence number, payload)."""
    pieces, at = [], 0
    for size in sizes:
        if at < len(text):
            pieces.append((1 + at, text[at : at + size]))
            at += size
    return pieces


def feed(talk: Talk, pieces: Iterable[tuple[int, bytes]], way: str = ">") -> Talk:
    for seq, payload in pieces:
        talk.send(way, seq, payload)
    return talk


SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=40)
ISN = st.sampled_from([0, 1, 1000, 0x7FFFFFF0, 0xFFFFFF00, 0xFFFFFFF0, 0xFFFFFFFF])


@settings(deadline=None, max_examples=examples(200))
@given(SIZES, ISN, st.randoms(use_true_random=False), st.integers(0, 20))
def test_any_order_within_the_window_is_the_same_stream(
    sizes: list[int], isn: int, rng: random.Random, reach: int
) -> None:
    """However far packets are displaced, up to 20 places, the bytes come out once and in order."""
    pieces = cut(TEXT, sizes)
    shuffled = [p for _, p in sorted((i + rng.uniform(0, reach), p) for i, p in enumerate(pieces))]
    talk = feed(Talk(client_isn=isn).hello(), shuffled)
    assert talk.stream(">") == b"".join(payload for _, payload in pieces)
    assert talk.capture.gaps == talk.capture.duplicate_segments == 0


@settings(deadline=None, max_examples=examples(200))
@given(SIZES, ISN, st.randoms(use_true_random=False))
def test_copies_and_overlaps_change_nothing(sizes: list[int], isn: int, rng: random.Random) -> None:
    """Retransmissions cut in any other way, at any later place, add no byte and take none."""
    pieces = cut(TEXT, sizes)
    whole = b"".join(payload for _, payload in pieces)
    talk = Talk(client_isn=isn).hello()
    reached = 0
    for seq, payload in pieces:
        talk.send(">", seq, payload)
        reached = seq - 1 + len(payload)
        if rng.random() < 0.5:
            start = rng.randrange(reached)
            stop = rng.randint(start + 1, reached)
            talk.send(">", 1 + start, whole[start:stop])
    assert talk.stream(">") == whole
    assert talk.capture.gaps == 0


@settings(deadline=None, max_examples=examples(200))
@given(SIZES, ISN, st.randoms(use_true_random=False), st.floats(0, 0.6))
def test_gaps_and_data_add_up(sizes: list[int], isn: int, rng: random.Random, loss: float) -> None:
    """With any packets lost, bytes and gaps together are as long as the numbers advanced, bytes in place."""
    pieces = cut(TEXT, [*sizes, 5])
    end = pieces[-1][0] - 1 + len(pieces[-1][1])
    kept = [p for p in pieces[:-1] if rng.random() >= loss] + [pieces[-1]]
    talk = feed(Talk(client_isn=isn).hello(), kept).end()
    expected = bytearray(b"." * end)
    for seq, payload in kept:
        expected[seq - 1 : seq - 1 + len(payload)] = payload
    assert talk.stream(">") == bytes(expected)
    assert all(event.size_bytes > 0 for event in talk.events if isinstance(event, Gap))


def test_a_leap_behind_an_end_that_waited() -> None:
    """A FIN waits behind a hole; a segment from nowhere gives the hole up, and comes behind the end."""
    talk = Talk().send("<", 0).send("<", 2, flags="FA", missing=1).send("<", 268_435_457, b"x")
    assert [_told(event) for event in talk.end().events][-2:] == [("fin", "<"), ("end",)]


@settings(deadline=None, max_examples=examples(300))
@given(
    st.lists(
        st.tuples(
            st.sampled_from("<>"),
            st.one_of(st.integers(0, 300), st.integers(0, 0xFFFFFFFF)),
            st.binary(max_size=40),
            st.sampled_from(["A", "A", "A", "PA", "S", "SA", "FA", "R", "RA", "", "SF", "FSRPA"]),
            st.integers(0, 300),
            st.integers(0, 50),
            st.sampled_from([0, 1000, 1000, SECOND, 100 * SECOND, 7300 * SECOND]),
        ),
        max_size=60,
    )
)
@example([("<", 7, b"", "S", 0, 0, 0), ("<", 20, b"late", "", 0, 0, 0), (">", 0, b"", "R", 0, 0, 0)])
def test_hostile_segments(sent: list[tuple[str, int, bytes, str, int, int, int]]) -> None:
    """Any segments at all: no exception, no negative gap, nothing behind the end of a connection."""
    talk = Talk()
    for way, seq, payload, flags, ack, missing, after_ns in sent:
        talk.send(way, seq, payload, flags, ack, missing=missing, after_ns=after_ns)
    talk.end()
    over: set[int] = set()
    ended: set[tuple[int, int]] = set()
    for event in talk.events:
        number = event.connection.number
        assert number not in over, f"{_told(event)} behind the end"
        if isinstance(event, Gap):
            assert event.size_bytes >= 0
        if isinstance(event, Closed):
            if event.how == "fin":
                assert (number, event.direction) not in ended
                ended.add((number, event.direction))
            else:
                over.add(number)
        else:
            assert (number, event.direction) not in ended, f"{_told(event)} behind its FIN"
    assert talk.reassembler._ordering._pending_total == 0
