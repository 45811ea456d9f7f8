"""Every format from every shipped capture: held to golden files, stable, and as others read it."""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import json
import os
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from lab.browser import launched

from tracer.capture.arguments import example_names
from tracer.cli.formats import FORMATS, pieces
from tracer.engine import Settings, check
from tracer.errors import UsageError
from tracer.model import Report
from tracer.reports.csv import COLUMNS
from tracer.reports.html.compact import Packer
from tracer.reports.sequence import rows

BUILD = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "reports" / "conftest.py")))

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden"
NAMES = example_names()
MOST = 3
"""Golden files hold so many traces of a capture at most."""
MERMAID = Path(os.environ.get("TRACER_MERMAID", "/usr/lib/node_modules/mermaid")) / "dist/mermaid.min.js"
"""The npm package of that name."""
SVG = "{http://www.w3.org/2000/svg}"


@functools.cache
def report(name: str) -> Report:
    """The report on a shipped capture, with paths as `captures/NAME/FILE`."""
    with contextlib.chdir(ROOT):
        return check([f"captures/{name}"], Settings(stall_s=20))


def some(name: str) -> Report:
    """The report with the first traces only."""
    found = report(name)
    return replace(found, verdicts=sorted(found.verdicts, key=lambda verdict: verdict.name or "")[:MOST])


@pytest.fixture
def build() -> SimpleNamespace:
    """The builders of reports/conftest.py."""
    return BUILD


def rendered(form: str, found: Report) -> str:
    """A report in a format of text."""
    return b"".join(pieces(form, found)).decode()


def compare(path: Path, now: str, update: bool) -> None:
    """Hold *now* to the golden file."""
    if update:
        path.parent.mkdir(exist_ok=True)
        path.write_text(now, encoding="utf-8")
    assert path.exists(), f"no golden file {path.name}: pytest --update-golden"
    assert now == path.read_text(encoding="utf-8"), "meant? pytest --update-golden, then read the diff"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["svg", "mermaid", "csv"])
def test_golden_format(name: str, form: str, update_golden: bool) -> None:
    compare(GOLDEN / form / f"{name}.{form}", rendered(form, some(name)), update_golden)


@pytest.mark.parametrize("name", NAMES)
def test_golden_of_what_the_page_knows(name: str, update_golden: bool) -> None:
    """A line for each member and each call, so that a change can be read."""
    found = some(name)
    packer = Packer(found)
    lines = []
    for verdict in found.verdicts:
        for key, value in packer.members(verdict).items():
            parts = value if isinstance(value, list) else [value]
            lines += [f"{key}: {json.dumps(part, ensure_ascii=False)}" for part in parts]
    shapes = [f"shape {n}: {json.dumps(shape, ensure_ascii=False)}" for n, shape in enumerate(packer.shapes)]
    compare(GOLDEN / "html" / f"{name}.txt", "\n".join([*lines, *shapes, ""]), update_golden)


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(form, marks=[] if form in ("json", "ocel", "html") else [pytest.mark.long])
        for form in FORMATS
    ],
)
def test_every_run_writes_the_same(form: str) -> None:
    """Whatever the order of sets is this time."""
    command = [sys.executable, "-m", "tracer", "check", "captures/fail-quota-403", "--format", form, "-q"]
    written = [
        subprocess.run(
            command, cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=False
        )
        for seed in ("1", "2")
    ]
    assert [run.returncode for run in written] == [1, 1], written[0].stderr
    assert written[0].stdout
    assert written[0].stdout == written[1].stdout


def test_a_format_is_imported_when_it_is_asked_for() -> None:
    script = (
        "import sys; sys.argv = ['tracer', 'check', 'captures/fail-quota-403', '--format', 'json', '-q']\n"
        "from tracer.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    imported = set(run.stderr.split())
    assert "tracer.reports.json" in imported
    others = {made.module for name, made in FORMATS.items() if name != "json"}
    assert (
        imported & (others | {"jinja2", "csv", "xml.etree.ElementTree", "opentelemetry", "pyarrow"}) == set()
    )


def test_a_missing_library_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "html", FORMATS["html"]._replace(extra="pages"))
    for name in [name for name in sys.modules if name.startswith("tracer.reports.html")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(UsageError, match=r"--format html needs jinja2, .*'cloudvm-tracer\[pages\]'"):
        pieces("html", report("ok-image"))


# --- svg ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_picture_has_an_arrow_and_a_label_for_each_row(name: str) -> None:
    found = some(name)
    picture = ElementTree.fromstring(rendered("svg", found))
    drawn = sum(len(rows(verdict)) for verdict in found.verdicts)
    assert len(picture.findall(f"{SVG}circle")) == drawn
    labels = [text for text in picture.findall(f"{SVG}text") if text.get("class") == "m"]
    assert len(labels) == drawn


def test_the_picture_keeps_within_its_edges(build: SimpleNamespace) -> None:
    picture = ElementTree.fromstring(rendered("svg", build.report(build.stuck(), build.rescheduled())))
    width, height = float(picture.get("width", "0")), float(picture.get("height", "0"))
    for text in picture.findall(f"{SVG}text"):
        assert 0 <= float(text.get("x", "-1")) <= width
        assert 0 <= float(text.get("y", "-1")) <= height


# --- mermaid --------------------------------------------------------------------------------------


def test_mermaid_draws_it(build: SimpleNamespace) -> None:
    """Mermaid itself, in a browser: it takes every diagram, and hostile text stays text."""
    # Also in CI: npm is no package of ours, and its registry may be out of reach.
    if not MERMAID.exists():
        pytest.skip("no mermaid: npm install -g mermaid, or TRACER_MERMAID=…/node_modules/mermaid")
    nasty = (
        "x; y\nend %%{init: {}}%% #35; <b>bold</b> `a` -->> <script>document.title='owned'</script> \\n\" {"
    )
    calls = [replace(call, operation=nasty, callee=nasty, error=nasty) for call in build.flow("4e")]
    hostile = replace(build.hostile(), name=nasty, summary=nasty, calls=tuple(calls))
    draw = """async ([name, text]) => {
        mermaid.initialize({ startOnLoad: false });
        await mermaid.parse(text);
        document.body.innerHTML = (await mermaid.render(name, text)).svg;
        return document.body.textContent;
    }"""
    with launched() as browser:
        page = browser.new_page()
        page.add_script_tag(path=str(MERMAID))
        for number, name in enumerate(NAMES):
            found = some(name)
            shown = page.evaluate(draw, [f"m{number}", rendered("mermaid", found)])
            arrows = page.locator(".messageText").count()
            assert arrows >= sum(len(rows(verdict)) for verdict in found.verdicts)
            for verdict in found.verdicts:
                assert verdict.name in shown
        shown = page.evaluate(draw, ["hostile", rendered("mermaid", build.report(hostile, build.hostile()))])
        assert "x; y\\nend %%{init: {}}%% #35; <b>bold</b> `a`" in shown
        assert page.title() != "owned"
        assert page.locator("b").count() == 0
        page.evaluate(draw, ["nothing", rendered("mermaid", build.report())])


# --- csv ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_table_has_a_row_for_each_step(name: str) -> None:
    found = report(name)
    table = list(csv.DictReader(io.StringIO(rendered("csv", found))))
    assert [(row["trace"], row["step"], row["status"]) for row in table] == [
        (verdict.id, step.step, step.status) for verdict in found.verdicts for step in verdict.steps
    ]
    for row in table:
        assert set(row) == set(COLUMNS)
        if row["calls"] != "0":
            assert row["path"].startswith(f"captures/{name}/")
            assert int(row["frame"]) > 0


@pytest.mark.parametrize("name", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "\t=1", "a,b\"c'\nd"])
def test_no_cell_is_a_formula(build: SimpleNamespace, name: str) -> None:
    verdict = replace(build.conforming(), name=name)
    table = list(csv.DictReader(io.StringIO(rendered("csv", build.report(verdict)))))
    assert table
    for row in table:
        assert row["name"][0] not in "=+-@\t\n"
        assert row["name"].lstrip("'").startswith(name[0] if name[0] != "\t" else "\\t")


@pytest.mark.parametrize("form", FORMATS)
def test_a_report_without_a_trace_is_one_too(form: str, build: SimpleNamespace) -> None:
    assert b"".join(pieces(form, build.report(seen=(("packets", 3),))))


@pytest.mark.parametrize("form", ["json", "html", "svg", "mermaid", "csv"])
def test_hostile_text_is_cut_and_escaped(form: str, build: SimpleNamespace) -> None:
    text = rendered(form, build.report(build.hostile(), build.conforming()))
    assert len(text) < 250_000
    assert "\x1b" not in text
    if form != "json":
        assert "\u202e" not in text
