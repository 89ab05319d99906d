"""Security groups: what may be asked of them, and their rules as nft text for a guest's network namespace.

Sources: "Security group rules", "Amazon EC2 security group connection tracking" (EC2 User Guide) and the API reference
by action. A flow is *tracked* once its first packet has been allowed: from then on its packets pass both ways, whatever
happens to the rules. Not tracked are TCP and UDP flows that a rule allows from (or to) everywhere while the other
direction allows everything back: each of their packets needs a rule, they end with it. ICMP is always tracked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, collapse_addresses, ip_network
from typing import Literal

from harness.region.calls import AwsError, number

TABLE = "pbx_chaos_sg"
TRACKED = 127
"""The conntrack label of tracked flows: the last one there is, no program in a guest is likely to use it."""

REFUSED = 0x40000000
"""Packet mark of what may not leave, between the last chain and the interface."""

LINK_LOCAL = "169.254.0.0/16"
"""Instance metadata, DNS and time service: security groups do not filter them."""

ICMP, TCP, UDP = 1, 6, 17
PROTOCOLS: Mapping[str, int] = {"icmp": ICMP, "tcp": TCP, "udp": UDP, "icmpv6": 58}
NAMES: Mapping[int, str] = {ICMP: "icmp", TCP: "tcp", UDP: "udp", 58: "icmpv6"}
ANYWHERE = IPv4Network("0.0.0.0/0")
ALL_PORTS = (0, 65535)

Side = Literal["saddr", "daddr"]


@dataclass(frozen=True, kw_only=True)
class Permission:
    """One rule with one source (egress: destination), a CIDR block or a group's id; protocol None means all.

    `first` and `last` are a port range, for ICMP type and code, -1 where any will do.
    """

    protocol: int | None
    first: int = -1
    last: int = -1
    source: str


def protocol_number(text: str) -> int | None:
    """The number of a protocol that the API names or numbers, None for all of them."""
    known = PROTOCOLS.get(text.lower())
    if known is not None:
        return known
    if text.lower() in ("-1", "all"):
        return None
    found = number(text)
    if found is not None and 0 <= found <= 255:
        return found
    raise AwsError("InvalidParameterValue", f"Invalid value '{text[:64]}' for IP protocol. Unknown protocol.")


def protocol_name(protocol: int | None) -> str:
    """As Describe calls show it."""
    return "-1" if protocol is None else NAMES.get(protocol, str(protocol))


def permission(protocol: str, first: str | None, last: str | None, source: str) -> Permission:
    """One permission out of a request, in canonical form; EC2's error for one that can't be."""
    number, low, high = protocol_number(protocol), _number(first), _number(last)
    if number in (TCP, UDP):
        low, high = port_range(low, high)
    elif number == ICMP:
        low, high = icmp_type_code(low, high)
    else:
        low = high = -1
    return Permission(protocol=number, first=low, last=high, source=source if source[:3] == "sg-" else cidr(source))


def port_range(low: int | None, high: int | None) -> tuple[int, int]:
    """A range of TCP or UDP ports; both ends have to be there. -1 to -1 stands for all (API reference)."""
    if low is None or high is None:
        raise AwsError(
            "InvalidParameterValue",
            "Invalid value 'Must specify both from and to ports with TCP/UDP.' for portRange.",
        )
    if (low, high) == (-1, -1):
        return ALL_PORTS
    if not 0 <= low <= high <= ALL_PORTS[1]:
        raise AwsError("InvalidParameterValue", f"Invalid TCP/UDP port range ({low}:{high})")
    return low, high


def icmp_type_code(kind: int | None, code: int | None) -> tuple[int, int]:
    """ICMP type and code, -1 for any; with any type goes any code (API reference)."""
    kind, code = -1 if kind is None else kind, -1 if code is None else code
    if not (-1 <= kind <= 255 and -1 <= code <= 255) or (kind == -1 and code != -1):
        raise AwsError("InvalidParameterValue", f"ICMP type ({kind}) and code ({code}) do not fit together")
    return kind, code


def cidr(text: str) -> str:
    """The canonical block: AWS clears the bits of the host (API reference, IpRange)."""
    try:
        return str(ip_network(text, strict=False))
    except ValueError:
        raise AwsError("InvalidParameterValue", f"CIDR block {text} is malformed") from None


def decide_authorize(existing: Collection[Permission], wanted: Sequence[Permission]) -> None:
    """AuthorizeSecurityGroupIngress/Egress: a rule that is there already fails the whole call."""
    if len(set(wanted)) < len(wanted):
        raise AwsError("InvalidParameterValue", "The same permission must not appear multiple times")
    for one in wanted:
        if one in existing:
            raise AwsError("InvalidPermission.Duplicate", f'the specified rule "{describe(one)}" already exists')


def decide_revoke(existing: Collection[Permission], wanted: Sequence[Permission]) -> None:
    """RevokeSecurityGroupIngress/Egress: all rules have to be there (documented for groups of a nondefault VPC; ours:
    for all)."""
    if any(one not in existing for one in wanted):
        message = "The specified rule does not exist in this security group."
        raise AwsError("InvalidPermission.NotFound", message)


def decide_create(name: str) -> None:
    """CreateSecurityGroup: which names can't be."""
    if name == "default":
        raise AwsError("InvalidGroup.Reserved", "The name 'default' is reserved.")
    if name.startswith("sg-"):
        message = f"Invalid value '{name}' for groupName. Group names may not be in the format sg-*."
        raise AwsError("InvalidParameterValue", message)
    legal = name.isascii() and all(letter.isalnum() or letter in " ._-:/()#,@[]+=&;{}!$*" for letter in name)
    if not legal or len(name) > 255:
        raise AwsError("InvalidParameterValue", f"Invalid security group name '{name}'")


def decide_delete(group_id: str, *, name: str, used_by: Collection[str], named_in: Collection[str]) -> None:
    """DeleteSecurityGroup: not a VPC's default one, none that an interface has or another group's rule names."""
    if name == "default":
        raise AwsError("CannotDelete", f'the specified group: "{group_id}" name: "default" cannot be deleted by a user')
    if used_by or set(named_in) - {group_id}:
        raise AwsError("DependencyViolation", f"resource {group_id} has a dependent object")


def decide_groups(wanted: Sequence[str], known: Mapping[str, str], *, vpc_id: str) -> tuple[str, ...]:
    """The groups an interface shall have, out of {group: VPC}: at least one, all of its own VPC."""
    if not wanted:
        raise AwsError("InvalidParameterValue", "An interface has at least one security group.")
    for group_id in wanted:
        if group_id not in known:
            raise AwsError("InvalidGroup.NotFound", f"The security group '{group_id}' does not exist")
        if known[group_id] != vpc_id:
            message = (
                f"You have specified two resources that belong to different networks: {group_id} is not in {vpc_id}."
            )
            raise AwsError("InvalidParameter", message)
    return tuple(dict.fromkeys(wanted))


def describe(one: Permission) -> str:
    """In the words of EC2's error messages."""
    ports = f", from port: {one.first}, to port: {one.last}" if one.protocol in (TCP, UDP) else ""
    return f"peer: {one.source}, {protocol_name(one.protocol).upper()}{ports}, ALLOW"


def guest_rules(
    ingress: Iterable[Permission], egress: Iterable[Permission], members: Mapping[str, Collection[str]]
) -> str:
    """The filter of one guest for `nft -f`, in a table of its own; empty where everything may pass (untracked, AWS).

    `members` are the private addresses of each group. Inbound packets are judged before the guest's own rules see them,
    outbound ones after. What is not allowed is dropped in silence; the last chain, `refused`, is added by `refusing`.
    """
    inbound, outbound = _resolved(ingress, members), _resolved(egress, members)
    if _everything(inbound) and _everything(outbound):
        return ""
    arriving = "\n    ".join(_verdicts(inbound, outbound, "saddr"))
    leaving = "\n    ".join(_verdicts(outbound, inbound, "daddr"))
    return f"""
{no_guest_rules()}table ip {TABLE} {{
  chain refused {{ }}
  chain tracked {{
    ct direction original ct label set {TRACKED}
    accept
  }}
  chain arriving {{
    type filter hook prerouting priority mangle; policy drop;
    iifname "lo" accept
    ip saddr {LINK_LOCAL} accept
    ct label {TRACKED} accept
    ct state related accept
    {arriving}
  }}
  chain leaving {{
    type filter hook postrouting priority 300; policy drop;
    oifname "lo" accept
    ip daddr {LINK_LOCAL} accept
    ct label {TRACKED} accept
    ct state related accept
    {leaving}
    goto refused
  }}
}}
"""


def refusing(*, interface: str, mac: str) -> str:
    """How a packet that may not leave is lost without its sender being told, as nft text after `guest_rules`.

    A drop would be an error of the sender's system call, which no machine in a VPC ever sees. Hence the frame is sent
    to the sender's own hardware address: the bridge finds that behind the port it came from, and lets it go.
    """
    return f"""
table ip {TABLE} {{
  chain refused {{
    meta mark set meta mark or {REFUSED:#x}
    accept
  }}
}}
table netdev {TABLE} {{
  chain refused {{
    type filter hook egress device "{interface}" priority 0; policy accept;
    meta mark and {REFUSED:#x} == {REFUSED:#x} ether daddr set {mac}
  }}
}}
"""


def refusing_aloud() -> str:
    """The same for a kernel without egress hooks (before 5.16): the sender is told "operation not permitted"."""
    return f"table ip {TABLE} {{\n  chain refused {{ drop\n }}\n}}\n"


def no_guest_rules() -> str:
    """Takes the table away, for `nft -f`; also where there is none."""
    return f"table ip {TABLE} {{ }}\ndelete table ip {TABLE}\n"


def no_refusing() -> str:
    """Takes away what `refusing` added beside that table."""
    return f"table netdev {TABLE} {{ }}\ndelete table netdev {TABLE}\n"


def match(protocol: int | None, first: int, last: int, networks: Sequence[IPv4Network], side: Side) -> str:
    """The conditions of one nft rule, empty where everything matches; ports are the packet's destination."""
    parts = []
    if ANYWHERE not in networks:
        parts.append(f"ip {side} {{ {', '.join(map(str, networks))} }}")
    if protocol in (TCP, UDP) and (first, last) != ALL_PORTS:
        parts.append(f"{NAMES[protocol]} dport {first}" + (f"-{last}" if last != first else ""))
    elif protocol == ICMP and first != -1:
        parts.append(f"icmp type {first}" + (f" icmp code {last}" if last != -1 else ""))
    elif protocol is not None:
        parts.append(f"ip protocol {protocol}")
    return " ".join(parts)


@dataclass(frozen=True, kw_only=True)
class _Rule:
    """A permission whose source has become addresses."""

    permission: Permission
    networks: tuple[IPv4Network, ...]

    def covers(self, protocol: int | None) -> bool:
        """Whether it allows all of this protocol with everybody."""
        one = self.permission
        if ANYWHERE not in self.networks:
            return False
        return one.protocol is None or (one.protocol == protocol and (one.first, one.last) == ALL_PORTS)


def _resolved(permissions: Iterable[Permission], members: Mapping[str, Collection[str]]) -> list[_Rule]:
    """Rules that can match a packet of this region: IPv6 is not spoken here, an empty group has no address."""
    rules = []
    for one in permissions:
        if one.source[:3] == "sg-":
            found = [IPv4Network(IPv4Address(address)) for address in members.get(one.source, ())]
        else:
            block = ip_network(one.source, strict=False)
            found = [block] if isinstance(block, IPv4Network) else []
        if found:
            rules.append(_Rule(permission=one, networks=tuple(collapse_addresses(found))))
    return rules


def _everything(rules: Iterable[_Rule]) -> bool:
    return any(rule.covers(None) for rule in rules)


def _verdicts(rules: Sequence[_Rule], replies: Sequence[_Rule], side: Side) -> list[str]:
    """One direction's rules; those that need no tracking first, as one of them is enough not to track a flow (ours:
    AWS does not say what becomes of a flow that two rules allow)."""
    free = {p for p in (TCP, UDP) if any(rule.covers(p) for rule in replies)}
    untracked, tracked = [], []
    for rule in rules:
        one = rule.permission
        protocols = {TCP, UDP} if one.protocol is None else {one.protocol}
        flows = sorted(protocols & free) if ANYWHERE in rule.networks else []
        for protocol in flows:
            narrowed = one if one.protocol is not None else replace(one, protocol=protocol, first=0, last=65535)
            untracked.append(_line(narrowed, rule.networks, side, "accept"))
        if one.protocol is None or not flows:
            tracked.append(_line(one, rule.networks, side, "goto tracked"))
    return untracked + tracked


def _line(one: Permission, networks: Sequence[IPv4Network], side: Side, verdict: str) -> str:
    return f"{match(one.protocol, one.first, one.last, networks, side)} {verdict}".strip()


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    found = number(text)
    if found is None:
        raise AwsError("InvalidParameterValue", f"Invalid value '{text[:64]}' for port range.")
    return found
