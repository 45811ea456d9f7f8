"""What `tracer check` says of captures, held against the truth of each creation in them."""

from __future__ import annotations

import functools
import json
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tracer.engine.workflows
from lab.harms import BURSTS, ENDS_A_FILE, ROWS, Files, Harmed, read
from tracer.engine import Settings
from tracer.model import Verdict

__all__ = ["KINDS", "Runs", "Scenario", "Wrong", "judged", "paired"]

# A grammar is the same each time; to read it takes longer than a small capture does.
tracer.engine.workflows.load = functools.cache(tracer.engine.workflows.load)

KINDS = ("false", "missing", "phantom", "phantom that deviates", "missed", "wrong step", "crash")
"""false       a creation that went well is told as `deviates`
missing     a step is told missing that the undamaged captures have
phantom     a trace of no creation, or a second one of a creation
missed      a creation without a trace
wrong step  a creation that failed is told at another step
crash       no report at all
"""
STALL_S = 20.0
Create = dict[str, Any]
"""A creation as truth.json has it."""


@dataclass(frozen=True)
class Wrong:
    """One thing that is wrong in one run."""

    kind: str
    """One of `KINDS`; a phantom that deviates is two of them."""
    creation: str
    """Its name; of a phantom the trace's id."""
    said: str
    scenario: str = ""
    row: str = ""
    seed: int = 0
    damage: str = ""

    def __str__(self) -> str:
        where = f"{self.scenario} {self.row} {self.damage}".rstrip()
        return f"{where} (seed {self.seed}): {self.kind}: {self.creation}: {self.said}"


def paired(
    creates: Sequence[Create], verdicts: Sequence[Verdict]
) -> tuple[dict[int, Verdict], list[Verdict]]:
    """Return the trace of each creation, by its place, and the traces of none.

    The most trustworthy id decides: the server's, then the request's, then the name; one of a lower
    rank only where none of a higher rank says otherwise. Creations without ids take traces without
    ids that ended alike, in order.
    """
    keys = ("server_id", "request_id", "name")
    left, found = list(verdicts), {}
    for rank, key in enumerate(keys):
        for place, create in enumerate(creates):
            wanted = create.get(key)
            if place in found or not wanted:
                continue
            for verdict in left:
                differs = any(
                    getattr(verdict, other) and create.get(other) and getattr(verdict, other) != create[other]
                    for other in keys[:rank]
                )
                if getattr(verdict, key) == wanted and not differs:
                    found[place] = verdict
                    left.remove(verdict)
                    break
    for place, create in enumerate(creates):
        if place not in found and not create.get("server_id") and not create.get("request_id"):
            for verdict in left:
                nameless = not verdict.server_id and not verdict.request_id
                if nameless and verdict.outcome == create["outcome"]:
                    found[place] = verdict
                    left.remove(verdict)
                    break
    return found, left


def _missing(verdict: Verdict | None) -> set[str]:
    return {step.step for step in verdict.steps if step.status == "missing"} if verdict else set()


def _deviations(verdict: Verdict) -> str:
    said = [f"{d.kind} {d.step}: {d.message}" for d in verdict.deviations]
    return f"{verdict.outcome}; " + "; ".join(said)


def judged(
    creates: Sequence[Create],
    verdicts: Sequence[Verdict],
    before: Sequence[Verdict] | None = None,
    ends_a_file: bool = False,
) -> Iterator[Wrong]:
    """Yield what is wrong in *verdicts*; *before* are those of the undamaged captures.

    With *ends_a_file* a creation may be unfinished at any step.
    """
    found, left = paired(creates, verdicts)
    undamaged = paired(creates, before)[0] if before is not None else {}
    for place, create in enumerate(creates):
        name = create.get("name") or create.get("server_id") or f"creation {place}"
        verdict = found.get(place)
        if verdict is None:
            yield Wrong("missed", name, create["outcome"])
            continue
        if create["outcome"] == "active" and verdict.verdict == "deviates":
            yield Wrong("false", name, _deviations(verdict))
        missing = _missing(verdict) - _missing(undamaged.get(place))
        if missing:
            yield Wrong("missing", name, ", ".join(sorted(missing)))
        steps = create["failed_step"]
        steps = steps if isinstance(steps, list) else [steps]
        at, is_open = verdict.stopped_at, verdict.outcome == "unfinished"
        if create["outcome"] != "active" and at not in (None, *steps) and not (ends_a_file and is_open):
            wanted = " or ".join(map(str, steps))
            yield Wrong("wrong step", name, f"{verdict.outcome} at {at}, was {create['outcome']} at {wanted}")
    for verdict in left:
        of = [c for c in creates for key in ("server_id", "request_id", "name") if _same(verdict, c, key)]
        ids = verdict.server_id or verdict.request_id or verdict.name
        whose = f"second trace of {of[0].get('name')}" if of else "of nobody" if ids else "without ids"
        yield Wrong("phantom", verdict.id, f"{whose}; {verdict.verdict}, {_deviations(verdict)}")
        if verdict.verdict == "deviates":
            yield Wrong("phantom that deviates", verdict.id, f"{whose}; {_deviations(verdict)}")


def _same(verdict: Verdict, create: Create, key: str) -> bool:
    return bool(getattr(verdict, key)) and getattr(verdict, key) == create.get(key)


@dataclass
class Runs:
    """What came of one row on one or more scenarios."""

    runs: int
    creations: int
    wrong: list[Wrong]

    def counts(self) -> Counter[str]:
        """How often each of `KINDS`."""
        return Counter(wrong.kind for wrong in self.wrong)

    def as_json(self) -> dict[str, Any]:
        """Return the counts as JSON has them; `wrong` is apart."""
        counts = self.counts()
        return {"runs": self.runs, "creations": self.creations} | {kind: counts[kind] for kind in KINDS}

    def wrong_as_json(self) -> list[dict[str, Any]]:
        """Return each wrong thing as JSON has it."""
        return [asdict(wrong) for wrong in self.wrong]


class Scenario:
    """The captures of one folder, read once, with their truth."""

    def __init__(self, folder: Path, name: str = "") -> None:
        self.name = name or folder.name
        self.files: Files = read(folder)
        truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
        self.creates: list[Create] = truth["creates"]

    @functools.cached_property
    def undamaged(self) -> Sequence[Verdict]:
        """What is said of the captures as they are."""
        return _checked(Harmed("", self.files))

    @functools.cached_property
    def wrong_undamaged(self) -> list[Wrong]:
        """What is wrong without damage: that is no matter of damage."""
        return list(judged(self.creates, self.undamaged))

    def run(self, row: str, seed: int) -> Runs:
        """Do the damage of *row* in all its variants, and judge what is said of each."""
        chance = random.Random(f"{self.name} {row} {seed}")
        found = Runs(0, 0, [])
        for harmed in ROWS[row](self.files, chance):
            found.runs += 1
            found.creations += len(self.creates)
            try:
                verdicts = _checked(harmed)
            except Exception as error:  # A benchmark counts what ends a run, and goes on.
                wrongs = [Wrong("crash", "", repr(error))]
            else:
                ends = row in ENDS_A_FILE or (row in BURSTS and harmed.ends_earlier(self.files))
                wrongs = list(judged(self.creates, verdicts, self.undamaged, ends))
            found.wrong += (
                Wrong(w.kind, w.creation, w.said, self.name, row, seed, harmed.what) for w in wrongs
            )
        return found


def _checked(harmed: Harmed) -> Sequence[Verdict]:
    """What `tracer check --stall 20` says of damaged captures."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    try:
        harmed.write(folder)
        return tracer.engine.check([str(folder)], Settings(stall_s=STALL_S)).verdicts
    finally:
        shutil.rmtree(folder)
