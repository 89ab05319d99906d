"""What the harness needs from the host, one check each: what is there, or one line that says what to do."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from docker.errors import DockerException

from harness import engine, images
from harness.errors import HarnessError, InfrastructureError
from harness.topology import STATE_ROOT

FREE_BYTES_NEEDED = 2 * 1024**3
"""A cell with its volume, logs and captures stays far below; below this nothing is started."""

TOOLS = {
    "ip": "iproute2",
    "nsenter": "util-linux",
    "losetup": "util-linux",
    "umount": "mount",
    "fusermount3": "fuse3",
    "docker": "docker.io",
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One check: `ok` is False when nothing can run without it, None when it is only good to know."""

    name: str
    ok: bool | None
    detail: str


def examine(out: Path) -> list[Finding]:
    """All checks; each says something even when another one fails."""
    checks: list[tuple[str, Callable[[], str]]] = [
        ("root", _root),
        ("fuse", _fuse),
        ("loop", _loop),
        ("tools", _tools),
        ("docker", _docker),
        ("disk", lambda: _disk(out)),
    ]
    return [*(_finding(name, check) for name, check in checks), *_good_to_know()]


def require(out: Path) -> None:
    """Raise the first thing that is missing."""
    for finding in examine(out):
        if finding.ok is False:
            raise InfrastructureError(finding.detail)


def _finding(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name=name, ok=True, detail=check())
    except (HarnessError, DockerException, OSError) as error:
        return Finding(name=name, ok=False, detail=str(error))


def _root() -> str:
    if os.geteuid() != 0:
        raise InfrastructureError("root is needed for network namespaces, loop devices and FUSE: use sudo")
    return "running as root"


def _fuse() -> str:
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        raise InfrastructureError(
            f"/dev/fuse can't be opened ({error.strerror}): load the fuse module (`modprobe fuse`), or in a container "
            f"allow the device (--device /dev/fuse)"
        ) from error
    try:
        importlib.import_module("mfusepy")
    except OSError as error:
        raise InfrastructureError(f"libfuse3 is missing (`make setup` installs it on Debian): {error}") from error
    return "/dev/fuse opens, libfuse is there"


def _loop() -> str:
    if not Path("/dev/loop-control").exists():
        raise InfrastructureError("there is no /dev/loop-control: load the loop module (`modprobe loop`)")
    return "/dev/loop-control is there"


def _tools() -> str:
    absent = sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})
    if absent:
        raise InfrastructureError(f"missing packages: {', '.join(absent)} (`make setup` installs them on Debian)")
    return ", ".join(TOOLS)


def _docker() -> str:
    client = engine.connect()
    version = client.version()
    info = client.info()
    return f"engine {version['Version']}, cgroup v{info.get('CgroupVersion', '1')}, {info.get('Driver')}"


def _disk(out: Path) -> str:
    rooms = []
    for what, path in (("the cells' state", STATE_ROOT), ("the run's files", out)):
        existing = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
        free = shutil.disk_usage(existing).free
        if free < FREE_BYTES_NEEDED:
            raise InfrastructureError(
                f"only {free / 1024**3:.1f} GiB free at {existing} for {what}: free some space, "
                f"{FREE_BYTES_NEEDED / 1024**3:.0f} GiB are needed (--out moves the run's files)"
            )
        rooms.append(f"{free / 1024**3:.0f} GiB free for {what}")
    return ", ".join(rooms)


def _good_to_know() -> Iterator[Finding]:
    try:
        absent = images.missing(engine.connect())
    except (HarnessError, DockerException, OSError):
        absent = []
    text = f"not built yet: {', '.join(absent)} (the first run builds them)" if absent else "built"
    yield Finding(name="images", ok=None, detail=text)
    yield Finding(name="host", ok=None, detail=f"{os.cpu_count()} CPUs, {_memory_gib():.0f} GiB, {_pressure()}")


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3


def _pressure() -> str:
    return "PSI available" if Path("/proc/pressure/cpu").exists() else "no PSI (host_pressure has its metronome only)"
