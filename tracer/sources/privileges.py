"""Giving up what sniffing needed: hostile traffic is read without any privilege."""

from __future__ import annotations

import ctypes
import os
import struct
from contextlib import suppress

__all__ = ["drop"]

_CAPABILITY_VERSION_3 = 0x20080522
_PR_SET_NO_NEW_PRIVS = 38


def drop() -> None:
    """Become the user behind sudo, if there is one, and give up all capabilities: this thread and its own.

    Root without sudo stays the owner of root's files (its Python may lie in /root), and no more than that.
    """
    user, group = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    if os.geteuid() == 0 and user.isdigit() and group.isdigit() and int(user):
        with suppress(OSError):
            os.setgroups([])
            os.setgid(int(group))
            os.setuid(int(user))
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None, use_errno=True)
        libc.capset(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), bytes(24))
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
