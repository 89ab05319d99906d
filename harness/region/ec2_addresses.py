"""The EC2 actions on public addresses: one owner, in what is written down at once, in the router when packets follow.

An Elastic IP leads to one private address; an instance may have a public address of its own instead while it runs.
Associations are kept here, not in the books: those know one address per instance. What is decided holds for every
answer at once; the router follows when the timing says so (delay `address`), and the last decision wins.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

from harness.region import address_agreement
from harness.region.calls import BOOKS_ACCOUNT, AwsError, Call, answer, put, take_filters
from harness.region.plane import Action, Plane, refuse_dry_run
from harness.region.semantics import addresses as semantics
from harness.region.semantics.addresses import Changes
from harness.region.semantics.matching import Places, item_passes
from harness.region.state import Address, Instance, Tables

ANSWER_S = 0.05
"""A move that cuts off the very connection its call came by follows the answer, by so much at least. AWS is never so
fast that a machine which takes an Elastic IP through its own public address misses the answer."""

FILTERS: Places = {
    "allocation-id": ("allocationId",),
    "association-id": ("associationId",),
    "instance-id": ("instanceId",),
    "network-interface-id": ("networkInterfaceId",),
    "network-interface-owner-id": ("networkInterfaceOwnerId",),
    "private-ip-address": ("privateIpAddress",),
    "public-ip": ("publicIp",),
}
"""DescribeAddresses' filters that are judged here, and where their values stand in the answer."""


def allocate_address(plane: Plane, call: Call) -> bytes:
    """AllocateAddress, out of the cell's own range: the books are told which one it is."""
    refuse_dry_run(call)
    with plane.state.lock:
        public = semantics.free_elastic(plane.topology.elastic_range, _taken(plane))
        document = plane.books.call("AllocateAddress", {"Domain": "vpc", **call.params, "Address": str(public)})
        allocation_id = document.root.findtext("allocationId") or ""
        plane.state.put(Address(allocation_id=allocation_id, public_ip=str(public)))
    return document.body(call)


def release_address(plane: Plane, call: Call) -> bytes:
    """ReleaseAddress: only when nobody has it."""
    refuse_dry_run(call)
    with plane.state.lock:
        address = _address(plane, call)
        if address.association_id is not None:
            raise AwsError("InvalidIPAddress.InUse", f"Address {address.public_ip} is in use.")
        plane.books.call("ReleaseAddress", {"AllocationId": address.allocation_id})
        plane.state.drop(address)
    return answer(call, {"return": True})


def associate_address(plane: Plane, call: Call) -> bytes:
    """AssociateAddress: the address moves, and its old owner as well as the target's old address lose each other.

    An instance gives up the public address of its own when an Elastic IP comes to its primary private address.
    """
    refuse_dry_run(call)
    with plane.state.lock:
        address = _address(plane, call)
        target, private_ip = _target(plane, call)
        semantics.decide_associate(
            address.public_ip,
            address.private_ip,
            target=private_ip,
            instance_id=target.instance_id,
            interface_id=call.get("NetworkInterfaceId"),
            target_state=plane.state_of(target),
            allow_reassociation=call.flag("AllowReassociation", default=True),
        )
        if address.association_id is not None and address.private_ip == private_ip:
            return answer(call, {"return": True, "associationId": address.association_id})
        displaced = plane.state.now().elastic_at(private_ip)
        changes: dict[str, str | None] = {address.public_ip: private_ip}
        if displaced is not None:
            changes[displaced.public_ip] = None
        gives_up = target.own_public if private_ip == target.private_ip else None
        if gives_up is not None:
            changes[gives_up] = None
        made = replace(
            address,
            association_id=f"eipassoc-{secrets.token_hex(8)}{secrets.choice('0123456789abcdef')}",
            instance_id=target.instance_id,
            private_ip=private_ip,
        )
        losers = [freed(displaced)] if displaced is not None else []
        givers = [replace(target, own_public=None)] if gives_up is not None else []
        _move(plane, changes, *losers, *givers, made, source=call.source)
        _lost(plane, address, source=call.source)
        plane.refresh_metadata(target.instance_id)
    return answer(call, {"return": True, "associationId": made.association_id})


def disassociate_address(plane: Plane, call: Call) -> bytes:
    """DisassociateAddress: nobody has it; its packets are dropped."""
    refuse_dry_run(call)
    with plane.state.lock:
        given, public_ip = call.get("AssociationId"), call.get("PublicIp")
        association_id = semantics.check_named(call.action, wanted_id=given, public_ip=public_ip)
        for address in plane.state.addresses.values():
            if address.association_id == association_id:
                disassociate(plane, address, source=call.source)
                return answer(call, {"return": True})
    raise AwsError("InvalidAssociationID.NotFound", f"The association ID '{association_id}' does not exist")


def describe_addresses(plane: Plane, call: Call) -> bytes:
    """DescribeAddresses of the books, with the associations as they are; never in the middle of a move.

    No lock is held, here as in every Describe call, while the books are asked: nobody who changes something waits.
    """
    params, wanted = take_filters(call.params, FILTERS)
    document = plane.books.call("DescribeAddresses", params)
    tables = plane.seen()
    visible = {address.public_ip for address in tables.addresses.values()}  # what is too new is not there yet
    for allocation_id in call.numbered("AllocationId"):
        if allocation_id not in tables.addresses:
            raise _no_allocation(allocation_id)
    for public_ip in call.numbered("PublicIp"):
        if public_ip not in visible:
            raise _no_address(public_ip)
    keep: dict[str, bool] = {}
    for item in document.items("addressesSet"):
        allocation_id = item.findtext("allocationId") or ""
        for name, value in _association(tables, tables.addresses.get(allocation_id)).items():
            put(item, name, value)
        keep[allocation_id] = allocation_id in tables.addresses and item_passes(item, wanted, FILTERS)
    document.keep("addressesSet", keep, "allocationId")
    return document.body(call)


def give_own_address(plane: Plane, instance_id: str) -> None:
    """A public address of its own for an instance that wants one and has none. AWS: "Public IPv4 addresses"."""
    with plane.state.lock:
        record = plane.state.instances[instance_id]
        elastic = plane.state.now().elastic_at(record.private_ip)
        if not record.wants_public or record.own_public is not None or elastic is not None:
            return
        if plane.state_of(record) not in ("pending", "running"):
            return
        public = semantics.free_own(plane.topology.elastic_range, _taken(plane))
        _make(plane, plane.moves.decide(), {public: IPv4Address(record.private_ip)})
        plane.state.put(replace(record, own_public=str(public)))
        plane.refresh_metadata(instance_id)


def release_own_address(plane: Plane, instance_id: str) -> None:
    """An instance that is off gives its own public address back to the pool; it gets another one at its start."""
    with plane.state.lock:
        record = plane.state.instances[instance_id]
        if record.own_public is not None:
            _make(plane, plane.moves.decide(), {IPv4Address(record.own_public): None})
            plane.state.put(replace(record, own_public=None))
            plane.refresh_metadata(instance_id)


def renew_own_address(plane: Plane, instance_id: str) -> None:
    """At a start: another one than before, also after a guest that switched itself off."""
    release_own_address(plane, instance_id)
    give_own_address(plane, instance_id)


def disassociate(plane: Plane, address: Address, *, source: str) -> None:
    """Nobody has the Elastic IP from now on. Called under the lock."""
    _move(plane, {address.public_ip: None}, freed(address), source=source)
    _lost(plane, address, source=source)


def freed(address: Address) -> Address:
    """The Elastic IP when nobody has it."""
    return replace(address, association_id=None, instance_id=None, private_ip=None)


def follow_freed(plane: Plane, addresses: Iterable[Address]) -> None:
    """Let the router follow what was written down: nobody has these any more. Under the lock; a worker does it."""
    changes: Changes = {IPv4Address(address.public_ip): None for address in addresses}
    if changes:
        number, delay_s = plane.moves.decide(), plane.delays.draw("address")
        plane.background(_make_later, plane, number, changes, delay_s)


def resume(plane: Plane) -> None:
    """Make the router agree with what was last decided, and what was decided with itself."""
    address_agreement.restore(plane)
    tables = plane.state.now()
    plane.addresses.restore(_leads(tables))
    for record in [record for record in tables.instances.values() if not record.terminated]:
        plane.refresh_metadata(record.instance_id)
        if record.wants_public and record.own_public is None:
            plane.background(give_own_address, plane, record.instance_id)


def _lost(plane: Plane, before: Address, *, source: str) -> None:
    """What the old owner notices: its metadata, and after a while (delay `address`) a new address of its own.

    AWS, "Elastic IP addresses": an instance whose Elastic IP is disassociated gets a new public address within minutes
    if it had one from the pool. Called under the lock.
    """
    if before.instance_id is None:
        return
    plane.refresh_metadata(before.instance_id)
    record = plane.state.instances[before.instance_id]
    if not record.wants_public or before.private_ip != record.private_ip:
        return
    delay_s = _delay_s(plane, [before.public_ip], source=source)
    if delay_s > 0:
        plane.background(_give_later, plane, record.instance_id, delay_s)
    else:
        give_own_address(plane, record.instance_id)


def _give_later(plane: Plane, instance_id: str, delay_s: float) -> None:
    if not plane.closing.wait(delay_s):  # a gateway after this one gives it at its start
        give_own_address(plane, instance_id)


def _move(plane: Plane, changes: Mapping[str, str | None], *records: Address | Instance, source: str) -> None:
    """Let the router follow and write the records down: both, or neither, when one of them fails. Under the lock."""
    try:
        _follow(plane, changes, source=source)
        plane.state.put(*records)
    except Exception:
        plane.background(plane.until_done, _agree, plane, tuple(changes))
        raise


def _agree(plane: Plane, publics: Iterable[str]) -> None:
    """These addresses lead where the state says."""
    with plane.state.lock:
        leads = _leads(plane.state.now())
        wanted = {IPv4Address(public): leads.get(IPv4Address(public)) for public in publics}
        _make(plane, plane.moves.decide(), wanted)


def _leads(tables: Tables) -> dict[IPv4Address, IPv4Address]:
    """Public addresses, Elastic IPs and instances' own, and the private one that each leads to."""
    elastic = {a.public_ip: a.private_ip for a in tables.addresses.values() if a.private_ip}
    own = {i.own_public: i.private_ip for i in tables.instances.values() if i.own_public and not i.terminated}
    return {IPv4Address(public): IPv4Address(private) for public, private in (elastic | own).items()}


def _follow(plane: Plane, changes: Mapping[str, str | None], *, source: str) -> None:
    """Let the router follow: before the answer, or later when the timing says so or the answer would not arrive."""
    delay_s = _delay_s(plane, changes, source=source)
    wanted = {IPv4Address(public): IPv4Address(private) if private else None for public, private in changes.items()}
    number = plane.moves.decide()
    if delay_s > 0:
        plane.background(_make_later, plane, number, wanted, delay_s)
    else:
        _make(plane, number, wanted)


def _delay_s(plane: Plane, publics: Iterable[str], *, source: str) -> float:
    """How long after the decision these addresses move, seconds; `source` is where the call came from."""
    return max(plane.delays.draw("address"), ANSWER_S if source in publics else 0.0)


def _make_later(plane: Plane, number: int, changes: Changes, delay_s: float) -> None:
    plane.closing.wait(delay_s)
    plane.until_done(_make, plane, number, changes)


def _make(plane: Plane, number: int, changes: Changes) -> None:
    with plane.moves.lock:
        left = plane.moves.due(number, changes)
        if left:
            plane.addresses.change(left)
            plane.moves.made(number, left)


def _taken(plane: Plane) -> list[str]:
    """Public addresses that somebody holds."""
    own = [record.own_public for record in plane.state.instances.values() if record.own_public]
    return [address.public_ip for address in plane.state.addresses.values()] + own


def _association(tables: Tables, address: Address | None) -> dict[str, Any]:
    """Whom an address leads to, in EC2's element names."""
    owner = tables.instances.get(address.instance_id or "") if address else None
    if address is None or owner is None:
        names = ("associationId", "instanceId", "networkInterfaceId", "networkInterfaceOwnerId", "privateIpAddress")
        return dict.fromkeys(names)
    return {
        "associationId": address.association_id,
        "instanceId": owner.instance_id,
        "networkInterfaceId": owner.interface_id,
        "networkInterfaceOwnerId": BOOKS_ACCOUNT,
        "privateIpAddress": address.private_ip,
    }


def _address(plane: Plane, call: Call) -> Address:
    """The address whose allocation the call names."""
    given, public_ip = call.get("AllocationId"), call.get("PublicIp")
    allocation_id = semantics.check_named(call.action, wanted_id=given, public_ip=public_ip)
    found = plane.state.addresses.get(allocation_id)
    if found is None:
        raise _no_allocation(allocation_id)
    return found


def _no_allocation(allocation_id: str) -> AwsError:
    return AwsError("InvalidAllocationID.NotFound", f"The allocation ID '{allocation_id}' does not exist")


def _no_address(public_ip: str) -> AwsError:
    return AwsError("InvalidAddress.NotFound", f"Address '{public_ip}' not found.")


def _target(plane: Plane, call: Call) -> tuple[Instance, str]:
    """The instance that shall have the address, by its id or by its network interface, and which private address."""
    instance_id, interface_id = call.get("InstanceId"), call.get("NetworkInterfaceId")
    if interface_id is not None:
        target = interface_owner(plane.state.instances.values(), interface_id)
    if instance_id is not None:
        target = plane.instance(instance_id)
    if instance_id is None and interface_id is None:
        raise AwsError("MissingParameter", "Either InstanceId or NetworkInterfaceId must be specified")
    if instance_id is not None and interface_id is not None:
        raise AwsError(
            "InvalidParameterCombination", "You may specify an instance ID or a network interface ID, but not both."
        )
    private_ip = call.get("PrivateIpAddress") or target.private_ip
    if private_ip not in target.private_ips:
        raise AwsError("InvalidParameterValue", f"The address {private_ip} is not assigned to {target.interface_id}")
    return target, private_ip


def interface_owner(instances: Iterable[Instance], interface_id: str) -> Instance:
    """The living instance whose network interface this is, or EC2's error."""
    for record in instances:
        if record.interface_id == interface_id and not record.terminated:
            return record
    raise no_such_interface(interface_id)


def no_such_interface(interface_id: str) -> AwsError:
    return AwsError("InvalidNetworkInterfaceID.NotFound", f"The networkInterface ID '{interface_id}' does not exist")


ACTIONS: Mapping[str, Action] = {
    "AllocateAddress": allocate_address,
    "ReleaseAddress": release_address,
    "AssociateAddress": associate_address,
    "DisassociateAddress": disassociate_address,
    "DescribeAddresses": describe_addresses,
}
