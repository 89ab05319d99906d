"""Addresses: which private and public ones are free, who may have them, and which decision about one is the last."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from threading import RLock

from harness.region.calls import AwsError
from harness.region.semantics.instances import InstanceState
from harness.region.state import Address, Instance

RESERVED_HOSTS = 4
"""AWS reserves the first four addresses and the last one of every subnet."""

MOST_PRIVATE = 10
"""Private IPv4 addresses of one interface of an m5.large ("IP addresses per network interface per instance type")."""

Changes = Mapping[IPv4Address, IPv4Address | None]
"""Public addresses and the private one each shall lead to, None for nobody."""


class Moves:
    """Which decided changes the data plane may still make. It lags, so they can come due in another order than they
    were decided in: about each public address the latest decision wins. Hold `lock` from `due` until `made`; what could
    not be made stays due.
    """

    def __init__(self) -> None:
        self.lock = RLock()
        self._decided = 0
        self._made: dict[IPv4Address, int] = {}

    def decide(self) -> int:
        """The number of a decision that was made now."""
        with self.lock:
            self._decided += 1
            return self._decided

    def due(self, number: int, changes: Changes) -> dict[IPv4Address, IPv4Address | None]:
        """Those of the changes of decision `number` that none after it has overtaken."""
        with self.lock:
            return {public: private for public, private in changes.items() if self._made.get(public, 0) < number}

    def made(self, number: int, changes: Changes) -> None:
        """The data plane has made these changes of decision `number`."""
        with self.lock:
            self._made |= dict.fromkeys(changes, number)


NEEDED = {
    "AssociateAddress": (
        "InvalidParameterCombination",
        "You must specify an allocation id when mapping an address to a VPC instance",
    ),
    "ReleaseAddress": (
        "InvalidParameterValue",
        "You must specify an allocation id when releasing a VPC elastic IP address",
    ),
    "DisassociateAddress": (
        "InvalidParameterValue",
        "You must specify an association id when unmapping an address from a VPC instance",
    ),
}
"""Action: the answer to a call that names an address by itself alone."""


def check_named(action: str, *, wanted_id: str | None, public_ip: str | None) -> str:
    """The id of the allocation, or of the association, that the call names.

    It is required, PublicIp is of a time before VPCs (API reference). The codes are what AWS is seen to answer.
    """
    if wanted_id is not None and public_ip is not None:
        raise AwsError(
            "InvalidParameterCombination", "You may specify public IP or the id, but not both in the same call"
        )
    if wanted_id is not None:
        return wanted_id
    if public_ip is not None:
        raise AwsError(*NEEDED[action])
    raise AwsError("MissingParameter", f"{action} needs the id of an allocation, or of an association.")


def decide_associate(
    public_ip: str,
    owner: str | None,
    *,
    target: str,
    instance_id: str,
    interface_id: str | None,
    target_state: InstanceState,
    allow_reassociation: bool,
) -> None:
    """AssociateAddress: in a VPC an address moves without asking, unless the caller said it must not.

    `owner` and `target` are private addresses; `interface_id` is given when the call names the interface, not the
    instance. An instance has to be running or stopped. The reference has no code for one that is not; these two are
    what AWS is seen to answer. Of one that is `stopping` nothing is known: it is taken.
    """
    if target_state in ("pending", "shutting-down", "terminated"):
        if interface_id is not None:
            raise AwsError(
                "IncorrectInstanceState",
                f"The {target_state} instance to which '{interface_id}' is attached is not in a valid state for this "
                "operation",
            )
        raise AwsError(
            "InvalidInstanceID",
            f"The {target_state} instance '{instance_id}' is not in a valid state for this operation.",
        )
    if owner is not None and owner != target and not allow_reassociation:
        raise AwsError("Resource.AlreadyAssociated", f"resource {public_ip} is already associated with {owner}")


def agreed(addresses: Iterable[Address], instances: Iterable[Instance]) -> tuple[list[Address], list[Instance]]:
    """The records to be replaced so that no two of them contradict each other.

    An Elastic IP leads to a private address that its living instance has, of several at one private address the one
    with the latest place in the table (the records don't say which came last: ours); an instance has a public address
    of its own only while it lives and no Elastic IP leads to its primary private address.
    """
    everybody = list(instances)
    records = {record.instance_id: record for record in everybody if not record.terminated}
    held: dict[str, Address] = {}
    mended: list[Address] = []
    for address in addresses:
        owner = records.get(address.instance_id or "")
        if address.association_id is None and address.instance_id is None and address.private_ip is None:
            continue
        if owner is None or address.private_ip not in owner.private_ips:
            mended.append(replace(address, association_id=None, instance_id=None, private_ip=None))
            continue
        if (other := held.get(address.private_ip)) is not None:
            mended.append(replace(other, association_id=None, instance_id=None, private_ip=None))
        held[address.private_ip] = address
    too_many = [r for r in everybody if r.own_public is not None and (r.terminated or r.private_ip in held)]
    return mended, [replace(record, own_public=None) for record in too_many]


def free_elastic(elastic: IPv4Network, taken: Iterable[str]) -> IPv4Address:
    """The lowest Elastic IP that nobody holds (AWS hands out any; the lowest is ours, so that runs look alike)."""
    used = set(taken)
    for address in elastic.hosts():
        if str(address) not in used:
            return address
    raise AwsError("AddressLimitExceeded", "The maximum number of addresses has been reached.")


def free_own(elastic: IPv4Network, taken: Iterable[str]) -> IPv4Address:
    """A public address for an instance that gets one of its own: the lowest free one of the upper half (ours)."""
    used = set(taken)
    for address in list(elastic.subnets(prefixlen_diff=1))[1]:
        if str(address) not in used and address != elastic.broadcast_address:
            return address
    raise AwsError("InsufficientAddressCapacity", "Not enough available addresses to satisfy the request.", 500)


def decide_assign(
    interface_id: str,
    wanted: Collection[str],
    *,
    subnet: IPv4Network,
    mine: Collection[str],
    primaries: Collection[str],
    secondaries: Collection[str],
    allow_reassignment: bool,
) -> list[str]:
    """AssignPrivateIpAddresses with a list: the addresses that the interface does not have yet.

    `mine` are the interface's own, `primaries` and `secondaries` those of all others. A primary address never moves, a
    secondary one only with AllowReassignment (off unless given, API reference). The codes of the two refusals are
    ours: the reference names none.
    """
    new = [address for address in dict.fromkeys(wanted) if address not in mine]
    for address in new:
        choose_private(subnet, address, ())
        if address in primaries:
            raise AwsError("InvalidParameterValue", f"[{address}] is the primary address of another interface")
        if address in secondaries and not allow_reassignment:
            raise AwsError("InvalidParameterValue", f"[{address}] is already assigned, but move is not allowed")
    _check_limit(interface_id, len(mine) + len(new))
    return new


def choose_secondaries(
    interface_id: str, count: int, *, subnet: IPv4Network, mine: Collection[str], taken: Collection[str]
) -> list[str]:
    """AssignPrivateIpAddresses with a count: so many free addresses, the lowest ones (ours)."""
    if count < 1:
        raise AwsError("InvalidParameterValue", f"Invalid value '{count}' for secondaryPrivateIpAddressCount.")
    _check_limit(interface_id, len(mine) + count)
    chosen: list[str] = []
    for _ in range(count):
        chosen.append(str(choose_private(subnet, None, {*taken, *chosen})))
    return chosen


def decide_unassign(interface_id: str, wanted: Collection[str], *, primary: str, secondaries: Collection[str]) -> None:
    """UnassignPrivateIpAddresses: secondary addresses of this interface only."""
    for address in wanted:
        if address == primary:
            raise AwsError("InvalidParameterValue", f"The primary address {address} cannot be unassigned")
        if address not in secondaries:
            raise AwsError(
                "InvalidParameterValue", f"Some of the specified addresses are not assigned to interface {interface_id}"
            )


def _check_limit(interface_id: str, number: int) -> None:
    if number > MOST_PRIVATE:
        raise AwsError("PrivateIpAddressLimitExceeded", f"Number of private addresses of {interface_id} exceeds limit.")


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
