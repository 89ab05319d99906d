"""How the nodes reach the EC2 API: by a VPC endpoint, or over the internet like most instances.

`endpoint`: at the host's address on the VPC's bridge, whatever public address a node has. `public`: at the host's
address on the internet's side, through the router. A node needs a public address for that, and a move of the address
cuts the connections that used it; calls from a private address get no answer. The harness itself always calls at the
first.
"""

from __future__ import annotations

import json
from ipaddress import IPv4Address
from typing import Literal

from harness.region.files import write_json
from harness.topology import Topology

Api = Literal["endpoint", "public"]
FILE = "api.json"


def write_api(topology: Topology, api: Api) -> None:
    """Write it down for the gateway, and for one that is started after it died."""
    write_json(topology.state_dir / FILE, {"api": api})


def read_api(topology: Topology) -> Api:
    """As `write_api` left it, `endpoint` where it never was."""
    try:
        row = json.loads((topology.state_dir / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return "endpoint"
    return "public" if row["api"] == "public" else "endpoint"


def hosts(topology: Topology, api: Api) -> list[str]:
    """Addresses at which the gateway listens."""
    public = [str(topology.public_endpoint_address)] if api == "public" else []
    return [str(topology.endpoint_address), *public]


def guest_endpoint(topology: Topology, api: Api) -> IPv4Address:
    """Where guests call the API."""
    return topology.public_endpoint_address if api == "public" else topology.endpoint_address


def serves(topology: Topology, api: Api, source: str) -> bool:
    """Whether a call from this address is answered: with `public`, guests have no way by their private addresses."""
    if api == "endpoint" or source == str(topology.endpoint_address):
        return True
    try:
        return IPv4Address(source) not in topology.vpc_subnet
    except ValueError:
        return True
