"""The EC2 actions on routes: the books keep them, the router forwards an overlay address to the node it leads to.

An overlay address lies outside the VPC and reaches a node by a route to its interface: what `aws-vpc-move-ip` moves.
As on AWS the node gets such packets only when its interface's SourceDestCheck is off.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address
from xml.etree.ElementTree import Element

from harness.region import pages
from harness.region.calls import AwsError, Call, put
from harness.region.ec2_addresses import interface_owner
from harness.region.plane import Action, Plane, refuse_dry_run
from harness.region.semantics import routes as semantics
from harness.region.semantics.routes import RouteTable


def create_route(plane: Plane, call: Call) -> bytes:
    """CreateRoute; one to an instance is kept as one to its interface, as AWS does."""
    refuse_dry_run(call)
    params = _params(plane, call)
    with plane.state.lock:
        table = _table(plane, call.require("RouteTableId"))
        if "DestinationCidrBlock" in params:
            existing = [item.findtext("destinationCidrBlock") or "" for item in table]
            semantics.decide_create(params["DestinationCidrBlock"], existing, vpc=str(plane.topology.vpc_subnet))
        plane.past_routes.keep(plane.books)
        document = plane.books.call("CreateRoute", params)
        put(document.root, "return", True)
        _follow(plane)
    return document.body(call)


def replace_route(plane: Plane, call: Call) -> bytes:
    """ReplaceRoute: an existing route gets another target."""
    return _pass_on(plane, call, _params(plane, call))


def change_routes(plane: Plane, call: Call) -> bytes:
    """DeleteRoute, tables made and deleted, and which subnet uses which: as the books say, then in the data plane."""
    return _pass_on(plane, call, dict(call.params))


def describe_route_tables(plane: Plane, call: Call) -> bytes:
    """DescribeRouteTables of the books; a route to an interface names its instance, and is a blackhole while that does
    not run."""
    document = plane.books.call("DescribeRouteTables", pages.unpaged(call.params))
    age_s = plane.age_s()
    asked = {i: no_such_table(i) for i in call.numbered("RouteTableId")}
    plane.past_routes.show(document, age_s=age_s, asked=asked)
    tables = plane.state.as_of(age_s)
    owners = {record.interface_id: record for record in tables.instances.values()}
    for item in document.items("routeTableSet", "routeSet"):
        owner = owners.get(item.findtext("networkInterfaceId") or "")
        if owner is not None:
            put(item, "instanceId", owner.instance_id)
            put(item, "state", "active" if plane.state_of(owner) == "running" else "blackhole")
    pages.cut(document, "routeTableSet", call)
    return document.body(call)


def no_such_table(table_id: str) -> AwsError:
    return AwsError("InvalidRouteTableID.NotFound", f"The routeTable ID '{table_id}' does not exist")


def sync_routes(plane: Plane) -> None:
    """Make the router forward what the books say: overlay addresses, to nodes that take packets not meant for them."""
    with plane.state.lock:
        living = [i for i in plane.state.instances.values() if not i.terminated and not i.source_dest_check]
        targets = {record.interface_id: IPv4Address(record.private_ip) for record in living}
        overlays: dict[IPv4Address, str] = {}
        if targets:
            tables = [_read(item) for item in plane.books.call("DescribeRouteTables", {}).items("routeTableSet")]
            subnet_id, vpc_id = _place(plane, next(iter(targets)))
            overlays = semantics.overlays(tables, subnet_id=subnet_id, vpc_id=vpc_id, vpc=plane.topology.vpc_subnet)
        plane.addresses.route({a: targets[eni] for a, eni in overlays.items() if eni in targets})


def resume(plane: Plane) -> None:
    """The router as the books have it."""
    if plane.state.instances:
        sync_routes(plane)


def _pass_on(plane: Plane, call: Call, params: Mapping[str, str]) -> bytes:
    refuse_dry_run(call)
    with plane.state.lock:
        plane.past_routes.keep(plane.books)
        document = plane.books.call(call.action, params)
        if call.action in ("ReplaceRoute", "DeleteRoute", "DeleteRouteTable", "DisassociateRouteTable"):
            put(document.root, "return", True)
        _follow(plane)
    return document.body(call)


def _follow(plane: Plane) -> None:
    """The data plane after a change of routes: before the answer, or later when the timing says so."""
    delay_s = plane.delays.draw("address")
    if delay_s > 0:
        plane.background(_sync_later, plane, delay_s)
    else:
        sync_routes(plane)


def _sync_later(plane: Plane, delay_s: float) -> None:
    plane.closing.wait(delay_s)
    sync_routes(plane)


def _params(plane: Plane, call: Call) -> dict[str, str]:
    """The call for the books: a canonical destination, and the interface for an instance."""
    params = dict(call.params)
    if "DestinationCidrBlock" in params:
        params["DestinationCidrBlock"] = semantics.check_destination(params["DestinationCidrBlock"])
    instance_id = params.pop("InstanceId", None)
    if instance_id:
        params["NetworkInterfaceId"] = plane.instance(instance_id).interface_id
    elif "NetworkInterfaceId" in params:
        interface_owner(plane.state.instances.values(), params["NetworkInterfaceId"])
    return params


def _table(plane: Plane, table_id: str) -> list[Element]:
    """The routes of one table; the books' InvalidRouteTableID.NotFound otherwise."""
    document = plane.books.call("DescribeRouteTables", {"RouteTableId.1": table_id})
    return list(document.items("routeTableSet", "routeSet"))


def _place(plane: Plane, interface_id: str) -> tuple[str, str]:
    """Subnet and VPC of an interface."""
    document = plane.books.call("DescribeNetworkInterfaces", {"NetworkInterfaceId.1": interface_id})
    item = next(document.items("networkInterfaceSet"), None)
    if item is None:
        raise AwsError("InvalidNetworkInterfaceID.NotFound", f"The networkInterface ID '{interface_id}' does not exist")
    return item.findtext("subnetId") or "", item.findtext("vpcId") or ""


def _read(item: Element) -> RouteTable:
    routes = item.findall("routeSet/item")
    return RouteTable(
        vpc_id=item.findtext("vpcId") or "",
        main=any((e.text or "").lower() == "true" for e in item.findall("associationSet/item/main")),
        subnets=frozenset(e.text or "" for e in item.findall("associationSet/item/subnetId")),
        to_interfaces={
            route.findtext("destinationCidrBlock") or "": route.findtext("networkInterfaceId") or ""
            for route in routes
            if route.findtext("networkInterfaceId") and route.findtext("destinationCidrBlock")
        },
    )


ACTIONS: Mapping[str, Action] = {
    "CreateRoute": create_route,
    "ReplaceRoute": replace_route,
    "DeleteRoute": change_routes,
    "DeleteRouteTable": change_routes,
    "CreateRouteTable": change_routes,
    "AssociateRouteTable": change_routes,
    "DisassociateRouteTable": change_routes,
    "ReplaceRouteTableAssociation": change_routes,
    "DescribeRouteTables": describe_route_tables,
}
