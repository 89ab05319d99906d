"""Injuries by want: a node without CPU time, a process without file descriptors, a volume without room, a zone without
capacity."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from harness import engine
from harness.clock import now_ns
from harness.command import CommandFailed, wait_for
from harness.errors import InfrastructureError
from harness.faults.on_node import OnCell, OnNode
from harness.faults.process import OfProcesses, names_of
from harness.faults.types import Landed
from harness.region.control import Control

if TYPE_CHECKING:
    from harness.cell.cell import Cell

PERIOD_US = 100_000
FILL = ".pbx-chaos-fill"
"""The file that takes all the room, on the volume: whoever mounts it can remove it."""

LIMITS = "/run/pbx-chaos-nofile"
AS_OWNER = r"""
as_owner() { # PID COMMAND …: only the user that a process runs as may change its limits, not even root
    uid=$(awk '/^Uid:/ { print $2 }' "/proc/$1/status") gid=$(awk '/^Gid:/ { print $2 }' "/proc/$1/status"); shift
    setpriv --reuid "$uid" --regid "$gid" --clear-groups "$@"
}
"""
STARVE = (
    AS_OWNER
    + r"""
set -e; names=$1; most=$2; kept=$3; hit=
for folder in /proc/[0-9]*; do
    read -r comm <"$folder/comm" 2>/dev/null || continue
    case " $names " in *" $comm "*) ;; *) continue ;; esac
    pid=${folder#/proc/}
    was=$(as_owner "$pid" prlimit --pid "$pid" --nofile --noheadings --raw --output SOFT)
    echo "$pid $was" >>"$kept"
    as_owner "$pid" prlimit --pid "$pid" --nofile="$most":
    hit="$hit $pid"
done
[ -n "$hit" ] || { echo "no process called $names runs here" >&2; exit 3; }
"""
)
FEED = (
    AS_OWNER
    + r"""
kept=$1; [ -e "$kept" ] || exit 0
while read -r pid was; do as_owner "$pid" prlimit --pid "$pid" --nofile="$was": 2>/dev/null || true; done <"$kept"
rm -f "$kept"
"""
)
FULL = r"""
set -e; cd "$1"; rm -f "$2"; : >"$2"
size=$(df --output=avail -B1 . | tail -n1 | tr -d ' '); at=0
while [ "$size" -ge 4096 ]; do # as large a piece as there still is, then half of it
    if fallocate -o "$at" -l "$size" "$2" 2>/dev/null; then at=$((at + size)); else size=$((size / 2)); fi
done
df --output=avail -B1 . | tail -n1
"""
NEARLY_NOTHING_BYTES = 1 << 20
COMMAND_TIMEOUT_S = 20.0
HEAL_TIMEOUT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class SlowCpu(OnNode):
    """The node gets so much of one core and no more: a burstable instance whose CPU credits are gone.

    By the engine's CPU quota; on EC2 only the instance's own credits can do that.
    """

    observable: ClassVar[str] = "the engine's CPU quota"
    healed_by: ClassVar[str] = "no quota; a node that was fenced is started"
    on_ec2: ClassVar[str] = "no: only the instance's own credits"

    share: float = 0.1

    def __post_init__(self) -> None:
        if not 0.01 <= self.share <= 1:
            raise ValueError(f"share is that of one core, 0.01 to 1, not {self.share}")

    @property
    def name(self) -> str:
        return f"{self.share:.0%} of a core for {self.target}"

    def unmet(self, cell: Cell) -> str | None:
        if all(getattr(node, "container", None) for node in cell.nodes):
            return None
        return "nobody can take CPU time from an EC2 instance from outside"

    @contextmanager
    def inject(self, cell: Cell) -> Iterator[Landed]:
        try:
            if self._set_quota(cell, round(self.share * PERIOD_US)) != round(self.share * PERIOD_US):
                raise InfrastructureError(f"{self.target} got no CPU quota")
            yield Landed(target=self.target, at_ns=now_ns(), observed_by="engine: CPU quota in force")
        finally:
            self.heal(cell)

    def heal(self, cell: Cell) -> None:
        self._set_quota(cell, -1)
        self.give_back(cell)

    def _set_quota(self, cell: Cell, quota_us: int) -> int:
        docker, container = engine.connect().api, cell.node(self.target).container
        docker.update_container(container, cpu_period=PERIOD_US, cpu_quota=quota_us)
        return int(docker.inspect_container(container)["HostConfig"]["CpuQuota"])


@dataclass(frozen=True, kw_only=True)
class NoDescriptors(OfProcesses):
    """The processes of a part may open no file and no connection beyond `most` descriptors; those they have stay."""

    observable: ClassVar[str] = "RLIMIT_NOFILE of the processes"
    healed_by: ClassVar[str] = "the limit that was; gone with the node's memory, too"
    on_ec2: ClassVar[str] = "by SSM"

    most: int = 1

    @property
    def name(self) -> str:
        return f"no file descriptors for {self.part} on {self.target}"

    @contextmanager
    def inject(self, cell: Cell) -> Iterator[Landed]:
        names = " ".join(names_of(self.part, cell))
        try:
            argv = ["sh", "-c", STARVE, "sh", names, str(self.most), self._kept]
            self.node(cell).run(argv, timeout_s=COMMAND_TIMEOUT_S)
            yield Landed(
                target=self.target, at_ns=now_ns(), observed_by=f"guest: RLIMIT_NOFILE of {names} is {self.most}"
            )
        finally:
            self.heal(cell)

    def heal(self, cell: Cell) -> None:
        self.heal_in_guest(cell, ["sh", "-c", FEED, "sh", self._kept])

    @property
    def _kept(self) -> str:
        """Where the limits that were are kept on the node: gone with its memory, as they are."""
        return f"{LIMITS}-{self.part}"


@dataclass(frozen=True, kw_only=True)
class VolumeFull(OnCell):
    """The file system on the volume has no room left: a file of ours takes all of it."""

    holds: ClassVar[str] = "the volume's room"
    observable: ClassVar[str] = "no byte of the file system is free"
    healed_by: ClassVar[str] = "our file is removed, wherever the volume is mounted by then"
    on_ec2: ClassVar[str] = "by SSM"

    @property
    def name(self) -> str:
        return "volume: full"

    @contextmanager
    def inject(self, cell: Cell) -> Iterator[Landed]:
        active = cell.cluster().active
        if active is None:
            raise InfrastructureError("no node is active right now: nobody mounts the volume")
        try:
            argv = ["sh", "-c", FULL, "sh", cell.profile.data_dir, FILL]
            left = int(cell.node(active).run(argv, timeout_s=COMMAND_TIMEOUT_S).stdout)
            if left > NEARLY_NOTHING_BYTES:
                raise InfrastructureError(f"the volume still has {left} bytes of room")
            yield Landed(target=cell.volume_id, at_ns=now_ns(), observed_by=f"guest: {left} bytes left")
        finally:
            self.heal(cell)

    def heal(self, cell: Cell) -> None:
        """On whichever node mounts the volume by now."""
        script = 'mountpoint -q "$1" && rm -f "$1/$2"'
        argv = ["sh", "-c", script, "sh", cell.profile.data_dir, FILL]

        def removed() -> bool:
            return any(_ran(cell, node.name, argv) for node in cell.nodes)

        wait_for("room on the volume", removed, timeout_s=HEAL_TIMEOUT_S, every_s=0.5)


@dataclass(frozen=True, kw_only=True)
class NoCapacity(OnCell):
    """The zone has no room: no instance can be started or launched (InsufficientInstanceCapacity)."""

    holds: ClassVar[str] = "the zone's capacity"
    observable: ClassVar[str] = "starts and launches fail with InsufficientInstanceCapacity"
    healed_by: ClassVar[str] = "there is room again"
    on_ec2: ClassVar[str] = "no"

    @property
    def name(self) -> str:
        return "no capacity in the zone"

    @contextmanager
    def inject(self, cell: Cell) -> Iterator[Landed]:
        try:
            Control(cell.topology).set(capacity={"no_capacity": ["*"]})
            yield Landed(target="zone", at_ns=now_ns(), observed_by="region: no capacity")
        finally:
            self.heal(cell)

    def heal(self, cell: Cell) -> None:
        Control(cell.topology).set(capacity={"no_capacity": []})


def _ran(cell: Cell, name: str, argv: list[str]) -> bool:
    try:
        return cell.node(name).run(argv, timeout_s=5, check=False).ok
    except CommandFailed:
        return False


def slow_cpu(target: str, share: float = 0.1) -> SlowCpu:
    """A node gets a share of one core and no more."""
    return SlowCpu(target=target, share=share)


def no_descriptors(target: str, part: str = "pbx", most: int = 1) -> NoDescriptors:
    """The processes of a part can open no further file or connection."""
    return NoDescriptors(target=target, part=part, most=most)


def volume_full() -> VolumeFull:
    """The volume's file system has no room left."""
    return VolumeFull()


def no_capacity() -> NoCapacity:
    """No instance can be started or launched in the zone."""
    return NoCapacity()
