"""Network ACLs: stateless, numbered rules at the boundary of a subnet, and those rules as nft text for the router.

Sources: "Network ACL rules" (VPC User Guide) and the API reference by action. Rules are tried in the order of their
numbers, the first that matches decides, what none matches is denied. A VPC's default ACL allows everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_network
from typing import Any

from harness.region.calls import AwsError, number
from harness.region.semantics import filters

TABLE = "pbx_chaos"
"""The router's table (addresses.py), in which `acl_in` and `acl_out` are chains."""

LAST_NUMBER = 32766
IMPLICIT = 32767
"""The number under which Describe calls show the rule that denies what no other matched (`*`)."""

ENTRIES_PER_DIRECTION = 20
"""AWS: the default quota, without the implicit one."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One rule. `first` and `last` are destination ports, for ICMP type and code, -1 where any will do."""

    number: int
    egress: bool
    allow: bool
    block: str
    protocol: int | None = None
    first: int = -1
    last: int = -1


DEFAULT_ENTRIES = tuple(
    Entry(number=100, egress=egress, allow=True, block=str(filters.ANYWHERE)) for egress in (True, False)
)
"""What the default ACL of a VPC begins with."""


def entry(params: Mapping[str, str]) -> Entry:
    """The rule that CreateNetworkAclEntry or ReplaceNetworkAclEntry means; EC2's error for one that can't be."""
    number = _integer(params, "RuleNumber")
    if number is None or not 1 <= number <= LAST_NUMBER:
        raise AwsError("InvalidParameterValue", f"Value ({number}) for parameter ruleNumber is invalid.")
    action = params.get("RuleAction", "")
    if action not in ("allow", "deny"):
        raise AwsError("InvalidParameterValue", f"Value ({action}) for parameter ruleAction is invalid.")
    block = params.get("CidrBlock") or params.get("Ipv6CidrBlock")
    if not block:
        raise AwsError("MissingParameter", "Either cidrBlock or ipv6CidrBlock must be specified.")
    if "Protocol" not in params:
        raise AwsError("MissingParameter", "The request must contain the parameter protocol")
    protocol = filters.protocol_number(params["Protocol"])
    first, last = -1, -1
    if protocol in (filters.TCP, filters.UDP):
        first, last = filters.port_range(_integer(params, "PortRange.From"), _integer(params, "PortRange.To"))
    elif protocol == filters.ICMP:
        kind, code = _integer(params, "Icmp.Type"), _integer(params, "Icmp.Code")
        if kind is None or code is None:
            raise AwsError("MissingParameter", "ICMP type and code must be specified with protocol 1.")
        first, last = filters.icmp_type_code(kind, code)
    return Entry(
        number=number,
        egress=params.get("Egress", "").lower() == "true",
        allow=action == "allow",
        block=filters.cidr(block),
        protocol=protocol,
        first=first,
        last=last,
    )


def created(entries: Sequence[Entry], new: Entry) -> tuple[Entry, ...]:
    """CreateNetworkAclEntry: its number has to be free in its direction."""
    same = [e for e in entries if e.egress == new.egress]
    if any(e.number == new.number for e in same):
        message = f"The network acl entry identified by {new.number} already exists."
        raise AwsError("NetworkAclEntryAlreadyExists", message)
    if len(same) >= ENTRIES_PER_DIRECTION:
        raise AwsError("NetworkAclEntryLimitExceeded", "The maximum number of network acl entries has been reached.")
    return (*entries, new)


def replaced(entries: Sequence[Entry], new: Entry) -> tuple[Entry, ...]:
    """ReplaceNetworkAclEntry."""
    return (*deleted(entries, number=new.number, egress=new.egress), new)


def deleted(entries: Sequence[Entry], *, number: int | None, egress: bool) -> tuple[Entry, ...]:
    """DeleteNetworkAclEntry."""
    rest = tuple(e for e in entries if (e.number, e.egress) != (number, egress))
    if len(rest) == len(entries):
        way = "egress" if egress else "ingress"
        message = f"The {way} network acl entry identified by {number} does not exist."
        raise AwsError("InvalidNetworkAclEntry.NotFound", message)
    return rest


def decide_delete(acl_id: str, *, default: bool, associated: bool) -> None:
    """DeleteNetworkAcl: neither the default one (its code is not documented) nor one that a subnet has."""
    if default:
        raise AwsError("InvalidParameterValue", f"cannot delete default network ACL {acl_id}")
    if associated:
        raise AwsError("DependencyViolation", f"The networkAcl '{acl_id}' has dependencies and cannot be deleted.")


def shown(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """As DescribeNetworkAcls answers: by direction and number, the implicit rules last."""
    last = [Entry(number=IMPLICIT, egress=way, allow=False, block=str(filters.ANYWHERE)) for way in (True, False)]
    return [_row(e) for e in sorted([*entries, *last], key=lambda e: (not e.egress, e.number))]


def router_rules(entries: Iterable[Entry]) -> str:
    """One nft transaction after which the router's ACL chains hold these entries.

    `acl_in` judges what enters the subnet, with private destinations; `acl_out` what leaves it, with private sources. A
    chain that lets everything pass is empty.
    """
    entries = list(entries)
    inbound, outbound = (_chain([e for e in entries if e.egress == egress]) for egress in (False, True))
    lines = [f"flush chain ip {TABLE} acl_in", f"flush chain ip {TABLE} acl_out"]
    lines += [f"add rule ip {TABLE} acl_in {rule}" for rule in inbound]
    lines += [f"add rule ip {TABLE} acl_out {rule}" for rule in outbound]
    return "\n".join(lines) + "\n"


def _chain(entries: Sequence[Entry]) -> list[str]:
    """Rules of one direction; one that allows everything makes all after it needless."""
    rules: list[str] = []
    for one in sorted(entries, key=lambda e: e.number):
        block = ip_network(one.block)
        if not isinstance(block, IPv4Network):
            continue  # no IPv6 in this region
        condition = filters.match(one.protocol, one.first, one.last, [block], "daddr" if one.egress else "saddr")
        if not condition and one.allow:
            return [*rules, "return"] if rules else []
        rules.append(f"{condition} {'return' if one.allow else 'drop'}".strip())
    return [*rules, "drop"]


def _row(one: Entry) -> dict[str, Any]:
    row: dict[str, Any] = {
        "ruleNumber": one.number,
        "protocol": "-1" if one.protocol is None else one.protocol,
        "ruleAction": "allow" if one.allow else "deny",
        "egress": one.egress,
        "ipv6CidrBlock" if ":" in one.block else "cidrBlock": one.block,
    }
    if one.protocol in (filters.TCP, filters.UDP):
        row["portRange"] = {"from": one.first, "to": one.last}
    elif one.protocol == filters.ICMP:
        row["icmpTypeCode"] = {"type": one.first, "code": one.last}
    return row


def _integer(params: Mapping[str, str], name: str) -> int | None:
    text = params.get(name)
    if text is None:
        return None
    found = number(text)
    if found is None:
        raise AwsError("InvalidParameterValue", f"Value ({text[:64]}) for parameter {name} is invalid.")
    return found
