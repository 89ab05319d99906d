"""Private and public addresses, moves that come due in another order, routes: the decisions, without any data plane."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from harness.region.addresses import overlay_transaction, owners_transaction
from harness.region.api_path import Api, guest_endpoint, hosts, read_api, serves, write_api
from harness.region.calls import AwsError
from harness.region.neighbours import batch
from harness.region.semantics.addresses import (
    MOST_PRIVATE,
    Moves,
    choose_secondaries,
    decide_assign,
    decide_unassign,
    free_elastic,
    free_own,
)
from harness.region.semantics.routes import RouteTable, check_destination, decide_create, overlays
from harness.region.state import Address, Instance, State
from harness.topology import Topology, mac_of

TOPOLOGY = Topology(cell="t", slot=2)
SUBNET, ELASTIC = TOPOLOGY.vpc_subnet, TOPOLOGY.elastic_range
P, Q = list(ELASTIC.hosts())[:2]
A, B = TOPOLOGY.node_address(1), TOPOLOGY.node_address(2)


def test_of_two_moves_the_later_decision_wins_whichever_comes_due_first() -> None:
    moves = Moves()
    first, second = moves.decide(), moves.decide()
    assert moves.due(second, {P: B}) == {P: B}
    assert moves.due(second, {P: B}) == {P: B}  # until it is made: it may have failed
    moves.made(second, {P: B})
    assert moves.due(first, {P: A}) == {}
    third = moves.decide()
    assert moves.due(third, {P: None}) == {P: None}


def test_a_move_that_is_partly_overtaken_keeps_its_rest() -> None:
    moves = Moves()
    first, second = moves.decide(), moves.decide()
    moves.made(second, {P: None})
    assert moves.due(first, {P: A, Q: None}) == {Q: None}


def assign(wanted: list[str], *, allow: bool = False) -> list[str]:
    return decide_assign(
        "eni-1",
        wanted,
        subnet=SUBNET,
        mine=["198.18.4.11", "198.18.4.50"],
        primaries=["198.18.4.12"],
        secondaries=["198.18.4.60"],
        allow_reassignment=allow,
    )


def test_secondary_addresses_are_taken_from_others_only_when_allowed() -> None:
    assert assign(["198.18.4.50", "198.18.4.51", "198.18.4.51"]) == ["198.18.4.51"]
    assert assign(["198.18.4.60"], allow=True) == ["198.18.4.60"]
    with pytest.raises(AwsError, match=r"InvalidParameterValue.*move is not allowed"):
        assign(["198.18.4.60"])


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param("198.18.4.12", id="somebody's primary address"),
        pytest.param("198.18.4.2", id="reserved"),
        pytest.param("198.18.5.20", id="outside of the subnet"),
        pytest.param("nonsense", id="no address"),
    ],
)
def test_an_address_that_can_not_be_secondary_is_refused_even_with_reassignment(wanted: str) -> None:
    with pytest.raises(AwsError, match="InvalidParameterValue"):
        assign([wanted], allow=True)


def test_an_interface_holds_as_many_addresses_as_its_type_says() -> None:
    free = [f"198.18.4.{n}" for n in range(100, 100 + MOST_PRIVATE)]
    assert len(assign(free[: MOST_PRIVATE - 2])) == MOST_PRIVATE - 2
    with pytest.raises(AwsError, match="PrivateIpAddressLimitExceeded"):
        assign(free[: MOST_PRIVATE - 1])


def test_addresses_by_number_are_free_ones() -> None:
    chosen = choose_secondaries("eni-1", 2, subnet=SUBNET, mine=[], taken={"198.18.4.11", "198.18.4.13"})
    assert chosen == ["198.18.4.12", "198.18.4.14"]
    with pytest.raises(AwsError, match="InvalidParameterValue"):
        choose_secondaries("eni-1", 0, subnet=SUBNET, mine=[], taken=set())


@pytest.mark.parametrize("wanted", ["198.18.4.11", "198.18.4.60"])
def test_only_secondary_addresses_of_the_interface_are_unassigned(wanted: str) -> None:
    decide_unassign("eni-1", ["198.18.4.50"], primary="198.18.4.11", secondaries=["198.18.4.50"])
    with pytest.raises(AwsError, match="InvalidParameterValue"):
        decide_unassign("eni-1", [wanted], primary="198.18.4.11", secondaries=["198.18.4.50"])


def test_elastic_and_own_addresses_come_from_different_ends() -> None:
    assert str(free_elastic(ELASTIC, [])) == "203.0.113.33"
    assert str(free_own(ELASTIC, ["203.0.113.40"])) == "203.0.113.41"
    with pytest.raises(AwsError, match="InsufficientAddressCapacity"):
        free_own(ELASTIC, [str(address) for address in ELASTIC])


def instance(name: str, **changes: object) -> Instance:
    known = {
        "instance_id": name,
        "name": name,
        "image": "i",
        "interface_id": f"eni-{name}",
        "private_ip": "198.18.4.11",
    }
    return Instance(**{**known, "access_key_id": "k", "secret_access_key": "s", **changes})  # type: ignore[arg-type]


def test_an_instance_is_known_by_elastic_ip_before_its_own_address(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.put(instance("a", own_public="203.0.113.40", secondary_ips=("198.18.4.50",)))
    state.put(Address(allocation_id="x", public_ip="203.0.113.33", instance_id="a", private_ip="198.18.4.50"))
    record, tables = state.instances["a"], state.now()
    assert tables.public_at(record, "198.18.4.11") == "203.0.113.40"
    assert tables.public_at(record, "198.18.4.50") == "203.0.113.33"
    assert [a.allocation_id for a in state.addresses_of("a")] == ["x"]
    assert State(tmp_path).instances["a"] == record, "JSON gives it back as it was"


def table(*, main: bool = False, subnets: tuple[str, ...] = (), **routes: str) -> RouteTable:
    to = {destination.replace("_", ".").removeprefix("to.") + "/32": eni for destination, eni in routes.items()}
    return RouteTable(vpc_id="vpc-1", main=main, subnets=frozenset(subnets), to_interfaces=to)


def test_a_subnet_uses_its_own_route_table_else_the_main_one() -> None:
    main, own = table(main=True, to_10_9_9_9="eni-a"), table(subnets=("subnet-1",), to_10_9_9_9="eni-b")
    place = {"subnet_id": "subnet-1", "vpc_id": "vpc-1"}
    assert overlays([main], vpc=SUBNET, **place) == {IPv4Address("10.9.9.9"): "eni-a"}
    assert overlays([main, own], vpc=SUBNET, **place) == {IPv4Address("10.9.9.9"): "eni-b"}
    assert overlays([main], vpc=SUBNET, subnet_id="subnet-1", vpc_id="vpc-2") == {}


def test_only_single_addresses_outside_the_vpc_are_overlay_addresses() -> None:
    wide = RouteTable(
        vpc_id="vpc-1", main=True, subnets=frozenset(), to_interfaces={"10.0.0.0/8": "eni-a", "198.18.4.77/32": "eni-a"}
    )
    assert overlays([wide], subnet_id="subnet-1", vpc_id="vpc-1", vpc=SUBNET) == {}


def test_a_destination_has_one_route() -> None:
    assert check_destination("10.9.9.9/24") == "10.9.9.0/24"
    decide_create("10.9.9.9/32", ["198.18.4.0/24"], vpc=str(SUBNET))
    for destination, code in (("10.9.9.9/32", "RouteAlreadyExists"), (str(SUBNET), "InvalidParameterValue")):
        with pytest.raises(AwsError, match=code):
            decide_create(destination, ["10.9.9.9/32"], vpc=str(SUBNET))
    with pytest.raises(AwsError, match="InvalidParameterValue"):
        check_destination("10.9.9.9/33")


def test_neighbours_are_permanent_and_those_that_are_gone_are_deleted() -> None:
    assert mac_of("198.18.4.11") == "02:42:c6:12:04:0b"
    commands = batch({"198.18.4.50": "02:42:c6:12:04:0b"}, gone={"198.18.4.60"}, interface="eth0")
    assert commands.splitlines() == [
        "neigh replace 198.18.4.60 lladdr 02:42:00:00:00:00 dev eth0 nud permanent",
        "neigh del 198.18.4.60 dev eth0",
        "neigh replace 198.18.4.50 lladdr 02:42:c6:12:04:0b dev eth0 nud permanent",
    ]


def test_the_routers_sets_are_replaced_as_a_whole() -> None:
    assert owners_transaction({A: mac_of(A)}).splitlines()[2:] == [
        "add element ip pbx_chaos owned { 198.18.4.11 }",
        "add element ip pbx_chaos owners { 198.18.4.11 . 02:42:c6:12:04:0b }",
    ]
    assert overlay_transaction({}) == "flush set ip pbx_chaos overlays\n"


@pytest.mark.parametrize(
    ("api", "source", "served"),
    [
        ("endpoint", "198.18.4.11", True),
        ("public", "198.18.4.11", False),
        ("public", "198.18.4.1", True),
        ("public", "203.0.113.40", True),
        ("public", "127.0.0.1", True),
    ],
)
def test_with_a_public_api_no_private_address_is_served(api: Api, source: str, served: bool) -> None:
    assert serves(TOPOLOGY, api, source) is served


def test_the_way_to_the_api_is_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.topology.STATE_ROOT", tmp_path)
    TOPOLOGY.state_dir.mkdir()
    assert read_api(TOPOLOGY) == "endpoint"
    write_api(TOPOLOGY, "public")
    assert read_api(TOPOLOGY) == "public"
    assert hosts(TOPOLOGY, "public") == ["198.18.4.1", "198.18.5.1"]
    assert [str(guest_endpoint(TOPOLOGY, api)) for api in ("endpoint", "public")] == ["198.18.4.1", "198.18.5.1"]
    assert IPv4Network("198.18.5.0/24") == TOPOLOGY.internet_subnet
