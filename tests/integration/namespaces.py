"""Sockets inside a container's network namespace, used from the test itself: a socket stays where it was made."""

from __future__ import annotations

import ctypes
import os
import socket

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def socket_in(pid: int, kind: int = socket.SOCK_DGRAM, *, bind: tuple[str, int] = ("0.0.0.0", 0)) -> socket.socket:
    """An IPv4 socket in the namespace of `pid`, bound, with a timeout of one second."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        _enter(there)
        try:
            made = socket.socket(socket.AF_INET, kind)
        finally:
            _enter(home)
    finally:
        os.close(home)
        os.close(there)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(bind)
    made.settimeout(1.0)
    return made


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
