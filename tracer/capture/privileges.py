"""Privileges are given up once the sockets are open: hostile traffic is read without any."""

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
    """Become the user behind sudo, if there is one, and give up all capabilities: this thread and its own.

    Root without sudo stays the owner of root's files (its Python may lie in /root), and no more than that.
    """
    behind = _behind_sudo()
    if behind is not None:
        user, group = behind
        # Each by itself: one that is refused keeps nobody from giving up the others.
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
    """Make the user behind sudo, if there is one, the owner of what was made before `drop`."""
    behind = _behind_sudo()
    if behind is not None:
        with suppress(OSError):
            os.chown(path, *behind, follow_symlinks=False)


def _behind_sudo() -> tuple[int, int] | None:
    """User and group that called sudo; None without sudo."""
    user, group = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    if os.geteuid() == 0 and user.isdigit() and group.isdigit() and int(user):
        return int(user), int(group)
    return None
