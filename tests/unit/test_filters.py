"""Security groups and network ACLs as text for nft: what passes, what is tracked, in which order."""

from __future__ import annotations

import pytest

from harness.region.calls import AwsError
from harness.region.semantics import filters, network_acls
from harness.region.semantics.filters import Permission, guest_rules, permission
from harness.region.semantics.network_acls import DEFAULT_ENTRIES, Entry, router_rules

EVERYTHING = Permission(protocol=None, source="0.0.0.0/0")
EVERYTHING6 = Permission(protocol=None, source="::/0")
SIP = Permission(protocol=filters.UDP, first=5060, last=5060, source="0.0.0.0/0")
LAN = Permission(protocol=filters.TCP, first=1, last=9, source="10.0.0.0/8")
PING = Permission(protocol=filters.ICMP, first=8, last=-1, source="0.0.0.0/0")
ESP = Permission(protocol=50, source="0.0.0.0/0")
PEERS = Permission(protocol=None, source="sg-1")
ALL_UDP = Permission(protocol=filters.UDP, first=0, last=65535, source="0.0.0.0/0")


def verdicts(rules: str, chain: str) -> list[str]:
    """The lines of a chain after those that every guest has."""
    part = rules.partition(f"chain {chain} {{")[2].partition("  }")[0]
    lines = [line.strip() for line in part.splitlines() if line.strip()][5:]
    return [line for line in lines if line != "goto refused"]


@pytest.mark.parametrize(
    ("ingress", "egress", "arriving", "leaving"),
    [
        ([], [], [], []),
        ([SIP], [], ["udp dport 5060 goto tracked"], []),
        (
            [SIP],
            [EVERYTHING],
            ["udp dport 5060 accept"],
            ["goto tracked"],
        ),
        ([SIP], [ALL_UDP], ["udp dport 5060 accept"], ["ip protocol 17 goto tracked"]),
        ([LAN], [EVERYTHING], ["ip saddr { 10.0.0.0/8 } tcp dport 1-9 goto tracked"], ["goto tracked"]),
        ([PING], [EVERYTHING], ["icmp type 8 goto tracked"], ["goto tracked"]),
        ([ESP], [EVERYTHING], ["ip protocol 50 goto tracked"], ["goto tracked"]),
        ([PEERS], [EVERYTHING], ["ip saddr { 10.0.0.1/32, 10.0.0.3/32 } goto tracked"], ["goto tracked"]),
        ([EVERYTHING6], [], [], []),
        (
            [EVERYTHING],
            [ALL_UDP],
            ["ip protocol 17 accept", "goto tracked"],
            ["ip protocol 17 accept"],
        ),
    ],
)  # fmt: skip
def test_what_passes_and_whether_its_flow_is_tracked(
    ingress: list[Permission], egress: list[Permission], arriving: list[str], leaving: list[str]
) -> None:
    rules = guest_rules(ingress, egress, {"sg-1": ["10.0.0.3", "10.0.0.1"]})
    assert verdicts(rules, "arriving") == arriving
    assert verdicts(rules, "leaving") == leaving


def test_everything_both_ways_needs_no_rules() -> None:
    assert guest_rules([SIP, EVERYTHING], [EVERYTHING], {}) == ""


def test_a_group_without_members_lets_nobody_in() -> None:
    assert verdicts(guest_rules([PEERS], [], {}), "arriving") == []


@pytest.mark.parametrize(
    ("request_", "made"),
    [
        (("6", "80", "81", "10.1.2.3/8"), Permission(protocol=6, first=80, last=81, source="10.0.0.0/8")),
        (("UDP", "-1", "-1", "sg-1"), Permission(protocol=17, first=0, last=65535, source="sg-1")),
        (("-1", "80", "81", "10.0.0.0/8"), Permission(protocol=None, source="10.0.0.0/8")),
        (("icmp", "8", "-1", "10.0.0.0/8"), Permission(protocol=1, first=8, last=-1, source="10.0.0.0/8")),
        (("50", None, None, "::/0"), Permission(protocol=50, source="::/0")),
    ],
)
def test_a_rule_in_canonical_form(request_: tuple[str, str | None, str | None, str], made: Permission) -> None:
    assert permission(*request_) == made


@pytest.mark.parametrize(
    "request_",
    [
        ("tcp", "80", None, "10.0.0.0/8"),
        ("tcp", "81", "80", "10.0.0.0/8"),
        ("tcp", "0", "65536", "10.0.0.0/8"),
        ("tcp", "x", "80", "10.0.0.0/8"),
        ("icmp", "-1", "3", "10.0.0.0/8"),
        ("256", None, None, "10.0.0.0/8"),
        ("-1", None, None, "10.0.0.0/8; flush ruleset"),
    ],
)
def test_rules_that_can_not_be(request_: tuple[str, str | None, str | None, str]) -> None:
    with pytest.raises(AwsError) as caught:
        permission(*request_)
    assert caught.value.code == "InvalidParameterValue"


def acl(number: int, *, allow: bool, egress: bool = False, block: str = "0.0.0.0/0", **more: int) -> Entry:
    return Entry(number=number, egress=egress, allow=allow, block=block, **more)


@pytest.mark.parametrize(
    ("entries", "inbound", "outbound"),
    [
        (DEFAULT_ENTRIES, [], []),
        ((), ["drop"], ["drop"]),
        (
            (acl(200, allow=True), acl(100, allow=False, block="10.0.0.0/8"), acl(9, allow=True, egress=True)),
            ["ip saddr { 10.0.0.0/8 } drop", "return"],
            [],
        ),
        (
            (acl(100, allow=True), acl(200, allow=False, block="10.0.0.0/8")),
            [],
            ["drop"],
        ),
        (
            (acl(1, allow=True, egress=True, block="10.0.0.0/8", protocol=6, first=22, last=22),),
            ["drop"],
            ["ip daddr { 10.0.0.0/8 } tcp dport 22 return", "drop"],
        ),
        ((acl(1, allow=True, block="::/0"),), ["drop"], ["drop"]),
    ],
)
def test_the_first_rule_that_matches_decides(
    entries: tuple[Entry, ...], inbound: list[str], outbound: list[str]
) -> None:
    lines = router_rules(entries).splitlines()
    assert lines[:2] == ["flush chain ip pbx_chaos acl_in", "flush chain ip pbx_chaos acl_out"]
    assert [line.partition("acl_in ")[2] for line in lines[2:] if "acl_in" in line] == inbound
    assert [line.partition("acl_out ")[2] for line in lines[2:] if "acl_out" in line] == outbound


def test_more_entries_than_the_quota_are_refused() -> None:
    entries: tuple[Entry, ...] = ()
    for number in range(1, 21):
        entries = network_acls.created(entries, acl(number, allow=True))
    with pytest.raises(AwsError, match="NetworkAclEntryLimitExceeded"):
        network_acls.created(entries, acl(21, allow=True))
    assert len(network_acls.created(entries, acl(21, allow=True, egress=True))) == 21
