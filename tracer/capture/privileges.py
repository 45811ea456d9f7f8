"""Dropping of privileges once the sockets are open, so that hostile traffic is decoded without any."""

from __future__ import annotations

import ctypes
import os
import struct
from contextlib import suppress
from pathlib import Path

__all__ = ["drop", "give"]

_CAPABILITY_VERSION_3 = 0x20080522
_PR_SET_NO_NEW_PRIVS = 38


def drop() -> None:
    """Become the user that called sudo, if there is one, and drop all capabilities.

    It applies to this thread and the threads that it starts later. Root without sudo stays root, because its
    Python may lie in /root, but without capabilities.
    """
    caller = _sudo_caller()
    if caller is not None:
        user, group = caller
        # Each step by itself: a refused one must not prevent the others. Groups first, since the user may not
        # change them.
        with suppress(OSError):
            os.setgroups([])
        with suppress(OSError):
            os.setgid(group)
        with suppress(OSError):
            os.setuid(user)
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None, use_errno=True)
        libc.capset(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), bytes(24))
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def give(path: Path) -> None:
    """Make the user that called sudo, if there is one, the owner of a file that was made before `drop`."""
    caller = _sudo_caller()
    if caller is not None:
        with suppress(OSError):
            os.chown(path, *caller, follow_symlinks=False)


def _sudo_caller() -> tuple[int, int] | None:
    """Return user and group of the caller of sudo; None without sudo."""
    user, group = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    if os.geteuid() == 0 and user.isdigit() and group.isdigit() and int(user):
        return int(user), int(group)
    return None
