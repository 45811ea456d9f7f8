"""The alphabet of a grammar: which symbols a canonical line can be taken as, exactly or nearly.

A near miss is a line that would fit with another result (`failed`), on another plane (`plane`) or in another
protocol (`mode`). It costs less than a missing symbol and an extra call together, so that it is one finding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

from tracer.grammar.automaton import Symbol
from tracer.grammar.patterns import Leg, LinePattern
from tracer.openstack.services import BROKER

__all__ = ["GOOD_RESULTS", "NEAR", "Alphabet", "Candidate", "Event", "remember"]

GOOD_RESULTS = ("?", "ok", "200", "201", "202", "204", "302")
"""Results that are tried in place of a failing one: if the line then fits, it is a near miss."""
FAILED_RESULTS = frozenset(("failure", "error", "refused", "unroutable", "none"))
LONGEST_LINE = 2_048
"""A longer line is no call of a workflow: its path comes from outside, and patterns may take long over it."""
MOST_LINES = 100_000
"""The most distinct lines that are remembered; a real run has some hundreds."""
NEAR = {"failed": 20, "plane": 20, "mode": 20}
"""Cost of a near miss: less than that of an extra call (alignment/edits.py), and so less than missing and
extra together, even of an unobserved step."""

_K = TypeVar("_K")
_T = TypeVar("_T")


class Candidate(NamedTuple):
    """A symbol that a call may be taken for, and the cost of that."""

    symbol: int
    """Id of the symbol."""
    cost: int = 0
    kind: str = "sync"
    """sync · failed · plane · mode"""


Event = Sequence[Candidate]
"""A call, as all its candidates. A call without candidates could only be extra: leave it out of the trace
where it is outside of the grammar's alphabet."""


class Alphabet:
    """The symbols of a grammar, and the patterns of the lines that they stand for.

    *legs* are the callers and callees of each terminal, *step_legs* those of each step. *harmless* are the
    patterns of refusals that a healthy run contains: such a line is outside of the alphabet.
    """

    def __init__(
        self,
        symbols: Sequence[Symbol],
        terminals: Mapping[str, LinePattern],
        legs: Mapping[str, tuple[Leg, ...]],
        step_legs: Mapping[str, tuple[Leg, ...]],
        harmless: Sequence[LinePattern],
    ) -> None:
        self._all = symbols
        self._terminals = terminals
        self._legs = legs
        self._step_legs = step_legs
        self._harmless = harmless
        self._planes = sorted({leg.plane for symbol in symbols for leg in legs[symbol.terminal]} - {"*"})
        self._symbols: dict[str, tuple[Symbol, ...]] = {}
        self._near: dict[str, tuple[tuple[Symbol, str], ...]] = {}
        self._candidates: dict[str, tuple[Candidate, ...]] = {}

    def symbols(self, line: str) -> tuple[Symbol, ...]:
        """Return the symbols that a canonical line fits, in order of ids; () outside of the alphabet.

        A plane that is not known (`?`) fits every plane. Remembered by line.
        """
        # ok-concurrent-20 has 123 distinct lines in 7,504 calls, so nearly every call is one look-up.
        found = self._symbols.get(line)
        if found is None:
            found = remember(self._symbols, line, self._match(line))
        return found

    def near(self, line: str) -> tuple[tuple[Symbol, str], ...]:
        """Return (symbol, kind) of symbols that the line would fit with another result, plane or protocol.

        Kinds: failed (result), plane, mode (REST instead of RPC or the reverse). () for a line that fits a
        step as it is, and for a harmless refusal. Remembered by line.
        """
        found = self._near.get(line)
        if found is None:
            found = remember(self._near, line, self._nearly(line))
        return found

    def candidates(self, line: str) -> tuple[Candidate, ...]:
        """Return all candidates of a line, as an event for `align`; () outside of the alphabet."""
        found = self._candidates.get(line)
        if found is None:
            exact = (Candidate(symbol.id) for symbol in self.symbols(line))
            near = (Candidate(symbol.id, NEAR[kind], kind) for symbol, kind in self.near(line))
            found = remember(self._candidates, line, (*exact, *near))
        return found

    def _match(self, line: str) -> tuple[Symbol, ...]:
        if len(line) > LONGEST_LINE or self.is_harmless(line):
            return ()
        plane, _, rest = line.partition(" ")
        lines = [f"{known} {rest}" for known in self._planes] if plane == "?" and self._planes else [line]
        return tuple(
            symbol
            for symbol in self._all
            if any(self._terminals[symbol.terminal].matches(line) for line in lines)
        )

    def is_harmless(self, line: str) -> bool:
        """Return whether *line* is a refusal that a healthy run contains."""
        return any(pattern.matches(line) for pattern in self._harmless)

    def _nearly(self, line: str) -> tuple[tuple[Symbol, str], ...]:
        words = line.split(" ")
        if (
            len(words) < 7
            or len(line) > LONGEST_LINE
            or self.is_harmless(line)
            or any(s.role == "step" for s in self.symbols(line))
        ):
            return ()
        found: dict[Symbol, str] = {}
        for kind, symbols in (
            ("failed", self._failed(words)),
            ("plane", self._misplaced(words)),
            ("mode", self._in_other_mode(words)),
        ):
            for symbol in symbols:
                if symbol.role in ("step", "other"):
                    found.setdefault(symbol, kind)
        return tuple(found.items())

    def _failed(self, words: Sequence[str]) -> Iterator[Symbol]:
        _, protocol, caller, _, callee, operation, *_, result = words
        if operation == "CONNECT":
            if result in ("ok", "?"):
                # It took long, or how it ended is not known.
                return
            for symbol in self._all:
                for leg in self._legs[symbol.terminal]:
                    # The callee of a message is a service, but its connection is one to the broker.
                    to = callee in (leg.callee, BROKER if protocol == "RPC" else leg.callee)
                    if to and (leg.protocol, leg.caller) == (protocol, caller):
                        yield symbol
        elif result != "?":
            for good in GOOD_RESULTS:
                yield from self.symbols(" ".join((*words[:-1], good)))

    def _misplaced(self, words: Sequence[str]) -> Iterator[Symbol]:
        for plane in self._planes:
            if plane != words[0]:
                yield from self.symbols(" ".join((plane, *words[1:])))

    def _in_other_mode(self, words: Sequence[str]) -> Iterator[Symbol]:
        """Yield symbols of steps that are documented for this leg in the other protocol only.

        Only calls that ask for something count: a GET does not do a step that is documented as a message.
        """
        plane, protocol, caller, _, callee, operation, *_, result = words
        asks = {"REST": ("POST", "PUT", "PATCH"), "RPC": ("call", "cast")}.get(protocol, ())
        is_failed = result in FAILED_RESULTS or (result.isdigit() and int(result) >= 400)
        if operation not in asks or is_failed:
            return
        for symbol in self._all:
            if symbol.step is not None:
                known = _protocols(self._legs[symbol.terminal], plane, caller, callee)
                of_step = _protocols(self._step_legs.get(symbol.step, ()), plane, caller, callee)
                if known & {"REST", "RPC"} and not of_step & {protocol, "*"}:
                    yield symbol


def _protocols(legs: Sequence[Leg], plane: str, caller: str, callee: str) -> set[str]:
    ends = (caller, callee)
    return {leg.protocol for leg in legs if (leg.caller, leg.callee) == ends and leg.plane in (plane, "*")}


def remember(cache: dict[_K, _T], key: _K, value: _T) -> _T:
    """Store and return *value*. A full cache is emptied: the number of lines has no bound."""
    if len(cache) >= MOST_LINES:
        cache.clear()
    cache[key] = value
    return value
