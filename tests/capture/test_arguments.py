"""CAPTURE arguments mean files, and planes."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from tracer.capture import CaptureArgument, plane_of_name, resolve
from tracer.errors import SourceError, TracerError, UsageError

PLANES = {"External_api", "Internal_base", "plane2"}
NOBODY = 65534


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


@pytest.mark.parametrize(
    ("name", "plane"),
    [
        ("Internal_base.pcap", "Internal_base"),
        ("some/where/Internal_base.pcap.zst", "Internal_base"),
        ("Internal_base", "Internal_base"),
        ("External_api.pcap0", "External_api"),
        ("External_api12", "External_api"),
        ("External_api_00001.pcap", "External_api"),
        ("External_api-3.pcap.gz", "External_api"),
        ("External_api_00001_20260101120000.pcapng", "External_api"),
        ("plane2.pcap", "plane2"),
        ("plane2_00007.pcap", "plane2"),
        ("internal_base.pcap", None),
        ("ctl-any.pcap", None),
        ("My.Internal_base.pcap", None),
        ("12345.pcap", None),
        ("-", None),
    ],
)
def test_plane_of_a_name(name: str, plane: str | None) -> None:
    """A capture is of the plane that its name, up to the first dot and without rotation digits, is."""
    assert plane_of_name(name, PLANES) == plane


def test_a_folder_gives_its_captures_in_the_order_of_rotation(tmp_path: Path) -> None:
    """Captures of a folder come as they were rotated; other files and folders are ignored, and named."""
    captures = ["a.cap", "a.pcap2", "a.pcap10", "a.pcap.3", "b.PCAPNG.zst", "b.pcap.gz", "c.pcap0.gz"]
    others = ["README.md", "truth.json", "pcap", "x.pcap.bak", "sub/d.pcap"]
    touch(tmp_path, *reversed(captures), *others)
    found, ignored = resolve([str(tmp_path)], PLANES)
    assert [os.path.basename(capture.path) for capture in found] == captures
    assert sorted(map(os.path.basename, ignored)) == ["README.md", "pcap", "sub", "truth.json", "x.pcap.bak"]


def test_the_path_is_as_reached_from_the_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative argument gives relative paths: they are what reports print."""
    touch(tmp_path, "caps/Internal_base.pcap")
    monkeypatch.chdir(tmp_path)
    assert resolve(["caps"], PLANES).captures == [CaptureArgument("caps/Internal_base.pcap", "Internal_base")]


def test_a_plane_before_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PLANE= names the plane of a file, of standard input, or of all captures in a folder."""
    touch(tmp_path, "x.pcap", "caps/y.pcap", "caps/External_api.pcap")
    monkeypatch.chdir(tmp_path)
    given = ["Internal_base=x.pcap", "plane2=-", "Internal_base=caps"]
    assert [each[:2] for each in resolve(given, PLANES).captures] == [
        ("x.pcap", "Internal_base"),
        ("-", "plane2"),
        ("caps/External_api.pcap", "Internal_base"),
        ("caps/y.pcap", "Internal_base"),
    ]


def test_an_existing_path_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose name holds '=' is that file, even if its name begins like a plane."""
    touch(tmp_path, "Internal_base=x.pcap", "x.pcap", "run=3/y.pcap")
    monkeypatch.chdir(tmp_path)
    given = ["Internal_base=x.pcap", "run=3/y.pcap", "run=3"]
    assert [each[:2] for each in resolve(given, PLANES).captures] == [
        ("Internal_base=x.pcap", None),
        ("run=3/y.pcap", None),
    ]


def test_a_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that two arguments mean is one capture; the plane given for it holds."""
    touch(tmp_path, "x.pcap", "y.pcap")
    monkeypatch.chdir(tmp_path)
    given = [".", "x.pcap", "Internal_base=x.pcap"]
    assert [(os.path.basename(path), plane) for path, plane, _ in resolve(given, PLANES).captures] == [
        ("x.pcap", "Internal_base"),
        ("y.pcap", None),
    ]


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ([], UsageError, ["no capture given"]),
        ([""], UsageError, ["empty argument"]),
        (["-", "-"], UsageError, ["twice"]),
        (
            ["Internal_bse=x.pcap"],
            UsageError,
            ["'Internal_bse'", "External_api, Internal_base", "did you mean"],
        ),
        (["storage=x.pcap"], UsageError, ["topology file", "[planes.storage]"]),
        (["=x.pcap"], UsageError, ["[planes.NAME]"]),
        (["Internal_base="], UsageError, ["Internal_base=FILE"]),
        (["plane2=x.pcap", "Internal_base=x.pcap"], UsageError, ["two planes", "plane2", "Internal_base"]),
        (["Internal_base=missing.pcap"], SourceError, ["missing.pcap", "no such file"]),
        (["y.pcap"], SourceError, ["no such file", "did you mean x.pcap"]),
        (["x"], SourceError, ["no such file", "x.pcap"]),
        (["trace.pcap"], SourceError, ["no such file: is it in"]),
        (["nowhere/x.pcap"], SourceError, ["no folder nowhere"]),
        (["empty"], SourceError, ["no captures in this folder", "it is empty"]),
        (["docs"], SourceError, ["no captures", "2 × .md", "1 × .json", "folders below"]),
    ],
)
def test_mistakes_are_said_in_one_line(
    given: list[str],
    error: type[TracerError],
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What cannot be resolved is refused with what, where and what to do."""
    touch(tmp_path, "x.pcap", "docs/a.md", "docs/b.md", "docs/c.json", "docs/captures/x.pcap")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as raised:
        resolve(given, PLANES)
    text = str(raised.value)
    assert "\n" not in text
    assert [word for word in words if word not in text] == []


def test_a_folder_without_permission() -> None:
    """A folder that may not be listed is refused, not empty. Root may list any: it is not root who asks."""
    with tempfile.TemporaryDirectory() as folder:
        shut = Path(folder, "shut")
        Path(folder).chmod(0o755)
        shut.mkdir(mode=0)
        asking = os.geteuid()
        if asking == 0:
            os.seteuid(NOBODY)
        try:
            with pytest.raises(SourceError, match="no permission"):
                resolve([str(shut)], PLANES)
        finally:
            os.seteuid(asking)


# --- the offset of a clock ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "behind_ns"),
    [
        ("+1.2ms", 1_200_000),
        ("-50us", -50_000),
        ("+2s", 2_000_000_000),
        ("+1h", 3_600_000_000_000),
        ("-3µs", -3_000),
        ("+7ns", 7),
    ],
)
def test_a_clock_is_corrected_by_hand(
    words: str, behind_ns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PLANE=FILE@OFFSET, and FILE@OFFSET."""
    touch(tmp_path, "x.pcap")
    monkeypatch.chdir(tmp_path)
    (named,) = resolve([f"Internal_base=x.pcap@{words}"], PLANES).captures
    (alone,) = resolve([f"x.pcap@{words}"], PLANES).captures
    assert named == CaptureArgument("x.pcap", "Internal_base", behind_ns)
    assert alone == CaptureArgument("x.pcap", None, behind_ns)


@pytest.mark.parametrize("words", ["1.2ms", "+1.2", "+ms", "+1.2 ms", "+1e3ms", "+99999h", "", "+1d"])
def test_a_strange_offset_is_refused(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what would be one."""
    touch(tmp_path, "x.pcap")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="@"):
        resolve([f"x.pcap@{words}"], PLANES)


def test_a_file_with_an_at_sign_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What exists is meant."""
    touch(tmp_path, "x.pcap", "x.pcap@+2s")
    monkeypatch.chdir(tmp_path)
    assert resolve(["x.pcap@+2s"], PLANES).captures == [CaptureArgument("x.pcap@+2s", None)]
