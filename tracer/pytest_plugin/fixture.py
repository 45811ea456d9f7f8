"""The fixture `tracer`: checks captures, or records them, with the settings of the test's marker."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tracer.errors import UsageError
from tracer.pytest_plugin.settings import Asked, locate, of_item, several, stall_seconds
from tracer.pytest_plugin.stash import HEARD, KEPT
from tracer.settings import Settings
from tracer.testing import Traffic, conforms
from tracer.testing.claims import nanoseconds

if TYPE_CHECKING:
    from tracer.pytest_plugin.recording import Recording

__all__ = ["Tracer", "fixture"]


class Tracer:
    """Checks captures with the settings of the test's marker; arguments of its methods override them."""

    def __init__(self, item: pytest.Item, asked: Asked) -> None:
        self._item, self._asked = item, asked
        self._bases = (item.path.parent, item.config.rootpath)

    def __repr__(self) -> str:
        return f"<tracer of {self._item.name}: {self._asked.settings.grammar}>"

    conforms = staticmethod(conforms)
    """For `assert trace == tracer.conforms("cloudvm_create")`: the class of tracer.testing.traffic."""

    def check(
        self,
        *captures: str | os.PathLike[str],
        grammar: str | os.PathLike[str] | None = None,
        topology: str | os.PathLike[str] | None = None,
        allow: Sequence[str] = (),
        stall: str | float | timedelta | None = None,
    ) -> Traffic:
        """Return the traffic in *captures*, or in those of the marker: files, folders, `example:NAME`.

        Relative paths are searched in the folder of the test's file, then in pytest's root. *allow* is added
        to what is allowed already. Raises SourceError, GrammarError or UsageError with a one-line message.
        """
        __tracebackhide__ = True
        paths = tuple(locate(path, self._bases) for path in captures) or self._asked.captures
        if not paths:
            raise UsageError(
                "no captures to check: tracer.check('FOLDER'), @pytest.mark.tracer(captures='FOLDER')"
                " or tracer_captures in the ini file"
            )
        found = Traffic(paths, self._settings(grammar, topology, allow, stall))
        # Read now, so that an unreadable capture fails on this line of the test.
        _ = found.report
        return found

    def record(
        self,
        planes: Mapping[str, str] | str | None = None,
        *more: str,
        amqp: str | Sequence[str] | None = None,
        bpf: str | None = None,
        settle: str | float | timedelta = 1.0,
        grammar: str | os.PathLike[str] | None = None,
        topology: str | os.PathLike[str] | None = None,
        allow: Sequence[str] = (),
        stall: str | float | timedelta | None = None,
    ) -> Recording:
        """Return a recording for a `with` block: `with tracer.record({"Internal_base": "eth1"}) as traffic:`

        *interfaces* maps planes to interfaces, or names interfaces as capture points (`record("any")`). *bpf*
        is a filter in the syntax of tcpdump; default: the ports of the protocols. When the block ends,
        recording goes on for *settle*. Secrets are overwritten, unless --tracer-raw; the captures are kept as
        --tracer-keep says.

        *amqp* is the URL of a RabbitMQ with its firehose on (amqp://USER:PASSWORD@HOST/VHOST), or several
        URLs, with or without interfaces. The password may be in TRACER_AMQP_PASSWORD. Messages of brokers are
        checked as they come and not kept, so only against *grammar*.
        """
        from tracer.pytest_plugin.recording import Recording, folder_of, interfaces_of, without_user

        interfaces = interfaces_of(planes, more)
        brokers = [] if amqp is None else [amqp] if isinstance(amqp, str) else [*amqp]
        if not interfaces and not brokers:
            raise UsageError(
                "no source given: tracer.record({'Internal_base': 'eth1'}), or tracer.record(amqp='amqp://…')"
            )
        folders = self._item.stash.setdefault(KEPT, [])
        folder = folder_of(self._item, len(folders) + 1)
        if interfaces:
            folders.append(folder)
        heard = self._item.stash.setdefault(HEARD, [])
        heard += [shown for shown in map(without_user, brokers) if shown not in heard]
        return Recording(
            self._item,
            interfaces,
            brokers,
            folder,
            self._settings(grammar, topology, allow, stall),
            bpf,
            nanoseconds(settle) / 1e9,
        )

    def tidy(self) -> None:
        """Remove the recorded captures that are not to be kept."""
        folders = self._item.stash.get(KEPT, [])
        if folders:
            from tracer.pytest_plugin.recording import keep

            keep(self._item, folders)

    def _settings(
        self,
        grammar: str | os.PathLike[str] | None,
        topology: str | os.PathLike[str] | None,
        allow: Sequence[str],
        stall: str | float | timedelta | None,
    ) -> Settings:
        settings = self._asked.settings
        return replace(
            settings,
            grammar=locate(grammar, self._bases) if grammar else settings.grammar,
            topology=Path(locate(topology, self._bases)) if topology else settings.topology,
            allow=(*settings.allow, *several("allow", allow)),
            stall_s=settings.stall_s if stall is None else stall_seconds(stall),
        )


def fixture(request: pytest.FixtureRequest) -> Generator[Tracer]:
    """Yield the Tracer of one test; an invalid marker is an error of the test's set-up."""
    wrong = ""
    try:
        asked = of_item(request.node)
    except UsageError as error:
        wrong = f"tracer: {error}"
    if wrong:
        # Raised outside the except block, so that pytest shows no second exception with it.
        pytest.fail(wrong, pytrace=False)
    tracer = Tracer(request.node, asked)
    yield tracer
    tracer.tidy()
