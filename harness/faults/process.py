"""Injuries of processes: killed, or stopped in their tracks; of the PBX or a part of it, of the cluster's own daemons.

A part is `pbx` (the PBX's main process), one that its profile declares (`[processes]`: database, media, …), or a
daemon of `DAEMONS`. All processes of that name on the node are hit, by a shell script in the guest: it runs through
SSM on EC2 as well. When it landed is the guest's own time, in a cell the same clock as the host's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from harness.clock import WallOffset
from harness.command import CommandFailed
from harness.errors import InfrastructureError
from harness.faults.on_node import OnNode
from harness.faults.types import Landed

if TYPE_CHECKING:
    from harness.cell.cell import Cell

DAEMONS = (
    "corosync", "pacemakerd", "pacemaker-based", "pacemaker-fenced", "pacemaker-execd", "pacemaker-attrd",
    "pacemaker-schedulerd", "pacemaker-controld",
)  # fmt: skip

LAND_TIMEOUT_S = 5
COMM = 15
"""Longest name of a process that the kernel keeps (/proc/PID/comm)."""

FIND = r"""
names=$1
each() { # prints pid, start time and state of every process called by one of the names
    for folder in /proc/[0-9]*; do
        read -r line <"$folder/stat" 2>/dev/null || continue
        name=${line#*(}; name=${name%)*}
        case " $names " in *" $name "*) ;; *) continue ;; esac
        set -- ${line##*) }
        echo "${folder#/proc/} ${20} $1"
    done
}
"""
SIGNAL = (
    FIND
    + r"""
signal=$2 wanted=$3 before=$(each | grep -v ' [ZX]$')
[ -n "$before" ] || { echo "no process called $names runs here" >&2; exit 3; }
echo "$before" | while read -r pid start state; do kill -s "$signal" "$pid" 2>/dev/null; done
while :; do
    now=$(each) left=$(echo "$before" | while read -r pid start state; do
        echo "$now" | grep "^$pid $start " | grep -v " [$wanted]\$"
    done)
    # what was forked meanwhile stands still, too; what is started anew after a kill is another process
    [ "$signal" = STOP ] && left=$(echo "$now" | grep -v " [$wanted]\$")
    [ -z "$left" ] && break
    [ "$signal" = STOP ] && echo "$left" | while read -r pid start state; do kill -s STOP "$pid" 2>/dev/null; done
    sleep 0.005
done
date +%s%N
"""
)
"""Exit 3: nobody to hit. Ends when all that were there are gone, or in one of the states `wanted`."""

RESUME = (
    FIND
    + r"""
each | while read -r pid start state; do case $state in [Tt]) kill -s CONT "$pid" 2>/dev/null ;; esac; done
! each | grep -q ' [Tt]$'
"""
)


@dataclass(frozen=True, kw_only=True)
class OfProcesses(OnNode):
    """All processes of one part on one node."""

    part: str = "pbx"

    def unmet(self, cell: Cell) -> str | None:
        if names_of(self.part, cell):
            return None
        known = ", ".join(["pbx", *cell.profile.processes, *DAEMONS])
        return f"PBX profile {cell.profile.name} declares no {self.part!r}; there are: {known}"

    def _signal(self, cell: Cell, signal: str, *, until: str) -> Landed:
        """Send a signal to all of them; returns once each is gone, or in one of the states `until`."""
        names = " ".join(names_of(self.part, cell))
        argv = ["sh", "-c", SIGNAL, "sh", names, signal, until]
        offset = WallOffset.measure()
        try:
            done = self.node(cell).run(argv, timeout_s=LAND_TIMEOUT_S)
        except CommandFailed as error:
            raise InfrastructureError(f"{signal} of {self.part} on {self.target}: {error}") from error
        at_ns = int(done.stdout.split()[-1]) - offset.offset_ns
        return Landed(target=self.target, at_ns=at_ns, observed_by=f"guest: {names} {_SEEN[signal]}")


_SEEN = {"KILL": "gone", "STOP": "stopped"}


@dataclass(frozen=True, kw_only=True)
class Crash(OfProcesses):
    """SIGKILL: the process is gone from one moment to the next, its node goes on. Whoever watches it may start it anew;
    there is nothing to heal but a node that was fenced for it."""

    observable: ClassVar[str] = "no process of that name is there"
    healed_by: ClassVar[str] = "the cluster starts it again; a node that was fenced for it is started"
    on_ec2: ClassVar[str] = "by SSM"

    @property
    def name(self) -> str:
        return f"crash {self.part} on {self.target}"

    @contextmanager
    def inject(self, cell: Cell) -> Iterator[Landed]:
        try:
            yield self._signal(cell, "KILL", until="ZX")
        finally:
            self.heal(cell)

    def heal(self, cell: Cell) -> None:
        self.give_back(cell)


@dataclass(frozen=True, kw_only=True)
class Hang(OfProcesses):
    """SIGSTOP: the process is there, holds its sockets and files, and does nothing. Healed by SIGCONT."""

    observable: ClassVar[str] = "its processes are in state T"
    healed_by: ClassVar[str] = "SIGCONT; a node that was fenced for it is started"
    on_ec2: ClassVar[str] = "by SSM"

    @property
    def name(self) -> str:
        return f"hang {self.part} on {self.target}"

    @contextmanager
    def inject(self, cell: Cell) -> Iterator[Landed]:
        try:
            yield self._signal(cell, "STOP", until="ZXTt")
        finally:
            self.heal(cell)

    def heal(self, cell: Cell) -> None:
        names = " ".join(names_of(self.part, cell))
        self.heal_in_guest(cell, ["sh", "-c", RESUME, "sh", names])


def names_of(part: str, cell: Cell) -> tuple[str, ...]:
    """The names (comm) of a part's processes; empty when nobody says what it is."""
    if part == "pbx":
        return (cell.profile.main_process,)
    if part in cell.profile.processes:
        return cell.profile.processes[part]
    return (part[:COMM],) if part in DAEMONS else ()


def crash(target: str, part: str = "pbx") -> Crash:
    """Kill (SIGKILL) the PBX, a part of it (database, media, …) or a daemon of the cluster on a node."""
    return Crash(target=target, part=part)


def hang(target: str, part: str = "pbx") -> Hang:
    """Stop (SIGSTOP) the PBX, a part of it (database, media, …) or a daemon of the cluster on a node."""
    return Hang(target=target, part=part)
