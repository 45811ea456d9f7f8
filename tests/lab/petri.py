"""A term as a Petri net of PM4Py: concurrency as tokens side by side, not as a product of states.

PM4Py is AGPL: it is a second opinion here and in the benchmarks, and tracer never imports it.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):  # its banner
    import pm4py
    from pm4py.algo.conformance.alignments.petri_net.algorithm import Variants, apply_trace
    from pm4py.objects.log.obj import Event, Trace
    from pm4py.objects.petri_net.obj import Marking, PetriNet
    from pm4py.objects.petri_net.utils.petri_utils import add_arc_from_to

from tracer.grammar.automaton import Alt, Rep, Seq, Shuffle, Sym, Symbol, Term

__all__ = ["A_STAR", "EXACT", "Net", "pm4py"]

A_STAR = Variants.VERSION_STATE_EQUATION_A_STAR
EXACT = {
    "A* (state equation)": A_STAR,
    "Dijkstra, less memory": Variants.VERSION_DIJKSTRA_LESS_MEMORY,
    "Dijkstra, no heuristics": Variants.VERSION_DIJKSTRA_NO_HEURISTICS,
}
"""Its variants that promise the least cost."""
_MOVE = 10_000
"""What a move on one side costs there; a silent transition costs 1, so costs are to be cut down."""


class Net:
    """A workflow net; *symbols* gives its transitions their labels."""

    def __init__(self, term: Term, symbols: Sequence[Symbol]) -> None:
        self._symbols = symbols
        self._net = PetriNet("net")
        begin, end = self._place(), self._place()
        self._add(term, begin, end)
        self._marks = Marking({begin: 1}), Marking({end: 1})
        # Its own reduction of silent transitions: PM4Py is three times as fast on what is left.
        self._net = pm4py.reduce_petri_net_invisibles(self._net)

    def cost(self, labels: Sequence[str], variant: Any) -> int:
        """The least number of edits on one side."""
        trace = Trace(Event({"concept:name": label}) for label in labels)
        found = apply_trace(trace, self._net, *self._marks, variant=variant)
        return int(found["cost"]) // _MOVE

    def size(self) -> str:
        net = self._net
        return f"{len(net.places)} places, {len(net.transitions)} transitions, {len(net.arcs)} arcs"

    def _place(self) -> Any:
        place = PetriNet.Place(f"p{len(self._net.places)}")
        self._net.places.add(place)
        return place

    def _transition(self, entry: Any, leave: Any, label: str | None = None) -> None:
        self._join([entry], [leave], label)

    def _join(self, entries: Sequence[Any], leaves: Sequence[Any], label: str | None = None) -> None:
        transition = PetriNet.Transition(f"t{len(self._net.transitions)}", label)
        self._net.transitions.add(transition)
        for place in entries:
            add_arc_from_to(place, transition, self._net)
        for place in leaves:
            add_arc_from_to(transition, place, self._net)

    def _add(self, term: Term, entry: Any, leave: Any) -> None:
        """Add *term* between two places."""
        match term:
            case Sym(symbol):
                self._transition(entry, leave, self._symbols[symbol].terminal)
            case Alt(parts):
                for part in parts:
                    self._add(part, entry, leave)
            case Seq(parts):
                for part in parts[:-1]:
                    self._add(part, entry, entry := self._place())
                if parts:
                    self._add(parts[-1], entry, leave)
                else:
                    self._transition(entry, leave)
            case Rep(part, low, high):
                for _ in range(low):
                    self._add(part, entry, entry := self._place())
                for _ in range((high or low) - low):
                    self._transition(entry, leave)
                    self._add(part, entry, entry := self._place())
                if high is None:
                    # A place of its own: neither what is before nor what is behind may enter the loop.
                    self._transition(entry, hub := self._place())
                    self._add(part, hub, hub)
                    entry = hub
                self._transition(entry, leave)
            case Shuffle(parts):
                lanes = [(self._place(), self._place()) for _ in parts]
                self._join([entry], [begin for begin, _ in lanes])
                for part, (begin, end) in zip(parts, lanes, strict=True):
                    self._add(part, begin, end)
                self._join([end for _, end in lanes], [leave])
