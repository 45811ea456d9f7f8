"""Which grammar each trace is checked against: as asked for, by what is seen, or each operation by its own.

A cloud with a portal or a VRM runs the documented flow. One that shows neither is checked against upstream's
flow; what was captured may not hold the VRM, so the report says on what the choice rests. The choice is made
as late as it can be: when the traces are asked for, live when the first verdict is due.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from tracer.errors import UsageError
from tracer.grammar import Grammar, load, shipped
from tracer.model import Call, CallRecord, Trace
from tracer.openstack.rest import CREATE_SERVER
from tracer.openstack.services import PORTAL, VRM
from tracer.settings import ALL, AUTO

__all__ = ["DOCUMENTED", "UPSTREAM", "Workflows", "common", "load_workflows", "one_workflow"]

DOCUMENTED, UPSTREAM = "cloudvm_create", "openstack_create"
"""The grammars of a creation among which is chosen: the vendor's flow, and upstream's."""
MOST_OPERATIONS = 10_000
"""The most distinct operations that are remembered; a real run has some hundreds."""

_NONE: Mapping[str, frozenset[str]] = {}


class Workflows:
    """The grammars of one run.

    *creations* are those among which is chosen, the first unless nothing of the vendor's is seen; one alone
    is no choice. *operations* are checked as well, each trace against the one that its calls begin.
    """

    def __init__(
        self, creations: Sequence[Grammar], operations: Sequence[Grammar] = (), *, is_asked_for: bool = True
    ) -> None:
        self.creations = tuple(creations)
        self.operations = tuple(operations)
        self.chosen = self.creations[0]
        """The grammar of a creation (the only one, of any workflow, where one was asked for)."""
        self._is_settled = is_asked_for
        self._sign = ""
        self._begins: dict[str, dict[str, frozenset[str]]] = {}
        self._begun: dict[str, dict[str, frozenset[str]]] = {}

    @property
    def name(self) -> str:
        """The name for a report: that of the grammar, or `all`."""
        return ALL if self.operations else self.chosen.name

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the grammars of which the choice is."""
        return tuple(grammar.name for grammar in self.creations)

    @property
    def grammars(self) -> tuple[Grammar, ...]:
        """All grammars that a trace of this run may be checked against."""
        return (*self.creations, *self.operations)

    @property
    def is_settled(self) -> bool:
        """Whether nothing that is seen later can change the choice."""
        return self._is_settled

    # --- what begins a trace ---

    def begun_at(self, protocol: str, operation: str) -> frozenset[str]:
        """Return the callee roles with which such a call begins a creation by any grammar of one."""
        # Without a key of both, which would be made for each call.
        found = self._begins.get(protocol, _NONE).get(operation)
        return _begun_by(self._begins, self.creations, protocol, operation) if found is None else found

    def operation_begun_at(self, protocol: str, operation: str) -> frozenset[str]:
        """Return the callee roles with which such a call begins a trace of one of `operations`."""
        found = self._begun.get(protocol, _NONE).get(operation)
        return _begun_by(self._begun, self.operations, protocol, operation) if found is None else found

    def of(self, trace: Trace, record: Callable[[Call], CallRecord]) -> Grammar | None:
        """Return the grammar of *trace*: its first call that begins a workflow decides; None without one.

        Caller and callee count as well, which may be known late: *record* resolves them. Of a creation it is
        the one chosen. A request counts before a message, which several workflows may send.
        """
        if trace.creates:
            return self.chosen
        candidates = self.operations or self.creations
        # Sorting is stable: the calls of each kind stay in order of their start.
        for call in sorted(trace.calls, key=lambda call: call.protocol == "RPC"):
            for grammar in candidates:
                if grammar.begun_at(call.protocol, call.asked) and grammar.starts(record(call).matched):
                    return grammar
        return None

    # --- the choice ---

    def adopt(self, name: str, why: str) -> None:
        """Choose the creation's grammar *name* because of *why*, unless one was asked for or is unknown."""
        found = next((grammar for grammar in self.creations if grammar.name == name), None)
        if found is not None and not self._is_settled:
            self.chosen, self._sign, self._is_settled = found, why, True

    def choose(self, sign: str) -> bool:
        """Choose by *sign*, what is seen of a portal or a VRM; return whether it is another grammar now.

        Once something was seen, the choice is settled.
        """
        if self._is_settled:
            return False
        before = self.chosen
        self.chosen = self.creations[0 if sign else -1]
        self._sign, self._is_settled = sign, bool(sign)
        return self.chosen is not before

    def reason(self, planes: Collection[str], dark: int = 0) -> str:
        """Return why this grammar of a creation was chosen, of captures of *planes*; empty when asked for.

        *dark* connections in them cannot be read.
        """
        why = self._why(planes, dark)
        return f"creations against {self.chosen.name}, as {why}" if why and self.operations else why

    def _why(self, planes: Collection[str], dark: int) -> str:
        if self._sign:
            return self._sign
        if self._is_settled:
            return ""
        where = " and ".join(sorted(planes)) or "the captures"
        hidden = "1 connection" if dark == 1 else f"{dark:,} connections"
        may_be = f"; {hidden} there cannot be read (TLS) and may be theirs" if dark else ""
        return f"no {VRM} and no {PORTAL} on {where}{may_be}"


def _begun_by(
    known: dict[str, dict[str, frozenset[str]]],
    grammars: Sequence[Grammar],
    protocol: str,
    operation: str,
) -> frozenset[str]:
    """Return what such a call begins by any of *grammars*, and remember it in *known*, by protocol."""
    found = frozenset().union(*(grammar.begun_at(protocol, operation) for grammar in grammars))
    operations = known.setdefault(protocol, {})
    if len(operations) >= MOST_OPERATIONS:
        operations.clear()
    operations[operation] = found
    return found


# --- from the settings ------------------------------------------------------------------------------


def load_workflows(asked: str) -> Workflows:
    """Return the grammars of a run for `Settings.grammar`: a name, a file, AUTO or ALL.

    Anything wrong with a grammar raises GrammarError.
    """
    if asked not in (AUTO, ALL):
        return Workflows([load(asked)])
    creations = [load(name) for name in (DOCUMENTED, UPSTREAM)]
    operations = [*_operations()] if asked == ALL else []
    return Workflows(creations, operations, is_asked_for=False)


def _operations() -> Iterator[Grammar]:
    """Yield the shipped grammars of operations on servers that are there."""
    for name in shipped():
        grammar = load(name)
        if not grammar.begun_at("REST", CREATE_SERVER) - {PORTAL}:
            yield grammar


def common(chosen: Sequence[str], fixed: Sequence[str]) -> str:
    """Return the grammar for several reports: that of those that cannot be made again, else the vendor's.

    *chosen* are the grammars that were chosen for the others. Empty where nothing is to be made again.
    """
    names = {*chosen, *fixed}
    if len(names) < 2 or not names <= {DOCUMENTED, UPSTREAM}:
        return ""
    return fixed[0] if fixed else DOCUMENTED


def one_workflow(asked: str, what: str) -> None:
    """Raise UsageError if ALL is asked of *what*, which follows one workflow."""
    if asked == ALL:
        raise UsageError(f"--grammar {ALL}: {what}; name one grammar: {', '.join(shipped())}")
