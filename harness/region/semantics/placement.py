"""Placement: in which zone an instance is, and what keeps a network from being deleted."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import IPv4Network

from harness.region.calls import AwsError
from harness.topology import ZONE


def decide_zone(asked: str | None, *, subnet: tuple[str, str] | None, zones: Collection[str]) -> str:
    """RunInstances: the zone of the subnet (its id and its zone), else the one that was asked for, else ours.

    A zone that is not the subnet's is refused. (The reference has no code for either refusal; both are seen on AWS.)
    """
    if subnet is not None:
        subnet_id, zone = subnet
        if asked is not None and asked != zone:
            raise AwsError(
                "InvalidParameterValue",
                f"Value ({asked}) for parameter availabilityZone is invalid. Subnet '{subnet_id}' is in the "
                f"availability zone {zone}",
            )
        return zone
    if asked is not None and asked not in zones:
        raise AwsError("InvalidParameterValue", f"Invalid availability zone: [{asked}]")
    return asked or ZONE


def check_zone(zone: str, zones: Collection[str]) -> None:
    """CreateVolume: a zone of the region (error codes: InvalidZone.NotFound)."""
    if zone not in zones:
        raise AwsError("InvalidZone.NotFound", f"The zone '{zone}' does not exist.")


def check_subnet(subnet_id: str, block: str, cell: IPv4Network) -> None:
    """RunInstances: machines are in the one network that this cell has (ours)."""
    if block != str(cell):
        raise AwsError(
            "UnsupportedOperation",
            f"The subnet '{subnet_id}' is {block}: in this region instances run in subnets of {cell} only.",
        )


def check_deletable(kind: str, resource_id: str, *, used_by: Collection[str]) -> None:
    """DeleteSubnet, DeleteVpc: only what nothing is in (API reference)."""
    if used_by:
        raise AwsError("DependencyViolation", f"The {kind} '{resource_id}' has dependencies and cannot be deleted.")


def check_interface_free(interface_id: str, owner: str | None) -> None:
    """DeleteNetworkInterface: detached first (API reference). The code is what AWS is seen to answer; the list of error
    codes has InvalidNetworkInterface.InUse for it and says that this one may come as well."""
    if owner is not None:
        raise AwsError("InvalidParameterValue", f"Network interface '{interface_id}' is currently in use.")
