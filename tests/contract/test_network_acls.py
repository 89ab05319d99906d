"""Network ACLs: numbered rules of a subnet's boundary."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.promises import API, ERRORS, VPC_GUIDE, promise
from tests.contract.site import Site, error_of

ACLS = f"{VPC_GUIDE}vpc-network-acls.html"
DEFAULT = f"{VPC_GUIDE}default-network-acl.html"
CUSTOM = f"{VPC_GUIDE}custom-network-acl.html"
UNKNOWN = "acl-0123456789abcdef0"
LAST = 32767
"""The number under which AWS shows the rule that denies what no other rule matched."""


@promise("DescribeNetworkAcls", "the default ACL has every subnet, and lets everything in and out", source=DEFAULT)
def test_the_default_acl(site: Site) -> None:
    acl = _default(site)
    assert site.subnet_id in [place["SubnetId"] for place in acl["Associations"]]
    for egress in (False, True):
        first, last = _entries(acl, egress)
        assert (first["RuleNumber"], first["RuleAction"], first["CidrBlock"]) == (100, "allow", "0.0.0.0/0")
        assert (last["RuleNumber"], last["RuleAction"]) == (LAST, "deny")


@promise("CreateNetworkAcl", "a new ACL denies everything both ways", source=CUSTOM)
def test_a_new_acl(site: Site) -> None:
    acl = _acl(site, _new(site))
    assert acl["IsDefault"] is False and acl["Associations"] == []
    for egress in (False, True):
        assert [(e["RuleNumber"], e["RuleAction"]) for e in _entries(acl, egress)] == [(LAST, "deny")]


@promise("CreateNetworkAclEntry", "an entry is in its ACL, under its number and direction", source=CUSTOM)
def test_an_entry_is_added(site: Site) -> None:
    acl_id = _new(site)
    _entry(site, acl_id, 90, "deny")
    told = [e for e in _entries(_acl(site, acl_id), False) if e["RuleNumber"] == 90]
    assert [(e["RuleAction"], e["Protocol"], e["CidrBlock"]) for e in told] == [("deny", "17", "203.0.113.0/24")]
    assert told[0]["PortRange"] == {"From": 5060, "To": 5060}


@promise("CreateNetworkAclEntry", "a number is there once per direction: NetworkAclEntryAlreadyExists", source=ERRORS)
def test_a_number_is_there_once(site: Site) -> None:
    acl_id = _new(site)
    _entry(site, acl_id, 90, "deny")
    refused = {"site": site, "acl_id": acl_id, "number": 90, "action": "allow"}
    assert error_of(_entry, **refused) == "NetworkAclEntryAlreadyExists"
    _entry(site, acl_id, 90, "allow", egress=True)


@promise("CreateNetworkAclEntry", "an unknown ACL is refused: InvalidNetworkAclID.NotFound", source=ERRORS)
def test_an_unknown_acl(site: Site) -> None:
    refused = {"site": site, "acl_id": UNKNOWN, "number": 90, "action": "deny"}
    assert error_of(_entry, **refused) == "InvalidNetworkAclID.NotFound"


@promise("CreateNetworkAclEntry", "numbers are 1 to 32766", source=f"{API}API_CreateNetworkAclEntry.html")
@pytest.mark.parametrize("number", [0, 32767])
def test_numbers_of_entries(site: Site, number: int) -> None:
    refused = {"site": site, "acl_id": _new(site), "number": number, "action": "deny"}
    assert error_of(_entry, **refused) == "InvalidParameterValue"


@promise(
    "ReplaceNetworkAclEntry", "an entry is replaced under its number", source=f"{API}API_ReplaceNetworkAclEntry.html"
)
def test_an_entry_is_replaced(site: Site) -> None:
    acl_id = _new(site)
    _entry(site, acl_id, 90, "deny")
    _entry(site, acl_id, 90, "allow", call="replace_network_acl_entry")
    told = [e for e in _entries(_acl(site, acl_id), False) if e["RuleNumber"] == 90]
    assert [e["RuleAction"] for e in told] == ["allow"]


@promise(
    "ReplaceNetworkAclEntry",
    "an entry that is not there is refused: InvalidNetworkAclEntry.NotFound",
    source=f"{API}API_ReplaceNetworkAclEntry.html",
)
def test_an_entry_that_is_not_there_is_not_replaced(site: Site) -> None:
    refused = {"site": site, "acl_id": _new(site), "number": 90, "action": "deny", "call": "replace_network_acl_entry"}
    assert error_of(_entry, **refused) == "InvalidNetworkAclEntry.NotFound"


@promise(
    "DeleteNetworkAclEntry",
    "a deleted entry is gone, a second time is refused: InvalidNetworkAclEntry.NotFound",
    source=ERRORS,
)
def test_an_entry_is_deleted(site: Site) -> None:
    acl_id = _new(site)
    _entry(site, acl_id, 90, "deny")
    delete, entry = site.ec2().delete_network_acl_entry, {"NetworkAclId": acl_id, "RuleNumber": 90, "Egress": False}
    delete(**entry)  # type: ignore[arg-type]
    assert [e["RuleNumber"] for e in _entries(_acl(site, acl_id), False)] == [LAST]
    assert error_of(delete, **entry) == "InvalidNetworkAclEntry.NotFound"


@promise("ReplaceNetworkAclAssociation", "a subnet has one ACL: it leaves the old one for the new", source=ACLS)
def test_a_subnet_changes_its_acl(site: Site) -> None:
    acl_id, default = _new(site), _default(site)
    (place,) = [p for p in default["Associations"] if p["SubnetId"] == site.subnet_id]
    where = {"AssociationId": place["NetworkAclAssociationId"], "NetworkAclId": acl_id}
    moved = site.ec2().replace_network_acl_association(**where)["NewAssociationId"]
    try:
        assert [p["SubnetId"] for p in _acl(site, acl_id)["Associations"]] == [site.subnet_id]
        assert site.subnet_id not in [p["SubnetId"] for p in _default(site)["Associations"]]
        assert moved != place["NetworkAclAssociationId"]
    finally:
        home = default["NetworkAclId"]
        site.ec2().replace_network_acl_association(AssociationId=moved, NetworkAclId=home)


@promise(
    "DeleteNetworkAcl",
    "the default ACL, and one that a subnet has, are refused",
    source=f"{API}API_DeleteNetworkAcl.html",
)
def test_an_acl_in_use_stays(site: Site) -> None:
    default = _default(site)["NetworkAclId"]
    assert error_of(site.ec2().delete_network_acl, NetworkAclId=default) in (
        "DependencyViolation",
        "InvalidParameterValue",
    )
    assert _default(site)["NetworkAclId"] == default


def _default(site: Site) -> Any:
    filters: Any = [{"Name": "vpc-id", "Values": [site.vpc_id]}, {"Name": "default", "Values": ["true"]}]
    return site.ec2().describe_network_acls(Filters=filters)["NetworkAcls"][0]


def _new(site: Site) -> str:
    return str(site.ec2().create_network_acl(VpcId=site.vpc_id)["NetworkAcl"]["NetworkAclId"])


def _acl(site: Site, acl_id: str) -> Any:
    return site.ec2().describe_network_acls(NetworkAclIds=[acl_id])["NetworkAcls"][0]


def _entries(acl: Any, egress: bool) -> list[Any]:
    """Of IPv4, in the order in which they are looked at."""
    entries = [e for e in acl["Entries"] if e["Egress"] is egress and "CidrBlock" in e]
    return sorted(entries, key=lambda e: e["RuleNumber"])


def _entry(
    site: Site, acl_id: str, number: int, action: str, *, egress: bool = False, call: str = "create_network_acl_entry"
) -> None:
    getattr(site.ec2(), call)(
        NetworkAclId=acl_id,
        RuleNumber=number,
        RuleAction=action,
        Egress=egress,
        Protocol="17",
        PortRange={"From": 5060, "To": 5060},
        CidrBlock="203.0.113.0/24",
    )
