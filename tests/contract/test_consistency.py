"""Eventual consistency: what a Describe call says may be old, for a bounded time, and no decision rests on it."""

from __future__ import annotations

from typing import Any

import pytest

from harness.region.timing import Delay, Delays, Timing
from tests.contract.local import LocalSite
from tests.contract.promises import DEV_GUIDE, promise
from tests.contract.site import DEVICE, error_of

SOURCE = f"{DEV_GUIDE}eventual-consistency.html"
WHY = "AWS lags when it likes; here the lag is asked for"
LAG_S = 20.0


@promise(
    "DescribeVolumes", "may show a volume as it was for a bounded time, then as it is", source=SOURCE, local_only=WHY
)
def test_a_volume_as_it_was(site: LocalSite, two: tuple[str, str]) -> None:
    volume_id = site.new_volume()
    site.clock.ahead_s += LAG_S
    site.plane.delays.hold({"consistency": LAG_S})
    site.ec2().attach_volume(VolumeId=volume_id, InstanceId=two[0], Device=DEVICE)
    site.until("attached", lambda: site.volumes.attachment(volume_id) is not None)
    assert site.volume(volume_id)["State"] == "available"
    site.clock.ahead_s += LAG_S
    site.until("as it is", lambda: site.volume(volume_id)["State"] == "in-use")


@promise("DescribeInstances", "may show a change of state later than it happened", source=SOURCE, local_only=WHY)
def test_an_instance_as_it_was(site: LocalSite, two: tuple[str, str]) -> None:
    site.clock.ahead_s += LAG_S
    site.plane.delays.hold({"consistency": LAG_S})
    site.instances.gate.clear()
    site.ec2().stop_instances(InstanceIds=[two[0]])
    assert site.state(two[0]) == "running"
    site.clock.ahead_s += LAG_S + 1
    assert site.state(two[0]) == "stopping"


@promise(
    "DescribeAddresses", "may show the old owner for a bounded time, then the new one", source=SOURCE, local_only=WHY
)
def test_an_address_as_it_was(site: LocalSite, two: tuple[str, str]) -> None:
    allocation_id, _ = site.address()
    site.associate(allocation_id, two[0])
    site.clock.ahead_s += LAG_S
    site.plane.delays.hold({"consistency": LAG_S})
    site.associate(allocation_id, two[1])
    assert site.holder(allocation_id) == two[0]
    site.clock.ahead_s += LAG_S + 1
    assert site.holder(allocation_id) == two[1]


@promise("AttachVolume", "is decided on what is, not on what a Describe call shows", source=SOURCE, local_only=WHY)
def test_decisions_rest_on_what_is(site: LocalSite, two: tuple[str, str]) -> None:
    volume_id = site.new_volume()
    site.clock.ahead_s += LAG_S
    site.plane.delays.hold({"consistency": LAG_S})
    where = {"VolumeId": volume_id, "Device": DEVICE}
    site.ec2().attach_volume(InstanceId=two[0], **where)
    assert site.volume(volume_id)["State"] == "available"
    assert error_of(site.ec2().attach_volume, InstanceId=two[1], **where) == "VolumeInUse"


@promise(
    "DescribeVolumes", "what is older than the bound is never shown, whatever is drawn", source=SOURCE, local_only=WHY
)
@pytest.mark.parametrize("seed", range(5))
def test_the_bound_holds(site: LocalSite, two: tuple[str, str], seed: int) -> None:
    lag = Delay(median_s=LAG_S / 4, p95_s=LAG_S, max_s=LAG_S, source="ours")
    site.plane.delays = Delays(timing=Timing(name="lag", delay={"consistency": lag}), seed=seed)
    volume_id = str(site.ec2().create_volume(AvailabilityZone=site.zone, Size=1)["VolumeId"])
    site.until("there", lambda: site.plane.state.volumes.get(volume_id))
    site.clock.ahead_s += LAG_S
    site.ec2().attach_volume(VolumeId=volume_id, InstanceId=two[0], Device=DEVICE)
    site.clock.ahead_s += LAG_S
    assert {site.volume(volume_id)["State"] for _ in range(20)} == {"in-use"}


@promise("DescribeVolumes", "the same seed lags in the same way", source=SOURCE, local_only=WHY)
def test_the_lag_is_seeded(site: LocalSite, two: tuple[str, str]) -> None:
    lag = Delay(median_s=LAG_S / 2, p95_s=LAG_S, max_s=LAG_S, source="ours")

    def seen(device: str) -> list[str]:
        volume_id = site.new_volume()
        site.clock.ahead_s += LAG_S
        site.plane.delays = Delays(timing=Timing(name="lag", delay={"consistency": lag}), seed=7)
        site.ec2().attach_volume(VolumeId=volume_id, InstanceId=two[0], Device=device)
        site.until("attached", lambda: site.volumes.attachment(volume_id) is not None)
        site.clock.ahead_s += LAG_S / 2
        told = [site.volume(volume_id)["State"] for _ in range(12)]
        site.plane.delays = Delays()
        return told

    first, second = seen("/dev/sdf"), seen("/dev/sdg")
    assert set(first) == {"available", "in-use"}, "both the past and the present"
    assert first == second


@promise(
    "DescribeVolumes, DescribeVolumeStatus",
    "a new volume may not be known for a bounded time: InvalidVolume.NotFound",
    source=SOURCE,
    local_only=WHY,
)
def test_a_volume_that_is_not_seen_yet(site: LocalSite) -> None:
    site.plane.delays.hold({"consistency": LAG_S})
    made = str(site.ec2().create_volume(AvailabilityZone=site.zone, Size=1)["VolumeId"])
    for describe in (site.ec2().describe_volumes, site.ec2().describe_volume_status):
        assert error_of(describe, VolumeIds=[made]) == "InvalidVolume.NotFound"
    assert made not in [v["VolumeId"] for v in site.ec2().describe_volumes()["Volumes"]]
    assert made not in [v["VolumeId"] for v in site.ec2().describe_volume_status()["VolumeStatuses"]]
    site.clock.ahead_s += LAG_S + 1
    assert site.volume(made)["State"] in ("creating", "available")
    assert site.ec2().describe_volume_status(VolumeIds=[made])["VolumeStatuses"]


@promise(
    "DescribeAddresses",
    "a new address may not be known for a bounded time: InvalidAllocationID.NotFound",
    source=SOURCE,
    local_only=WHY,
)
def test_an_address_that_is_not_seen_yet(site: LocalSite) -> None:
    site.plane.delays.hold({"consistency": LAG_S})
    allocation_id, public_ip = site.address()
    describe = site.ec2().describe_addresses
    assert error_of(describe, AllocationIds=[allocation_id]) == "InvalidAllocationID.NotFound"
    assert error_of(describe, PublicIps=[public_ip]) == "InvalidAddress.NotFound"
    assert describe()["Addresses"] == []
    site.clock.ahead_s += LAG_S + 1
    assert site.holder(allocation_id) is None


@promise(
    "DescribeNetworkInterfaces",
    "a new interface may not be known for a bounded time: InvalidNetworkInterfaceID.NotFound",
    source=SOURCE,
    local_only=WHY,
)
def test_an_interface_that_is_not_seen_yet(site: LocalSite) -> None:
    site.plane.delays.hold({"consistency": LAG_S})
    interface_id = site.run()["NetworkInterfaces"][0]["NetworkInterfaceId"]
    describe = site.ec2().describe_network_interfaces
    assert error_of(describe, NetworkInterfaceIds=[interface_id]) == "InvalidNetworkInterfaceID.NotFound"
    filters: Any = [{"Name": "subnet-id", "Values": [site.subnet_id]}]
    assert describe(Filters=filters)["NetworkInterfaces"] == []
    site.clock.ahead_s += LAG_S + 1
    assert len(describe(Filters=filters)["NetworkInterfaces"]) == 1


@promise("DescribeRouteTables", "may show a route's old target for a bounded time", source=SOURCE, local_only=WHY)
def test_a_route_as_it_was(site: LocalSite, two: tuple[str, str]) -> None:
    first, second = (site.interface(i) for i in two)
    table = str(site.ec2().create_route_table(VpcId=site.vpc_id)["RouteTable"]["RouteTableId"])
    where: Any = {"RouteTableId": table, "DestinationCidrBlock": "198.51.100.7/32"}
    site.ec2().create_route(**where, NetworkInterfaceId=first)
    site.clock.ahead_s += LAG_S + 1
    site.plane.delays.hold({"consistency": LAG_S})

    def target() -> Any:
        routes = site.ec2().describe_route_tables(RouteTableIds=[table])["RouteTables"][0]["Routes"]
        return next(r for r in routes if r.get("DestinationCidrBlock") == "198.51.100.7/32")["NetworkInterfaceId"]

    site.ec2().replace_route(**where, NetworkInterfaceId=second)
    assert target() == first
    young = str(site.ec2().create_route_table(VpcId=site.vpc_id)["RouteTable"]["RouteTableId"])
    assert error_of(site.ec2().describe_route_tables, RouteTableIds=[young]) == "InvalidRouteTableID.NotFound"
    site.clock.ahead_s += LAG_S + 1
    assert target() == second


@promise("DescribeSecurityGroups", "may show a rule later than it holds", source=SOURCE, local_only=WHY)
def test_a_group_as_it_was(site: LocalSite) -> None:
    group_id = site.group()
    site.clock.ahead_s += LAG_S + 1
    site.plane.delays.hold({"consistency": LAG_S})

    def rules() -> int:
        return len(site.ec2().describe_security_groups(GroupIds=[group_id])["SecurityGroups"][0]["IpPermissions"])

    sip: Any = [{"IpProtocol": "udp", "FromPort": 5060, "ToPort": 5060, "IpRanges": [{"CidrIp": "203.0.113.0/24"}]}]
    authorize = site.ec2().authorize_security_group_ingress
    authorize(GroupId=group_id, IpPermissions=sip)
    assert rules() == 0
    assert error_of(authorize, GroupId=group_id, IpPermissions=sip) == "InvalidPermission.Duplicate"
    assert error_of(site.ec2().describe_security_groups, GroupIds=[site.group("young")]) == "InvalidGroup.NotFound"
    site.clock.ahead_s += LAG_S + 1
    assert rules() == 1


@promise("DescribeNetworkAcls", "may show an entry later than it holds", source=SOURCE, local_only=WHY)
def test_a_network_acl_as_it_was(site: LocalSite) -> None:
    acl_id = str(site.ec2().create_network_acl(VpcId=site.vpc_id)["NetworkAcl"]["NetworkAclId"])
    site.clock.ahead_s += LAG_S + 1
    site.plane.delays.hold({"consistency": LAG_S})
    describe = site.ec2().describe_network_acls

    def numbers() -> set[int]:
        return {e["RuleNumber"] for e in describe(NetworkAclIds=[acl_id])["NetworkAcls"][0]["Entries"]}

    entry: Any = {"RuleNumber": 90, "Protocol": "-1", "RuleAction": "deny", "Egress": False, "CidrBlock": "0.0.0.0/0"}
    site.ec2().create_network_acl_entry(NetworkAclId=acl_id, **entry)
    assert 90 not in numbers()
    young = str(site.ec2().create_network_acl(VpcId=site.vpc_id)["NetworkAcl"]["NetworkAclId"])
    assert error_of(describe, NetworkAclIds=[young]) == "InvalidNetworkAclID.NotFound"
    site.clock.ahead_s += LAG_S + 1
    assert 90 in numbers()
