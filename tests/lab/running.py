"""A process that is listened to: what it says, line by line, as something to wait for."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from typing import IO


class Running:
    """Reads both outputs of *process* as they come, so that a test waits for a line and not for a time."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._news = threading.Condition()
        self._said: dict[str, bytearray] = {}
        self._ended: set[str] = set()
        self._readers = [
            self._reader("output", process.stdout),
            self._reader("errors", process.stderr),
        ]

    def _reader(self, name: str, source: IO[bytes] | None) -> threading.Thread:
        assert source is not None, f"{name} is no pipe"
        said = self._said[name] = bytearray()

        def read() -> None:
            for line in source:
                with self._news:
                    said.extend(line)
                    self._news.notify_all()
            with self._news:
                self._ended.add(name)
                self._news.notify_all()

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        return thread

    def until(self, is_said: Callable[[bytes], object], seconds: float = 60) -> None:
        """Wait until *is_said* of the output so far; fail when it ends, or after *seconds*, without it."""
        with self._news:
            came = self._news.wait_for(
                lambda: is_said(bytes(self._said["output"])) or "output" in self._ended, seconds
            )
            assert came, f"not said within {seconds} s: {bytes(self._said['output'])!r}"
            assert is_said(bytes(self._said["output"])), "it ended without saying that"

    def end(self, seconds: float = 60) -> tuple[bytes, bytes]:
        """Wait until the process has ended; all of its output, and all of its errors."""
        self.process.wait(seconds)
        for reader in self._readers:
            reader.join(seconds)
        return bytes(self._said["output"]), bytes(self._said["errors"])
