"""Security groups: rules, their members, and what stands in the way of a change."""

from __future__ import annotations

from typing import Any

from tests.contract.promises import API, ERRORS, VPC_GUIDE, promise
from tests.contract.site import Site, error_of

GROUPS = f"{VPC_GUIDE}vpc-security-groups.html"
RULES = f"{VPC_GUIDE}security-group-rules.html"
SIP: Any = [{"IpProtocol": "udp", "FromPort": 5060, "ToPort": 5060, "IpRanges": [{"CidrIp": "203.0.113.0/24"}]}]
TCP: Any = [{"IpProtocol": "tcp", "FromPort": 5063, "ToPort": 5063, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
UNKNOWN = "sg-0123456789abcdef0"


@promise("CreateSecurityGroup", "a new group lets nothing in and everything out", source=GROUPS)
def test_a_new_group(site: Site) -> None:
    group = _group(site, site.group())
    assert group["IpPermissions"] == []
    assert [rule["IpProtocol"] for rule in group["IpPermissionsEgress"]] == ["-1"]
    assert [r["CidrIp"] for r in group["IpPermissionsEgress"][0]["IpRanges"]] == ["0.0.0.0/0"]


@promise("CreateSecurityGroup", "a name is there once per VPC: InvalidGroup.Duplicate", source=ERRORS)
def test_a_name_is_there_once(site: Site) -> None:
    site.group("pbx")
    assert error_of(site.group, name="pbx") == "InvalidGroup.Duplicate"


@promise("AuthorizeSecurityGroupIngress", "a rule is in the group that it was added to", source=RULES)
def test_a_rule_is_added(site: Site) -> None:
    group_id = site.group()
    assert site.ec2().authorize_security_group_ingress(GroupId=group_id, IpPermissions=SIP)["Return"]
    (rule,) = _group(site, group_id)["IpPermissions"]
    assert (rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) == ("udp", 5060, 5060)
    assert [r["CidrIp"] for r in rule["IpRanges"]] == ["203.0.113.0/24"]


@promise("AuthorizeSecurityGroupIngress", "a rule that is there is refused: InvalidPermission.Duplicate", source=ERRORS)
def test_a_rule_is_there_once(site: Site) -> None:
    group_id = site.group()
    authorize = site.ec2().authorize_security_group_ingress
    authorize(GroupId=group_id, IpPermissions=SIP)
    assert error_of(authorize, GroupId=group_id, IpPermissions=SIP) == "InvalidPermission.Duplicate"


@promise("AuthorizeSecurityGroupIngress", "an unknown group is refused: InvalidGroup.NotFound", source=ERRORS)
def test_an_unknown_group(site: Site) -> None:
    authorize = site.ec2().authorize_security_group_ingress
    assert error_of(authorize, GroupId=UNKNOWN, IpPermissions=SIP) == "InvalidGroup.NotFound"
    assert error_of(site.ec2().describe_security_groups, GroupIds=[UNKNOWN]) == "InvalidGroup.NotFound"


@promise("AuthorizeSecurityGroupIngress", "the source of a rule can be a group", source=RULES)
def test_a_group_as_source(site: Site) -> None:
    group_id, clients = site.group("pbx"), site.group("clients")
    rule: Any = [{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "UserIdGroupPairs": [{"GroupId": clients}]}]
    site.ec2().authorize_security_group_ingress(GroupId=group_id, IpPermissions=rule)
    (told,) = _group(site, group_id)["IpPermissions"]
    assert [pair["GroupId"] for pair in told["UserIdGroupPairs"]] == [clients]


@promise("RevokeSecurityGroupIngress", "a rule that is revoked is gone, the others stay", source=RULES)
def test_a_rule_is_revoked(site: Site) -> None:
    group_id = site.group()
    site.ec2().authorize_security_group_ingress(GroupId=group_id, IpPermissions=SIP + TCP)
    site.ec2().revoke_security_group_ingress(GroupId=group_id, IpPermissions=SIP)
    assert [rule["IpProtocol"] for rule in _group(site, group_id)["IpPermissions"]] == ["tcp"]


@promise(
    "RevokeSecurityGroupIngress",
    "in a VPC that is no default one a rule that is not there is refused: InvalidPermission.NotFound",
    source=f"{API}API_RevokeSecurityGroupIngress.html",
)
def test_a_rule_that_is_not_there(site: Site) -> None:
    group_id = site.group()
    site.ec2().authorize_security_group_ingress(GroupId=group_id, IpPermissions=TCP)
    revoke = site.ec2().revoke_security_group_ingress
    assert error_of(revoke, GroupId=group_id, IpPermissions=SIP) == "InvalidPermission.NotFound"
    assert len(_group(site, group_id)["IpPermissions"]) == 1


@promise("RevokeSecurityGroupEgress", "the rule that lets everything out can be taken away", source=RULES)
def test_nothing_gets_out(site: Site) -> None:
    group_id = site.group()
    everything: Any = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    site.ec2().revoke_security_group_egress(GroupId=group_id, IpPermissions=everything)
    assert _group(site, group_id)["IpPermissionsEgress"] == []
    site.ec2().authorize_security_group_egress(GroupId=group_id, IpPermissions=TCP)
    assert len(_group(site, group_id)["IpPermissionsEgress"]) == 1


@promise(
    "DescribeSecurityGroupRules",
    "each rule has an identifier and a direction",
    source=f"{API}API_DescribeSecurityGroupRules.html",
)
def test_rules_have_identifiers(site: Site) -> None:
    group_id = site.group()
    site.ec2().authorize_security_group_ingress(GroupId=group_id, IpPermissions=SIP)
    filters: Any = [{"Name": "group-id", "Values": [group_id]}]
    rules = site.ec2().describe_security_group_rules(Filters=filters)["SecurityGroupRules"]
    assert {(rule["IpProtocol"], rule["IsEgress"]) for rule in rules} == {("udp", False), ("-1", True)}
    assert all(rule["SecurityGroupRuleId"].startswith("sgr-") for rule in rules)


@promise("RunInstances", "an instance is in the groups that it was launched with", source=GROUPS)
def test_an_instance_is_in_its_groups(site: Site) -> None:
    group_id = site.group()
    made = site.run(SecurityGroupIds=[group_id])["InstanceId"]
    site.wait_instance(made, "running")
    assert [g["GroupId"] for g in site.instance(made)["SecurityGroups"]] == [group_id]


@promise(
    "RunInstances",
    "without a group an instance is in the VPC's default group",
    source=f"{VPC_GUIDE}default-security-group.html",
)
def test_the_default_group(site: Site) -> None:
    made = site.run()["InstanceId"]
    site.wait_instance(made, "running")
    assert [g["GroupName"] for g in site.instance(made)["SecurityGroups"]] == ["default"]
    filters: Any = [{"Name": "vpc-id", "Values": [site.vpc_id]}, {"Name": "group-name", "Values": ["default"]}]
    (group,) = site.ec2().describe_security_groups(Filters=filters)["SecurityGroups"]
    (rule,) = group["IpPermissions"]
    assert [pair["GroupId"] for pair in rule["UserIdGroupPairs"]] == [group["GroupId"]], "its own members only"


@promise(
    "ModifyInstanceAttribute",
    "an instance changes its groups while it runs",
    source=f"{API}API_ModifyInstanceAttribute.html",
)
def test_an_instance_changes_its_groups(site: Site, two: tuple[str, str]) -> None:
    group_id = site.group()
    site.ec2().modify_instance_attribute(InstanceId=two[0], Groups=[group_id])
    site.until("changed", lambda: [g["GroupId"] for g in site.instance(two[0])["SecurityGroups"]] == [group_id])
    assert [g["GroupName"] for g in site.instance(two[1])["SecurityGroups"]] == ["default"], "the other one has not"


@promise(
    "ModifyNetworkInterfaceAttribute",
    "an interface changes its groups",
    source=f"{API}API_ModifyNetworkInterfaceAttribute.html",
)
def test_an_interface_changes_its_groups(site: Site, two: tuple[str, str]) -> None:
    group_id, interface = site.group(), site.interface(two[0])
    site.ec2().modify_network_interface_attribute(NetworkInterfaceId=interface, Groups=[group_id])
    told = site.ec2().describe_network_interfaces(NetworkInterfaceIds=[interface])["NetworkInterfaces"][0]
    assert [g["GroupId"] for g in told["Groups"]] == [group_id]


@promise(
    "DeleteSecurityGroup",
    "a group with an instance is refused: DependencyViolation",
    source=f"{API}API_DeleteSecurityGroup.html",
)
def test_a_group_with_an_instance_stays(site: Site) -> None:
    group_id = site.group()
    made = site.run(SecurityGroupIds=[group_id])["InstanceId"]
    site.wait_instance(made, "running")
    assert error_of(site.ec2().delete_security_group, GroupId=group_id) == "DependencyViolation"
    assert _group(site, group_id)["GroupId"] == group_id


@promise(
    "DeleteSecurityGroup",
    "a group that is another one's source is refused: DependencyViolation",
    source=f"{API}API_DeleteSecurityGroup.html",
)
def test_a_group_that_is_a_source_stays(site: Site) -> None:
    group_id, clients = site.group("pbx"), site.group("clients")
    rule: Any = [{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "UserIdGroupPairs": [{"GroupId": clients}]}]
    site.ec2().authorize_security_group_ingress(GroupId=group_id, IpPermissions=rule)
    assert error_of(site.ec2().delete_security_group, GroupId=clients) == "DependencyViolation"


@promise("DeleteSecurityGroup", "the default group of a VPC can't be deleted: CannotDelete", source=ERRORS)
def test_the_default_group_stays(site: Site) -> None:
    filters: Any = [{"Name": "vpc-id", "Values": [site.vpc_id]}, {"Name": "group-name", "Values": ["default"]}]
    (group,) = site.ec2().describe_security_groups(Filters=filters)["SecurityGroups"]
    assert error_of(site.ec2().delete_security_group, GroupId=group["GroupId"]) == "CannotDelete"


@promise("DeleteSecurityGroup", "a deleted group is unknown: InvalidGroup.NotFound", source=ERRORS)
def test_a_deleted_group_is_gone(site: Site) -> None:
    group_id = site.group()
    site.ec2().delete_security_group(GroupId=group_id)
    assert error_of(site.ec2().describe_security_groups, GroupIds=[group_id]) == "InvalidGroup.NotFound"


def _group(site: Site, group_id: str) -> Any:
    return site.ec2().describe_security_groups(GroupIds=[group_id])["SecurityGroups"][0]
