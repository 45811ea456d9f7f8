"""What other programs read, from every shipped capture: one of them in full, of the others a digest.

A digest of a report's content, for whole golden files would be megabytes: what it says can be read in the
golden files of text, CSV and calls, which change with it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from pyarrow import parquet as arrow

from tracer import __version__, engine
from tracer.capture.arguments import example_names
from tracer.cli.formats import FORMATS, pieces
from tracer.engine import Settings
from tracer.model import Report
from tracer.reports import parquet

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden" / "exports"
NAMES = example_names()
WHOLE = "fail-400"
FORMS = [name for name in FORMATS if name not in ("html", "svg", "mermaid", "csv")]
"""Those others have golden files of their own: test_formats.py."""


@functools.cache
def report(name: str) -> Report:
    """The report on a shipped capture, with paths as `captures/NAME/FILE`."""
    with contextlib.chdir(ROOT):
        return engine.check([f"captures/{name}"], Settings(stall_s=20))


def content(form: str, written: bytes) -> str:
    """What a report holds, in lines, whatever the version that wrote it and the order of members."""
    if form == "parquet":
        table = arrow.read_table(io.BytesIO(written)).to_pylist()
        return "".join(json.dumps(row, default=str, ensure_ascii=False) + "\n" for row in table)
    if form == "junit":
        tree = ElementTree.fromstring(written)
        ElementTree.indent(tree)
        return ElementTree.canonicalize(ElementTree.tostring(tree, "unicode")) + "\n"
    text = written.decode()
    documents = text.splitlines() if form == "otlp" else [text]
    shown = [
        json.dumps(json.loads(document), indent=1, sort_keys=True, ensure_ascii=False)
        for document in documents
    ]
    return "\n".join([*shown, ""]).replace(f'"version": "{__version__}"', '"version": "…"')


def hold(path: Path, now: str, update: bool) -> None:
    """Hold *now* to the golden file."""
    if update:
        path.parent.mkdir(exist_ok=True)
        path.write_text(now, encoding="utf-8")
    assert path.exists(), f"no golden file {path.name}: pytest --update-golden"
    assert now == path.read_text(encoding="utf-8"), "meant? pytest --update-golden, then read the diff"


@pytest.mark.parametrize("form", FORMS)
def test_one_in_full(form: str, update_golden: bool) -> None:
    now = content(form, b"".join(pieces(form, report(WHOLE))))
    hold(GOLDEN / f"{WHOLE}.{form}.txt", now, update_golden)


def test_calls_in_full(update_golden: bool) -> None:
    with contextlib.chdir(ROOT):
        records = list(engine.calls([f"captures/{WHOLE}"], Settings(stall_s=20)))
    hold(
        GOLDEN / f"{WHOLE}.calls.txt",
        content("parquet", b"".join(parquet.call_pieces(records))),
        update_golden,
    )


@pytest.mark.parametrize("name", NAMES)
def test_all_by_their_digests(name: str, update_golden: bool) -> None:
    """A line for each format: its size, so that one can see what changed, and a digest of its content."""
    lines = []
    for form in FORMS:
        now = content(form, b"".join(pieces(form, report(name))))
        digest = hashlib.sha256(now.encode()).hexdigest()[:16]
        lines.append(f"{form:<8} {now.count(chr(10)):>7} lines {len(now):>9} characters  {digest}")
    hold(GOLDEN / f"{name}.digests.txt", "\n".join([*lines, ""]), update_golden)
