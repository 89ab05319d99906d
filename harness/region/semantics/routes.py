"""Routes: which of them hold in a subnet, and which lead an address outside the VPC to an instance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from harness.region.calls import AwsError


@dataclass(frozen=True, kw_only=True)
class RouteTable:
    """A route table of the VPC: its routes to interfaces {destination: interface id}, the subnets it is explicitly
    associated with, and whether it is the VPC's main one."""

    vpc_id: str
    main: bool
    subnets: frozenset[str]
    to_interfaces: Mapping[str, str]


def overlays(tables: Iterable[RouteTable], *, subnet_id: str, vpc_id: str, vpc: IPv4Network) -> dict[IPv4Address, str]:
    """{address outside the VPC: interface id} for packets that leave an instance of the subnet.

    A subnet uses the table it is associated with, else the main one of its VPC (AWS: "Route tables for your VPC").
    Only single addresses are carried by the data plane (what an overlay address is); wider routes stay in the books.
    """
    ours = [table for table in tables if table.vpc_id == vpc_id]
    used = next((table for table in ours if subnet_id in table.subnets), None)
    used = used or next((table for table in ours if table.main), None)
    if used is None:
        return {}
    found = {}
    for destination, interface_id in used.to_interfaces.items():
        network = IPv4Network(destination, strict=False)
        if network.prefixlen == 32 and network.network_address not in vpc:
            found[network.network_address] = interface_id
    return found


def check_destination(destination: str) -> str:
    """A route's IPv4 destination in canonical form (AWS: host bits are cut off), or EC2's error."""
    try:
        return str(IPv4Network(destination, strict=False))
    except ValueError:
        raise AwsError(
            "InvalidParameterValue", f"Value ({destination}) for parameter destinationCidrBlock is invalid."
        ) from None


def decide_create(destination: str, existing: Iterable[str], *, vpc: str) -> None:
    """CreateRoute: one route per destination, none to the VPC itself."""
    if destination in existing:
        raise AwsError("RouteAlreadyExists", f"The route identified by {destination} already exists.")
    if IPv4Network(destination) == IPv4Network(vpc):
        raise AwsError("InvalidParameterValue", f"The destination {destination} is the local route.")
