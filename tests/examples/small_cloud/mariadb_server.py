"""A real MariaDB of one's own: its own data folder, gone with the test."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_S = 60.0
PATH = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin:/usr/local/mysql/bin"


def why_not() -> str | None:
    """Why there can be no MariaDB here; None when there can."""
    missing = [tool for tool in ("mariadbd", "mariadb-install-db") if shutil.which(tool, path=PATH) is None]
    if missing:
        return f"needs {' and '.join(missing)} (Debian: mariadb-server)"
    return None if importlib.util.find_spec("pymysql") else "needs pymysql (pip install pymysql)"


@contextmanager
def database(folder: Path, address: str, schema: str, port: int = 3306) -> Iterator[str]:
    """A running MariaDB that has executed *schema*; where services find it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "schema.sql").write_text(
        "CREATE DATABASE nova;\nCREATE USER nova@'%' IDENTIFIED BY 'nova';\n"
        f"GRANT ALL ON nova.* TO nova@'%';\nUSE nova;\n{schema}",
        encoding="utf-8",
    )
    data = f"--datadir={folder / 'data'}"
    with (folder / "mariadb.log").open("ab") as log:
        subprocess.run(
            [_program("mariadb-install-db"), "--no-defaults", data, "--user=root", "--skip-test-db"],
            stdout=log,
            stderr=log,
            check=True,
        )
        settings = {
            "user": "root",
            "bind-address": address,
            "port": port,
            "socket": folder / "socket",
            "pid-file": folder / "pid",
            "init-file": folder / "schema.sql",
            "innodb-flush-log-at-trx-commit": 0,
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        server = subprocess.Popen(
            [_program("mariadbd"), "--no-defaults", data, "--skip-name-resolve", *options],
            stdout=log,
            stderr=log,
        )
    try:
        _wait(server, address, port, folder / "mariadb.log")
        yield f"{address}:{port}"
    finally:
        server.kill()
        server.wait()


def _wait(server: subprocess.Popen[bytes], address: str, port: int, log: Path) -> None:
    until_s = time.monotonic() + START_S
    # The port opens behind the schema.
    while time.monotonic() < until_s and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex((address, port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"MariaDB did not start: {log.read_text(errors='replace')[-2000:]}")


def _program(name: str) -> str:
    return shutil.which(name, path=PATH) or name
