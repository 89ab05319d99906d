"""The EC2 actions on security groups: the books keep the rules, the guests' filters follow before the call is answered.

Which groups an interface has is kept here (the books add where EC2 replaces). The other end is packet_filter.py.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from xml.etree.ElementTree import Element

from harness.region import pages
from harness.region.calls import AwsError, Call, Document, answer, put
from harness.region.plane import Action, Plane, refuse_dry_run
from harness.region.semantics import filters as semantics
from harness.region.semantics.filters import Permission
from harness.region.state import Instance

INGRESS, EGRESS = "ipPermissions", "ipPermissionsEgress"


@dataclass(frozen=True, kw_only=True)
class Group:
    """A security group as the books have it."""

    group_id: str
    name: str
    vpc_id: str
    ingress: tuple[Permission, ...]
    egress: tuple[Permission, ...]


def create_security_group(plane: Plane, call: Call) -> bytes:
    """CreateSecurityGroup: of the default VPC unless one is named; it lets everything out and nothing in."""
    refuse_dry_run(call)
    semantics.decide_create(call.require("GroupName"))
    call.require("GroupDescription")
    vpc_id = call.get("VpcId")
    if vpc_id is not None:
        plane.books.call("DescribeVpcs", {"VpcId.1": vpc_id})
    with plane.state.lock:
        plane.past_groups.keep(plane.books)
        return plane.books.call("CreateSecurityGroup", call.params).body(call)


def delete_security_group(plane: Plane, call: Call) -> bytes:
    """DeleteSecurityGroup: only one that nothing depends on."""
    refuse_dry_run(call)
    with plane.state.lock:
        groups = _groups(plane)
        group = _group(plane, call, groups)
        used_by = [i.instance_id for i in _living(plane) if group.group_id in i.group_ids]
        named_in = [
            g.group_id for g in groups.values() if any(p.source == group.group_id for p in (*g.ingress, *g.egress))
        ]
        semantics.decide_delete(group.group_id, name=group.name, used_by=used_by, named_in=named_in)
        plane.books.call("DeleteSecurityGroup", {"GroupId": group.group_id})
    return answer(call, {"return": True, "groupId": group.group_id})


def authorize(plane: Plane, call: Call) -> bytes:
    """AuthorizeSecurityGroupIngress and -Egress: all of the call's rules, or none."""
    refuse_dry_run(call)
    with plane.state.lock:
        groups = _groups(plane)
        group = _group(plane, call, groups)
        wanted = list(_permissions(plane, call, groups, group))
        semantics.decide_authorize(_existing(call, group), [permission for permission, _ in wanted])
        plane.past_groups.keep(plane.books)
        document = _each(plane, call, group, [params for _, params in wanted])
        sync(plane)
    return document.body(call)


def revoke(plane: Plane, call: Call) -> bytes:
    """RevokeSecurityGroupIngress and -Egress, by value or by the rules' ids."""
    refuse_dry_run(call)
    with plane.state.lock:
        groups = _groups(plane)
        group = _group(plane, call, groups)
        plane.past_groups.keep(plane.books)
        if ids := call.numbered("SecurityGroupRuleId"):
            params = {f"SecurityGroupRuleId.{n}": rule_id for n, rule_id in enumerate(ids, start=1)}
            document = plane.books.call(call.action, {"GroupId": group.group_id, **params})
        else:
            wanted = list(_permissions(plane, call, groups, group))
            semantics.decide_revoke(_existing(call, group), [permission for permission, _ in wanted])
            document = _each(plane, call, group, [params for _, params in wanted])
        sync(plane)
    return document.body(call)


def modify_security_group_rules(plane: Plane, call: Call) -> bytes:
    """ModifySecurityGroupRules: as the books take it, then in the guests."""
    refuse_dry_run(call)
    with plane.state.lock:
        plane.past_groups.keep(plane.books)
        document = plane.books.call(call.action, call.params)
        sync(plane)
    return document.body(call)


def describe_security_groups(plane: Plane, call: Call) -> bytes:
    """DescribeSecurityGroups: as the books have them, or had them."""
    document = plane.books.call(call.action, pages.unpaged(call.params))
    asked = {i: _no_such_group(f"'{i}' does not exist") for i in call.numbered("GroupId")}
    plane.past_groups.show(document, age_s=plane.age_s(), asked=asked)
    pages.cut(document, "securityGroupInfo", call)
    return document.body(call)


def create_vpc(plane: Plane, call: Call) -> bytes:
    """CreateVpc: its default group lets its own members in, which the books forget."""
    refuse_dry_run(call)
    with plane.state.lock:
        document = plane.books.call("CreateVpc", call.params)
        _complete_default_group(plane, document.root.findtext("vpc/vpcId") or "")
    return document.body(call)


def launch_groups(plane: Plane, call: Call) -> tuple[str, ...]:
    """RunInstances: the groups of the instance's interface, its VPC's default one where none is named."""
    nic = "NetworkInterface.1."
    named = [*call.numbered("SecurityGroupId"), *call.numbered("SecurityGroup")]
    if named and f"{nic}DeviceIndex" in call.params:
        message = "Network interfaces and an instance-level security groups may not be specified on the same request"
        raise AwsError("InvalidParameterCombination", message)
    vpc_id = _vpc_of(plane, call.get("SubnetId") or call.get(f"{nic}SubnetId"))
    groups = _groups(plane)
    ids = [*call.numbered("SecurityGroupId"), *call.numbered(f"{nic}SecurityGroupId")]
    for name in call.numbered("SecurityGroup"):
        ids.append(_by_name(groups, name, vpc_id).group_id)
    if not ids:
        ids = [g.group_id for g in groups.values() if (g.name, g.vpc_id) == ("default", vpc_id)]
    return semantics.decide_groups(ids, {g.group_id: g.vpc_id for g in groups.values()}, vpc_id=vpc_id)


def set_groups(plane: Plane, record: Instance, wanted: Sequence[str]) -> None:
    """ModifyInstanceAttribute(GroupId), ModifyNetworkInterfaceAttribute(SecurityGroupId): these groups, no others.

    Called under the lock.
    """
    groups = _groups(plane)
    vpc_id = next((groups[g].vpc_id for g in record.group_ids if g in groups), "")
    known = {g.group_id: g.vpc_id for g in groups.values()}
    plane.state.put(replace(record, group_ids=semantics.decide_groups(wanted, known, vpc_id=vpc_id)))
    with suppress(AwsError):
        numbered = {f"GroupId.{n}": group_id for n, group_id in enumerate(wanted, start=1)}
        plane.books.call("ModifyInstanceAttribute", {"InstanceId": record.instance_id, **numbered})
    sync(plane)


def show_groups(item: Element, record: Instance, names: Mapping[str, str]) -> None:
    """The groups in one item of an answer, an instance or an interface; `names` from `group_names`."""
    put(item, "groupSet", [{"groupId": g, "groupName": names.get(g, "")} for g in record.group_ids])


def group_names(plane: Plane) -> dict[str, str]:
    """{group: name}."""
    return {g.group_id: g.name for g in _groups(plane).values()}


def sync(plane: Plane) -> None:
    """Bring every guest's filter in line with its groups and with who is in the groups they name."""
    if plane.filters is None:
        return
    with plane.state.lock:
        groups, living = _groups(plane), _living(plane)
        members: defaultdict[str, set[str]] = defaultdict(set)
        for record in living:
            for group_id in record.group_ids:
                members[group_id] |= set(record.private_ips)
        wanted, guests = {}, {}
        for record in living:
            mine = [groups[g] for g in record.group_ids if g in groups]
            ingress, egress = [p for g in mine for p in g.ingress], [p for g in mine for p in g.egress]
            known = bool(record.group_ids)  # one of a region that is older than this has none
            wanted[record.instance_id] = semantics.guest_rules(ingress, egress, members) if known else ""
            if (pid := plane.instances.pid(record.instance_id)) is not None:
                guests[record.instance_id] = pid
        plane.filters.guard(wanted, guests)


def resume(plane: Plane) -> None:
    """Everything anew from the books; in a fresh region also what they forget of the default VPC's default group."""
    if plane.state.instances:
        sync(plane)
        return
    with suppress(AwsError):
        _complete_default_group(plane, _vpc_of(plane, None))


def _living(plane: Plane) -> list[Instance]:
    return [record for record in plane.state.instances.values() if not record.terminated]


def _groups(plane: Plane) -> dict[str, Group]:
    """All groups of the books, by id."""
    found = {}
    for item in plane.books.call("DescribeSecurityGroups", {}).items("securityGroupInfo"):
        group_id = item.findtext("groupId") or ""
        found[group_id] = Group(
            group_id=group_id,
            name=item.findtext("groupName") or "",
            vpc_id=item.findtext("vpcId") or "",
            ingress=tuple(_read(item, INGRESS)),
            egress=tuple(_read(item, EGRESS)),
        )
    return found


def _read(group: Element, name: str) -> Iterator[Permission]:
    for item in group.findall(f"{name}/item"):
        protocol, first, last = item.findtext("ipProtocol") or "-1", item.findtext("fromPort"), item.findtext("toPort")
        places = ("ipRanges/item/cidrIp", "ipv6Ranges/item/cidrIpv6", "groups/item/groupId")
        for source in (element.text or "" for place in places for element in item.findall(place)):
            with suppress(AwsError):  # what only the books understand filters nothing here
                yield semantics.permission(protocol, first, last, source)


def _existing(call: Call, group: Group) -> tuple[Permission, ...]:
    return group.egress if call.action.endswith("Egress") else group.ingress


def _group(plane: Plane, call: Call, groups: Mapping[str, Group]) -> Group:
    """The group that the call means: by id, or by name in the default VPC."""
    group_id, name = call.get("GroupId"), call.get("GroupName")
    if group_id is None and name is None:
        raise AwsError("MissingParameter", "The request must contain the parameter groupName or groupId")
    if group_id is None:
        return _by_name(groups, name or "", _vpc_of(plane, None))
    if group_id not in groups:
        raise _no_such_group(f"'{group_id}' does not exist")
    return groups[group_id]


def _no_such_group(which: str) -> AwsError:
    return AwsError("InvalidGroup.NotFound", f"The security group {which}")


def _by_name(groups: Mapping[str, Group], name: str, vpc_id: str) -> Group:
    for group in groups.values():
        if (group.name, group.vpc_id) == (name, vpc_id):
            return group
    raise _no_such_group(f"'{name}' does not exist in VPC '{vpc_id}'")


def _vpc_of(plane: Plane, subnet_id: str | None) -> str:
    """The VPC of a subnet, the account's default one without."""
    if subnet_id is not None:
        subnets = plane.books.call("DescribeSubnets", {"SubnetId.1": subnet_id})
        return next((item.findtext("vpcId") or "" for item in subnets.items("subnetSet")), "")
    vpcs = plane.books.call("DescribeVpcs", {}).items("vpcSet")
    found = next((item.findtext("vpcId") for item in vpcs if item.findtext("isDefault") == "true"), None)
    if found is None:
        raise AwsError("VPCIdNotSpecified", "No default VPC for this user")
    return found


def _permissions(
    plane: Plane, call: Call, groups: Mapping[str, Group], group: Group
) -> Iterator[tuple[Permission, dict[str, str]]]:
    """The rules of a request, one per source, each with the parameters under which the books take it."""
    parts: defaultdict[int, dict[str, str]] = defaultdict(dict)
    for key, value in call.params.items():
        if at := re.match(r"IpPermissions\.([0-9]{1,6})\.(.+)", key):
            parts[int(at[1])][at[2]] = value
    if not parts:
        place = {"CidrIp": "IpRanges.1.CidrIp", "SourceSecurityGroupName": "Groups.1.GroupName"}
        short = ("IpProtocol", "FromPort", "ToPort", *place)
        parts[1] = {place.get(key, key): call.params[key] for key in short if key in call.params}
    for _, row in sorted(parts.items()):
        if "IpProtocol" not in row:
            raise AwsError("MissingParameter", "The request must contain the parameter ipProtocol")
        found = list(_sources(row, groups, group))
        if not found:
            raise AwsError("MissingParameter", "The request must contain a CIDR block or a security group")
        for source, more in found:
            one = semantics.permission(row["IpProtocol"], row.get("FromPort"), row.get("ToPort"), source)
            yield one, _as_params(one, more)


def _sources(row: Mapping[str, str], groups: Mapping[str, Group], group: Group) -> Iterator[tuple[str, dict[str, str]]]:
    """What a rule allows traffic with, each with its own description."""
    for key, value in sorted(row.items()):
        note = row.get(key.rpartition(".")[0] + ".Description")
        more = {} if note is None else {"Description": note}
        if key.startswith("PrefixListIds."):
            raise AwsError("UnsupportedOperation", "This region has no prefix lists in security group rules.")
        if key.endswith((".CidrIp", ".CidrIpv6")):
            yield value, more
        elif re.fullmatch(r"Groups\.\d+\.GroupId", key):
            if value not in groups:
                raise _no_such_group(f"'{value}' does not exist")
            yield value, more
        elif re.fullmatch(r"Groups\.\d+\.GroupName", key) and key.replace("Name", "Id") not in row:
            yield _by_name(groups, value, group.vpc_id).group_id, more


def _as_params(one: Permission, more: Mapping[str, str]) -> dict[str, str]:
    """One rule as the books take it."""
    if one.source[:3] == "sg-":
        place, key = "Groups.1", "GroupId"
    else:
        place, key = ("Ipv6Ranges.1", "CidrIpv6") if ":" in one.source else ("IpRanges.1", "CidrIp")
    rule = {"IpProtocol": semantics.protocol_name(one.protocol), f"{place}.{key}": one.source}
    if one.protocol is not None:
        rule |= {"FromPort": str(one.first), "ToPort": str(one.last)}
    rule |= {f"{place}.{name}": value for name, value in more.items()}
    return {f"IpPermissions.1.{name}": value for name, value in rule.items()}


def _each(plane: Plane, call: Call, group: Group, rules: Sequence[Mapping[str, str]]) -> Document:
    """Tell the books rule by rule: of several they name only the last one's ids."""
    tags = {key: value for key, value in call.params.items() if key.startswith("TagSpecification.")}
    documents = [plane.books.call(call.action, {"GroupId": group.group_id, **tags, **rule}) for rule in rules]
    whole = documents[0]
    into = whole.root.find("securityGroupRuleSet")
    for document in documents[1:]:
        for item in document.items("securityGroupRuleSet"):
            if into is not None:
                into.append(item)
    put(whole.root, "return", True)
    return whole


def _complete_default_group(plane: Plane, vpc_id: str) -> None:
    """AWS: "Default security groups": all traffic from the group itself. Once, when the VPC is new."""
    group = _by_name(_groups(plane), "default", vpc_id)
    if not group.ingress:
        itself = Permission(protocol=None, source=group.group_id)
        plane.books.call("AuthorizeSecurityGroupIngress", {"GroupId": group.group_id, **_as_params(itself, {})})


ACTIONS: Mapping[str, Action] = {
    "DescribeSecurityGroups": describe_security_groups,
    "CreateSecurityGroup": create_security_group,
    "DeleteSecurityGroup": delete_security_group,
    "AuthorizeSecurityGroupIngress": authorize,
    "AuthorizeSecurityGroupEgress": authorize,
    "RevokeSecurityGroupIngress": revoke,
    "RevokeSecurityGroupEgress": revoke,
    "ModifySecurityGroupRules": modify_security_group_rules,
    "CreateVpc": create_vpc,
}
