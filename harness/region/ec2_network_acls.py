"""The EC2 actions on network ACLs: the books keep the lists and who has them, their entries are kept here, the router
follows before the call is answered.

(Of entries the two kinds of books disagree about what a number is, and fail on one that is not there.)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from xml.etree.ElementTree import Element

from harness.region import pages
from harness.region.calls import AwsError, Call, answer, number, put, take_filters
from harness.region.plane import Action, Plane, refuse_dry_run
from harness.region.semantics import network_acls as semantics
from harness.region.semantics.matching import Places, item_passes
from harness.region.semantics.network_acls import Entry

FILTERS: Places = {
    "default": ("default",),
    "network-acl-id": ("networkAclId",),
    "vpc-id": ("vpcId",),
    "association.association-id": ("associationSet/item/networkAclAssociationId",),
    "association.network-acl-id": ("associationSet/item/networkAclId",),
    "association.subnet-id": ("associationSet/item/subnetId",),
    "entry.cidr": ("entrySet/item/cidrBlock",),
    "entry.egress": ("entrySet/item/egress",),
    "entry.icmp.code": ("entrySet/item/icmpTypeCode/code",),
    "entry.icmp.type": ("entrySet/item/icmpTypeCode/type",),
    "entry.port-range.from": ("entrySet/item/portRange/from",),
    "entry.port-range.to": ("entrySet/item/portRange/to",),
    "entry.protocol": ("entrySet/item/protocol",),
    "entry.rule-action": ("entrySet/item/ruleAction",),
    "entry.rule-number": ("entrySet/item/ruleNumber",),
}
"""Filters of DescribeNetworkAcls that are judged here, and where their values stand in the answer."""


def create_network_acl(plane: Plane, call: Call) -> bytes:
    """CreateNetworkAcl: one without entries denies everything."""
    refuse_dry_run(call)
    call.require("VpcId")
    with plane.state.lock:
        document = plane.books.call("CreateNetworkAcl", call.params)
        made = document.root.find("networkAcl")
        assert made is not None
        plane.state.put_acl(made.findtext("networkAclId") or "", ())
        put(made, "entrySet", semantics.shown(()))
        put(made, "default", False)
    return document.body(call)


def delete_network_acl(plane: Plane, call: Call) -> bytes:
    """DeleteNetworkAcl: only one that no subnet has."""
    refuse_dry_run(call)
    with plane.state.lock:
        acl_id = call.require("NetworkAclId")
        item = _acl(plane, acl_id)
        associated = item.find("associationSet/item") is not None
        semantics.decide_delete(acl_id, default=item.findtext("default") == "true", associated=associated)
        plane.books.call("DeleteNetworkAcl", {"NetworkAclId": acl_id})
        plane.state.put_acl(acl_id, None)
    return answer(call, {"return": True})


def create_network_acl_entry(plane: Plane, call: Call) -> bytes:
    """CreateNetworkAclEntry."""
    return _change(plane, call, lambda entries: semantics.created(entries, semantics.entry(call.params)))


def replace_network_acl_entry(plane: Plane, call: Call) -> bytes:
    """ReplaceNetworkAclEntry."""
    return _change(plane, call, lambda entries: semantics.replaced(entries, semantics.entry(call.params)))


def delete_network_acl_entry(plane: Plane, call: Call) -> bytes:
    """DeleteNetworkAclEntry."""
    rule = number(call.require("RuleNumber"))
    return _change(plane, call, lambda e: semantics.deleted(e, number=rule, egress=call.flag("Egress")))


def replace_network_acl_association(plane: Plane, call: Call) -> bytes:
    """ReplaceNetworkAclAssociation: a subnet gets another ACL; it always has one."""
    refuse_dry_run(call)
    association_id, acl_id = call.require("AssociationId"), call.require("NetworkAclId")
    with plane.state.lock:
        _acl(plane, acl_id)
        here = "associationSet/item/networkAclAssociationId"
        if not any(e.text == association_id for item in _acls(plane) for e in item.findall(here)):
            message = f"The association ID '{association_id}' does not exist"
            raise AwsError("InvalidAssociationID.NotFound", message)
        params = {"AssociationId": association_id, "NetworkAclId": acl_id}
        document = plane.books.call("ReplaceNetworkAclAssociation", params)
        sync(plane)
    return document.body(call)


def describe_network_acls(plane: Plane, call: Call) -> bytes:
    """DescribeNetworkAcls of the books, with the entries that hold."""
    params, wanted = take_filters(call.params, FILTERS)
    seen = plane.seen().acls
    keep = {}
    for acl_id in call.numbered("NetworkAclId"):
        if _is_young(_acl(plane, acl_id), seen):
            raise _unknown(acl_id)
    document = plane.books.call("DescribeNetworkAcls", pages.unpaged(params))
    for item in document.items("networkAclSet"):
        put(item, "entrySet", semantics.shown(_entries(seen, item)))
        passes = not _is_young(item, seen) and item_passes(item, wanted, FILTERS)
        keep[item.findtext("networkAclId") or ""] = passes
    document.keep("networkAclSet", keep, "networkAclId")
    pages.cut(document, "networkAclSet", call)
    return document.body(call)


def sync(plane: Plane) -> None:
    """Bring the router in line with the ACL of the cell's subnet: the last one that was made with its address block."""
    if plane.filters is None:
        return
    with plane.state.lock:
        block = {"Filter.1.Name": "cidr-block", "Filter.1.Value.1": str(plane.topology.vpc_subnet)}
        subnets = [item.findtext("subnetId") for item in plane.books.call("DescribeSubnets", block).items("subnetSet")]
        here = "associationSet/item/subnetId"
        for item in _acls(plane):
            if subnets and any(element.text == subnets[-1] for element in item.findall(here)):
                plane.filters.bound(semantics.router_rules(_entries(plane.state.acls, item)))


def resume(plane: Plane) -> None:
    """The router as it was last decided."""
    if plane.state.acls:
        sync(plane)


def _change(plane: Plane, call: Call, changed: Callable[[tuple[Entry, ...]], tuple[Entry, ...]]) -> bytes:
    """Other entries for one ACL."""
    refuse_dry_run(call)
    with plane.state.lock:
        acl_id = call.require("NetworkAclId")
        plane.state.put_acl(acl_id, changed(_entries(plane.state.acls, _acl(plane, acl_id))))
        sync(plane)
    return answer(call, {"return": True})


def _acls(plane: Plane) -> Iterator[Element]:
    return plane.books.call("DescribeNetworkAcls", {}).items("networkAclSet")


def _acl(plane: Plane, acl_id: str) -> Element:
    for item in _acls(plane):
        if item.findtext("networkAclId") == acl_id:
            return item
    raise _unknown(acl_id)


def _unknown(acl_id: str) -> AwsError:
    return AwsError("InvalidNetworkAclID.NotFound", f"The network acl ID '{acl_id}' does not exist")


def _is_young(item: Element, seen: Collection[str]) -> bool:
    """Whether an ACL is too new to be seen; a VPC's default one is not among ours before its entries are changed."""
    return item.findtext("default") != "true" and item.findtext("networkAclId") not in seen


def _entries(acls: Mapping[str, tuple[Entry, ...]], item: Element) -> tuple[Entry, ...]:
    """The entries of an ACL; one that nobody has changed is a VPC's default one."""
    untouched = semantics.DEFAULT_ENTRIES if item.findtext("default") == "true" else ()
    return acls.get(item.findtext("networkAclId") or "", untouched)


ACTIONS: Mapping[str, Action] = {
    "CreateNetworkAcl": create_network_acl,
    "DeleteNetworkAcl": delete_network_acl,
    "CreateNetworkAclEntry": create_network_acl_entry,
    "ReplaceNetworkAclEntry": replace_network_acl_entry,
    "DeleteNetworkAclEntry": delete_network_acl_entry,
    "ReplaceNetworkAclAssociation": replace_network_acl_association,
    "DescribeNetworkAcls": describe_network_acls,
}
