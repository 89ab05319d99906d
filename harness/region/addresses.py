"""Elastic IPs: a stateless 1:1 translation in the router, moved in one nft transaction.

Stateless means that no connection is remembered: a move takes effect on the next packet and nothing has to be
flushed, as on AWS. What else AWS does is kept too: a packet of a node that has no mapping is dropped, an address
without an owner answers nothing, private addresses cannot be reached from outside, the router never speaks for itself,
and a node reaches Elastic IPs, its own included, by their public address. Addresses inside ICMP errors are the part nft
cannot do without state: nft drops those errors and `harness.region.icmp` sends them on, translated.
"""

from __future__ import annotations

import json
import time
from ipaddress import IPv4Address
from pathlib import Path
from threading import RLock
from typing import Any

from harness.command import run
from harness.errors import InfrastructureError
from harness.region.files import write_json
from harness.region.journal import Journal
from harness.region.router import router_pid
from harness.topology import Topology

TABLE = "pbx_chaos"
ICMP_MARK = 0x1C3
"""Packet mark of what harness.region.icmp sends; nothing else may leave the router by itself."""

TABLE_FILE = "addresses.json"
"""{public: private} in state_dir, for the ICMP translator; written after each move."""


class Addresses:
    """The mapping of Elastic IPs to private addresses, as the router has it. Safe to use from several threads."""

    def __init__(self, *, topology: Topology, journal: Journal) -> None:
        self._topology = topology
        self._journal = journal
        self._lock = RLock()
        self._file = topology.state_dir / TABLE_FILE
        self._known = self.table()

    def map(self, public: IPv4Address, private: IPv4Address) -> None:
        """Give `public` to `private` (a node's own address); whoever had it loses it in the same transaction."""
        with self._lock:
            before = self._known.get(public)
            after = {p: q for p, q in self._known.items() if q != private} | {public: private}
            self._change(after, "address_mapped", public_ip=str(public), private_ip=str(private), before=_text(before))

    def unmap(self, public: IPv4Address) -> None:
        """Nobody has `public` any more; packets to it are dropped. Idempotent."""
        with self._lock:
            before = self._known.get(public)
            if before is None:
                return
            after = {p: q for p, q in self._known.items() if p != public}
            self._change(after, "address_unmapped", public_ip=str(public), before=_text(before))

    def table(self) -> dict[IPv4Address, IPv4Address]:
        """{public: private} as the kernel of the router has it."""
        answer = run(_nft(self._topology, "-j", "list", "map", "ip", TABLE, "to_private"), timeout_s=5, check=False)
        if not answer.ok:
            raise InfrastructureError(
                f"router {self._topology.router_name} has lost its address table "
                f"({answer.stderr.strip().splitlines()[:1]}): take the cell down with "
                f"`pbx-chaos down --cell {self._topology.cell}`"
            )
        return parse_map(json.loads(answer.stdout))

    def restore(self, wanted: dict[IPv4Address, IPv4Address]) -> None:
        """Make the router have exactly `wanted` (after a restart of the gateway, which may have died in a move)."""
        with self._lock:
            if wanted != self._known:
                self._change(wanted, "addresses_restored", table={str(p): str(q) for p, q in wanted.items()})
            else:
                _write(self._file, wanted)

    def _change(self, after: dict[IPv4Address, IPv4Address], event: str, **facts: Any) -> None:
        started = time.monotonic_ns()
        run(_nft(self._topology, "-f", "-"), timeout_s=5, input=transaction(after))
        took_ms = (time.monotonic_ns() - started) / 1e6
        self._known = dict(after)
        _write(self._file, after)
        self._journal.record(event, took_ms=round(took_ms, 3), **facts)


def ruleset(topology: Topology, *, vpc_interface: str, internet_interface: str) -> str:
    """The router's whole filter, for `nft -f`. Replaces the table when it is there already."""
    elastic, vpc, internet = topology.elastic_range, topology.vpc_subnet, topology.internet_subnet
    return f"""
table ip {TABLE} {{ }}
delete table ip {TABLE}
table ip {TABLE} {{
  map to_private {{ type ipv4_addr : ipv4_addr; }}
  map to_public {{ type ipv4_addr : ipv4_addr; }}
  chain prerouting {{
    type filter hook prerouting priority raw; policy drop;
    icmp type {{ destination-unreachable, source-quench, redirect, time-exceeded, parameter-problem }} drop
    iifname "{internet_interface}" goto from_internet
    iifname "{vpc_interface}" goto from_vpc
  }}
  chain from_internet {{
    ip saddr != {internet} drop
    ip daddr != {elastic} drop
    ip daddr set ip daddr map @to_private
    ip daddr {elastic} drop
    accept
  }}
  chain from_vpc {{
    ip saddr != {vpc} drop
    ip daddr != {{ {elastic}, {internet} }} drop
    ip saddr set ip saddr map @to_public
    ip saddr {vpc} drop
    ip daddr set ip daddr map @to_private
    ip daddr {elastic} drop
    accept
  }}
  chain input {{ type filter hook input priority filter; policy drop; }}
  chain output {{
    type filter hook output priority filter; policy drop;
    meta mark {ICMP_MARK:#x} accept
  }}
}}
"""


def transaction(table: dict[IPv4Address, IPv4Address]) -> str:
    """One nft transaction after which exactly `table` holds."""
    lines = [f"flush map ip {TABLE} to_private", f"flush map ip {TABLE} to_public"]
    for public, private in sorted(table.items()):
        lines.append(f"add element ip {TABLE} to_private {{ {public} : {private} }}")
        lines.append(f"add element ip {TABLE} to_public {{ {private} : {public} }}")
    return "\n".join(lines) + "\n"


def parse_map(document: dict[str, Any]) -> dict[IPv4Address, IPv4Address]:
    """{public: private} out of `nft -j list map`."""
    for entry in document["nftables"]:
        if "map" in entry:
            return {IPv4Address(p): IPv4Address(q) for p, q in entry["map"].get("elem", [])}
    return {}


def _nft(topology: Topology, *arguments: str) -> list[str]:
    return ["nsenter", "-t", str(router_pid(topology)), "-n", "-m", "nft", *arguments]


def _write(path: Path, table: dict[IPv4Address, IPv4Address]) -> None:
    write_json(path, {str(public): str(private) for public, private in table.items()})


def _text(address: IPv4Address | None) -> str | None:
    return None if address is None else str(address)
