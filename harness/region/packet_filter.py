"""Security groups and network ACLs in the kernel: a table in each guest's network namespace, two chains in the router.

A guest's rules are written down first (state_dir/filters/), then loaded into a guest that runs; one that boots is given
them before its power is good, so that there is no unfiltered moment. A guest whose groups allow everything has no rules
and costs nothing.

Written from outside, by the router's nft, but in the guest's namespace: its root can see the table and remove it,
unlike on AWS. (The host's side of the link knows no connections: few kernels track those on bridges, none on devices.)
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from harness.command import CommandFailed, run
from harness.region.journal import Journal
from harness.region.router import router_pid
from harness.region.semantics import filters
from harness.topology import Topology

FOLDER = "filters"
TRACKING: Mapping[str, int] = {
    "nf_conntrack_tcp_loose": 0,
    "nf_conntrack_tcp_be_liberal": 1,
    "nf_conntrack_tcp_timeout_established": 432000,
    "nf_conntrack_udp_timeout": 30,
    "nf_conntrack_udp_timeout_stream": 180,
}
"""AWS: "Connection tracking timeouts". A flow does not become tracked in its middle, windows are nobody's business."""


class PacketFilter:
    """The rules of all guests and of the router. Callers take turns (they hold the gateway's lock)."""

    def __init__(self, *, topology: Topology, journal: Journal) -> None:
        self._topology = topology
        self._journal = journal
        self._loaded: dict[str, str] = {}

    def guard(self, wanted: Mapping[str, str], guests: Mapping[str, int]) -> None:
        """Let every instance have these rules ({instance: nft text}, empty for none), now if it is among `guests`
        ({instance: host pid}, the running ones), else when it boots; forget all other instances."""
        folder = self._topology.state_dir / FOLDER
        folder.mkdir(exist_ok=True)
        for path in folder.iterdir():
            if path.name not in wanted:
                path.unlink(missing_ok=True)
                self._loaded.pop(path.name, None)
        for instance_id, rules in wanted.items():
            if self._loaded.get(instance_id) == rules:
                continue
            _write(folder / instance_id, rules)
            if instance_id in guests:
                started = time.monotonic_ns()
                _load(self._topology, guests[instance_id], rules)
                took_ms = round((time.monotonic_ns() - started) / 1e6, 3)
                self._journal.record("filter_changed", instance_id=instance_id, filtered=bool(rules), took_ms=took_ms)
            self._loaded[instance_id] = rules

    def bound(self, rules: str) -> None:
        """Let these rules (one nft transaction) judge what crosses the subnet's boundary."""
        run(["nsenter", "-t", str(router_pid(self._topology)), "-n", "-m", "nft", "-f", "-"], timeout_s=5, input=rules)
        self._journal.record("network_acl_changed")


def equip(topology: Topology, instance_id: str, pid: int) -> None:
    """Give one booting guest the rules that are written down, also those that change in this moment."""
    path = topology.state_dir / FOLDER / instance_id
    loaded = ""
    while (rules := _read(path)) != loaded:
        _load(topology, pid, rules)
        loaded = rules


def _load(topology: Topology, pid: int, rules: str) -> None:
    """Into the guest's namespace, in one transaction; empty rules take the table away. A guest that has just died needs
    none."""
    inside = f"--net=/proc/{pid}/ns/net"
    tracking = [f"net.netfilter.{name}={value}" for name, value in TRACKING.items()]
    try:
        quiet, plain = _variants(pid, rules)
        early = run(["nsenter", inside, "sysctl", "-qw", *tracking], timeout_s=5, check=False)
        nft = ["nsenter", inside, f"--mount=/proc/{router_pid(topology)}/ns/mnt", "nft", "-f", "-"]
        if not run(nft, timeout_s=5, input=quiet, check=False).ok:
            run(nft, timeout_s=5, input=plain)
        if not early.ok:  # the kernel's connection tracking was not there before the rules asked for it
            run(["nsenter", inside, "sysctl", "-qw", *tracking], timeout_s=5)
    except (CommandFailed, OSError):
        if Path(f"/proc/{pid}/ns/net").exists():
            raise


def _variants(pid: int, rules: str) -> tuple[str, str]:
    """The whole transaction, and the one for a kernel that has no egress hooks."""
    if not rules:
        return filters.no_refusing() + filters.no_guest_rules(), filters.no_guest_rules()
    quiet = ""
    for link in Path(f"/proc/{pid}/root/sys/class/net").iterdir():
        if link.name != "lo":
            quiet += filters.refusing(interface=link.name, mac=(link / "address").read_text().strip())
    return filters.no_refusing() + rules + quiet, rules + filters.refusing_aloud()


def _write(path: Path, rules: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(rules, encoding="utf-8")
    new.replace(path)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
