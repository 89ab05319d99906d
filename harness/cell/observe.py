"""Watches who owns the volume, the PBX and the address, from the host's side: ten ownership samples a second.

A process of its own for the length of a run. It asks neither the nodes nor the cluster nor EC2, which may all be what
is broken: mounts and processes are read from the host's /proc through each guest's cgroup, power from the region's
journal, the address from the router's table. A node whose power is off counts as neither mounter nor PBX, however its
container looks. Locally only; on AWS the same samples come from the guests and from EC2.

`python -m harness.cell.observe --state-dir DIR --out FILE`
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.clock import NS_PER_S, now_ns
from harness.history import Op, Writer

PERIOD_S = 0.1

YOUNG_SAMPLES = 30
"""How many samples long a process is asked for its name again: a shell that is about to become the PBX is young."""

RECHECK_SAMPLES = 10
"""Every so many samples all processes are asked for their names, also the old ones."""


@dataclass(frozen=True, kw_only=True)
class WatchedNode:
    """One node as the observer knows it: container id (its cgroup's name), instance id and private address."""

    name: str
    instance_id: str
    private_ip: str
    container: str


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What to watch. `process` is the name (comm) of the PBX's processes, `data_dir` where the volume is mounted."""

    nodes: tuple[WatchedNode, ...]
    data_dir: str
    process: str
    public_ip: str

    @classmethod
    def of_cell(cls, state_dir: Path) -> Watched:
        """From the cell's own description (cell.json)."""
        cell = json.loads((state_dir / "cell.json").read_text(encoding="utf-8"))
        keys = ("name", "instance_id", "private_ip", "container")
        return cls(
            nodes=tuple(WatchedNode(**{key: node[key] for key in keys}) for node in cell["nodes"]),
            data_dir=cell["data_dir"],
            process=cell["pbx_process"],
            public_ip=cell["public_ip"],
        )


@dataclass(frozen=True, kw_only=True)
class Host:
    """Where the host's views are; tests put their own there."""

    proc: Path = Path("/proc")
    cgroups: Path = Path("/sys/fs/cgroup")

    def cgroup(self, container: str) -> Path | None:
        """The cgroup folder of a running container, or None: it is gone while the container is off."""
        for place in (
            f"pids/docker/{container}",
            f"pids/system.slice/docker-{container}.scope",
            f"docker/{container}",
            f"system.slice/docker-{container}.scope",
        ):
            path = self.cgroups / place
            if path.is_dir():
                return path
        return None


@dataclass(kw_only=True)
class Guest:
    """One node seen through its cgroup. What it finds vanishing between two reads is gone, not an error."""

    node: WatchedNode
    host: Host
    process: str
    data_dir: str
    _seen: dict[int, int] = field(default_factory=dict)
    _pbx: set[int] = field(default_factory=set)
    _init: int | None = None

    def look(self, number: int) -> tuple[bool, bool, bool]:
        """(runs at all, has the data mounted from a block device, runs the PBX) in sample `number`."""
        pids = self._pids()
        self._forget(pids)
        if not pids:
            return False, False, False
        for pid in pids:
            first = self._seen.setdefault(pid, number)
            if number - first < YOUNG_SAMPLES or number % RECHECK_SAMPLES == 0 or pid in self._pbx:
                (self._pbx.add if self._is_pbx(pid) else self._pbx.discard)(pid)
        return True, self._mounted(pids), bool(self._pbx)

    def _pids(self) -> list[int]:
        folder = self.host.cgroup(self.node.container)
        try:
            return [int(line) for line in (folder / "cgroup.procs").read_text().split()] if folder else []
        except OSError:
            return []

    def _forget(self, pids: Iterable[int]) -> None:
        gone = self._seen.keys() - set(pids)
        for pid in gone:
            del self._seen[pid]
        self._pbx -= gone
        if self._init in gone:
            self._init = None

    def _is_pbx(self, pid: int) -> bool:
        """Whether a process has the PBX's name and is no zombie."""
        stat = self._read(pid, "stat")
        name, _, rest = stat.partition("(")[2].rpartition(")")
        return name == self.process and rest[1:2] not in ("Z", "X")

    def _mounted(self, pids: Sequence[int]) -> bool:
        if self._init is None:
            self._init = next((pid for pid in pids if self._is_init(pid)), None)
        return self._init is not None and has_mount(self._read(self._init, "mountinfo"), self.data_dir)

    def _is_init(self, pid: int) -> bool:
        lines = self._read(pid, "status").splitlines()
        ids = next((line.split()[1:] for line in lines if line.startswith("NSpid:")), [])
        return len(ids) > 1 and ids[-1] == "1"

    def _read(self, pid: int, what: str) -> str:
        try:
            return (self.host.proc / str(pid) / what).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""


def has_mount(mountinfo: str, data_dir: str) -> bool:
    """Whether `data_dir` is mounted from a block device (a major number of 0 is no device: tmpfs, overlay)."""
    for line in mountinfo.splitlines():
        fields = line.split(" ", 5)
        if len(fields) > 5 and fields[4] == data_dir and not fields[2].startswith("0:"):
            return True
    return False


@dataclass(kw_only=True)
class PowerBook:
    """Who has lost its power, from the region's journal: from `links_cut` to the next `instance_on`."""

    journal: Path
    _read: int = 0
    _lost: set[str] = field(default_factory=set)

    def lost(self) -> set[str]:
        """Instance ids whose power is off although their container may still be there."""
        for row in self._new():
            if row.get("event") == "links_cut":
                self._lost.add(str(row.get("instance_id")))
            elif row.get("event") == "instance_on":
                self._lost.discard(str(row.get("instance_id")))
        return self._lost

    def _new(self) -> Iterator[dict[str, Any]]:
        try:
            with self.journal.open("rb") as file:
                file.seek(self._read)
                data = file.read()
        except FileNotFoundError:
            return
        whole = data.rfind(b"\n") + 1
        self._read += whole
        yield from (json.loads(line) for line in data[:whole].splitlines())


@dataclass(kw_only=True)
class Observer:
    """Takes samples; one that can't be taken is of type `info`, with the reason."""

    watched: Watched
    state_dir: Path
    host: Host = field(default_factory=Host)
    _number: int = 0

    def __post_init__(self) -> None:
        self._power = PowerBook(journal=self.state_dir / "region-events.jsonl")
        self._guests = [
            Guest(node=node, host=self.host, process=self.watched.process, data_dir=self.watched.data_dir)
            for node in self.watched.nodes
        ]

    def sample(self) -> Op:
        self._number += 1
        began = now_ns()
        value: dict[str, Any] = {"n": self._number}
        try:
            value |= self._look()
        except (OSError, ValueError) as error:
            return self._op(began, "info", value, error=f"{type(error).__name__}: {error}")
        value["took_us"] = (now_ns() - began) // 1000
        return self._op(began, "ok", value)

    def _look(self) -> dict[str, Any]:
        """One sample. The nodes are looked at one after the other: two owners count when a second look sees both, too,
        or an orderly move in between would look like one."""
        seen = self._glance()
        if max(len(seen["mounted"]), len(seen["pbx"])) < 2:
            return seen
        again = self._glance()
        return again | {what: [name for name in seen[what] if name in again[what]] for what in ("mounted", "pbx")}

    def _glance(self) -> dict[str, Any]:
        owner = self._owner()
        mounted, pbx, powered = [], [], []
        looks = [(guest.node, guest.look(self._number)) for guest in self._guests]
        lost = self._power.lost()  # read last: a node that lost its power while we looked counts as off
        for node, (runs, mounts, serves) in looks:
            if runs and node.instance_id not in lost:
                powered.append(node.name)
                mounted += [node.name] if mounts else []
                pbx += [node.name] if serves else []
        return {"mounted": mounted, "pbx": pbx, "address": owner, "powered": powered}

    def _owner(self) -> str | None:
        """The node the router sends the public address to; None when it drops it."""
        table = json.loads((self.state_dir / "addresses.json").read_text(encoding="utf-8"))
        private = table.get(self.watched.public_ip)
        return next((node.name for node in self.watched.nodes if node.private_ip == private), private)

    def _op(self, time_ns: int, kind: Any, value: dict[str, Any], *, error: str | None = None) -> Op:
        return Op(time_ns=time_ns, process="ownership", f="ownership", type=kind, value=value, error=error)


def invisible(watched: Watched, host: Host) -> list[str]:
    """All nodes, when no cgroup of theirs is where it is looked for: on such a host nobody would ever own anything."""
    if any(host.cgroup(node.container) for node in watched.nodes):
        return []
    return [node.name for node in watched.nodes]


def watch(observer: Observer, writer: Writer, stop: threading.Event) -> None:
    """Sample on schedule until `stop`; ticks that were missed are left out, not made up for."""
    period_ns = round(PERIOD_S * NS_PER_S)
    due = now_ns()
    while not stop.is_set():
        writer.write(observer.sample())
        due = max(due + period_ns, now_ns())
        stop.wait((due - now_ns()) / NS_PER_S)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    watched = Watched.of_cell(args.state_dir)
    if unseen := invisible(watched, Host()):
        print(f"no cgroup of {', '.join(unseen)} below {Host().cgroups}: who owns what can't be seen", file=sys.stderr)
        return 1
    writer = Writer(args.out)
    watch(Observer(watched=watched, state_dir=args.state_dir), writer, stop)
    writer.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
