"""How large a page of 2,000 creations is, and how long it takes to open, filter, sort and look into.

    python tests/benchmarks/html_2000.py [COUNT [CAPTURE...]]

The creations of the captures (of all shipped ones, if none is named), over and over, each with names, ids,
times and frames of its own, for what is alike would pack too well. In Debian's chromium without a display.
The page must stay below 15 MB; it must open, and filter, in less than 2 s: the least of the rounds counts,
since others use the machine too.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # for lab/browser.py

from lab.browser import CHROMIUM  # noqa: E402

from tracer.capture.arguments import example_names  # noqa: E402
from tracer.engine import Settings, check  # noqa: E402
from tracer.model import CallRecord, Report, StepResult, Verdict  # noqa: E402
from tracer.reports import html  # noqa: E402

MOST_BYTES, MOST_S = 15_000_000, 2.0
DRAWN = """([act, done]) => new Promise((resolve) => {
    const before = performance.now();
    const [isDone, perform] = [done, act].map((text) => new Function(text));
    perform();
    const look = () => requestAnimationFrame(
        isDone() ? () => resolve((performance.now() - before) / 1000) : look);
    look();
})"""
"""How many seconds pass until what an act leads to is drawn."""
FILTER = (
    "const field = document.querySelector('[name=text]'); field.value = '{}';"
    " field.dispatchEvent(new Event('input', {{ bubbles: true }}));"
)
SHOWN = "return document.querySelector('#shown').textContent.includes('of') === {}"
ACTS = (
    ("filter by a name", FILTER.format("0042"), SHOWN.format("true")),
    ("no filter", FILTER.format(""), SHOWN.format("false")),
    ("filter by an error", FILTER.format("quota"), SHOWN.format("true")),
    ("filter by nothing", FILTER.format("no such word"), SHOWN.format("true")),
    ("no filter again", FILTER.format(""), SHOWN.format("false")),
    ("sort by time", "document.querySelector('[data-sort=took]').click()", "return true"),
    ("look into one", "location.hash = '#trace-1'", "return document.querySelector('.arrow-row')"),
)


def varied(verdicts: list[Verdict], number: int, random_: random.Random) -> Verdict:
    """One more creation like one of those."""
    like = verdicts[number % len(verdicts)]
    shift_ns = number * 700_000_000
    server, request = (str(UUID(int=random_.getrandbits(128))) for _ in range(2))
    frame_shift = number * 4000
    calls: dict[int, CallRecord] = {}
    for call in like.calls:
        calls[call.index] = replace(
            call,
            index=number * 10_000 + call.index,
            started_ns=call.started_ns + shift_ns + random_.randrange(400_000),
            duration_ns=call.duration_ns and int(call.duration_ns * random_.uniform(0.5, 2)),
            evidence=tuple((path, frame + frame_shift) for path, frame in call.evidence),
        )

    def step(each: StepResult) -> StepResult:
        own = tuple(calls.get(call.index, call) for call in each.calls)
        started_ns = each.started_ns and each.started_ns + shift_ns
        duration_ns = each.duration_ns and int(each.duration_ns * random_.uniform(0.5, 2))
        return replace(each, calls=own, started_ns=started_ns, duration_ns=duration_ns)

    return replace(
        like,
        id=f"req-{request}",
        request_id=f"req-{request}",
        server_id=server,
        name=f"{like.name or 'vm'}-{number:04}",
        started_ns=like.started_ns + shift_ns,
        ended_ns=like.ended_ns + shift_ns,
        steps=tuple(map(step, like.steps)),
        calls=tuple(calls.values()),
        deviations=tuple(
            replace(each, call=each.call and calls.get(each.call.index, each.call))
            for each in like.deviations
        ),
        notes=tuple(
            replace(each, call=each.call and calls.get(each.call.index, each.call)) for each in like.notes
        ),
        attempt_details=tuple(
            replace(each, started_ns=each.started_ns + shift_ns, steps=tuple(map(step, each.steps)))
            for each in like.attempt_details
        ),
    )


def report(count: int, captures: list[str]) -> Report:
    """A report on that many creations."""
    reports = [check([capture], Settings(stall_s=20)) for capture in captures]
    verdicts = [verdict for each in reports for verdict in each.verdicts]
    random_ = random.Random(1)
    many = [varied(verdicts, number, random_) for number in range(count)]
    return replace(reports[0], verdicts=many, captures=[c for each in reports for c in each.captures])


def measured(path: Path, rounds: int = 5) -> Iterator[tuple[str, list[float]]]:
    """Yield what was done, and how many seconds it took each time."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened, acts = [], dict[str, list[float]]()
        for _ in range(rounds):
            page = browser.new_page()
            before = time.perf_counter()
            page.goto(path.as_uri())
            page.wait_for_selector("#shown:not(:empty)", state="attached")
            page.evaluate(
                "new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))"
            )
            opened.append(time.perf_counter() - before)
            for what, act, done in ACTS:
                acts.setdefault(what, []).append(page.evaluate(DRAWN, [act, done]))
            page.close()
        browser.close()
    yield "open", opened
    yield from acts.items()


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    if CHROMIUM is None:
        sys.exit("no chromium: apt-get install chromium")
    found = report(count, sys.argv[2:] or [f"example:{name}" for name in example_names()])
    calls = sum(len(verdict.calls) for verdict in found.verdicts)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "report.html")
        before = time.perf_counter()
        path.write_bytes(b"".join(html.pieces(found)))
        took_s = time.perf_counter() - before
        size = path.stat().st_size
        print(f"{count:,} creations, {calls:,} calls: {size / 1e6:.1f} MB, written in {took_s:.1f} s")
        slow = []
        for what, times in measured(path):
            print(f"{what:>20}: {min(times):.2f} s at least, {statistics.median(times):.2f} s in the middle")
            if min(times) >= MOST_S:
                slow.append(what)
    if size >= MOST_BYTES or slow:
        sys.exit(f"too large or too slow: {', '.join(slow) or 'size'}")


if __name__ == "__main__":
    main()
