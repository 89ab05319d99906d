"""The EC2 actions on Elastic IPs: one owner, in the books and in the router, and a move that the next packet takes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address

from harness.region.calls import AwsError, Call, answer
from harness.region.plane import Action, Plane, refuse_dry_run
from harness.region.semantics import addresses as semantics
from harness.region.state import Address, Instance


def allocate_address(plane: Plane, call: Call) -> bytes:
    """AllocateAddress, out of the cell's own range: the books are told which one it is."""
    refuse_dry_run(call)
    with plane.state.lock:
        taken = [a.public_ip for a in plane.state.addresses.values()]
        public = semantics.free_elastic(plane.topology.elastic_range, taken)
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
    """AssociateAddress: the address moves, and its old owner as well as the target's old address lose each other."""
    refuse_dry_run(call)
    with plane.state.lock:
        address = _address(plane, call)
        target = _target(plane, call)
        semantics.decide_associate(
            address.public_ip,
            address.private_ip,
            target=target.private_ip,
            target_state=plane.state_of(target),
            allow_reassociation=call.flag("AllowReassociation", default=True),
        )
        if address.association_id is not None and address.instance_id == target.instance_id:
            return answer(call, {"return": True, "associationId": address.association_id})
        displaced = plane.state.address_of(target.instance_id)
        for loser in (displaced, address):
            if loser is not None and loser.association_id is not None:
                plane.books.call("DisassociateAddress", {"AssociationId": loser.association_id})
                plane.state.put(replace(loser, association_id=None, instance_id=None, private_ip=None))
        where = {"AllocationId": address.allocation_id, "InstanceId": target.instance_id}
        document = plane.books.call("AssociateAddress", where)
        association_id = document.root.findtext("associationId") or ""
        plane.addresses.map(IPv4Address(address.public_ip), IPv4Address(target.private_ip))
        plane.state.put(
            replace(
                address,
                association_id=association_id,
                instance_id=target.instance_id,
                private_ip=target.private_ip,
            )
        )
        for instance_id in {address.instance_id, target.instance_id} - {None}:
            plane.refresh_metadata(str(instance_id))
    return answer(call, {"return": True, "associationId": association_id})


def disassociate_address(plane: Plane, call: Call) -> bytes:
    """DisassociateAddress: nobody has it; its packets are dropped."""
    refuse_dry_run(call)
    with plane.state.lock:
        association_id, public_ip = call.get("AssociationId"), call.get("PublicIp")
        if association_id is None and public_ip is None:
            raise AwsError("MissingParameter", "Either AssociationId or PublicIp must be specified")
        for address in plane.state.addresses.values():
            if address.association_id and (address.association_id == association_id or address.public_ip == public_ip):
                _disassociate(plane, address)
                return answer(call, {"return": True})
    if association_id is None:
        raise AwsError("InvalidAssociationID.NotFound", f"The address '{public_ip}' is not associated")
    raise AwsError("InvalidAssociationID.NotFound", f"The association ID '{association_id}' does not exist")


def describe_addresses(plane: Plane, call: Call) -> bytes:
    """DescribeAddresses of the books, never in the middle of a move."""
    with plane.state.lock:
        return plane.books.call("DescribeAddresses", call.params).body(call)


def release_instance_address(plane: Plane, instance_id: str) -> None:
    """A terminated instance gives up its Elastic IP. Called under the lock."""
    address = plane.state.address_of(instance_id)
    if address is not None:
        _disassociate(plane, address)


def resume(plane: Plane) -> None:
    """Make the router agree with what was last decided."""
    wanted = {
        IPv4Address(a.public_ip): IPv4Address(a.private_ip)
        for a in plane.state.addresses.values()
        if a.private_ip is not None
    }
    plane.addresses.restore(wanted)


def _disassociate(plane: Plane, address: Address) -> None:
    with suppress(AwsError):
        plane.books.call("DisassociateAddress", {"AssociationId": address.association_id or ""})
    plane.addresses.unmap(IPv4Address(address.public_ip))
    plane.state.put(replace(address, association_id=None, instance_id=None, private_ip=None))
    if address.instance_id is not None:
        plane.refresh_metadata(address.instance_id)


def _address(plane: Plane, call: Call) -> Address:
    """The address that the call means, by allocation or by public address."""
    allocation_id, public_ip = call.get("AllocationId"), call.get("PublicIp")
    if allocation_id is not None:
        found = plane.state.addresses.get(allocation_id)
        if found is None:
            raise AwsError("InvalidAllocationID.NotFound", f"The allocation ID '{allocation_id}' does not exist")
        return found
    if public_ip is None:
        raise AwsError("MissingParameter", "Either 'AllocationId' or 'PublicIp' must be provided.")
    found = next((a for a in plane.state.addresses.values() if a.public_ip == public_ip), None)
    if found is None:
        raise AwsError("InvalidAddress.NotFound", f"Address '{public_ip}' not found.")
    return found


def _target(plane: Plane, call: Call) -> Instance:
    """The instance that shall have the address, by its id or by its network interface."""
    instance_id, interface_id = call.get("InstanceId"), call.get("NetworkInterfaceId")
    if instance_id is not None:
        target = plane.instance(instance_id)
    elif interface_id is not None:
        found = next((i for i in plane.state.instances.values() if i.interface_id == interface_id), None)
        if found is None:
            raise AwsError(
                "InvalidNetworkInterfaceID.NotFound", f"The networkInterface ID '{interface_id}' does not exist"
            )
        target = found
    else:
        raise AwsError("MissingParameter", "Either InstanceId or NetworkInterfaceId must be specified")
    private_ip = call.get("PrivateIpAddress")
    if private_ip is not None and private_ip != target.private_ip:
        raise AwsError("InvalidParameterValue", f"The address {private_ip} is not assigned to {target.interface_id}")
    return target


ACTIONS: Mapping[str, Action] = {
    "AllocateAddress": allocate_address,
    "ReleaseAddress": release_address,
    "AssociateAddress": associate_address,
    "DisassociateAddress": disassociate_address,
    "DescribeAddresses": describe_addresses,
}
