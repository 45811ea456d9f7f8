"""A small cloud of real processes: services, a broker and a database on two network planes."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import mariadb_server
import planes
import rabbitmq
from services.addresses import ADMIN, BROKER, DATABASE, EXTERNAL_API, HOSTS, INTERNAL_BASE, where
from services.database import SCHEMA
from services.web import BREAK, call

HERE = Path(__file__).parent
INTERFACES = {EXTERNAL_API: "ext", INTERNAL_BASE: "int"}
BOOT_S = 20.0


def why_not() -> str | None:
    """Why there can be no small cloud here; None when there can."""
    return planes.why_not() or rabbitmq.why_not()


class Cloud:
    """A cloud that runs; this process is its administrator."""

    def __init__(self, has_mariadb: bool) -> None:
        self.interfaces = INTERFACES
        """plane -> interface on which all of it passes"""
        self.unseen = () if has_mariadb else ("unobserved:4c", "unobserved:4d")
        """What no capture of it can show: SQLite, which stands for a database, says nothing on the wire."""

    def boot(self, name: str, breaks: str = "") -> str:
        """Order a VM and wait for it; with *breaks* that step goes wrong.

        Return what became of it: ACTIVE, ERROR, BUILD for one that takes too long, or REFUSED.
        """
        order = {
            "name": name,
            "network": "1e645f04-3324-489c-a24f-f90f662730a3",
            "volume": "99b49bd1-d802-4696-9109-16f736970e2d",
        }
        told = call(where("sc"), "POST", "/sc/cloudhosts", order, {BREAK: breaks})
        if told.status != 202:
            return "REFUSED"
        until_s = time.monotonic() + BOOT_S
        while time.monotonic() < until_s:
            shown = call(where("sc"), "GET", f"/sc/cloudhosts/{told.body['id']}")
            status = str(shown.body["server"]["status"])
            if status != "BUILD":
                return status
            time.sleep(0.1)
        return "BUILD"


@contextmanager
def small_cloud(folder: Path) -> Iterator[Cloud]:
    """A running cloud; *folder* holds all that it writes, with a log for each service."""
    with ExitStack() as stack:
        made = stack.enter_context(planes.planes(INTERFACES))
        made.here(EXTERNAL_API, ADMIN)
        made.here(INTERNAL_BASE, BROKER, DATABASE)
        for host, addresses in HOSTS.items():
            made.host(host, addresses)
        (folder / "broker").mkdir()
        broker = rabbitmq.RabbitMQ(folder / "broker", BROKER, port=5672)
        stack.callback(broker.close)
        has_mariadb = os.environ.get("DATABASE") != "sqlite" and mariadb_server.why_not() is None
        with ThreadPoolExecutor(1) as beside:
            started = beside.submit(broker.start)
            if has_mariadb:
                place = stack.enter_context(mariadb_server.database(folder / "database", DATABASE, SCHEMA))
            else:
                place = _sqlite(folder / "nova.sqlite")
            started.result()
        _start(made, folder, place, stack)
        yield Cloud(has_mariadb)


def _sqlite(path: Path) -> str:
    with closing(sqlite3.connect(path)) as made:
        made.executescript(SCHEMA)
    return str(path)


def _start(made: planes.Planes, folder: Path, database: str, stack: ExitStack) -> None:
    """Start all services, and wait until each of them says that it is ready."""
    environment = os.environ | {"DATABASE": database, "PYTHONPATH": str(HERE), "PYTHONUNBUFFERED": "1"}
    started = {}
    for host in HOSTS:
        command = made.on(host, sys.executable, "-m", f"services.{host.replace('-', '_')}")
        log = stack.enter_context((folder / f"{host}.log").open("wb"))
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log)
        stack.callback(process.wait)
        stack.callback(process.kill)
        started[host] = process
    for host, process in started.items():
        if process.stdout is None or process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"{host} did not start: {(folder / f'{host}.log').read_text()[-2000:]}")
        process.stdout.close()
