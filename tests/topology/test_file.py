"""The topology file: what it may say, and how mistakes in it are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracer.errors import UsageError
from tracer.topology import load_topology

WHOLE = """
allow = ["unobserved:4c"]
[planes.External_api]
subnets = ["10.10.0.0/16", "fd00::/8"]
vlan = 101
interface = "eth1"
[planes.Narrow]
subnets = ["10.10.7.0/24"]
vlan = [102, 103]
[roles]
nova-api = ["172.28.0.11:8774", "[fd00::1]:8774"]
vrm = "172.28.0.61"
[ports]
7070 = "http"
5673 = "amqp"
3307 = "mysql"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "topology.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_everything_a_file_may_say(tmp_path: Path) -> None:
    given = load_topology(written(tmp_path, WHOLE))
    assert set(given.plane_names) == {"External_api", "Narrow"}
    assert given.plane_of_subnet("10.10.1.1") == given.plane_of_subnet("fd00::5") == "External_api"
    assert given.plane_of_subnet("10.10.7.1") == "Narrow", "the narrower subnet wins"
    assert given.plane_of_subnet("192.0.2.1") is None
    assert given.vlans == {101: "External_api", 102: "Narrow", 103: "Narrow"}
    assert given.interfaces == {"eth1": "External_api"}
    assert given.role("172.28.0.11", 8774) == given.role("fd00::1", 8774) == "nova-api"
    assert given.role("172.28.0.11", 5000) is None
    assert given.role("172.28.0.61", 7443) == "vrm"
    assert given.ports == {7070: "http1", 5673: "amqp091", 3307: "mysql"}
    assert given.allow == ("unobserved:4c",)


def test_every_part_is_optional(tmp_path: Path) -> None:
    given = load_topology(written(tmp_path, ""))
    assert given.plane_of_subnet("10.0.0.1") is None
    assert given.role("10.0.0.1", 80) is None


@pytest.mark.parametrize(
    "text, words",
    [
        ("[", "not a TOML file"),
        ("[plane.External_api]", "unknown table [plane]"),
        ("planes = 5", "[planes] must hold tables"),
        ("[planes]\nExternal_api = 5", "must be a table"),
        ('[planes.A]\nsubnet = "10.0.0.0/8"', "unknown key 'subnet'"),
        ('[planes.A]\nsubnets = ["10.0.0"]', "'10.0.0' is no subnet"),
        ("[planes.A]\nvlan = 5000", "not a number from 1 to 4094"),
        ('[planes.A]\nvlan = "x"', "not a number from 1 to 4094"),
        ("[planes.A]\nvlan = true", "not a number from 1 to 4094"),
        ("roles = 5", "[roles] must hold lines"),
        ('[roles]\nnova-api = ["api1:8774"]', "'api1:8774' is no address"),
        ('[roles]\nnova-api = ["172.28.0.11:99999"]', "is no address"),
        ('[roles]\nnova-api = ["172.28.0.11:"]', "is no address"),
        ("[roles]\nnova-api = 5", "is no address"),
        ("ports = 5", "[ports] must hold lines"),
        ('[ports]\nx = "http"', "'x' is no port number"),
        ('[ports]\n0 = "http"', "is no port number"),
        ('[ports]\n80 = "ftp"', "unknown protocol 'ftp'"),
        ("[ports]\n80 = [1]", "unknown protocol"),
        ("allow = 5", "allow must be a list"),
        ("allow = [5]", "allow must be a list"),
    ],
)
def test_mistakes_name_the_file_and_the_place(text: str, words: str, tmp_path: Path) -> None:
    """UsageError with the path, what is wrong and what would be right."""
    path = written(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        load_topology(path)
    assert str(path) in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize("make", ["nothing", "folder", "bytes"])
def test_what_cannot_be_read(make: str, tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    if make == "folder":
        path.mkdir()
    elif make == "bytes":
        path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"x\.toml"):
        load_topology(path)


@pytest.mark.parametrize(
    "role, near",
    [
        ("nova_api", "nova-api"),
        ("Nova-API", "nova-api"),
        ("nova-conducter", "nova-conductor"),
        ("neutron-sever", "neutron-server"),
        ("nova-api", ""),
        ("billing", ""),
        ("my-lb", ""),
        ("swift-proxy", ""),
    ],
)
def test_a_role_that_looks_like_a_slip_is_remarked(role: str, near: str, tmp_path: Path) -> None:
    """A role of one's own is allowed; one that is nearly a known one may be meant for it."""
    given = load_topology(written(tmp_path, f'[roles]\n{role} = "172.28.0.11"'))
    assert given.role("172.28.0.11", 1) == role
    assert [remark.rpartition(" ")[2] for remark in given.remarks] == ([f"{near}?"] if near else [])


@pytest.mark.parametrize(
    ("text", "words"), [("n=" + "[" * 20_000, "nested too deep"), ("n=" + "9" * 5_000, "digits")]
)
def test_a_file_that_tomllib_cannot_take_is_a_mistake_of_its_writer(
    text: str, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "t.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=words):
        load_topology(path)
