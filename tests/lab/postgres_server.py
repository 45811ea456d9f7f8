"""A real PostgreSQL of a test's own on a free port of 127.0.0.1, and what is sent to it, captured."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["PASSWORD", "captured", "server", "why_not"]

PASSWORD = "canaryPostgres"
_NOBODY = "nobody"


def _program(name: str) -> str | None:
    """Debian keeps the programs of a server out of PATH."""
    homes = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return shutil.which(name, path=os.pathsep.join([*map(str, homes), os.environ.get("PATH", "")]))


def why_not() -> str | None:
    """Why there can be no captured PostgreSQL here; None when there can."""
    if _program("initdb") is None or _program("postgres") is None:
        return "needs initdb and postgres (Debian: postgresql)"
    if shutil.which("tcpdump") is None:
        return "needs tcpdump"
    if os.geteuid() != 0:
        return "sniffing loopback needs root"
    return None if importlib.util.find_spec("psycopg") else "needs psycopg (pip install 'psycopg[binary]')"


@contextmanager
def server() -> Iterator[int]:
    """A running server, by its port; the user is postgres."""
    # It refuses to run as root, and the folders of pytest are root's alone.
    user = pwd.getpwnam(_NOBODY)
    folder = Path(tempfile.mkdtemp(prefix="tracer-postgres-"))
    os.chown(folder, user.pw_uid, user.pw_gid)
    secret = folder / "password"
    secret.write_text(PASSWORD)
    os.chown(secret, user.pw_uid, user.pw_gid)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    run_as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    made = subprocess.run(
        [str(_program("initdb")), "-D", str(folder / "data"), "-U", "postgres", "--no-sync", "-E", "UTF8",
         "--locale=C", "-A", "scram-sha-256", f"--pwfile={secret}"],
        capture_output=True, text=True, cwd="/", timeout=60, **run_as,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    running = subprocess.Popen(
        [str(_program("postgres")), "-D", str(folder / "data"), "-p", str(port), "-k", str(folder),
         "-h", "127.0.0.1", "-c", "fsync=off", "-c", "shared_buffers=8MB"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd="/", **run_as,
    )  # fmt: skip
    try:
        _await(port, running)
        yield port
    finally:
        running.terminate()
        running.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


def _await(port: int, running: subprocess.Popen[bytes]) -> None:
    import psycopg

    for _ in range(300):
        assert running.poll() is None, running.stderr.read() if running.stderr else ""
        try:
            psycopg.connect(
                f"host=127.0.0.1 port={port} user=postgres password={PASSWORD}", connect_timeout=5
            ).close()
            return
        except psycopg.OperationalError:
            time.sleep(0.1)
    raise AssertionError("PostgreSQL did not start")


@contextmanager
def captured(port: int, path: Path) -> Iterator[None]:
    """What is sent to and from *port* on loopback meanwhile, in the file *path*."""
    with subprocess.Popen(
        ["tcpdump", "-i", "lo", "-U", "-Z", "root", "-s", "0", "-B", "16384", "-w", str(path),
         f"tcp port {port}"],
        stderr=subprocess.PIPE, text=True,
    ) as tcpdump:  # fmt: skip
        assert tcpdump.stderr is not None
        # It says so once it listens.
        assert any("listening on" in line for line in tcpdump.stderr)
        try:
            yield
        finally:
            _drained(port, path)
            tcpdump.terminate()


def _drained(port: int, path: Path) -> None:
    """Wait until a last connection, which asks to cancel what nobody runs, is in the file."""
    with socket.create_connection(("127.0.0.1", port)) as last:
        mark = struct.pack(">IIII", 16, 80877102, 0x7FFFFFFF, 0x7FFFFFFF)
        last.sendall(mark)
        for _ in range(200):
            if mark in path.read_bytes():
                return
            time.sleep(0.05)
    raise AssertionError("tcpdump wrote nothing")
