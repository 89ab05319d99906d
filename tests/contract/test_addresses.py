"""Addresses: Elastic IPs and their one owner, private addresses, routes."""

from __future__ import annotations

import json
from ipaddress import IPv4Address
from typing import Any

import pytest

from tests.contract.local import LocalSite
from tests.contract.promises import API, DATA_PLANE, EC2_GUIDE, ERRORS, VPC_GUIDE, promise
from tests.contract.site import Site, error_of

ELASTIC = f"{EC2_GUIDE}elastic-ip-addresses-eip.html"
ASSOCIATE = f"{API}API_AssociateAddress.html"
SECONDARY = f"{EC2_GUIDE}instance-secondary-ip-addresses.html"
ADDRESSING = f"{EC2_GUIDE}using-instance-addressing.html"
KINDER = "AWS was seen to take both, whatever its document says"
UNKNOWN = "eipalloc-0123456789abcdef0"


@promise("AllocateAddress", "a public address and an allocation, with nobody", source=f"{API}API_AllocateAddress.html")
def test_a_new_address(site: Site) -> None:
    allocation_id, public_ip = site.address()
    assert allocation_id.startswith("eipalloc-") and IPv4Address(public_ip)
    assert site.holder(allocation_id) is None


@promise("AssociateAddress", "by default an address moves to whoever it is given", source=ASSOCIATE)
def test_an_address_moves(site: Site, two: tuple[str, str]) -> None:
    allocation_id, public_ip = site.address()
    for instance_id in two:
        assert site.associate(allocation_id, instance_id).startswith("eipassoc-")
        assert site.holder(allocation_id) == instance_id
        site.until("its own", lambda i=instance_id: site.instance(i).get("PublicIpAddress") == public_ip)  # type: ignore[misc]


@promise("AssociateAddress", "the old owner has the address no more", source=ELASTIC)
def test_the_old_owner_loses_it(site: Site, two: tuple[str, str]) -> None:
    allocation_id, public_ip = site.address()
    for instance_id in two:
        site.associate(allocation_id, instance_id)
    site.until("lost", lambda: site.instance(two[0]).get("PublicIpAddress") != public_ip)
    assert "PublicIpAddress" not in site.instance(two[0])
    assert site.instance(two[1])["PublicIpAddress"] == public_ip


@promise("AssociateAddress", "packets go to the new owner", source=ELASTIC, local_only=DATA_PLANE)
def test_packets_go_to_the_new_owner(site: LocalSite, two: tuple[str, str]) -> None:
    allocation_id, public_ip = site.address()
    for instance_id, private in zip(two, (site.ip(11), site.ip(12)), strict=True):
        site.associate(allocation_id, instance_id)
        assert site.addresses.table() == {IPv4Address(public_ip): IPv4Address(private)}


@promise(
    "AssociateAddress",
    "with AllowReassociation=False an owned address is refused: Resource.AlreadyAssociated",
    source=ASSOCIATE,
)
def test_a_move_that_must_not_be(site: Site, two: tuple[str, str]) -> None:
    allocation_id, _ = site.address()
    site.associate(allocation_id, two[0])
    refused = {"AllocationId": allocation_id, "InstanceId": two[1], "AllowReassociation": False}
    assert error_of(site.ec2().associate_address, **refused) == "Resource.AlreadyAssociated"
    assert site.holder(allocation_id) == two[0]


@promise("AssociateAddress", "giving it to its owner again is no error", source=ASSOCIATE)
def test_giving_it_to_its_owner_again(site: Site, two: tuple[str, str]) -> None:
    allocation_id, _ = site.address()
    site.associate(allocation_id, two[0])
    site.associate(allocation_id, two[0])
    assert site.holder(allocation_id) == two[0]


@promise(
    "AssociateAddress", "a private address has one Elastic IP: a second takes the first one's place", source=ELASTIC
)
def test_an_instance_has_one_address(site: Site, two: tuple[str, str]) -> None:
    (first, _), (second, public_ip) = site.address(), site.address()
    site.associate(first, two[0])
    site.associate(second, two[0])
    assert site.holder(first) is None and site.holder(second) == two[0]
    site.until("shown", lambda: site.instance(two[0]).get("PublicIpAddress") == public_ip)


@promise("AssociateAddress", "an address goes to a network interface and its private address", source=ASSOCIATE)
def test_an_address_goes_to_a_network_interface(site: Site, two: tuple[str, str]) -> None:
    allocation_id, _ = site.address()
    where = {"NetworkInterfaceId": site.interface(two[0]), "AllocationId": allocation_id}
    site.ec2().associate_address(PrivateIpAddress=site.ip(11), **where)
    assert site.holder(allocation_id) == two[0]


@promise(
    "AssociateAddress", "a private address that the interface has not is refused: InvalidParameterValue", source=ERRORS
)
def test_a_private_address_of_somebody_else(site: Site, two: tuple[str, str]) -> None:
    allocation_id, _ = site.address()
    where = {"NetworkInterfaceId": site.interface(two[0]), "AllocationId": allocation_id}
    refused = error_of(site.ec2().associate_address, PrivateIpAddress=site.ip(77), **where)
    assert refused == "InvalidParameterValue"


@promise(
    "AssociateAddress",
    "unknown ids are refused: InvalidAllocationID.NotFound, InvalidInstanceID.NotFound",
    source=ERRORS,
)
def test_unknown_ids_are_refused(site: Site, two: tuple[str, str]) -> None:
    associate, (allocation_id, _) = site.ec2().associate_address, site.address()
    assert error_of(associate, AllocationId=UNKNOWN, InstanceId=two[0]) == "InvalidAllocationID.NotFound"
    nobody = "i-0123456789abcdef0"
    assert error_of(associate, AllocationId=allocation_id, InstanceId=nobody) == "InvalidInstanceID.NotFound"


@promise("AssociateAddress", "a terminated instance is refused: InvalidInstanceID", source=ERRORS)
def test_a_terminated_instance_gets_no_address(site: Site, two: tuple[str, str]) -> None:
    allocation_id, _ = site.address()
    site.terminate(two[0])
    refused = error_of(site.ec2().associate_address, AllocationId=allocation_id, InstanceId=two[0])
    assert refused == "InvalidInstanceID"


@promise(
    "AssociateAddress",
    "a pending instance is refused: InvalidInstanceID, by its interface IncorrectInstanceState",
    source=ERRORS,
    local_only="holds the instance in pending",
)
def test_a_pending_instance_gets_no_address(site: LocalSite) -> None:
    """The list has the codes; which is given when is what AWS was seen to do (terraform-provider-aws, #3072, #6189)."""
    allocation_id, _ = site.address()
    site.instances.gate.clear()
    made = site.run()
    associate, interface = site.ec2().associate_address, made["NetworkInterfaces"][0]["NetworkInterfaceId"]
    assert error_of(associate, AllocationId=allocation_id, InstanceId=made["InstanceId"]) == "InvalidInstanceID"
    assert error_of(associate, AllocationId=allocation_id, NetworkInterfaceId=interface) == "IncorrectInstanceState"
    assert site.holder(allocation_id) is None
    site.instances.gate.set()
    site.wait_instance(made["InstanceId"], "running")
    site.associate(allocation_id, made["InstanceId"])


@promise(
    "AssociateAddress, DisassociateAddress, ReleaseAddress",
    "the id is required, a public address alone is refused: InvalidParameterCombination or InvalidParameterValue",
    source=ASSOCIATE,
)
def test_a_public_address_alone_is_not_enough(site: Site, two: tuple[str, str]) -> None:
    ec2, (allocation_id, public_ip) = site.ec2(), site.address()
    refused = error_of(ec2.associate_address, PublicIp=public_ip, InstanceId=two[0])
    assert refused == "InvalidParameterCombination" and site.holder(allocation_id) is None
    site.associate(allocation_id, two[0])
    assert error_of(ec2.disassociate_address, PublicIp=public_ip) == "InvalidParameterValue"
    assert error_of(ec2.release_address, PublicIp=public_ip) == "InvalidParameterValue"
    assert site.holder(allocation_id) == two[0]


@promise(
    "AssociateAddress", "an unknown network interface is refused: InvalidNetworkInterfaceID.NotFound", source=ERRORS
)
def test_an_unknown_interface_is_refused(site: Site, two: tuple[str, str]) -> None:
    (allocation_id, _), nowhere = site.address(), "eni-0123456789abcdef0"
    associate = site.ec2().associate_address
    for also in ({}, {"InstanceId": two[0]}):
        refused = error_of(associate, AllocationId=allocation_id, NetworkInterfaceId=nowhere, **also)
        assert refused == "InvalidNetworkInterfaceID.NotFound"
    assert site.holder(allocation_id) is None


@promise(
    "AssociateAddress",
    "an instance and an interface at once are refused: InvalidParameterCombination",
    source=ASSOCIATE,
    local_only=KINDER,
)
def test_instance_and_interface_are_too_much(site: LocalSite, two: tuple[str, str]) -> None:
    allocation_id, _ = site.address()
    both = {"InstanceId": two[0], "NetworkInterfaceId": site.interface(two[0])}
    assert error_of(site.ec2().associate_address, AllocationId=allocation_id, **both) == "InvalidParameterCombination"
    assert site.holder(allocation_id) is None


@promise("StopInstances", "a stopped instance keeps its Elastic IP", source=ELASTIC)
def test_a_stopped_instance_keeps_its_elastic_ip(site: Site, two: tuple[str, str]) -> None:
    allocation_id, public_ip = site.address()
    site.associate(allocation_id, two[0])
    site.stop(two[0])
    assert site.holder(allocation_id) == two[0]
    site.ec2().start_instances(InstanceIds=[two[0]])
    site.wait_instance(two[0], "running")
    site.until("shown", lambda: site.instance(two[0]).get("PublicIpAddress") == public_ip)


@promise("DisassociateAddress", "nobody has the address afterwards", source=f"{API}API_DisassociateAddress.html")
def test_an_address_is_given_up(site: Site, two: tuple[str, str]) -> None:
    allocation_id, _ = site.address()
    association_id = site.associate(allocation_id, two[0])
    site.ec2().disassociate_address(AssociationId=association_id)
    assert site.holder(allocation_id) is None


@promise(
    "DisassociateAddress", "an association that is not there is refused: InvalidAssociationID.NotFound", source=ERRORS
)
def test_an_association_that_is_over(site: Site, two: tuple[str, str]) -> None:
    allocation_id, _ = site.address()
    old = site.associate(allocation_id, two[0])
    site.associate(allocation_id, two[1])
    assert error_of(site.ec2().disassociate_address, AssociationId=old) == "InvalidAssociationID.NotFound"
    assert site.holder(allocation_id) == two[1], "a late call takes nothing from the next owner"


@promise("DisassociateAddress", "no packet reaches the instance any more", source=ELASTIC, local_only=DATA_PLANE)
def test_nothing_is_mapped_afterwards(site: LocalSite, two: tuple[str, str]) -> None:
    allocation_id, _ = site.address()
    association_id = site.associate(allocation_id, two[0])
    site.ec2().disassociate_address(AssociationId=association_id)
    assert site.addresses.table() == {}


@promise(
    "ReleaseAddress", "an associated address is refused: InvalidIPAddress.InUse", source=f"{API}API_ReleaseAddress.html"
)
def test_an_address_in_use_is_not_released(site: Site, two: tuple[str, str]) -> None:
    allocation_id, _ = site.address()
    site.associate(allocation_id, two[0])
    assert error_of(site.ec2().release_address, AllocationId=allocation_id) == "InvalidIPAddress.InUse"
    assert site.holder(allocation_id) == two[0]


@promise("ReleaseAddress", "a released address is unknown: InvalidAllocationID.NotFound", source=ERRORS)
def test_a_released_address_is_gone(site: Site) -> None:
    allocation_id, _ = site.address()
    site.ec2().release_address(AllocationId=allocation_id)
    assert error_of(site.ec2().describe_addresses, AllocationIds=[allocation_id]) == "InvalidAllocationID.NotFound"
    assert error_of(site.ec2().release_address, AllocationId=allocation_id) == "InvalidAllocationID.NotFound"


@promise(
    "DescribeAddresses",
    "filters by instance and by public address find the address",
    source=f"{API}API_DescribeAddresses.html",
)
def test_addresses_by_filter(site: Site, two: tuple[str, str]) -> None:
    (allocation_id, public_ip), _ = site.address(), site.address()
    site.associate(allocation_id, two[0])
    for name, value in (("instance-id", two[0]), ("public-ip", public_ip)):
        filters: Any = [{"Name": name, "Values": [value]}]
        found = site.ec2().describe_addresses(Filters=filters)["Addresses"]
        assert [(a["AllocationId"], a["PrivateIpAddress"]) for a in found] == [(allocation_id, site.ip(11))]
    assert site.ec2().describe_addresses(PublicIps=[public_ip])["Addresses"][0]["InstanceId"] == two[0]


@promise(
    "instance metadata",
    "public-ipv4 follows the Elastic IP",
    source=f"{EC2_GUIDE}instancedata-data-categories.html",
    local_only=DATA_PLANE,
)
def test_metadata_follows_the_address(site: LocalSite, two: tuple[str, str]) -> None:
    files = [site.topology.state_dir / "metadata" / f"{i}.json" for i in two]
    for path in files:
        path.write_text(json.dumps({"instance_id": path.stem, "public_ip": None}))
    allocation_id, public_ip = site.address()
    site.associate(allocation_id, two[0])
    site.associate(allocation_id, two[1])
    site.until("followed", lambda: [json.loads(p.read_text())["public_ip"] for p in files] == [None, public_ip])
    assert json.loads(files[0].read_text())["interface_id"] == site.interface(two[0])


@promise(
    "DescribeNetworkInterfaces",
    "an interface tells its instance, private address and Elastic IP",
    source=f"{API}API_DescribeNetworkInterfaces.html",
)
def test_an_interface_tells_what_it_has(site: Site, two: tuple[str, str]) -> None:
    allocation_id, public_ip = site.address()
    for instance_id in reversed(two):
        site.associate(allocation_id, instance_id)
    interface = _interface(site, two[0])
    assert interface["Attachment"]["InstanceId"] == two[0]
    assert interface["PrivateIpAddress"] == site.ip(11)
    assert interface["Association"]["PublicIp"] == public_ip
    assert "Association" not in _interface(site, two[1])


@promise("AssignPrivateIpAddresses", "an interface has a second private address", source=SECONDARY)
def test_a_second_private_address(site: Site, two: tuple[str, str]) -> None:
    _assign(site, two[0], site.ip(50))
    assert _privates(site, two[0]) == {site.ip(11): True, site.ip(50): False}


@promise(
    "AssignPrivateIpAddresses",
    "an address of another interface is refused without AllowReassignment",
    source=f"{API}API_AssignPrivateIpAddresses.html",
)
def test_a_private_address_of_another_is_refused(site: Site, two: tuple[str, str]) -> None:
    _assign(site, two[0], site.ip(50))
    assert error_of(_assign, site=site, instance_id=two[1], private_ip=site.ip(50)) == "InvalidParameterValue"
    assert site.ip(50) in _privates(site, two[0])


@promise("AssignPrivateIpAddresses", "with AllowReassignment an address moves between interfaces", source=SECONDARY)
def test_a_private_address_moves(site: Site, two: tuple[str, str]) -> None:
    _assign(site, two[0], site.ip(50))
    _assign(site, two[1], site.ip(50), AllowReassignment=True)
    assert site.ip(50) not in _privates(site, two[0]) and site.ip(50) in _privates(site, two[1])


@promise(
    "AssignPrivateIpAddresses",
    "a primary address can't be taken from its interface",
    source=f"{API}API_AssignPrivateIpAddresses.html",
)
def test_a_primary_address_stays(site: Site, two: tuple[str, str]) -> None:
    taken = {"site": site, "instance_id": two[1], "private_ip": site.ip(11), "AllowReassignment": True}
    assert error_of(_assign, **taken).startswith("Invalid")
    assert _privates(site, two[0]) == {site.ip(11): True}


@promise(
    "UnassignPrivateIpAddresses",
    "the interface has the second address no more",
    source=f"{API}API_UnassignPrivateIpAddresses.html",
)
def test_a_second_address_is_given_up(site: Site, two: tuple[str, str]) -> None:
    _assign(site, two[0], site.ip(50))
    where = {"NetworkInterfaceId": site.interface(two[0]), "PrivateIpAddresses": [site.ip(50)]}
    site.ec2().unassign_private_ip_addresses(**where)
    assert _privates(site, two[0]) == {site.ip(11): True}


@promise("AssociateAddress", "a second private address has an Elastic IP of its own", source=SECONDARY)
def test_an_elastic_ip_per_private_address(site: Site, two: tuple[str, str]) -> None:
    (first, _), (second, _) = site.address(), site.address()
    _assign(site, two[0], site.ip(50))
    site.associate(first, two[0])
    site.associate(second, two[0], PrivateIpAddress=site.ip(50))
    for allocation_id, private in ((first, site.ip(11)), (second, site.ip(50))):
        found = site.ec2().describe_addresses(AllocationIds=[allocation_id])["Addresses"][0]
        assert (found["InstanceId"], found["PrivateIpAddress"]) == (two[0], private)


@promise("RunInstances", "AssociatePublicIpAddress gives an address that is lost by a stop", source=ADDRESSING)
def test_a_public_address_of_its_own(site: Site) -> None:
    made = site.with_a_public_address()
    site.until("an address", lambda: site.instance(made).get("PublicIpAddress"))
    site.stop(made)
    assert "PublicIpAddress" not in site.instance(made)


@promise(
    "RunInstances", "packets follow a public address of an instance's own", source=ADDRESSING, local_only=DATA_PLANE
)
def test_packets_follow_a_public_address_of_its_own(site: LocalSite) -> None:
    made = site.with_a_public_address()
    seen = site.instance(made)
    mapped = {IPv4Address(seen["PublicIpAddress"]): IPv4Address(seen["PrivateIpAddress"])}
    site.until("mapped", lambda: site.addresses.table() == mapped)
    site.stop(made)
    assert site.addresses.table() == {}


@promise(
    "DisassociateAddress",
    "an instance with a public address of its own gets a new one after an Elastic IP",
    source=ELASTIC,
)
def test_a_public_address_returns_after_an_elastic_ip(site: Site) -> None:
    made = site.with_a_public_address()
    allocation_id, public_ip = site.address()
    association_id = site.associate(allocation_id, made)
    site.until("the Elastic IP", lambda: site.instance(made).get("PublicIpAddress") == public_ip)
    site.ec2().disassociate_address(AssociationId=association_id)
    site.until("one of its own", lambda: site.instance(made).get("PublicIpAddress") not in (None, public_ip))
    assert site.holder(allocation_id) is None
    told = site.instance(made)["NetworkInterfaces"][0]["Association"]
    assert (told["PublicIp"], told["IpOwnerId"]) == (site.instance(made)["PublicIpAddress"], "amazon")


@promise(
    "ModifyInstanceAttribute",
    "the source/destination check of an instance can be switched off",
    source=f"{VPC_GUIDE}work-with-nat-instances.html",
)
def test_the_source_check_can_be_switched_off(site: Site, two: tuple[str, str]) -> None:
    site.ec2().modify_instance_attribute(InstanceId=two[0], SourceDestCheck={"Value": False})
    told = site.ec2().describe_instance_attribute(InstanceId=two[0], Attribute="sourceDestCheck")
    assert told["SourceDestCheck"]["Value"] is False


@promise(
    "CreateRoute",
    "a route leads an address outside the VPC to an instance's interface",
    source=f"{VPC_GUIDE}route-table-options.html",
)
def test_a_route_to_an_instance(site: Site, two: tuple[str, str]) -> None:
    table = _route_table(site)
    site.ec2().create_route(
        RouteTableId=table, DestinationCidrBlock="198.51.100.7/32", NetworkInterfaceId=site.interface(two[0])
    )
    assert _route(site, table)["NetworkInterfaceId"] == site.interface(two[0])


@promise("ReplaceRoute", "a route is moved to another instance's interface", source=f"{API}API_ReplaceRoute.html")
def test_a_route_moves(site: Site, two: tuple[str, str]) -> None:
    table = _route_table(site)
    where: Any = {"RouteTableId": table, "DestinationCidrBlock": "198.51.100.7/32"}
    site.ec2().create_route(**where, NetworkInterfaceId=site.interface(two[0]))
    site.ec2().replace_route(**where, NetworkInterfaceId=site.interface(two[1]))
    assert _route(site, table)["NetworkInterfaceId"] == site.interface(two[1])


@pytest.mark.parametrize("action", ["replace_route", "delete_route"])
@promise("ReplaceRoute", "a route that is not there is refused", source=ERRORS)
def test_a_route_that_is_not_there(site: Site, two: tuple[str, str], action: str) -> None:
    params: dict[str, Any] = {"RouteTableId": _route_table(site), "DestinationCidrBlock": "198.51.100.7/32"}
    if action == "replace_route":
        params["NetworkInterfaceId"] = site.interface(two[0])
    assert error_of(getattr(site.ec2(), action), **params) in ("InvalidRoute.NotFound", "InvalidParameterValue")


def _interface(site: Site, instance_id: str) -> Any:
    wanted = [site.interface(instance_id)]
    return site.ec2().describe_network_interfaces(NetworkInterfaceIds=wanted)["NetworkInterfaces"][0]


def _assign(site: Site, instance_id: str, private_ip: str, **more: Any) -> None:
    where: Any = {"NetworkInterfaceId": site.interface(instance_id), "PrivateIpAddresses": [private_ip]}
    site.ec2().assign_private_ip_addresses(**where, **more)


def _privates(site: Site, instance_id: str) -> dict[str, bool]:
    """Its private addresses, and which of them is the primary one."""
    return {row["PrivateIpAddress"]: row["Primary"] for row in _interface(site, instance_id)["PrivateIpAddresses"]}


def _route_table(site: Site) -> str:
    return str(site.ec2().create_route_table(VpcId=site.vpc_id)["RouteTable"]["RouteTableId"])


def _route(site: Site, table: str) -> Any:
    routes = site.ec2().describe_route_tables(RouteTableIds=[table])["RouteTables"][0]["Routes"]
    return next(route for route in routes if route.get("DestinationCidrBlock") == "198.51.100.7/32")
