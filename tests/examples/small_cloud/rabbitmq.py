"""A real RabbitMQ of one's own: on free ports, with its own data folder, gone with the test.

It listens on the loopback interface only, shares nothing with a broker that the machine may run already, and
can be killed and started again, as brokers are.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

START_S = 90.0
NO_SPINNING = "+sbwt none +sbwtdcpu none +sbwtdio none"
"""Erlang's schedulers spin before they sleep: on a machine of few cores all others wait for that."""


def why_not() -> str | None:
    """Why there can be no broker here; None when there can."""
    missing = [tool for tool in ("rabbitmq-server", "rabbitmqctl") if shutil.which(tool) is None]
    return f"needs {' and '.join(missing)} (Debian: rabbitmq-server)" if missing else None


class RabbitMQ:
    """One broker; *folder* holds all that it writes. Without a *port*, it takes a free one."""

    def __init__(self, folder: Path, address: str = "127.0.0.1", port: int = 0) -> None:
        self.folder = folder
        self.address = address
        self.port = port or free_port(address)
        self.node = f"tracer-{os.getpid()}-{self.port}@localhost"
        self._environment = self._write_settings()
        self._process: subprocess.Popen[bytes] | None = None
        self._names: subprocess.Popen[bytes] | None = None

    def url(self, vhost: str = "%2F") -> str:
        """Where a client connects, user and password included."""
        return f"amqp://guest:guest@{self.address}:{self.port}/{vhost}"

    def start(self) -> None:
        """Start the broker and wait until it takes clients. Raises RuntimeError with its last words."""
        environment = self._environment
        with (self.folder / "broker.log").open("ab") as log:
            if self._names is None:
                # Erlang's own would outlive the test.
                epmd = ["epmd", "-address", "127.0.0.1", "-port", environment["ERL_EPMD_PORT"]]
                self._names = subprocess.Popen(epmd, env=environment, stdout=log, stderr=log)
            self._process = subprocess.Popen(
                [_program("rabbitmq-server")], env=environment, stdout=log, stderr=log, start_new_session=True
            )
        until_s = time.monotonic() + START_S
        # The port opens last, when all of the broker is up.
        while time.monotonic() < until_s and self._process.poll() is None:
            if self._is_up():
                return
            time.sleep(0.1)
        last = (self.folder / "broker.log").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"RabbitMQ did not start within {START_S:.0f} s: {last}")

    def kill(self) -> None:
        """End the broker without a warning, as a power cut does (kill -9)."""
        if self._process is not None:
            # The server is a script: Erlang runs below it, in the same session.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
            while self._is_up():
                time.sleep(0.01)

    def close(self) -> None:
        """End the broker and all that belongs to it."""
        self.kill()
        if self._names is not None:
            self._names.kill()
            self._names.wait()
            self._names = None

    def _is_up(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((self.address, self.port)) == 0

    def ctl(self, *arguments: str) -> str:
        """What `rabbitmqctl` says to *arguments*, such as trace_on or list_queues."""
        done = subprocess.run(
            [_program("rabbitmqctl"), "-n", self.node, *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout

    def _write_settings(self) -> dict[str, str]:
        for name in ("data", "logs", "home"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        cookie = self.folder / "home" / ".erlang.cookie"
        if not cookie.exists():
            cookie.write_text("small-cloud")
            cookie.chmod(0o400)
        (self.folder / "plugins").write_text("[rabbitmq_event_exchange].\n")
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = {self.address}:{self.port}\nlog.console = false\nlog.file.level = warning\n"
            "disk_free_limit.absolute = 1MB\n"
            # guest is let in from the loopback interface only, unless this says otherwise.
            "loopback_users = none\n"
        )
        return {
            "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/lib/rabbitmq/bin",
            "HOME": str(self.folder / "home"),
            "LANG": "C.UTF-8",
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_DIST_PORT": str(free_port(self.address)),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "logs"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "no-such-file"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": NO_SPINNING,
            "RABBITMQ_CTL_ERL_ARGS": NO_SPINNING,
            "ERL_EPMD_PORT": str(free_port(self.address)),
        }


@contextmanager
def broker(folder: Path, address: str = "127.0.0.1") -> Iterator[RabbitMQ]:
    """A running broker, ended with the block."""
    found = RabbitMQ(folder, address)
    try:
        found.start()
        yield found
    finally:
        found.close()


def free_port(address: str) -> int:
    """A port that nobody listens on now.

    Below those that the system gives to clients: one that connects while the broker is down would take it.
    """
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind((address, port))
            return port


def _program(name: str) -> str:
    """Debian's wrappers switch to the user rabbitmq and its own folders: go around them."""
    own = Path("/usr/lib/rabbitmq/bin") / name
    return str(own) if own.exists() else name
