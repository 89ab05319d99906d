"""ARP as a VPC does it: every private address of an interface has an answer, whether its owner lives or not.

The nodes share a bridge, where a machine that is off answers no ARP and its peers' kernels say "no route to host" after
some seconds. In a VPC they hear nothing, and where an address leads is decided by AWS, not by a gratuitous ARP. Hence
permanent neighbour entries in every guest and in the router, written from outside; no guest is asked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path

from harness.command import CommandFailed, run
from harness.region.files import write_json
from harness.topology import Topology

TABLE_FILE = "neighbours.json"
"""{private address: hardware address} in state_dir: what a guest that boots is given before its init runs."""

NOBODY = "02:42:00:00:00:00"


def spread(topology: Topology, owners: Mapping[IPv4Address, str], machines: Mapping[str, int]) -> None:
    """Write the table down, then into every machine's network namespace (name -> host pid).

    A machine that starts meanwhile reads the file after it was written, or is among `machines`. One that has just died
    is left out.
    """
    path = topology.state_dir / TABLE_FILE
    before = _read(path)
    table = {str(address): mac for address, mac in owners.items()}
    write_json(path, table)
    for pid in machines.values():
        with suppress(CommandFailed, OSError):
            _enter(pid, batch(table, gone=set(before) - set(table), interface=_interface(topology, pid)))


def equip(topology: Topology, pid: int, *, interface: str) -> None:
    """Give one booting guest what is written down."""
    table = _read(topology.state_dir / TABLE_FILE)
    if table:
        _enter(pid, batch(table, gone=set(), interface=interface))


def batch(table: Mapping[str, str], *, gone: set[str], interface: str) -> str:
    """Commands for `ip -batch`. One that is gone is put there first: `ip` ends at a deletion that finds nothing."""
    lines = []
    for address in sorted(gone):
        lines += [_permanent(address, NOBODY, interface), f"neigh del {address} dev {interface}"]
    lines += [_permanent(address, mac, interface) for address, mac in sorted(table.items())]
    return "\n".join(lines) + "\n"


def _permanent(address: str, mac: str, interface: str) -> str:
    return f"neigh replace {address} lladdr {mac} dev {interface} nud permanent"


def _read(path: Path) -> dict[str, str]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}


def _enter(pid: int, commands: str) -> None:
    run(["nsenter", "-t", str(pid), "-n", "ip", "-batch", "-"], timeout_s=5, input=commands)


def _interface(topology: Topology, pid: int) -> str:
    """The machine's interface in the VPC, found by the subnet of its address."""
    rows = json.loads(run(["nsenter", "-t", str(pid), "-n", "ip", "-j", "-4", "addr"], timeout_s=5).stdout)
    for row in rows:
        if any(IPv4Address(info["local"]) in topology.vpc_subnet for info in row["addr_info"]):
            return str(row["ifname"])
    raise CommandFailed(f"no interface in {topology.vpc_subnet}")
