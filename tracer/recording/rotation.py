"""Writes a series of capture files: a new file at a limit of size or age; old files are removed.

Each file has its final name from the start and is valid at any time: nothing is renamed or filled in later.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tracer.capture.privileges import give
from tracer.errors import UsageError
from tracer.recording.pcapng_writer import Described, interface_block, section_block

__all__ = ["Files", "Rotation"]

_LAST_S = 253_402_300_799
"""Seconds since the epoch at the end of the year 9999, the last one that datetime has."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """Limits at which a new file is begun, and how many files are kept; None for no limit."""

    size_bytes: int | None = None
    time_s: float | None = None
    most_files: int | None = None


class Files:
    """Writes blocks to files in *folder*; each file begins with a section header and all *interfaces*."""

    def __init__(
        self, folder: Path, interfaces: Sequence[Described], rotation: Rotation, program: str
    ) -> None:
        self._folder = folder
        self._head = [section_block(program), *map(interface_block, interfaces)]
        self._interfaces = len(interfaces)
        self._rotation = rotation
        self._fd = -1
        self._size_bytes = 0
        """Size of the current file without its head: a head above the limit would end each file at once."""
        self._begun_ns = 0
        self._number = 0
        self.written: deque[Path] = deque()
        """Paths of the files that are kept, the oldest first."""
        self.size_bytes = 0
        """Bytes written in all."""
        self.preface = b""
        """Blocks that a new file has after its head."""

    def prepare(self) -> None:
        """Create the folder if it is missing. Raises UsageError when it cannot be written to.

        Under sudo, a new folder is given to the user who called it: the process writes as this user later.
        """
        missing = [folder for folder in (self._folder, *self._folder.parents) if not folder.exists()]
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"-w {self._folder}: cannot be made: {error.strerror}") from None
        for folder in missing:
            give(folder)
        if not os.access(self._folder, os.W_OK | os.X_OK):
            raise UsageError(f"-w {self._folder}: cannot be written to as this user")

    def describe(self, interface: Described) -> int:
        """Add an interface to this and all later files; return its number. Raises OSError."""
        block = interface_block(interface)
        self._head.append(block)
        self._interfaces += 1
        if self._fd >= 0:
            self._append(block)
        return self._interfaces - 1

    def write(self, blocks: Sequence[bytes], time_ns: int) -> None:
        """Write *blocks* of packets up to *time_ns*; a limit begins a new file. OSError: disk full."""
        if self._is_full() or self._is_old(time_ns):
            self.close()
        self.add(blocks, time_ns)

    def add(self, blocks: Sequence[bytes], time_ns: int) -> None:
        """Write *blocks* into the current file, also above a limit. Raises OSError: disk full."""
        rotation = self._rotation
        if self._fd < 0:
            self._next(time_ns)
        data = b"".join(blocks)
        self._append(data)
        self._size_bytes += len(data)
        while rotation.most_files is not None and len(self.written) > rotation.most_files:
            self.written.popleft().unlink(missing_ok=True)

    def _append(self, data: bytes) -> None:
        # os.write may write a part only; without a buffer, a killed process loses no block that was written.
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
        self.size_bytes += len(data)

    def _is_full(self) -> bool:
        limit = self._rotation.size_bytes
        return limit is not None and self._size_bytes >= limit

    def _is_old(self, time_ns: int) -> bool:
        limit_s = self._rotation.time_s
        return limit_s is not None and time_ns - self._begun_ns >= limit_s * 1e9

    def _next(self, time_ns: int) -> None:
        self.close()
        while True:
            self._number += 1
            # A capture stream may hold any time; datetime has the years 1 to 9999 only.
            moment = datetime.fromtimestamp(min(max(0, time_ns) // 1_000_000_000, _LAST_S), UTC)
            path = self._folder / f"tracer_{self._number:05d}_{moment:%Y%m%d%H%M%S}.pcapng"
            try:
                # The file may hold secrets: readable by its owner only.
                self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
                break
            except FileExistsError:
                # From an earlier recording in the same folder: take the next number.
                continue
        self.written.append(path)
        self._size_bytes, self._begun_ns = 0, time_ns
        self._append(b"".join((*self._head, self.preface)))

    def close(self) -> None:
        """Close the current file, if one is open; the next write begins another."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
