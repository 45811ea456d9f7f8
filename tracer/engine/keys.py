"""Brings TLS secrets to the decoders: from a key log that may grow, and from captures that hold some.

A key log beside captures in a folder is not read by itself; `key_log_beside` finds it, for a hint.
"""

from __future__ import annotations

import os
import stat
import weakref
from collections.abc import Iterable, Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path

from tracer.errors import UsageError, reason
from tracer.model import Capture
from tracer.protocols.tls import KeyLog, missing_library

__all__ = ["KeySource", "key_log_beside", "require_key_log"]

_INSTALL = "pip install 'cloudvm-tracer[tls]'"
_PIECE_BYTES = 1 << 20
_HEAD_BYTES = 64 << 10


class KeySource:
    """The secrets for one run: those of *path*, if one is given, and of the pcapng files among *captures*."""

    def __init__(self, path: Path | None, captures: Sequence[Capture]) -> None:
        self._path = path
        self._captures = captures
        self._can_open = not missing_library()
        self._file: FileIO | None = None
        self._inode = -1
        self.log = KeyLog(self._more)
        if path is not None:
            self.log.is_given = True
            self._more()

    def _more(self) -> None:
        """Add what came since the last call."""
        if self._path is not None:
            # A file that is not there (yet) holds nothing; the command has said so.
            with suppress(OSError):
                self._grow(self._path)
        for capture in self._captures:
            if capture.secrets and self._can_open:
                self.log.add_block(b"\n".join(capture.secrets))
                capture.secrets.clear()

    def _grow(self, path: Path) -> None:
        """Add what was written to the file since it was read last.

        The file stays open: a live run gives up the privileges with which it was opened.
        """
        with suppress(OSError):
            inode = path.stat().st_ino
            if inode != self._inode:
                # Another file, or the first one.
                self._file = path.open("rb", buffering=0)
                weakref.finalize(self, self._file.close)
                self._inode = inode
        if self._file is None:
            return
        status = os.fstat(self._file.fileno())
        if stat.S_ISREG(status.st_mode):
            if status.st_size < self._file.tell():
                # Begun anew.
                self._file.seek(0)
            elif status.st_size == self._file.tell():
                return
        while piece := self._file.read(_PIECE_BYTES):
            self.log.add(piece)

    def remark(self) -> str:
        """Return what is to be said of the secrets; empty for nothing."""
        if not self._can_open and any(capture.secrets for capture in self._captures):
            return f"a capture holds TLS secrets, which are not used: {_INSTALL}"
        if self.log.unreadable:
            count = self.log.unreadable
            lines = "1 line is" if count == 1 else f"{count:,} lines are"
            return f"{lines} no TLS secrets: the rest of the key log is used"
        return ""


def require_key_log(path: Path | None, *, may_come: bool = False) -> None:
    """Raise UsageError if the key log *path* cannot be read, or the library for it is not installed.

    With *may_come* it need not be there yet.
    """
    if path is None:
        return
    where = f"--keylog {path}"
    if missing := missing_library():
        raise UsageError(f"{where} needs {missing}, which is not installed: {_INSTALL}")
    try:
        with path.open("rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        if may_come and isinstance(error, FileNotFoundError):
            return
        raise UsageError(f"{where}: cannot be read: {reason(error)}") from None
    log = KeyLog()
    log.add(head)
    if log.unreadable and not log.lines:
        form = "CLIENT_RANDOM, CLIENT_TRAFFIC_SECRET_0 and the like"
        raise UsageError(f"{where}: not a key log; it has lines of {form}, as SSLKEYLOGFILE writes them")


def key_log_beside(paths: Iterable[str]) -> str | None:
    """Return the first of *paths*, files that are not captures, that is a key log by its first lines."""
    for path in paths:
        try:
            if not Path(path).is_file():
                continue
            with Path(path).open("rb") as file:
                head = file.read(4096)
        except OSError:
            continue
        log = KeyLog()
        log.add(head)
        if log.lines:
            return path
    return None
