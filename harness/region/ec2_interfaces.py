"""The EC2 actions on network interfaces: secondary private addresses, and what DescribeInstances says of all of this.

An instance has one interface. Which addresses it has is kept here (the books assign an address to two interfaces at
once); where they lead in the data plane are neighbour entries (neighbours.py), as a VPC's ARP has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any
from xml.etree.ElementTree import Element

from harness.region import ec2_filters, pages
from harness.region.calls import BOOKS_ACCOUNT, AwsError, Call, answer, number, put, take_filters
from harness.region.ec2_addresses import disassociate, interface_owner, no_such_interface
from harness.region.ec2_routes import sync_routes
from harness.region.plane import Action, Plane, refuse_dry_run
from harness.region.semantics import addresses as semantics
from harness.region.semantics.matching import Places, item_passes
from harness.region.state import Address, Instance, Tables
from harness.topology import mac_of

FILTERS: Places = {
    "addresses.private-ip-address": ("privateIpAddressesSet/item/privateIpAddress",),
    "addresses.association.public-ip": ("privateIpAddressesSet/item/association/publicIp",),
    "addresses.primary": ("privateIpAddressesSet/item/primary",),
    "association.allocation-id": ("association/allocationId", "privateIpAddressesSet/item/association/allocationId"),
    "association.association-id": ("association/associationId", "privateIpAddressesSet/item/association/associationId"),
    "association.public-ip": ("association/publicIp", "privateIpAddressesSet/item/association/publicIp"),
    "attachment.instance-id": ("attachment/instanceId",),
    "attachment.status": ("attachment/status",),
    "availability-zone": ("availabilityZone",),
    "description": ("description",),
    "group-id": ("groupSet/item/groupId",),
    "group-name": ("groupSet/item/groupName",),
    "mac-address": ("macAddress",),
    "network-interface-id": ("networkInterfaceId",),
    "private-ip-address": ("privateIpAddress",),
    "source-dest-check": ("sourceDestCheck",),
    "status": ("status",),
    "subnet-id": ("subnetId",),
    "vpc-id": ("vpcId",),
}
"""Filters of DescribeNetworkInterfaces that are judged here, and where their values stand in the answer."""

_NIC = "networkInterfaceSet/item"
INSTANCE_FILTERS: Places = {
    "client-token": ("clientToken",),
    "ip-address": ("ipAddress",),
    "network-interface.addresses.private-ip-address": (f"{_NIC}/privateIpAddressesSet/item/privateIpAddress",),
    "network-interface.addresses.association.public-ip": (f"{_NIC}/privateIpAddressesSet/item/association/publicIp",),
    "network-interface.addresses.association.allocation-id": (
        f"{_NIC}/privateIpAddressesSet/item/association/allocationId",
    ),
    "network-interface.addresses.association.association-id": (
        f"{_NIC}/privateIpAddressesSet/item/association/associationId",
    ),
    "network-interface.network-interface-id": (f"{_NIC}/networkInterfaceId",),
    "instance.group-id": ("groupSet/item/groupId",),
    "instance.group-name": ("groupSet/item/groupName",),
    "network-interface.group-id": (f"{_NIC}/groupSet/item/groupId",),
    "network-interface.group-name": (f"{_NIC}/groupSet/item/groupName",),
    "network-interface.source-dest-check": (f"{_NIC}/sourceDestCheck",),
    "source-dest-check": ("sourceDestCheck",),
}
"""The same for DescribeInstances."""


def assign_private_ip_addresses(plane: Plane, call: Call) -> bytes:
    """AssignPrivateIpAddresses: a secondary address that another interface has moves with AllowReassignment only, and
    takes its Elastic IP along (API reference)."""
    refuse_dry_run(call)
    wanted, count = call.numbered("PrivateIpAddress"), call.get("SecondaryPrivateIpAddressCount")
    if bool(wanted) == (count is not None):
        raise AwsError("InvalidParameterCombination", "Either PrivateIpAddress or SecondaryPrivateIpAddressCount")
    with plane.state.lock:
        owner = interface_owner(plane.state.instances.values(), call.require("NetworkInterfaceId"))
        others = [i for i in plane.state.instances.values() if not i.terminated and i is not owner]
        primaries = {i.private_ip for i in others}
        secondaries = {address for i in others for address in i.secondary_ips}
        subnet = plane.topology.vpc_subnet
        if wanted:
            new = semantics.decide_assign(
                owner.interface_id,
                wanted,
                subnet=subnet,
                mine=owner.private_ips,
                primaries=primaries,
                secondaries=secondaries,
                allow_reassignment=call.flag("AllowReassignment"),
            )
        else:
            taken = primaries | secondaries | set(owner.private_ips)
            wanted_number = number(count or "") or 0
            new = semantics.choose_secondaries(
                owner.interface_id, wanted_number, subnet=subnet, mine=owner.private_ips, taken=taken
            )
        losers = [_without(loser, set(new)) for loser in others if set(new) & set(loser.secondary_ips)]
        gains = replace(owner, secondary_ips=(*owner.secondary_ips, *new))
        plane.state.put(*losers, gains, *_handed_over(plane, owner, set(new)))
        _changed(plane, [*others, owner])
    rows = [{"privateIpAddress": address} for address in (wanted or new)]
    tree = {"networkInterfaceId": owner.interface_id, "assignedPrivateIpAddressesSet": rows, "return": True}
    return answer(call, tree)


def unassign_private_ip_addresses(plane: Plane, call: Call) -> bytes:
    """UnassignPrivateIpAddresses: an Elastic IP that leads there is disassociated (API reference)."""
    refuse_dry_run(call)
    wanted = call.numbered("PrivateIpAddress")
    with plane.state.lock:
        owner = interface_owner(plane.state.instances.values(), call.require("NetworkInterfaceId"))
        semantics.decide_unassign(owner.interface_id, wanted, primary=owner.private_ip, secondaries=owner.secondary_ips)
        for address in [a for a in plane.state.addresses_of(owner.instance_id) if a.private_ip in wanted]:
            disassociate(plane, address, source=call.source)
        plane.state.put(_without(owner, set(wanted)))
        _changed(plane, [owner])
    return answer(call, {"return": True})


def describe_network_interfaces(plane: Plane, call: Call) -> bytes:
    """DescribeNetworkInterfaces of the books, with addresses and associations as they are."""
    params, wanted = take_filters(call.params, FILTERS)
    document = plane.books.call("DescribeNetworkInterfaces", pages.unpaged(params))
    tables = plane.seen()
    names = ec2_filters.group_names(plane)
    owners = {record.interface_id: record for record in tables.instances.values()}
    for interface_id in call.numbered("NetworkInterfaceId"):
        if interface_id not in owners:  # an instance's that is too new to be seen: not there yet; others there are none
            raise no_such_interface(interface_id)
    keep: dict[str, bool] = {}
    for item in document.items("networkInterfaceSet"):
        interface_id = item.findtext("networkInterfaceId") or ""
        owner = owners.get(interface_id)
        if owner is None or owner.terminated:
            keep[interface_id] = False
            continue
        _show_interface(item, owner, tables)
        ec2_filters.show_groups(item, owner, names)
        put(item, "status", "in-use")
        _show_attachment(item, owner)
        keep[interface_id] = item_passes(item, wanted, FILTERS)
    document.keep("networkInterfaceSet", keep, "networkInterfaceId")
    pages.cut(document, "networkInterfaceSet", call)
    return document.body(call)


def modify_network_interface_attribute(plane: Plane, call: Call) -> bytes:
    """ModifyNetworkInterfaceAttribute: SourceDestCheck and the groups have an effect here, the rest is recorded by the
    books."""
    refuse_dry_run(call)
    if groups := call.numbered("SecurityGroupId"):
        with plane.state.lock:
            owner = interface_owner(plane.state.instances.values(), call.require("NetworkInterfaceId"))
            ec2_filters.set_groups(plane, owner, groups)
        return answer(call, {"return": True})
    check = call.get("SourceDestCheck.Value")
    if check is not None:
        with plane.state.lock:
            owner = interface_owner(plane.state.instances.values(), call.require("NetworkInterfaceId"))
            set_source_dest_check(plane, owner, check)
    return plane.books.call(call.action, call.params).body(call)


def show_network(item: Element, record: Instance, tables: Tables, groups: Mapping[str, str]) -> None:
    """The network part of one instance in an answer: public address, interface, private addresses, security groups
    (whose names are `groups`)."""
    if record.terminated:
        for name in ("ipAddress", "privateIpAddress", "networkInterfaceSet", "groupSet"):
            put(item, name, None)
        return
    put(item, "ipAddress", tables.public_at(record, record.private_ip))
    put(item, "privateIpAddress", record.private_ip)
    put(item, "sourceDestCheck", record.source_dest_check)
    ec2_filters.show_groups(item, record, groups)
    for nic in item.findall("networkInterfaceSet/item"):
        if nic.findtext("networkInterfaceId") == record.interface_id:
            _show_interface(nic, record, tables)
            ec2_filters.show_groups(nic, record, groups)
            put(nic, "status", "in-use")


def asked_at_launch(call: Call) -> tuple[str | None, list[str]]:
    """The primary private address that RunInstances asks for, if any, and the secondary ones that it lists."""
    prefix, listed = "NetworkInterface.1.PrivateIpAddresses", []
    primary = call.get("PrivateIpAddress") or call.get("NetworkInterface.1.PrivateIpAddress")
    for name, value in call.params.items():
        if name.startswith(f"{prefix}.") and name.endswith(".PrivateIpAddress"):
            if call.flag(name.removesuffix("PrivateIpAddress") + "Primary"):
                primary = value
            else:
                listed.append(value)
    return primary, listed


def secondaries_at_launch(plane: Plane, call: Call, listed: list[str], *, taken: set[str]) -> list[str]:
    """The secondary addresses of a new interface: those listed, or as many free ones as asked for."""
    subnet, count = plane.topology.vpc_subnet, call.get("NetworkInterface.1.SecondaryPrivateIpAddressCount")
    if count is not None:
        return semantics.choose_secondaries("the interface", number(count) or 0, subnet=subnet, mine=("",), taken=taken)
    for place, address in enumerate(listed):
        semantics.choose_private(subnet, address, {*taken, *listed[:place]})
    return listed


def without_addresses(params: Mapping[str, str]) -> dict[str, str]:
    """RunInstances for the books, which would invent addresses of their own."""
    ours = ("PrivateIpAddresses.", "SecondaryPrivateIpAddressCount", "AssociatePublicIpAddress", "PrivateIpAddress")
    return {k: v for k, v in params.items() if not k.removeprefix("NetworkInterface.1.").startswith(ours)}


def sync_owners(plane: Plane) -> None:
    """Tell the data plane who has which private address."""
    with plane.state.lock:
        living = [record for record in plane.state.instances.values() if not record.terminated]
        owners = {IPv4Address(ip): mac_of(record.private_ip) for record in living for ip in record.private_ips}
        pids = {record.instance_id: plane.instances.pid(record.instance_id) for record in living}
        plane.addresses.own(owners, {name: pid for name, pid in pids.items() if pid is not None})


def resume(plane: Plane) -> None:
    """The data plane as it was last decided."""
    if plane.state.instances:
        sync_owners(plane)


def _without(record: Instance, addresses: set[str]) -> Instance:
    return replace(record, secondary_ips=tuple(ip for ip in record.secondary_ips if ip not in addresses))


def _handed_over(plane: Plane, owner: Instance, addresses: set[str]) -> list[Address]:
    """Elastic IPs go with the private address they lead to: the router's table stays as it is."""
    return [
        replace(address, instance_id=owner.instance_id)
        for address in plane.state.addresses.values()
        if address.private_ip in addresses and address.instance_id != owner.instance_id
    ]


def _changed(plane: Plane, records: Iterable[Instance]) -> None:
    """Let the data plane follow (delay `address`), metadata with it: "remapping is an asynchronous operation"."""
    names = [record.instance_id for record in records]
    delay_s = plane.delays.draw("address")
    if delay_s > 0:
        plane.background(_follow_later, plane, names, delay_s)
    else:
        _follow(plane, names)


def _follow_later(plane: Plane, names: list[str], delay_s: float) -> None:
    plane.closing.wait(delay_s)
    _follow(plane, names)


def _follow(plane: Plane, names: list[str]) -> None:
    sync_owners(plane)
    ec2_filters.sync(plane)
    for name in names:
        plane.refresh_metadata(name)


def set_source_dest_check(plane: Plane, record: Instance, check: str) -> None:
    """Under the lock: what SourceDestCheck allows, routes to the instance follow."""
    plane.state.put(replace(record, source_dest_check=check.lower() != "false"))
    sync_routes(plane)


def _show_interface(item: Element, owner: Instance, tables: Tables) -> None:
    """Addresses of an interface as they are; `item` is one of networkInterfaceSet, of an instance's or its own."""
    rows = [_address_row(owner, address, tables) for address in owner.private_ips]
    put(item, "macAddress", mac_of(owner.private_ip))
    put(item, "privateIpAddress", owner.private_ip)
    put(item, "sourceDestCheck", owner.source_dest_check)
    put(item, "privateIpAddressesSet", rows)
    put(item, "association", rows[0]["association"])


def _show_attachment(item: Element, owner: Instance) -> None:
    attachment = item.find("attachment")
    if attachment is None:
        put(item, "attachment", {"attachmentId": f"eni-attach-{owner.interface_id.removeprefix('eni-')}"})
        attachment = item.find("attachment")
    assert attachment is not None
    put(attachment, "instanceId", owner.instance_id)
    put(attachment, "instanceOwnerId", BOOKS_ACCOUNT)
    put(attachment, "deviceIndex", "0")
    put(attachment, "status", "attached")
    put(attachment, "deleteOnTermination", True)


def _address_row(owner: Instance, address: str, tables: Tables) -> dict[str, Any]:
    public, elastic = tables.public_at(owner, address), tables.elastic_at(address)
    association = None
    if public is not None:
        association = {
            "publicIp": public,
            "ipOwnerId": BOOKS_ACCOUNT if elastic else "amazon",
            "allocationId": elastic.allocation_id if elastic else None,
            "associationId": elastic.association_id if elastic else None,
        }
    return {"privateIpAddress": address, "primary": address == owner.private_ip, "association": association}


ACTIONS: Mapping[str, Action] = {
    "AssignPrivateIpAddresses": assign_private_ip_addresses,
    "UnassignPrivateIpAddresses": unassign_private_ip_addresses,
    "DescribeNetworkInterfaces": describe_network_interfaces,
    "ModifyNetworkInterfaceAttribute": modify_network_interface_attribute,
}
