"""Addresses, interfaces and routes as EC2 promises them: a data plane of dictionaries, real books of either kind."""

from __future__ import annotations

import json
from ipaddress import IPv4Address
from typing import Any

import pytest

from harness.command import wait_for
from harness.region import ec2_addresses, ec2_interfaces, ec2_routes
from tests.contract.site import error_of
from tests.integration.ec2_site import Site, books, described, site, two

__all__ = ["books", "site", "two"]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

ONE, TWO, VIP = "198.18.4.11", "198.18.4.12", "198.18.4.100"
OVERLAY = "10.9.9.9/32"
Pair = tuple[str, str]


def interface(site: Site, instance_id: str) -> str:
    return str(described(site, instance_id)["NetworkInterfaces"][0]["NetworkInterfaceId"])


def addresses(site: Site, instance_id: str) -> list[str]:
    """As awsvip asks for them."""
    nics = described(site, instance_id)["NetworkInterfaces"]
    return [row["PrivateIpAddress"] for nic in nics for row in nic["PrivateIpAddresses"]]


def launch_public(site: Site, **changes: Any) -> str:
    """An instance with a public address of its own."""
    subnet = site.ec2().describe_subnets(Filters=[{"Name": "cidr-block", "Values": ["198.18.4.0/24"]}])["Subnets"][-1]
    nic = {"DeviceIndex": 0, "SubnetId": subnet["SubnetId"], "AssociatePublicIpAddress": True, **changes}
    made = site.ec2().run_instances(
        ImageId=site.cloud().image_id("node:test"), MinCount=1, MaxCount=1, NetworkInterfaces=[nic]
    )
    instance_id = made["Instances"][0]["InstanceId"]
    site.cloud().wait_state(instance_id, "running", timeout_s=5)
    return instance_id


def test_an_elastic_ip_leads_to_a_secondary_address_and_moves_with_it(site: Site, two: Pair) -> None:
    ec2, address = site.ec2(), site.cloud().allocate_address()
    nics = [interface(site, i) for i in two]
    ec2.assign_private_ip_addresses(NetworkInterfaceId=nics[0], PrivateIpAddresses=[VIP])
    ec2.associate_address(AllocationId=address.allocation_id, NetworkInterfaceId=nics[0], PrivateIpAddress=VIP)
    assert site.addresses.table() == {IPv4Address(address.public_ip): IPv4Address(VIP)}
    seen = ec2.describe_addresses(Filters=[{"Name": "private-ip-address", "Values": [VIP]}])["Addresses"]
    assert [(row["InstanceId"], row["NetworkInterfaceId"]) for row in seen] == [(two[0], nics[0])]
    assert "PublicIpAddress" not in described(site, two[0]), "that is the primary address's"
    params: Any = {"NetworkInterfaceId": nics[1], "PrivateIpAddresses": [VIP]}
    assert error_of(ec2.assign_private_ip_addresses, **params) == "InvalidParameterValue"
    ec2.assign_private_ip_addresses(AllowReassignment=True, **params)
    assert addresses(site, two[0]) == [ONE] and addresses(site, two[1]) == [TWO, VIP]
    assert site.cloud().address_owner(address.allocation_id) == two[1]
    ec2.unassign_private_ip_addresses(**params)
    assert site.cloud().address_owner(address.allocation_id) is None and site.addresses.table() == {}
    assert error_of(ec2.unassign_private_ip_addresses, **params) == "InvalidParameterValue"


def test_an_instance_may_have_an_elastic_ip_at_each_private_address(site: Site, two: Pair) -> None:
    ec2, cloud = site.ec2(), site.cloud()
    first, second = cloud.allocate_address(), cloud.allocate_address()
    nic = interface(site, two[0])
    ec2.assign_private_ip_addresses(NetworkInterfaceId=nic, SecondaryPrivateIpAddressCount=1)
    secondary = addresses(site, two[0])[1]
    cloud.associate(first.allocation_id, two[0])
    ec2.associate_address(AllocationId=second.allocation_id, NetworkInterfaceId=nic, PrivateIpAddress=secondary)
    rows = ec2.describe_network_interfaces(NetworkInterfaceIds=[nic])["NetworkInterfaces"][0]
    assert [row["Association"]["PublicIp"] for row in rows["PrivateIpAddresses"]] == [first.public_ip, second.public_ip]
    assert (rows["Status"], rows["Attachment"]["InstanceId"], rows["Attachment"]["Status"]) == (
        "in-use",
        two[0],
        "attached",
    )
    cloud.terminate(two[0], timeout_s=5)
    assert site.addresses.table() == {}
    filters: Any = [{"Name": "addresses.private-ip-address", "Values": [secondary]}]
    assert ec2.describe_network_interfaces(Filters=filters)["NetworkInterfaces"] == []


def test_the_data_plane_knows_who_answers_for_which_private_address(site: Site, two: Pair) -> None:
    nic = interface(site, two[1])
    site.ec2().assign_private_ip_addresses(NetworkInterfaceId=nic, PrivateIpAddresses=[VIP])
    owners = {str(address): mac for address, mac in site.addresses.owners.items()}
    assert owners == {ONE: "02:42:c6:12:04:0b", TWO: "02:42:c6:12:04:0c", VIP: "02:42:c6:12:04:0c"}
    site.addresses.owners = {}
    ec2_interfaces.resume(site.new_plane())
    assert len(site.addresses.owners) == 3


def test_metadata_shows_all_private_addresses(site: Site, two: Pair) -> None:
    path = site.topology.state_dir / "metadata" / f"{two[0]}.json"
    path.write_text(json.dumps({"instance_id": two[0]}))
    site.ec2().assign_private_ip_addresses(NetworkInterfaceId=interface(site, two[0]), PrivateIpAddresses=[VIP])
    assert json.loads(path.read_text())["private_ips"] == [ONE, VIP]


def test_filters_see_addresses_as_they_are(site: Site, two: Pair) -> None:
    ec2, address = site.ec2(), site.cloud().allocate_address()
    site.cloud().associate(address.allocation_id, two[1])
    found: dict[str, list[str]] = {}
    for name in ("ip-address", "network-interface.addresses.association.public-ip"):
        answer = ec2.describe_instances(Filters=[{"Name": name, "Values": [address.public_ip]}])
        found[name] = [i["InstanceId"] for r in answer["Reservations"] for i in r["Instances"]]
    assert list(found.values()) == [[two[1]], [two[1]]]
    rows = ec2.describe_addresses(Filters=[{"Name": "instance-id", "Values": [two[1]]}])["Addresses"]
    assert [row["PublicIp"] for row in rows] == [address.public_ip]
    assert ec2.describe_addresses(Filters=[{"Name": "instance-id", "Values": [two[0]]}])["Addresses"] == []


def test_an_association_outlives_a_stop(site: Site, two: Pair) -> None:
    cloud, address = site.cloud(), site.cloud().allocate_address()
    cloud.associate(address.allocation_id, two[0])
    cloud.stop(two[0], power_off=True)
    cloud.wait_state(two[0], "stopped", timeout_s=5)
    assert cloud.address_owner(address.allocation_id) == two[0]
    assert described(site, two[0])["PublicIpAddress"] == address.public_ip
    cloud.associate(address.allocation_id, two[1])
    cloud.associate(address.allocation_id, two[0])
    assert site.addresses.table() == {IPv4Address(address.public_ip): IPv4Address(ONE)}


def test_packets_follow_later_and_the_last_decision_wins(site: Site, two: Pair) -> None:
    cloud, address = site.cloud(), site.cloud().allocate_address()
    public = IPv4Address(address.public_ip)
    cloud.associate(address.allocation_id, two[0])
    site.plane.delays.hold({"address": 600})
    cloud.associate(address.allocation_id, two[1])
    assert cloud.address_owner(address.allocation_id) == two[1]
    assert site.addresses.table() == {public: IPv4Address(ONE)}, "the API said yes, packets go where they went"
    site.plane.delays.hold({})
    site.ec2().disassociate_address(AssociationId=association(site, address.allocation_id))
    assert site.addresses.table() == {}
    site.plane.close()  # the move that waited comes due now
    assert site.addresses.table() == {}, "a superseded move changes nothing"


def association(site: Site, allocation_id: str) -> str:
    return site.ec2().describe_addresses(AllocationIds=[allocation_id])["Addresses"][0]["AssociationId"]


def test_a_gateway_that_starts_again_makes_the_move_its_predecessor_owed(site: Site, two: Pair) -> None:
    cloud, address = site.cloud(), site.cloud().allocate_address()
    cloud.associate(address.allocation_id, two[0])
    site.plane.delays.hold({"address": 600})
    cloud.associate(address.allocation_id, two[1])
    ec2_addresses.resume(site.new_plane())
    assert site.addresses.table() == {IPv4Address(address.public_ip): IPv4Address(TWO)}


def test_a_public_address_of_its_own_lasts_while_the_instance_runs(site: Site, two: Pair) -> None:
    third = launch_public(site)
    own = described(site, third)["PublicIpAddress"]
    private = IPv4Address(described(site, third)["PrivateIpAddress"])
    assert site.addresses.table() == {IPv4Address(own): private}
    assert own not in [row["PublicIp"] for row in site.ec2().describe_addresses()["Addresses"]], "it is no Elastic IP"
    site.cloud().stop(third, power_off=True)
    site.cloud().wait_state(third, "stopped", timeout_s=5)
    assert "PublicIpAddress" not in described(site, third) and site.addresses.table() == {}
    site.cloud().ensure_started(third, timeout_s=5)
    assert IPv4Address(described(site, third)["PublicIpAddress"]) in site.addresses.table()
    site.cloud().terminate(third, timeout_s=5)
    assert site.addresses.table() == {}


def test_an_elastic_ip_replaces_the_own_address_and_another_one_comes_back(site: Site, two: Pair) -> None:
    third, address = launch_public(site), site.cloud().allocate_address()
    site.cloud().associate(address.allocation_id, third)
    assert described(site, third)["PublicIpAddress"] == address.public_ip
    assert list(site.addresses.table()) == [IPv4Address(address.public_ip)]
    site.plane.delays.hold({"address": 0.05})
    site.cloud().associate(address.allocation_id, two[0])
    assert "PublicIpAddress" not in described(site, third)
    wait_for("an address of its own again", lambda: "PublicIpAddress" in described(site, third), timeout_s=5)


def test_secondary_addresses_may_be_asked_for_at_launch(site: Site, two: Pair) -> None:
    rows: Any = [{"PrivateIpAddress": "198.18.4.30", "Primary": True}, {"PrivateIpAddress": VIP, "Primary": False}]
    assert addresses(site, launch_public(site, PrivateIpAddresses=rows)) == ["198.18.4.30", VIP]
    assert len(addresses(site, launch_public(site, SecondaryPrivateIpAddressCount=2))) == 3


def test_a_subnet_may_give_public_addresses(site: Site, two: Pair) -> None:
    subnet = described(site, two[0])["SubnetId"]
    assert "PublicIpAddress" not in described(site, two[0])
    site.ec2().modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": True})
    ids = site.cloud().run_instances({"c": "198.18.4.13"}, image="node:test", subnet_id=subnet, timeout_s=5)
    assert IPv4Address(described(site, ids["c"])["PublicIpAddress"]) in site.topology.elastic_range


def test_an_overlay_address_is_routed_to_an_interface_without_source_dest_check(site: Site, two: Pair) -> None:
    ec2 = site.ec2()
    vpc = described(site, two[0])["VpcId"]
    nics = [interface(site, i) for i in two]
    main: Any = [{"Name": "vpc-id", "Values": [vpc]}, {"Name": "association.main", "Values": ["true"]}]
    table = ec2.describe_route_tables(Filters=main)["RouteTables"][0]["RouteTableId"]
    where: Any = {"RouteTableId": table, "DestinationCidrBlock": OVERLAY}
    assert error_of(ec2.replace_route, NetworkInterfaceId=nics[0], **where) == "InvalidParameterValue"
    ec2.create_route(NetworkInterfaceId=nics[0], **where)
    assert error_of(ec2.create_route, NetworkInterfaceId=nics[0], **where) == "RouteAlreadyExists"
    assert site.addresses.overlays == {}, "the interface takes packets for itself only"
    ec2.modify_instance_attribute(InstanceId=two[0], SourceDestCheck={"Value": False})
    ec2.modify_network_interface_attribute(NetworkInterfaceId=nics[1], SourceDestCheck={"Value": False})
    assert described(site, two[0])["SourceDestCheck"] is False
    overlay = IPv4Address(OVERLAY.removesuffix("/32"))
    assert site.addresses.overlays == {overlay: IPv4Address(ONE)}
    ec2.replace_route(NetworkInterfaceId=nics[1], **where)
    assert site.addresses.overlays == {overlay: IPv4Address(TWO)}
    routes = ec2.describe_route_tables(RouteTableIds=[table])["RouteTables"][0]["Routes"]
    row = next(row for row in routes if row.get("DestinationCidrBlock") == OVERLAY)
    assert (row["NetworkInterfaceId"], row["InstanceId"], row["State"]) == (nics[1], two[1], "active")
    site.cloud().stop(two[1], power_off=True)
    site.cloud().wait_state(two[1], "stopped", timeout_s=5)
    routes = ec2.describe_route_tables(RouteTableIds=[table])["RouteTables"][0]["Routes"]
    assert [row["State"] for row in routes if row.get("DestinationCidrBlock") == OVERLAY] == ["blackhole"]
    site.addresses.overlays = {}
    ec2_routes.resume(site.new_plane())
    assert site.addresses.overlays == {overlay: IPv4Address(TWO)}
    ec2.delete_route(**where)
    assert site.addresses.overlays == {}
    assert error_of(ec2.delete_route, **where) == "InvalidRoute.NotFound"


@pytest.mark.parametrize("action", ["replace_route", "create_route"])
def test_a_route_to_nothing_is_refused(site: Site, two: Pair, action: str) -> None:
    ec2: Any = site.ec2()
    params = {"RouteTableId": "rtb-0123456789abcdef0", "DestinationCidrBlock": OVERLAY}
    nic = interface(site, two[0])
    assert error_of(getattr(ec2, action), NetworkInterfaceId=nic, **params) == "InvalidRouteTableID.NotFound"
    code = "InvalidNetworkInterfaceID.NotFound"
    assert error_of(getattr(ec2, action), NetworkInterfaceId="eni-0123456789abcdef0", **params) == code
