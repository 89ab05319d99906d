"""Where instances are: zones and subnets, and the networks that can't go while something is in them."""

from __future__ import annotations

from collections.abc import Mapping

from harness.region.calls import AwsError, Call
from harness.region.plane import Action, Plane, refuse_dry_run
from harness.region.semantics import placement as semantics


def delete_subnet(plane: Plane, call: Call) -> bytes:
    """DeleteSubnet: only when no instance is in it, stopped ones included (their interfaces are in it)."""
    refuse_dry_run(call)
    subnet_id = call.require("SubnetId")
    with plane.state.lock:
        semantics.check_deletable("subnet", subnet_id, used_by=_instances(plane, "subnet-id", subnet_id))
        return plane.books.call(call.action, call.params).body(call)


def delete_vpc(plane: Plane, call: Call) -> bytes:
    """DeleteVpc: only when no instance, no subnet and no security group but its own is in it (API reference)."""
    refuse_dry_run(call)
    vpc_id = call.require("VpcId")
    mine = {"Filter.1.Name": "vpc-id", "Filter.1.Value.1": vpc_id}
    with plane.state.lock:
        subnets = [
            item.findtext("subnetId") or "" for item in plane.books.call("DescribeSubnets", mine).items("subnetSet")
        ]
        found = plane.books.call("DescribeSecurityGroups", mine).items("securityGroupInfo")
        groups = [item.findtext("groupId") or "" for item in found if item.findtext("groupName") != "default"]
        used_by = [*_instances(plane, "vpc-id", vpc_id), *subnets, *groups]
        semantics.check_deletable("vpc", vpc_id, used_by=used_by)
        return plane.books.call(call.action, call.params).body(call)


def delete_network_interface(plane: Plane, call: Call) -> bytes:
    """DeleteNetworkInterface: not an instance's, and others there are none."""
    refuse_dry_run(call)
    interface_id = call.require("NetworkInterfaceId")
    with plane.state.lock:
        living = [record for record in plane.state.instances.values() if not record.terminated]
        owner = next((record.instance_id for record in living if record.interface_id == interface_id), None)
        semantics.check_interface_free(interface_id, owner)
        return plane.books.call(call.action, call.params).body(call)


def zone_of_launch(plane: Plane, call: Call) -> str:
    """RunInstances: the zone of the new instances, or EC2's error."""
    subnet_id = call.get("SubnetId") or call.get("NetworkInterface.1.SubnetId")
    asked, subnet = call.get("Placement.AvailabilityZone"), None
    if subnet_id is not None:
        item = next(plane.books.call("DescribeSubnets", {"SubnetId.1": subnet_id}).items("subnetSet"), None)
        if item is None:
            raise AwsError("InvalidSubnetID.NotFound", f"The subnet ID '{subnet_id}' does not exist")
        semantics.check_subnet(subnet_id, item.findtext("cidrBlock") or "", plane.topology.vpc_subnet)
        subnet = (subnet_id, item.findtext("availabilityZone") or "")
    known = _zones(plane) if subnet is None and asked is not None else ()
    return semantics.decide_zone(asked, subnet=subnet, zones=known)


def check_zone(plane: Plane, zone: str) -> None:
    """EC2's error unless the region has this zone."""
    semantics.check_zone(zone, _zones(plane))


def _zones(plane: Plane) -> list[str]:
    zones = plane.books.call("DescribeAvailabilityZones", {}).items("availabilityZoneInfo")
    return [item.findtext("zoneName") or "" for item in zones]


def _instances(plane: Plane, name: str, value: str) -> list[str]:
    """The instances with this in the books that are not terminated. Under the lock."""
    told = plane.books.call("DescribeInstances", {"Filter.1.Name": name, "Filter.1.Value.1": value})
    ids = [item.findtext("instanceId") or "" for item in told.items("reservationSet", "instancesSet")]
    return [i for i in ids if i in plane.state.instances and not plane.state.instances[i].terminated]


ACTIONS: Mapping[str, Action] = {
    "DeleteSubnet": delete_subnet,
    "DeleteVpc": delete_vpc,
    "DeleteNetworkInterface": delete_network_interface,
}
