"""Block devices inside a guest, as Nitro shows EBS volumes: /dev/nvmeXn1, and a link by volume id.

X differs from attachment to attachment; software must find a volume by its id (AWS: "Amazon EBS and NVMe on Linux
instances"). Everything goes through /proc/PID/root, the guest's own view, and takes no process in the guest.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
NVME_NAMES = 26


def add(guest_pid: int, *, volume_id: str, loop: str, first: int) -> str:
    """Make the device and its link; X is the first free number from `first` on. Returns the path in the guest."""
    dev = _dev(guest_pid)
    if dev.parent.samefile("/"):
        raise OSError(f"process {guest_pid} is no guest")
    for step in range(NVME_NAMES):
        name = f"nvme{1 + (first + step) % NVME_NAMES}n1"
        with suppress(FileExistsError):
            os.mknod(dev / name, stat.S_IFBLK | 0o660, Path(loop).stat().st_rdev)
            break
    else:
        raise OSError(f"all {NVME_NAMES} device names of the guest are taken")
    link = dev / by_id(volume_id)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(f"../../{name}")
    return f"/dev/{name}"


def remove(guest_pid: int, *, volume_id: str, device: str, loop: str) -> None:
    """Take device and link away, if they are those of `loop`; a guest that is gone has none."""
    node = _dev(guest_pid) / Path(device).name
    link = _dev(guest_pid) / by_id(volume_id)
    with suppress(OSError):
        if node.lstat().st_rdev == Path(loop).stat().st_rdev and link.readlink().name == node.name:
            link.unlink()
            node.unlink()


def by_id(volume_id: str) -> Path:
    """The link below /dev by which software finds a volume: the id without its dash."""
    return Path("disk/by-id") / f"nvme-Amazon_Elastic_Block_Store_{volume_id.replace('-', '', 1)}"


def is_mounted(guest_pid: int, loop: str) -> bool:
    """Whether the guest has the device mounted, by device number: names may lie. A guest that is gone has nothing."""
    try:
        number = Path(loop).stat().st_rdev
        table = (PROC / str(guest_pid) / "mountinfo").read_text()
    except OSError:
        return False
    return f"{os.major(number)}:{os.minor(number)}" in mounted_numbers(table)


def mounted_numbers(mountinfo: str) -> set[str]:
    """The major:minor numbers in a mountinfo table (proc(5): third field)."""
    return {line.split()[2] for line in mountinfo.splitlines() if len(line.split()) > 2}


def _dev(guest_pid: int) -> Path:
    return PROC / str(guest_pid) / "root" / "dev"
