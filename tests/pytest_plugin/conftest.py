"""Small captures of made creations, and pytest inside of pytest."""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import tracer.engine.workflows
from tracer.testing import Cloud, Creation, Network

# A grammar is the same each time; to read it takes longer than a small capture does.
tracer.engine.workflows.load = functools.cache(tracer.engine.workflows.load)

PLUGIN = "tracer.pytest_plugin"
Run = Callable[..., pytest.RunResult]


@pytest.fixture(scope="session")
def captures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders: ok, broken (8b), blind (External_api alone), mixed (one good, two broken), empty, …"""
    top = tmp_path_factory.mktemp("captures")

    def folder(name: str, *creations: dict[str, object], planes: tuple[str, ...] = ()) -> None:
        cloud = Cloud()
        cloud.background(0, 230, every=100)
        for number, more in enumerate(creations):
            Creation(cloud, at=100 + 5 * number, **more).run()  # type: ignore[arg-type]
        (top / name).mkdir()
        for path in map(Path, cloud.network.write(top / name)):
            if planes and path.stem not in planes:
                path.unlink()

    neutron_is_down = {"hosts": ({"compute1": {"8b": "refused"}},), "name": "web-2"}
    folder("ok", {})
    folder("broken", neutron_is_down)
    folder("blind", {}, planes=("External_api",))
    folder("mixed", {}, neutron_is_down, {"breaks": {"4c": "403"}, "name": "web-3"})
    folder("empty")
    (top / "garbage").mkdir()
    (top / "garbage" / "Internal_base.pcap").write_bytes(b"no capture at all, but long enough for a header")
    (top / "nothing").mkdir()
    Network().write(top / "nothing")
    return top


@pytest.fixture(scope="session")
def installed() -> list[str]:
    """What loads the plugin where it is not installed by its entry point."""
    known = any(point.value == PLUGIN for point in entry_points(group="pytest11"))
    return [] if known else ["-p", PLUGIN]


@pytest.fixture
def run(pytester: pytest.Pytester, captures: Path, installed: list[str]) -> Run:
    """Runs pytest in a folder of its own, in which `captures` leads to the captures."""
    (pytester.path / "captures").symlink_to(captures)

    def run(*arguments: str, test: str = "", ini: str = "") -> pytest.RunResult:
        if test:
            pytester.makepyfile(test)
        if ini:
            pytester.makeini(ini)
        return pytester.runpytest_inprocess(*installed, "-p", "no:cacheprovider", *arguments)

    return run
