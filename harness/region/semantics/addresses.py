"""Addresses: which private and public ones are free, and who may have them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from ipaddress import IPv4Address, IPv4Network

from harness.region.calls import AwsError
from harness.region.semantics.instances import InstanceState

RESERVED_HOSTS = 4
"""AWS reserves the first four addresses and the last one of every subnet."""


def decide_associate(
    public_ip: str, owner: str | None, *, target: str, target_state: InstanceState, allow_reassociation: bool
) -> None:
    """AssociateAddress: in a VPC an address moves without asking, unless the caller said it must not.

    `owner` and `target` are private addresses.
    """
    if target_state in ("terminated", "shutting-down"):
        raise AwsError("IncorrectInstanceState", f"The instance with address {target} is {target_state}.")
    if owner is not None and owner != target and not allow_reassociation:
        raise AwsError("Resource.AlreadyAssociated", f"resource {public_ip} is already associated with {owner}")


def free_elastic(elastic: IPv4Network, taken: Iterable[str]) -> IPv4Address:
    """The lowest Elastic IP that nobody holds (AWS hands out any; the lowest is ours, so that runs look alike)."""
    used = set(taken)
    for address in elastic.hosts():
        if str(address) not in used:
            return address
    raise AwsError("AddressLimitExceeded", "The maximum number of addresses has been reached.")


def choose_private(subnet: IPv4Network, wanted: str | None, taken: Collection[str]) -> IPv4Address:
    """The private address of a new instance: the one asked for, or the lowest free one from .11 up (ours)."""
    if wanted is None:
        for host in list(subnet.hosts())[10:]:
            if str(host) not in taken:
                return host
        raise AwsError("InsufficientFreeAddressesInSubnet", "The subnet does not have enough free addresses.")
    try:
        address = IPv4Address(wanted)
    except ValueError:
        raise AwsError("InvalidParameterValue", f"Invalid value '{wanted}' for privateIpAddress.") from None
    reserved = [*list(subnet)[:RESERVED_HOSTS], subnet.broadcast_address]
    if address not in subnet or address in reserved:
        raise AwsError("InvalidParameterValue", f"Address {wanted} does not fall within the subnet's address range")
    if wanted in taken:
        raise AwsError("InvalidIPAddress.InUse", f"Address {wanted} is in use.")
    return address
