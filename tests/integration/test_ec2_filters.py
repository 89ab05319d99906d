"""Security groups and network ACLs as EC2 promises them: a data plane of dictionaries, real books of either kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from harness.region import ec2_filters, ec2_network_acls
from tests.contract.site import error_of
from tests.integration.ec2_site import Site, books, described, site, two

__all__ = ["books", "site", "two"]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

Pair = tuple[str, str]
EVERYBODY = "0.0.0.0/0"
EMPTY = "flush chain ip pbx_chaos acl_in\nflush chain ip pbx_chaos acl_out\n"


@dataclass(frozen=True, kw_only=True)
class Vpc:
    vpc_id: str
    subnet_id: str
    default_group: str


@pytest.fixture
def vpc(site: Site, two: Pair) -> Vpc:
    """The VPC of two instances."""
    seen = described(site, two[0])
    filters: Any = [{"Name": "vpc-id", "Values": [seen["VpcId"]]}, {"Name": "group-name", "Values": ["default"]}]
    group = site.ec2().describe_security_groups(Filters=filters)["SecurityGroups"][0]
    return Vpc(vpc_id=seen["VpcId"], subnet_id=seen["SubnetId"], default_group=group["GroupId"])


def new_group(site: Site, vpc: Vpc, name: str = "phones") -> str:
    made = site.ec2().create_security_group(GroupName=name, Description="of a test", VpcId=vpc.vpc_id)
    return str(made["GroupId"])


def udp(port: int, *blocks: str, groups: tuple[str, ...] = ()) -> Any:
    ranges = [{"CidrIp": block} for block in blocks]
    pairs = [{"GroupId": group} for group in groups]
    return [{"IpProtocol": "udp", "FromPort": port, "ToPort": port, "IpRanges": ranges, "UserIdGroupPairs": pairs}]


def put_into(site: Site, instance_id: str, *groups: str) -> None:
    site.ec2().modify_instance_attribute(InstanceId=instance_id, Groups=list(groups))


def test_the_nodes_of_a_cell_are_in_a_group_that_filters_nothing(site: Site, two: Pair) -> None:
    assert [group["GroupName"] for group in described(site, two[0])["SecurityGroups"]] == ["pbx-chaos"]
    assert site.filters.guests == {two[0]: "", two[1]: ""}


def test_without_a_group_it_is_the_default_one_which_lets_its_members_in(site: Site, vpc: Vpc) -> None:
    image = site.cloud().image_id("node:test")
    where: Any = {"SubnetId": vpc.subnet_id, "PrivateIpAddress": "198.18.4.99"}
    made = site.ec2().run_instances(ImageId=image, MinCount=1, MaxCount=1, **where)["Instances"][0]
    assert [group["GroupId"] for group in made["SecurityGroups"]] == [vpc.default_group]
    assert [group["GroupId"] for group in made["NetworkInterfaces"][0]["Groups"]] == [vpc.default_group]
    rules = site.filters.guests[made["InstanceId"]]
    assert f"ip saddr {{ {made['PrivateIpAddress']}/32 }} goto tracked" in rules
    assert rules.index("arriving") < rules.index("goto tracked") < rules.index("leaving")


def test_an_unknown_group_and_one_of_another_vpc_are_refused_at_launch(site: Site, vpc: Vpc) -> None:
    image, run = site.cloud().image_id("node:test"), site.ec2().run_instances
    params: Any = {"ImageId": image, "MinCount": 1, "MaxCount": 1, "SubnetId": vpc.subnet_id}
    assert error_of(run, SecurityGroupIds=["sg-0123456789abcdef0"], **params) == "InvalidGroup.NotFound"
    other = site.ec2().create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    foreign = site.ec2().create_security_group(GroupName="x", Description="x", VpcId=other)["GroupId"]
    assert error_of(run, SecurityGroupIds=[foreign], **params) == "InvalidParameter"
    nic: Any = {"DeviceIndex": 0, "SubnetId": vpc.subnet_id}
    both: Any = {**params, "NetworkInterfaces": [nic]}
    del both["SubnetId"]
    assert error_of(run, SecurityGroupIds=[vpc.default_group], **both) == "InvalidParameterCombination"


def test_a_rule_is_in_the_guest_when_the_call_is_answered_and_gone_when_it_is_revoked(
    site: Site, two: Pair, vpc: Vpc
) -> None:
    ec2, group = site.ec2(), new_group(site, vpc)
    put_into(site, two[0], group)
    assert "dport" not in site.filters.guests[two[0]] and site.filters.guests[two[0]] != ""
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=udp(5060, "198.18.5.0/24"))
    assert "ip saddr { 198.18.5.0/24 } udp dport 5060 goto tracked" in site.filters.guests[two[0]]
    ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=udp(5060, "198.18.5.0/24"))
    assert "dport" not in site.filters.guests[two[0]]
    ec2.authorize_security_group_ingress(GroupId=group, IpProtocol="-1", CidrIp=EVERYBODY)
    assert site.filters.guests[two[0]] == ""
    ec2.revoke_security_group_egress(
        GroupId=group, IpPermissions=[{"IpProtocol": "-1", "IpRanges": [{"CidrIp": EVERYBODY}]}]
    )
    assert site.filters.guests[two[0]] != ""


def test_a_source_group_means_the_private_addresses_of_its_members_as_they_come_and_go(
    site: Site, two: Pair, vpc: Vpc
) -> None:
    ec2, peers, group = site.ec2(), new_group(site, vpc, "peers"), new_group(site, vpc)
    put_into(site, two[0], group)
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=udp(5405, groups=(peers,)))
    assert "5405" not in site.filters.guests[two[0]]
    put_into(site, two[1], peers)
    assert "ip saddr { 198.18.4.12/32 } udp dport 5405" in site.filters.guests[two[0]]
    nic = described(site, two[1])["NetworkInterfaces"][0]["NetworkInterfaceId"]
    ec2.assign_private_ip_addresses(NetworkInterfaceId=nic, PrivateIpAddresses=["198.18.4.100"])
    assert "ip saddr { 198.18.4.12/32, 198.18.4.100/32 } udp dport 5405" in site.filters.guests[two[0]]
    site.cloud().terminate(two[1], timeout_s=5)
    assert "5405" not in site.filters.guests[two[0]] and two[1] not in site.filters.guests


def test_groups_are_replaced_not_added(site: Site, two: Pair, vpc: Vpc) -> None:
    ec2, group = site.ec2(), new_group(site, vpc)
    nic = described(site, two[0])["NetworkInterfaces"][0]["NetworkInterfaceId"]
    ec2.modify_network_interface_attribute(NetworkInterfaceId=nic, Groups=[group, vpc.default_group])
    seen = ec2.describe_network_interfaces(NetworkInterfaceIds=[nic])["NetworkInterfaces"][0]
    assert [(g["GroupId"], g["GroupName"]) for g in seen["Groups"]] == [
        (group, "phones"),
        (vpc.default_group, "default"),
    ]
    put_into(site, two[0], group)
    assert [g["GroupId"] for g in described(site, two[0])["SecurityGroups"]] == [group]
    for name in ("instance.group-id", "network-interface.group-id"):
        found = ec2.describe_instances(Filters=[{"Name": name, "Values": [group]}])["Reservations"]
        assert [i["InstanceId"] for r in found for i in r["Instances"]] == [two[0]]
    unknown = "sg-0123456789abcdef0"
    assert error_of(ec2.modify_instance_attribute, InstanceId=two[0], Groups=[unknown]) == "InvalidGroup.NotFound"


def test_rules_that_are_there_or_are_not_and_rules_that_can_not_be(site: Site, vpc: Vpc) -> None:
    ec2, group = site.ec2(), new_group(site, vpc)
    authorize, revoke = ec2.authorize_security_group_ingress, ec2.revoke_security_group_ingress
    authorize(GroupId=group, IpPermissions=udp(5060, "10.1.2.3/8"))
    assert error_of(authorize, GroupId=group, IpPermissions=udp(5060, "10.0.0.0/8")) == "InvalidPermission.Duplicate"
    both = [*udp(5061, EVERYBODY), *udp(5060, "10.0.0.0/8")]
    assert error_of(authorize, GroupId=group, IpPermissions=both) == "InvalidPermission.Duplicate"
    assert error_of(revoke, GroupId=group, IpPermissions=both) == "InvalidPermission.NotFound"
    seen = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"]
    assert [(row["FromPort"], row["IpRanges"]) for row in seen] == [(5060, [{"CidrIp": "10.0.0.0/8"}])]
    cases: list[tuple[dict[str, Any], str]] = [
        ({"IpProtocol": "tcp", "CidrIp": EVERYBODY}, "InvalidParameterValue"),
        ({"IpProtocol": "tcp", "FromPort": 90, "ToPort": 80, "CidrIp": EVERYBODY}, "InvalidParameterValue"),
        ({"IpProtocol": "bogus", "FromPort": 1, "ToPort": 2, "CidrIp": EVERYBODY}, "InvalidParameterValue"),
        ({"IpProtocol": "tcp", "FromPort": 1, "ToPort": 2, "CidrIp": "10.0.0.0/33"}, "InvalidParameterValue"),
        ({"IpProtocol": "tcp", "FromPort": 1, "ToPort": 2}, "MissingParameter"),
        ({"IpPermissions": udp(1, groups=("sg-0123456789abcdef0",))}, "InvalidGroup.NotFound"),
        (
            {"IpPermissions": [{"IpProtocol": "-1", "PrefixListIds": [{"PrefixListId": "pl-1"}]}]},
            "UnsupportedOperation",
        ),
    ]
    for params, code in cases:
        assert error_of(authorize, GroupId=group, **params) == code, params
    assert (
        error_of(authorize, GroupId="sg-0123456789abcdef0", IpPermissions=udp(1, EVERYBODY)) == "InvalidGroup.NotFound"
    )
    assert error_of(authorize, GroupId=group, IpPermissions=udp(1, EVERYBODY), DryRun=True) == "DryRunOperation"


def test_rules_have_ids_by_which_they_can_be_revoked(site: Site, two: Pair, vpc: Vpc) -> None:
    ec2, group = site.ec2(), new_group(site, vpc)
    put_into(site, two[0], group)
    rules = [*udp(5060, "10.0.0.0/8", "10.9.0.0/16"), *udp(5061, "10.0.0.0/8")]
    made = ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=rules)["SecurityGroupRules"]
    assert len({row["SecurityGroupRuleId"] for row in made}) == 3
    filters: Any = [{"Name": "group-id", "Values": [group]}]
    seen = ec2.describe_security_group_rules(Filters=filters)["SecurityGroupRules"]
    assert {row["SecurityGroupRuleId"] for row in made} == {r["SecurityGroupRuleId"] for r in seen if not r["IsEgress"]}
    ec2.revoke_security_group_ingress(GroupId=group, SecurityGroupRuleIds=[made[2]["SecurityGroupRuleId"]])
    assert "5060" in site.filters.guests[two[0]] and "5061" not in site.filters.guests[two[0]]


def test_names_that_are_taken_or_can_not_be(site: Site, vpc: Vpc) -> None:
    create = site.ec2().create_security_group
    new_group(site, vpc)
    params: Any = {"Description": "x", "VpcId": vpc.vpc_id}
    assert error_of(create, GroupName="phones", **params) == "InvalidGroup.Duplicate"
    assert error_of(create, GroupName="default", **params) == "InvalidGroup.Reserved"
    assert error_of(create, GroupName="sg-phones", **params) == "InvalidParameterValue"
    nowhere = "vpc-0123456789abcdef0"
    assert error_of(create, GroupName="y", Description="x", VpcId=nowhere) == "InvalidVpcID.NotFound"


def test_a_group_that_something_depends_on_can_not_be_deleted(site: Site, two: Pair, vpc: Vpc) -> None:
    ec2, group, other = site.ec2(), new_group(site, vpc), new_group(site, vpc, "other")
    put_into(site, two[0], group)
    assert error_of(ec2.delete_security_group, GroupId=group) == "DependencyViolation"
    put_into(site, two[0], vpc.default_group)
    ec2.authorize_security_group_ingress(GroupId=other, IpPermissions=udp(1, groups=(group,)))
    assert error_of(ec2.delete_security_group, GroupId=group) == "DependencyViolation"
    ec2.revoke_security_group_ingress(GroupId=other, IpPermissions=udp(1, groups=(group,)))
    ec2.delete_security_group(GroupId=group)
    assert error_of(ec2.delete_security_group, GroupId=group) == "InvalidGroup.NotFound"
    assert error_of(ec2.delete_security_group, GroupId=vpc.default_group) == "CannotDelete"
    assert error_of(ec2.describe_security_groups, GroupIds=[group]) == "InvalidGroup.NotFound"


def test_a_gateway_that_starts_again_derives_the_filters_from_the_books(site: Site, two: Pair, vpc: Vpc) -> None:
    group = new_group(site, vpc)
    put_into(site, two[0], group)
    site.ec2().authorize_security_group_ingress(GroupId=group, IpPermissions=udp(5060, "10.0.0.0/8"))
    before, site.filters.guests = site.filters.guests, {}
    ec2_filters.resume(site.new_plane())
    assert site.filters.guests == before and "5060" in before[two[0]]


def acl_of(site: Site, vpc: Vpc) -> Any:
    """The ACL that the subnet has."""
    filters: Any = [{"Name": "association.subnet-id", "Values": [vpc.subnet_id]}]
    return site.ec2().describe_network_acls(Filters=filters)["NetworkAcls"][0]


def new_acl(site: Site, vpc: Vpc) -> str:
    return str(site.ec2().create_network_acl(VpcId=vpc.vpc_id)["NetworkAcl"]["NetworkAclId"])


def allow(acl: str, number: int, *, egress: bool = False, **more: Any) -> Any:
    rule = {"NetworkAclId": acl, "RuleNumber": number, "Protocol": "-1", "RuleAction": "allow", "Egress": egress}
    return {**rule, "CidrBlock": EVERYBODY, **more}


def numbers(acl: Any, *, egress: bool = False) -> list[tuple[int, str]]:
    return [(e["RuleNumber"], e["RuleAction"]) for e in acl["Entries"] if e["Egress"] is egress]


def test_a_vpc_begins_with_an_acl_that_allows_everything(site: Site, vpc: Vpc) -> None:
    acl = acl_of(site, vpc)
    assert acl["IsDefault"] and numbers(acl) == numbers(acl, egress=True) == [(100, "allow"), (32767, "deny")]
    assert error_of(site.ec2().delete_network_acl, NetworkAclId=acl["NetworkAclId"]) == "InvalidParameterValue"


def test_the_router_follows_the_acl_of_the_subnet(site: Site, vpc: Vpc) -> None:
    ec2, mine = site.ec2(), new_acl(site, vpc)
    association = acl_of(site, vpc)["Associations"][0]["NetworkAclAssociationId"]
    ec2.create_network_acl_entry(
        **allow(mine, 100, Protocol="17", CidrBlock="198.18.5.9/24", PortRange={"From": 5060, "To": 5061})
    )
    assert site.filters.acl == EMPTY, "no subnet has it yet"
    new = ec2.replace_network_acl_association(AssociationId=association, NetworkAclId=mine)["NewAssociationId"]
    assert new != association
    rules = site.filters.acl.splitlines()
    assert rules[2:] == [
        "add rule ip pbx_chaos acl_in ip saddr { 198.18.5.0/24 } udp dport 5060-5061 return",
        "add rule ip pbx_chaos acl_in drop",
        "add rule ip pbx_chaos acl_out drop",
    ]
    assert error_of(ec2.delete_network_acl, NetworkAclId=mine) == "DependencyViolation"
    ec2.replace_network_acl_entry(**allow(mine, 100))
    ec2.create_network_acl_entry(**allow(mine, 90, RuleAction="deny", Protocol="6", PortRange={"From": 22, "To": 22}))
    assert "add rule ip pbx_chaos acl_in tcp dport 22 drop" in site.filters.acl
    assert numbers(acl_of(site, vpc)) == [(90, "deny"), (100, "allow"), (32767, "deny")]
    site.filters.acl = ""
    ec2_network_acls.resume(site.new_plane())
    assert "tcp dport 22 drop" in site.filters.acl
    ec2.delete_network_acl_entry(NetworkAclId=mine, RuleNumber=90, Egress=False)
    assert "acl_in tcp" not in site.filters.acl


def test_the_default_acl_can_be_changed_too(site: Site, vpc: Vpc) -> None:
    ec2, acl = site.ec2(), acl_of(site, vpc)["NetworkAclId"]
    ec2.delete_network_acl_entry(NetworkAclId=acl, RuleNumber=100, Egress=True)
    assert site.filters.acl.splitlines()[2:] == ["add rule ip pbx_chaos acl_out drop"]
    found = ec2.describe_network_acls(Filters=[{"Name": "entry.rule-number", "Values": ["100"]}])["NetworkAcls"]
    assert acl in [row["NetworkAclId"] for row in found], "its other direction"


def test_acl_entries_that_are_there_or_are_not_and_such_that_can_not_be(site: Site, vpc: Vpc) -> None:
    ec2, mine, unknown = site.ec2(), new_acl(site, vpc), "acl-0123456789abcdef0"
    create, replace, delete = (
        ec2.create_network_acl_entry,
        ec2.replace_network_acl_entry,
        ec2.delete_network_acl_entry,
    )
    create(**allow(mine, 100))
    create(**allow(mine, 100, egress=True))
    assert error_of(create, **allow(mine, 100)) == "NetworkAclEntryAlreadyExists"
    assert error_of(replace, **allow(mine, 110)) == "InvalidNetworkAclEntry.NotFound"
    missing: Any = {"NetworkAclId": mine, "RuleNumber": 110, "Egress": False}
    assert error_of(delete, **missing) == "InvalidNetworkAclEntry.NotFound"
    for entry, code in (
        (allow(mine, 0), "InvalidParameterValue"),
        (allow(mine, 32767), "InvalidParameterValue"),
        (allow(mine, 1, RuleAction="drop"), "InvalidParameterValue"),
        (allow(mine, 1, Protocol="6"), "InvalidParameterValue"),
        (allow(mine, 1, Protocol="1"), "MissingParameter"),
        (allow(mine, 1, CidrBlock="10.0.0.0/40"), "InvalidParameterValue"),
        (allow(unknown, 1), "InvalidNetworkAclID.NotFound"),
    ):
        assert error_of(create, **entry) == code, entry
    association = acl_of(site, vpc)["Associations"][0]["NetworkAclAssociationId"]
    associate = ec2.replace_network_acl_association
    assert error_of(associate, AssociationId=association, NetworkAclId=unknown) == "InvalidNetworkAclID.NotFound"
    absent = "aclassoc-0123456789abcdef0"
    assert error_of(associate, AssociationId=absent, NetworkAclId=mine) == "InvalidAssociationID.NotFound"
    assert error_of(ec2.describe_network_acls, NetworkAclIds=[unknown]) == "InvalidNetworkAclID.NotFound"
    ec2.delete_network_acl(NetworkAclId=mine)
    assert error_of(ec2.delete_network_acl, NetworkAclId=mine) == "InvalidNetworkAclID.NotFound"
