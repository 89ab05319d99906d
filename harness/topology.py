"""Where everything of a cell lives: names, labels, addresses, folders; pure functions of its name and slot.

A *slot* (0-15) is a pair of /24 networks, and a small third one for LocalStack, out of 198.18.0.0/15 (RFC 2544,
benchmarking) and sixteen Elastic IPs out of 203.0.113.0/24 (RFC 5737, documentation), so that several cells can live on
one host and none can reach a real network.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

STATE_ROOT = Path("/var/lib/pbx-chaos")
"""Everything of ours on the host that is not a run folder: one folder per cell, wiped by `pbx-chaos clean`."""

CELL_LABEL = "pbx-chaos.cell"
"""Label on every container and network of ours; its value is the cell's name."""

ROLE_LABEL = "pbx-chaos.role"
"""Label on every container of ours: instance, router, client or books."""

SLOTS = 16
_CELL_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
REGION_NAME = "us-east-1"
ZONE = "us-east-1a"
GATEWAY_PORT = 4566


@dataclass(frozen=True, kw_only=True)
class Topology:
    """Addresses and names of one cell; `ValueError` for a name or slot that can't be one.

    The name becomes part of paths that are removed as a whole, hence its narrow alphabet.
    """

    cell: str
    slot: int

    def __post_init__(self) -> None:
        if not _CELL_NAME.fullmatch(self.cell):
            raise ValueError(f"a cell's name is at most 32 of a-z, 0-9 and '-': {self.cell!r}")
        if not 0 <= self.slot < SLOTS:
            raise ValueError(f"slot must be 0-{SLOTS - 1}, not {self.slot}")

    @property
    def state_dir(self) -> Path:
        return STATE_ROOT / self.cell

    @property
    def vpc_network(self) -> str:
        """Name of the Docker network that is the VPC's one subnet."""
        return f"{self.cell}-vpc"

    @property
    def internet_network(self) -> str:
        """Name of the Docker network where the clients live."""
        return f"{self.cell}-internet"

    @property
    def vpc_subnet(self) -> IPv4Network:
        return IPv4Network(f"198.18.{2 * self.slot}.0/24")

    @property
    def internet_subnet(self) -> IPv4Network:
        return IPv4Network(f"198.18.{2 * self.slot + 1}.0/24")

    @property
    def books_subnet(self) -> IPv4Network:
        """Where LocalStack is, if it keeps the books; only the host reaches it."""
        return IPv4Network(f"198.19.{self.slot}.0/29")

    @property
    def elastic_range(self) -> IPv4Network:
        """Public addresses that this cell may hand out."""
        return IPv4Network(f"203.0.113.{16 * self.slot}/28")

    @property
    def router_name(self) -> str:
        return f"{self.cell}-router"

    @property
    def router_vpc_address(self) -> IPv4Address:
        return self.vpc_subnet[2]

    @property
    def router_internet_address(self) -> IPv4Address:
        return self.internet_subnet[2]

    @property
    def endpoint_address(self) -> IPv4Address:
        """The VPC endpoint of the EC2 API: the host's own address on the VPC bridge, where the gateway listens."""
        return self.vpc_subnet[1]

    @property
    def endpoint_url(self) -> str:
        return f"http://{self.endpoint_address}:{GATEWAY_PORT}"

    @property
    def public_endpoint_address(self) -> IPv4Address:
        """The EC2 API without a VPC endpoint: the host's own address on the internet's side, reached by the router."""
        return self.internet_subnet[1]

    @property
    def public_endpoint_url(self) -> str:
        return f"http://{self.public_endpoint_address}:{GATEWAY_PORT}"

    def node_address(self, index: int) -> IPv4Address:
        """Private address of node 1, 2, 3 …: .11, .12, .13 …"""
        return self.vpc_subnet[10 + index]

    def client_address(self, index: int) -> IPv4Address:
        """Address of client container 1, 2, 3 … on the internet side: .11, .12 …"""
        return self.internet_subnet[10 + index]


def mac_of(private_ip: IPv4Address | str) -> str:
    """Hardware address of the interface whose primary private address this is."""
    return "02:42:" + ":".join(f"{part:02x}" for part in IPv4Address(private_ip).packed)
