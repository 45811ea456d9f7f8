"""Planes that carry the name of another: said once, with the names that fit; never where they are right."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from lab.captures import CAPTURES, SHARED

from tracer.cli import main
from tracer.engine import Settings, check
from tracer.testing.cloud import COLOCATED, COLOCATED_TAPS, SPREAD, Cloud, Layout
from tracer.testing.creation import Creation
from tracer.testing.packets import pcap

EXTERNAL, INTERNAL = "External_api", "Internal_base"
TOO_LARGE = "load-300"
"""Of the same cloud as ok-concurrent-20."""

GIVEN = sorted(
    path
    for folder in (CAPTURES, SHARED)
    if folder.is_dir()
    for path in folder.iterdir()
    if path.is_dir()
    and path.name != TOO_LARGE
    and (folder is CAPTURES or not (CAPTURES / path.name).is_dir())
)


def remarks(*arguments: str) -> tuple[str, ...]:
    return check(list(arguments), Settings()).remarks


@pytest.mark.parametrize("folder", GIVEN, ids=lambda path: path.name)
def test_no_word_of_captures_as_they_are(folder: Path) -> None:
    """Planes, hosts, both planes in one file, tagged, cut, damaged, idle: the names are right."""
    # A key log beside the captures is no matter of names.
    assert [word for word in remarks(str(folder)) if "--keylog" not in word] == []


@pytest.mark.parametrize("layout", [SPREAD, COLOCATED, COLOCATED_TAPS], ids=["spread", "hosts", "taps"])
def test_no_word_of_other_layouts(layout: Layout, tmp_path: Path) -> None:
    cloud = Cloud(layout)
    cloud.background(0, 60)
    Creation(cloud, at=20).run()
    paths = cloud.network.write(tmp_path)
    assert remarks(*paths) == ()
    # Nor of one plane of them.
    assert all(remarks(path) == () for path in paths)


def test_no_word_of_a_flat_network_on_which_nobody_asks_the_portal(tmp_path: Path) -> None:
    """Its calls to the cloud are seen, beside AMQP and SQL: the plane is called as its owner likes."""
    cloud = Cloud(SPREAD)
    cloud.background(0, 60)
    Creation(cloud, at=20).run()
    planes = cloud.network.packets()
    admin = ipaddress.ip_address(cloud.address["admin"]).packed
    packets = [p for its in planes.values() for p in its if admin not in (p[1][26:30], p[1][30:34])]
    assert 0 < len(packets) < sum(map(len, planes.values()))
    path = tmp_path / "External_api.pcap"
    path.write_bytes(pcap(sorted(packets)))
    assert remarks(f"External_api={path}") == ()


CASES = {
    "swapped": (
        {EXTERNAL: INTERNAL, INTERNAL: EXTERNAL},
        "External_api and Internal_base look swapped: AMQP, SQL and forwarded requests on what is called"
        " External_api, the SC's calls on Internal_base; this fits: Internal_base={inside}"
        " External_api={outside}",
    ),
    "inside alone": (
        {EXTERNAL: INTERNAL},
        "what is called External_api looks like Internal_base: AMQP, SQL and forwarded requests on it;"
        " this fits: Internal_base={inside}",
    ),
    "outside alone": (
        {INTERNAL: EXTERNAL},
        "what is called Internal_base looks like External_api: nothing but the SC's calls on it;"
        " this fits: External_api={outside}",
    ),
    "right": ({EXTERNAL: EXTERNAL, INTERNAL: INTERNAL}, ""),
    "one flat network called External_api": ({EXTERNAL: "both"}, ""),
    "one flat network called Internal_base": ({INTERNAL: "both"}, ""),
}


@pytest.mark.parametrize("name", ["fail-conductor-down", "fail-no-valid-host", "ok-volume"])
@pytest.mark.parametrize("case", CASES)
def test_names_that_do_not_fit(case: str, name: str) -> None:
    """Of real captures: the planes of *name*, called as the case says."""
    names, words = CASES[case]
    files = {plane: str(CAPTURES / name / f"{plane}.pcap.zst") for plane in (EXTERNAL, INTERNAL)}
    arguments = [
        f"{called}={files[plane]}"
        for called, really in names.items()
        for plane in (files if really == "both" else [really])
    ]
    expected = words.format(inside=files[INTERNAL], outside=files[EXTERNAL])
    assert remarks(*arguments) == ((expected,) if expected else ())


def test_it_is_one_warning(capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error, beside the report; what fits is a command line to copy."""
    folder = CAPTURES / "fail-conductor-down"
    swapped = [f"{a}={folder / b}.pcap.zst" for a, b in ((EXTERNAL, INTERNAL), (INTERNAL, EXTERNAL))]
    with pytest.raises(SystemExit):
        main(["check", *swapped])
    [warning] = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    fits = warning.partition("this fits: ")[2].split()
    assert remarks(*fits) == ()
