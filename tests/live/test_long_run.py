"""A run that does not end: memory follows what is open. For longer: tests/benchmarks/live_long_run.py."""

from __future__ import annotations

import gc
from collections import Counter
from weakref import ReferenceType, ref

import pytest
from lab.streams import CAPTURES
from lab.turns import Recording, Together, Turns

from tracer.engine import Settings
from tracer.grammar import load
from tracer.live import follow, watch
from tracer.live.follow import Patience
from tracer.live.watch import Watch
from tracer.topology import GivenTopology

BEGIN_NS = 1_700_000_000_000_000_000
PAUSE_NS = 60_000_000_000
FORGET_NS = 300_000_000_000
NEUTRON = (9696).to_bytes(2, "big")
NAMES = ["fail-no-valid-host", "fail-conductor-down", "fail-quota-403"]


@pytest.fixture(autouse=True)
def looks_whenever_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recorded time passes much faster here than looks are made: their pace would tell of the machine."""
    monkeypatch.setattr(watch, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(watch, "LOOK_SHARE", 0)
    monkeypatch.setattr(follow, "CHECKS_S", 60.0)


def after(turns: int) -> tuple[Watch, Counter[str]]:
    """A run of so many turns, and how many of tracer's objects it has left, by type."""
    recordings = [Recording.of(CAPTURES / name) for name in NAMES]
    planes = range(len(recordings[0].planes))
    together = Together(len(planes), turns)
    sources = [Turns(recordings, plane, together, BEGIN_NS, PAUSE_NS) for plane in planes]
    patience = Patience(stall_ns=20_000_000_000, forget_ns=FORGET_NS)
    run = Watch(sources, GivenTopology(), Settings(), load("cloudvm_create"), lambda event: None, patience)
    run.run()
    gc.collect()
    kinds = Counter(type(each).__qualname__ for each in gc.get_objects() if _is_ours(each))
    return run, kinds


def _is_ours(each: object) -> bool:
    # Not all types tell their module as a string.
    return str(type(each).__module__).startswith("tracer.")


@pytest.mark.long
def test_memory_and_open_traces_are_the_same_after_more_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times the traffic leaves about as many calls, connections and traces behind.

    About: it depends on when it was last looked. Of those that are done a number is kept: here a small one,
    so that it is reached.
    """
    monkeypatch.setattr(follow, "WHOLE", 3)
    monkeypatch.setattr(follow, "SLIM", 3)
    run, before = after(15)
    done = sum(run.follow.history.verdicts.values())
    del run
    run, later = after(60)
    assert sum(run.follow.history.verdicts.values()) == 4 * done
    assert done == 15 // 3 * 4, "every turn's creations are its own: one, one and two"
    assert before["Call"] > 100 and before["Connection"] > 50, "something is counted"
    grown = {kind: (before[kind], count) for kind, count in later.items() if count > 1.5 * before[kind] + 50}
    assert grown == {}


def test_what_holds_each_other_is_freed_while_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python looks for it rarely during a run, since it walks over all that is kept. Here it never does."""
    rings: list[ReferenceType[set[object]]] = []
    freed = 0

    class Ring(set[object]):
        """A set that holds itself: only a collection frees it."""

        __hash__ = object.__hash__

    def receive(event: object) -> None:
        ring = Ring()
        ring.add(ring)
        rings.append(ref(ring))

    def end() -> None:
        nonlocal freed
        freed = sum(ring() is None for ring in rings)

    monkeypatch.setattr(watch, "COLLECT_EVERY_S", 0.0)
    recording = Recording.of(CAPTURES / "fail-no-valid-host")
    together = Together(2, 10)
    sources = [Turns([recording], plane, together, BEGIN_NS, PAUSE_NS) for plane in range(2)]
    run = Watch(sources, GivenTopology(), Settings(), load("cloudvm_create"), receive)
    run.before_end = end
    gc.disable()
    try:
        run.run()
    finally:
        gc.enable()
    assert freed > 0


def test_a_trace_that_is_stuck_is_given_up_in_the_end() -> None:
    """Nothing stays open for ever: who is stuck has a verdict, too, when it is forgotten."""
    run, _ = after(18)
    assert run.follow.history.outcomes["stuck"] == 18 // 3
    assert run.follow.traces() == run.follow.open() == []


def test_one_id_that_never_ends_is_cut_to_size() -> None:
    """A service does its periodic tasks under one request id for as long as it runs."""
    recording = Recording.of(
        CAPTURES / "fail-vrm-500-reschedule", lambda data: NEUTRON in (data[34:36], data[36:38])
    )
    # Ids are left as they are: all that happens later happens under the same ones.
    recording.packets = [packet._replace(ids_at=()) for packet in recording.packets]
    assert {packet.plane for packet in recording.packets} == {1}
    together = Together(2, 60)
    sources = [Turns([recording], plane, together, BEGIN_NS, PAUSE_NS) for plane in range(2)]
    run = Watch(sources, GivenTopology(), Settings(), load("cloudvm_create"), lambda event: None)
    run.run()
    store = run.stages.correlator._store
    longest = max(len(calls) for index in (store.by_request, store.by_uuid) for _, calls in index.items())
    assert longest > 0
    assert longest < 500, "those of the last ten minutes: ten turns of sixty"


@pytest.mark.long
def test_a_message_that_comes_again_and_again_keeps_no_other() -> None:
    """What was published a second time is as young as that, and what is older behind it is forgotten."""
    broker = (5672).to_bytes(2, "big")
    recording = Recording.of(
        CAPTURES / "fail-no-valid-host", lambda data: broker in (data[34:36], data[36:38])
    )
    known = len(recording.packets) // 3
    recording.packets = [
        packet._replace(ids_at=()) if number < known else packet
        for number, packet in enumerate(recording.packets)
    ]
    remembered = []
    for turns in (20, 60):
        together = Together(2, turns)
        sources = [Turns([recording], plane, together, BEGIN_NS, PAUSE_NS) for plane in range(2)]
        run = Watch(sources, GivenTopology(), Settings(), load("cloudvm_create"), lambda event: None)
        run.run()
        remembered.append(len(run.stages.calls._rpc._by_unique))
    assert 0 < remembered[1] < 1.5 * remembered[0] + 20, remembered
