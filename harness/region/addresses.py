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
from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path
from threading import RLock
from typing import Any

from harness.command import run
from harness.errors import InfrastructureError
from harness.region import neighbours
from harness.region.files import write_json
from harness.region.journal import Journal
from harness.region.router import interfaces, router_pid
from harness.topology import Topology

TABLE = "pbx_chaos"
ICMP_MARK = 0x1C3
"""Packet mark of what harness.region.icmp sends; nothing else may leave the router by itself."""

ROUTES = "200"
"""Protocol number of the routes that are ours in the router (ip-route(8): anything not in rt_protos)."""

TABLE_FILE = "addresses.json"
"""{public: private} in state_dir, for the ICMP translator; written after each move."""


class Addresses:
    """The mapping of Elastic IPs to private addresses, as the router has it. Safe to use from several threads."""

    def __init__(self, *, topology: Topology, journal: Journal) -> None:
        self._topology = topology
        self._journal = journal
        self._lock = RLock()
        self._file = topology.state_dir / TABLE_FILE
        self._known: dict[IPv4Address, IPv4Address] | None = self.table()
        """What the router has; None when a change of it failed, which may have been made nevertheless."""
        self._overlays: dict[IPv4Address, IPv4Address] | None = None

    def map(self, public: IPv4Address, private: IPv4Address) -> None:
        """Give `public` to `private` (a node's own address); whoever had it loses it in the same transaction."""
        self.change({public: private})

    def unmap(self, public: IPv4Address) -> None:
        """Nobody has `public` any more; packets to it are dropped. Idempotent."""
        self.change({public: None})

    def change(self, changes: Mapping[IPv4Address, IPv4Address | None]) -> None:
        """Let each public address lead to a private one, or to nobody, all in one transaction. Idempotent."""
        with self._lock:
            before = self.table() if self._known is None else self._known
            takers = set(changes.values())
            kept = {p: q for p, q in before.items() if p not in changes and q not in takers}
            after = kept | {p: q for p, q in changes.items() if q is not None}
            if after == self._known:
                return
            started = time.monotonic_ns()
            self._load(after)
            took_ms = round((time.monotonic_ns() - started) / 1e6, 3)
            for public, private in changes.items():
                event = "address_unmapped" if private is None else "address_mapped"
                facts: dict[str, Any] = {} if private is None else {"private_ip": str(private)}
                self._journal.record(
                    event, took_ms=took_ms, public_ip=str(public), before=_text(before.get(public)), **facts
                )

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
            if wanted == self._known:
                _write(self._file, wanted)
                return
            self._load(wanted)
            self._journal.record("addresses_restored", table={str(p): str(q) for p, q in wanted.items()})

    def own(self, owners: Mapping[IPv4Address, str], guests: Mapping[str, int]) -> None:
        """Who has which private address: {address: hardware address}. `guests` are the running ones, name -> host pid.

        A VPC answers ARP for all of them, whether the owner lives or not, and lets nobody send from another one's.
        """
        with self._lock:
            pid = router_pid(self._topology)
            run(_nft(self._topology, "-f", "-"), timeout_s=5, input=owners_transaction(owners))
            neighbours.spread(self._topology, owners, {**guests, "router": pid})

    def route(self, overlays: Mapping[IPv4Address, IPv4Address]) -> None:
        """Addresses outside the VPC that its route table sends to a node: {address: the node's private one}."""
        with self._lock:
            if overlays == self._overlays:
                return
            pid = router_pid(self._topology)
            vpc, _ = interfaces(self._topology, pid)
            there = run(["nsenter", "-t", str(pid), "-n", "ip", "-j", "route", "show", "proto", ROUTES], timeout_s=5)
            old = {row["dst"] for row in json.loads(there.stdout or "[]")} - {str(address) for address in overlays}
            lines = [f"route del {address} dev {vpc} proto {ROUTES}" for address in sorted(old)]
            lines += [
                f"route replace {to} via {node} dev {vpc} proto {ROUTES}" for to, node in sorted(overlays.items())
            ]
            batch = ["nsenter", "-t", str(pid), "-n", "ip", "-force", "-batch", "-"]
            run(batch, timeout_s=5, input="\n".join(lines) + "\n")
            run(_nft(self._topology, "-f", "-"), timeout_s=5, input=overlay_transaction(overlays))
            self._overlays = dict(overlays)
            self._journal.record("routes_changed", routes={str(to): str(node) for to, node in overlays.items()})

    def _load(self, after: dict[IPv4Address, IPv4Address]) -> None:
        self._known = None
        run(_nft(self._topology, "-f", "-"), timeout_s=5, input=transaction(after))
        _write(self._file, after)
        self._known = dict(after)


def ruleset(topology: Topology, *, vpc_interface: str, internet_interface: str) -> str:
    """The router's whole filter, for `nft -f`. Replaces the table when it is there already.

    `acl_in` and `acl_out` are the network ACL of the subnet (semantics/network_acls.py), empty where all may pass.
    """
    elastic, vpc, internet = topology.elastic_range, topology.vpc_subnet, topology.internet_subnet
    return f"""
table ip {TABLE} {{ }}
delete table ip {TABLE}
table ip {TABLE} {{
  map to_private {{ type ipv4_addr : ipv4_addr; }}
  map to_public {{ type ipv4_addr : ipv4_addr; }}
  set owned {{ type ipv4_addr; }}
  set owners {{ type ipv4_addr . ether_addr; }}
  set overlays {{ type ipv4_addr; }}
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
    jump acl_in
    accept
  }}
  chain from_vpc {{
    ip saddr != {vpc} drop
    ip saddr @owned ip saddr . ether saddr != @owners drop
    ip daddr @overlays accept
    ip daddr != {{ {elastic}, {internet} }} drop
    jump acl_out
    ip saddr set ip saddr map @to_public
    ip saddr {vpc} drop
    ip daddr set ip daddr map @to_private
    ip daddr {elastic} drop
    ip daddr {vpc} jump acl_in
    accept
  }}
  chain acl_in {{ }}
  chain acl_out {{ }}
  chain input {{ type filter hook input priority filter; policy drop; }}
  chain output {{
    type filter hook output priority filter; policy drop;
    meta mark != {ICMP_MARK:#x} drop
    oifname "{vpc_interface}" jump acl_in
    oifname "{internet_interface}" jump acl_out
    accept
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


def owners_transaction(owners: Mapping[IPv4Address, str]) -> str:
    """One nft transaction after which nobody but its owner can send from a private address."""
    lines = [f"flush set ip {TABLE} owned", f"flush set ip {TABLE} owners"]
    for address, mac in sorted(owners.items()):
        lines.append(f"add element ip {TABLE} owned {{ {address} }}")
        lines.append(f"add element ip {TABLE} owners {{ {address} . {mac} }}")
    return "\n".join(lines) + "\n"


def overlay_transaction(overlays: Mapping[IPv4Address, IPv4Address]) -> str:
    """One nft transaction after which exactly these overlay addresses are forwarded inside the VPC."""
    lines = [f"flush set ip {TABLE} overlays"]
    lines += [f"add element ip {TABLE} overlays {{ {address} }}" for address in sorted(overlays)]
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
