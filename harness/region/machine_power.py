"""The hands on a machine's plug: cut its links on the host side, stop it from running, kill it.

A plain `docker kill` lets the dying guest's kernel say goodbye (FIN, RST) to every peer and write its caches back; a
machine that loses its power does neither. Hence: links first, disks second (`Volumes.power_loss`), processes last.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from harness.clock import now_ns
from harness.command import TimedOut, wait_for

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
SYS_NET = Path("/sys/class/net")
FREEZE_TIMEOUT_S = 0.1

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
"""netdevice(7)."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """The host's ends of a guest's links, and when the last of them went down (`asked_ns`: when the first was told)."""

    links: tuple[str, ...]
    asked_ns: int
    time_ns: int


def cut_links(guest_pid: int) -> Cut:
    """Take down the host's end of every link of the guest: from `time_ns` on nothing gets in or out."""
    links = host_links(guest_pid)
    asked_ns = now_ns()
    for link in links:
        set_link(link, up=False)
    return Cut(links=links, asked_ns=asked_ns, time_ns=now_ns())


def host_links(guest_pid: int) -> tuple[str, ...]:
    """Names of the host's ends of the guest's veth pairs; none for a guest that is gone."""
    inside = PROC / str(guest_pid) / "root" / "sys" / "class" / "net"
    peers = {_number(path / "iflink") for path in _entries(inside) if path.name != "lo"}
    return tuple(path.name for path in _entries(SYS_NET) if _number(path / "ifindex") in peers - {None})


def set_link(name: str, *, up: bool) -> None:
    """Set an interface of the host up or down; one that is gone is down. OSError when the kernel refuses."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", name.encode(), 0)
        try:
            flags: int = struct.unpack("16sh14x", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request))[1]
            flags = flags | _IFF_UP if up else flags & ~_IFF_UP
            fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", name.encode(), flags))
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise


def link_exists(name: str) -> bool:
    """Whether the host still has that interface: a veth goes with the namespace of its other end."""
    return (SYS_NET / name).exists()


def kill_at_once(guest_pid: int) -> None:
    """Freeze the guest, put SIGKILL on every process, thaw: none of them executes another instruction.

    Works on a paused container too. A process that waits for a disk dies when the disk answers, which one without
    power does. Where the freezer can't be used the guest's init is killed, and with it its process namespace.
    """
    with _frozen(guest_pid) as folder:
        for pid in _processes(folder) if folder is not None else ():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.kill(guest_pid, signal.SIGKILL)


@contextmanager
def _frozen(guest_pid: int) -> Iterator[Path | None]:
    """The guest's cgroup folder, frozen inside the block and thawed after it, however it was before."""
    folder = _freezer(guest_pid)
    if folder is None:
        yield None
        return
    v1 = (folder / "freezer.state").exists()
    knob = folder / ("freezer.state" if v1 else "cgroup.freeze")
    try:
        with suppress(OSError, TimedOut):  # one process that waits for a disk keeps the whole group "freezing"
            knob.write_text("FROZEN" if v1 else "1")
            wait_for("the freezing of a guest", lambda: _is_frozen(folder), timeout_s=FREEZE_TIMEOUT_S, every_s=0.001)
        yield folder
    finally:
        with suppress(OSError):
            knob.write_text("THAWED" if v1 else "0")


def _freezer(pid: int) -> Path | None:
    """The folder with the freezer of a process's container: cgroup v1's own hierarchy, else the unified one."""
    try:
        rows = [line.split(":", 2) for line in (PROC / str(pid) / "cgroup").read_text().splitlines()]
    except OSError:
        return None
    for controllers, root in (("freezer", CGROUPS / "freezer"), ("", CGROUPS)):
        for _, listed, path in rows:
            folder = root / path.lstrip("/")
            usable = (folder / "freezer.state").exists() or (folder / "cgroup.freeze").exists()
            if controllers in listed.split(",") and path != "/" and usable:
                return folder
    return None


def _is_frozen(folder: Path) -> bool:
    state = folder / "freezer.state"
    if state.exists():
        return state.read_text().strip() == "FROZEN"
    return "frozen 1" in (folder / "cgroup.events").read_text()


def _processes(folder: Path) -> list[int]:
    try:
        return [int(line) for line in (folder / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None
