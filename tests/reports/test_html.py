"""The page, opened in a browser as its readers open it."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lab.browser import launched, opened

from tracer.engine import Settings, check
from tracer.model import Report
from tracer.reports import html
from tracer.reports.sequence import rows

DESKTOP = {"viewport": {"width": 1440, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
NASTY = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"

Write = Callable[[Report], Path]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One browser for all tests here."""
    with launched() as started:
        yield started


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a report as a page."""

    def written(report: Report) -> Path:
        path = tmp_path / "report.html"
        path.write_bytes(b"".join(html.pieces(report)))
        return path

    return written


@pytest.fixture
def mixed(build: SimpleNamespace) -> Report:
    """Seven creations, of which four did not go well."""
    verdicts = [build.conforming(n) for n in (1, 2, 3)]
    verdicts += [build.stopped_at_8b(), build.rescheduled(), build.stuck(), build.unobserved()]
    return build.report(*verdicts, advice=("capture on the controller too: tcpdump -i any",))  # type: ignore[no-any-return]


def names(page: Any) -> list[str]:
    """The names in the list, as they are shown."""
    found = page.locator("#traces tbody tr:not([hidden]) .name").all_text_contents()
    return [name.strip() for name in found]


# --- the overview ---------------------------------------------------------------------------------


def test_the_answer_comes_first(browser: Any, write: Write, mixed: Report) -> None:
    with opened(browser, write(mixed), **DESKTOP) as page:
        assert page.inner_text("h1") == "7 creations: 3 deviate, 1 is inconclusive, 3 conform"
        assert page.locator(".chip").all_inner_texts()[:3] == ["3 deviates", "1 inconclusive", "3 conforms"]


def test_causes_steps_and_losses_are_told(
    browser: Any, write: Write, mixed: Report, build: SimpleNamespace
) -> None:
    report = replace(mixed, captures=[*build.captures(), build.damaged()], forgotten=(("old calls", 3),))
    with opened(browser, write(report), **DESKTOP) as page:
        assert page.locator(".group").count() == 4
        stopped = page.locator(".steps-overview tr.broken th").all_inner_texts()
        assert stopped == ["8b", "8c"]
        assert "48,211 bytes lost" in page.inner_text("#captures")
        assert "tcpdump -i any" in page.inner_text("#captures")
        assert "3 old calls" in page.inner_text(".warning")


def test_step_times_stand_in_the_order_of_their_length(browser: Any, write: Write, mixed: Report) -> None:
    with opened(browser, write(mixed), **DESKTOP) as page:
        where = {
            step: float(
                page.locator(f".steps-overview tr:has(th:text-is('{step}')) .half").get_attribute("x")
            )
            for step in ("1", "4a", "4d", "5")
        }
        assert where["1"] > where["4a"] > where["4d"] > where["5"]


def test_a_report_without_a_trace_says_what_there_was(
    browser: Any, write: Write, build: SimpleNamespace
) -> None:
    path = write(build.report(seen=(("SQL statements", 1200),)))
    text = path.read_text(encoding="utf-8")
    assert "no creation of a VM found" in text
    assert "1,200 SQL statements" in text


# --- the list -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choose", "left"),
    [
        (lambda page: page.fill("[name=text]", "WEB-2"), ["web-2"]),
        (lambda page: page.fill("[name=text]", "98a7861f"), ["fail-cdown"]),
        (lambda page: page.fill("[name=text]", "web compute1 nothing"), []),
        (lambda page: page.select_option("[name=outcome]", "stuck"), ["fail-cdown"]),
        (lambda page: page.select_option("[name=verdict]", "inconclusive"), ["tapped"]),
        (lambda page: page.select_option("[name=stop]", "8c"), ["vrm-down"]),
        (lambda page: page.select_option("[name=host]", "compute2"), ["fail-cdown"]),
        (lambda page: page.click(".chip.inconclusive"), ["tapped"]),
        (lambda page: page.click(".stop[data-value='8c']"), ["vrm-down"]),
        (lambda page: page.click(".group:has-text('no consumer')"), ["fail-cdown"]),
    ],
)
def test_the_list_is_filtered(
    browser: Any, write: Write, mixed: Report, choose: Callable[[Any], None], left: list[str]
) -> None:
    with opened(browser, write(mixed), **DESKTOP) as page:
        assert len(names(page)) == 7
        choose(page)
        assert names(page) == left
        assert page.inner_text("#shown") == f"{len(left)} of 7"
        assert page.locator("#none").is_visible() == (not left)
        page.click("#reset")
        page.wait_for_selector("#shown:text-is('7')")
        assert len(names(page)) == 7


def test_the_list_is_sorted_both_ways(browser: Any, write: Write, build: SimpleNamespace) -> None:
    late = replace(build.conforming(10), started_ns=build.T0 + 5, ended_ns=build.T0 + 6)
    with opened(
        browser, write(build.report(build.conforming(2), late, build.conforming(1))), **DESKTOP
    ) as page:
        assert names(page) == ["web-2", "web-10", "web-1"]
        page.click("[data-sort=name]")
        assert names(page) == ["web-1", "web-2", "web-10"]
        page.click("[data-sort=name]")
        assert names(page) == ["web-10", "web-2", "web-1"]
        page.click("[data-sort=took]")
        assert names(page)[0] == "web-10"


def test_from_the_list_to_a_trace_and_back(browser: Any, write: Write, mixed: Report) -> None:
    with opened(browser, write(mixed), **DESKTOP) as page:
        page.select_option("[name=verdict]", "deviates")
        page.click("#traces a:text('vrm-down')")
        page.wait_for_selector(".arrow-row")
        assert "vrm-down" in page.inner_text("#trace h1")
        assert "2 of 3" in page.inner_text(".walk")
        page.click("text=next ›")
        page.wait_for_selector("#trace h1:has-text('fail-cdown')")
        page.click("text=all creations")
        page.wait_for_selector("#traces", state="visible")
        assert len(names(page)) == 3


# --- a trace --------------------------------------------------------------------------------------


def test_the_ladder_has_a_column_for_each_role_and_an_arrow_for_each_call(
    browser: Any, write: Write, build: SimpleNamespace
) -> None:
    verdict = build.conforming()
    with opened(browser, write(build.report(verdict)), **DESKTOP) as page:
        columns = [
            "admin sc lb nova-api keystone neutron-server db nova-conductor nova-scheduler nova-compute vrm",
            "admin sc lb nova-api keystone glance-api neutron-server placement db nova-conductor"
            " nova-scheduler nova-compute vrm",
        ]
        for every, roles in zip((False, True), columns, strict=True):
            if every:
                page.click("[name=every]")
            assert page.locator(".arrow-row").count() == len(rows(verdict, every=every))
            assert (
                page.evaluate(
                    "[...document.querySelectorAll('.ladder .head title')].map((title) => title.textContent)"
                )
                == roles.split()
            )
        labels = page.locator(".arrow-row text").all_text_contents()
        assert "SELECT project_user_quotas ok ×2" in labels
        planes = page.locator(".legend").all_inner_texts()
        assert planes == ["External_api", "Internal_base"]


def test_an_arrow_runs_from_caller_to_callee(browser: Any, write: Write, build: SimpleNamespace) -> None:
    ends = """(label) => {
        const rows = [...document.querySelectorAll('.arrow-row')];
        const row = rows.find((row) => row.getAttribute('aria-label').includes(label));
        const dot = Number(row.querySelector('.dot').getAttribute('cx'));
        const box = row.querySelector('.tip').getBBox();
        return [dot, box.x + box.width / 2];
    }"""
    with opened(browser, write(build.report(build.conforming())), **DESKTOP) as page:
        start, end = page.evaluate(ends, "call select_destinations")
        assert start < end
        start, end = page.evaluate(ends, "reply select_destinations")
        assert start > end


def test_time_to_scale(browser: Any, write: Write, build: SimpleNamespace) -> None:
    """The longest pause of the flow is the longest way, and every call stays where its time is."""
    verdict = build.conforming()
    where = """[...document.querySelectorAll('.arrow-row .shaft')].map((path) =>
        Number(/M\\S+ (\\S+?)[Hh]/.exec(path.getAttribute('d'))[1]))"""
    with opened(browser, write(build.report(verdict)), **DESKTOP) as page:
        even = page.evaluate(where)
        assert len({round(b - a) for a, b in pairwise(even)}) == 1
        page.click("[name=proportional]")
        drawn = page.evaluate(where)
    times = [row.call.started_ns for row in rows(verdict)]
    scale = (drawn[-1] - drawn[0]) / (times[-1] - times[0])
    assert drawn == pytest.approx([drawn[0] + (t - times[0]) * scale for t in times], abs=0.6)


def test_what_never_came_is_dashed_between_its_ends(
    browser: Any, write: Write, build: SimpleNamespace
) -> None:
    stuck = build.stuck()
    with opened(browser, write(build.report(stuck)), **DESKTOP) as page:
        mark = page.locator(".mark-row.missing")
        assert mark.count() == 1
        assert "no consumer" in mark.text_content()
        dashes = mark.locator("path").evaluate("(path) => getComputedStyle(path).strokeDasharray")
        assert dashes != "none"
        assert "not reached: 8c" in page.text_content(".mark-row.rest")
        assert page.inner_text(".status-owed") == "OWED"


@pytest.mark.parametrize(
    ("which", "kind", "words"),
    [
        ("stopped_at_8b", "deviation", "neutron-server answered 503"),
        ("rescheduled", "attempt", "attempt 2 on compute1"),
        ("unobserved", "unobserved", "4a, 4c, 4d not observed: both ends are on controller1"),
    ],
)
def test_marks_between_the_calls(
    browser: Any, write: Write, build: SimpleNamespace, which: str, kind: str, words: str
) -> None:
    with opened(browser, write(build.report(getattr(build, which)())), **DESKTOP) as page:
        assert any(words in text for text in page.locator(f".mark-row.{kind}").all_text_contents())


def test_a_click_on_an_arrow_shows_the_call(browser: Any, write: Write, build: SimpleNamespace) -> None:
    with opened(browser, write(build.report(build.stopped_at_8b())), **DESKTOP) as page:
        page.click(".arrow-row.bad")
        shown = page.inner_text("#call")
        for words in (
            "POST /v2.0/ports",
            "503, 3 alike in a row",
            "no agent for binding host compute1",
            "172.28.0.44:9696",
        ):
            assert words in shown
        assert re.search(r"frame \d+", shown)
        page.keyboard.press("Escape")
        assert page.locator("#call").is_hidden()
        page.locator(".arrow-row").first.focus()
        page.keyboard.press("Enter")
        assert "POST /sc/cloudhosts" in page.inner_text("#call")


def test_ids_and_filters_are_copied(browser: Any, write: Write, build: SimpleNamespace) -> None:
    verdict = build.conforming()
    with opened(browser, write(build.report(verdict)), **DESKTOP) as page:
        page.click("dd:has(code) .copy >> nth=0")
        page.click("text=copy filter >> nth=0")
        server, filter_ = page.evaluate("window.copied")
    assert server == verdict.server_id
    frames = {frame for call in verdict.calls for path, frame in call.evidence if path == build.EXT}
    assert filter_ == f"frame.number in {{{', '.join(str(frame) for frame in sorted(frames))}}}"


def test_the_page_knows_every_frame_and_time(browser: Any, write: Write, mixed: Report) -> None:
    """What is packed comes out again, to the microsecond and the frame."""
    unpack = """async (number) => (await details(number)).calls.map((call) =>
        [call.index, call.started, call.took, call.frames.map(({ file, frame }) => [file, frame])])"""
    files = {capture.path: number for number, capture in enumerate(mixed.captures)}
    with opened(browser, write(mixed), **DESKTOP) as page:
        for number, verdict in enumerate(mixed.verdicts):
            assert page.evaluate(unpack, number) == [
                [
                    call.index,
                    call.started_ns // 1000 - verdict.started_ns // 1000,
                    None if call.duration_ns is None else call.duration_ns // 1000,
                    [[files[path], frame] for path, frame in call.evidence],
                ]
                for call in verdict.calls
            ]


def test_bars_are_as_long_as_they_took(browser: Any, write: Write, build: SimpleNamespace) -> None:
    verdict = build.conforming()
    with opened(browser, write(build.report(verdict)), **DESKTOP) as page:
        widths = page.evaluate(
            "Object.fromEntries([...document.querySelectorAll('button.bar-row')].map((row) =>"
            " [row.title, row.querySelector('.bar').getBoundingClientRect().width]))"
        )
    ratio = (
        widths["admin > sc POST /sc/cloudhosts"] / widths["nova-compute > neutron-server POST /v2.0/ports"]
    )
    assert ratio == pytest.approx(6642 / 1505, rel=0.02)


# --- looks, and hostile input ---------------------------------------------------------------------


def test_light_and_dark(browser: Any, write: Write, mixed: Report) -> None:
    path = write(mixed)
    grounds = []
    for scheme in ("light", "dark"):
        with opened(browser, path, "#trace-3", color_scheme=scheme, **DESKTOP) as page:
            colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
            grounds.append(sum(map(int, re.findall(r"\d+", colour))))
    assert grounds[0] > 600 > 200 > grounds[1]


@pytest.mark.parametrize("place", ["", "#trace-3", "#trace-4", "#trace-6"])
def test_a_phone_scrolls_in_one_direction_only(browser: Any, write: Write, mixed: Report, place: str) -> None:
    with opened(browser, write(mixed), place, **PHONE) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        if place:
            assert page.evaluate("document.querySelector('.ladder').scrollWidth") <= 390


@pytest.mark.parametrize("device", [DESKTOP, PHONE])
@pytest.mark.parametrize("alone", [True, False])
def test_hostile_text_stays_text(
    browser: Any, write: Write, build: SimpleNamespace, alone: bool, device: dict[str, Any]
) -> None:
    name = NASTY + "]]>--><!--</script><script>1" + "A" * 10_000
    calls = build.flow("4e")
    calls[2] = replace(
        calls[2],
        operation=f"POST /{NASTY}",
        result="500",
        error=NASTY,
        callee=NASTY,
        plane=NASTY,
        request_id=NASTY,
    )
    verdict = replace(
        build.hostile(),
        name=name,
        id=NASTY,
        summary=NASTY,
        calls=tuple(calls),
        api_host=NASTY,
        project_id=NASTY,
    )
    report = build.report(*([verdict] if alone else [verdict, build.hostile(), build.conforming()]))
    report.captures[0].path = f"{NASTY}/External_api.pcap"
    with opened(browser, write(report), "#trace-0", **device) as page:
        page.wait_for_selector(".arrow-row")
        assert "<script>" in page.inner_text("#trace h1")
        assert page.evaluate("document.scripts.length") == 3
        assert page.evaluate("document.images.length") == 0
        assert "owned" not in page.title() or "<script>" in page.title()
        for row in page.locator(".arrow-row").all()[:4]:
            row.dispatch_event("click")
        assert page.locator("#call").is_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == device["viewport"]["width"]


def test_a_page_may_do_nothing_but_be_looked_at(browser: Any, write: Write, build: SimpleNamespace) -> None:
    """The browser itself refuses what a mistake of ours would let through."""
    with complaining(browser, write(build.report(build.conforming()))) as (page, complaints):
        page.evaluate(
            """document.body.insertAdjacentHTML('beforeend', `<img src=x onerror="document.title='owned'">`);
            const script = document.createElement('script');
            script.textContent = `document.title = 'owned'`;
            document.body.append(script);"""
        )
        page.evaluate("fetch('http://192.0.2.1/').catch(() => 0)")
        assert page.title() != "owned"
        assert all("Content Security Policy" in words or "ERR_" in words for words in complaints)
        assert len(complaints) >= 2


@contextmanager
def complaining(browser: Any, path: Path) -> Iterator[tuple[Any, list[str]]]:
    """A page whose complaints are collected and not held against it."""
    context = browser.new_context(**DESKTOP)
    page, complaints = context.new_page(), []
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(path.as_uri())
    yield page, complaints
    context.close()


def test_a_megabyte_of_names_is_cut(write: Write, build: SimpleNamespace) -> None:
    verdict = replace(build.hostile(), name="N" * 1_000_000, summary="S" * 1_000_000)
    assert write(build.report(verdict, verdict)).stat().st_size < 200_000


def test_many_traces_are_small(write: Write, build: SimpleNamespace) -> None:
    """2,000 shall be under 15 MB; these are more alike than real ones, so they must be far smaller."""
    report = build.report(*(build.conforming(n) for n in range(200)))
    assert write(report).stat().st_size < 200 * 4000


def test_many_creations_are_opened_filtered_and_sorted(browser: Any, tmp_path: Path) -> None:
    """A short form of the benchmark of 2,000, by its own hands; without times."""
    benchmark = runpy.run_path(str(Path(__file__).parent.parent / "benchmarks" / "html_2000.py"))
    report = benchmark["report"](60, ["example:fail-quota-403", "example:fail-no-valid-host"])
    path = tmp_path / "many.html"
    path.write_bytes(b"".join(html.pieces(report)))
    assert path.stat().st_size < 60 * benchmark["MOST_BYTES"] / 2000 + 150_000
    with opened(browser, path, **DESKTOP) as page:
        left = []
        for what, act, done in benchmark["ACTS"]:
            page.evaluate(benchmark["DRAWN"], [act, done])
            left.append((what, page.inner_text("#shown")))
    assert left[:5] == [
        ("filter by a name", "1 of 60"),
        ("no filter", "60"),
        ("filter by an error", "40 of 60"),
        ("filter by nothing", "0 of 60"),
        ("no filter again", "60"),
    ]


# --- with real captures ---------------------------------------------------------------------------


def test_the_filter_shows_exactly_the_frames_of_a_trace(browser: Any, write: Write) -> None:
    """tshark understands the filter as Wireshark does."""
    if shutil.which("tshark") is None:
        pytest.skip("no tshark")
    report = check(["example:fail-quota-403"], Settings(stall_s=20))
    paths = {Path(capture.path).name.partition(".")[0]: capture.path for capture in report.captures}
    with opened(browser, write(report), **DESKTOP) as page:
        for number, verdict in enumerate(report.verdicts):
            filters = page.evaluate(f"details({number}).then((trace) => displayFilters(trace.calls))")
            shown = set()
            for name, _, text in filters:
                command = ["tshark", "-r", paths[name], "-Y", text, "-T", "fields", "-e", "frame.number"]
                run = subprocess.run(command, capture_output=True, text=True, check=True)
                shown |= {(paths[name], int(line)) for line in run.stdout.split()}
            assert shown == {place for call in verdict.calls for place in call.evidence}


def test_shared_values_end_no_script(write: Write, build: SimpleNamespace) -> None:
    calls = [replace(call, operation="GET /</script><script>") for call in build.flow("4e")]
    text = write(build.report(replace(build.conforming(), calls=tuple(calls)))).read_text(encoding="utf-8")
    shared = re.search(r'<script type="application/json" id="shared">(.*?)</script>', text, re.DOTALL)
    assert shared is not None
    assert any("</script>" in shape[4] for shape in json.loads(shared[1])["shapes"])
