"""A series of capture files: a new one when the last is large or old enough, the oldest removed if there are
enough.

A file is begun under its own name and is whole at any time: nothing is renamed, nothing filled in later.
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
"""The end of the year 9999."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """When a new file is begun, and how many are kept; None for no limit."""

    size_bytes: int | None = None
    time_s: float | None = None
    most_files: int | None = None


class Files:
    """Writes blocks into the files of *folder*; each begins with a section and all *interfaces*."""

    def __init__(
        self, folder: Path, interfaces: Sequence[Described], rotation: Rotation, program: str
    ) -> None:
        self._folder = folder
        self._head = [section_block(program), *map(interface_block, interfaces)]
        self._interfaces = len(interfaces)
        self._rotation = rotation
        self._fd = -1
        self._size_bytes = 0
        """Of the file, without what all have: a head above the limit would begin a file with each write."""
        self._begun_ns = 0
        self._number = 0
        self.written: deque[Path] = deque()
        """Files that are there, the oldest first."""
        self.size_bytes = 0
        """Of all that was written."""
        self.preface = b""
        """Blocks that a new file begins with, behind its head."""

    def prepare(self) -> None:
        """Make the folder, if need be. Raises UsageError when nothing can be written there.

        Made with sudo, it belongs to the user behind it, who is to write there.
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
        """Return the number of one more interface, which all files have from now on. Raises OSError."""
        block = interface_block(interface)
        self._head.append(block)
        self._interfaces += 1
        if self._fd >= 0:
            self._append(block)
        return self._interfaces - 1

    def write(self, blocks: Sequence[bytes], time_ns: int) -> None:
        """Write *blocks*, of packets up to *time_ns*, into one file. Raises OSError when the disk is full."""
        if self._is_full() or self._is_old(time_ns):
            self.close()
        self.add(blocks, time_ns)

    def add(self, blocks: Sequence[bytes], time_ns: int) -> None:
        """Write *blocks*, which are about what was written last, into the same file. Raises OSError."""
        rotation = self._rotation
        if self._fd < 0:
            self._next(time_ns)
        data = b"".join(blocks)
        self._append(data)
        self._size_bytes += len(data)
        while rotation.most_files is not None and len(self.written) > rotation.most_files:
            self.written.popleft().unlink(missing_ok=True)

    def _append(self, data: bytes) -> None:
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
            # A stream may tell any time.
            moment = datetime.fromtimestamp(min(max(0, time_ns) // 1_000_000_000, _LAST_S), UTC)
            path = self._folder / f"tracer_{self._number:05d}_{moment:%Y%m%d%H%M%S}.pcapng"
            try:
                # What holds secrets is its owner's alone.
                self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
                break
            except FileExistsError:
                continue
        self.written.append(path)
        self._size_bytes, self._begun_ns = 0, time_ns
        self._append(b"".join((*self._head, self.preface)))

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
