"""EC2's rules as tables: state in, decision or error out."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from harness.region.calls import AwsError
from harness.region.semantics import addresses

SUBNET = IPv4Network("198.18.4.0/24")


def code_of(function: Any, *arguments: Any, **options: Any) -> str | None:
    """The AWS error code, or None when there is none."""
    try:
        function(*arguments, **options)
    except AwsError as error:
        return error.code
    return None


@pytest.mark.parametrize(
    ("owner", "allow", "state", "code"),
    [
        (None, False, "running", None),
        ("198.18.4.11", True, "running", None),
        ("198.18.4.11", False, "running", "Resource.AlreadyAssociated"),
        ("198.18.4.12", False, "running", None),
        (None, True, "stopped", None),
        (None, True, "pending", "InvalidInstanceID"),
        (None, True, "shutting-down", "InvalidInstanceID"),
        (None, True, "terminated", "InvalidInstanceID"),
    ],
)
@pytest.mark.parametrize("interface", [None, "eni-1"])
def test_associate(owner: str | None, allow: bool, state: Any, code: str | None, interface: str | None) -> None:
    options = {"target": "198.18.4.12", "instance_id": "i-1", "interface_id": interface, "target_state": state}
    options["allow_reassociation"] = allow
    if interface is not None and code == "InvalidInstanceID":
        code = "IncorrectInstanceState"
    assert code_of(addresses.decide_associate, "203.0.113.33", owner, **options) == code


@pytest.mark.parametrize(
    ("action", "wanted_id", "public_ip", "code"),
    [
        ("AssociateAddress", "eipalloc-1", None, None),
        ("AssociateAddress", None, "203.0.113.33", "InvalidParameterCombination"),
        ("ReleaseAddress", None, "203.0.113.33", "InvalidParameterValue"),
        ("DisassociateAddress", None, "203.0.113.33", "InvalidParameterValue"),
        ("AssociateAddress", "eipalloc-1", "203.0.113.33", "InvalidParameterCombination"),
        ("AssociateAddress", None, None, "MissingParameter"),
    ],
)
def test_an_address_is_named_by_an_id(
    action: str, wanted_id: str | None, public_ip: str | None, code: str | None
) -> None:
    assert code_of(addresses.check_named, action, wanted_id=wanted_id, public_ip=public_ip) == code


def test_the_lowest_free_elastic_ip() -> None:
    elastic = IPv4Network("203.0.113.32/28")
    assert addresses.free_elastic(elastic, []) == IPv4Address("203.0.113.33")
    assert addresses.free_elastic(elastic, ["203.0.113.33", "203.0.113.35"]) == IPv4Address("203.0.113.34")
    assert code_of(addresses.free_elastic, elastic, [str(a) for a in elastic]) == "AddressLimitExceeded"


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        (None, "198.18.4.12"),
        ("198.18.4.77", "198.18.4.77"),
        ("198.18.4.11", "InvalidIPAddress.InUse"),
        ("198.18.4.3", "InvalidParameterValue"),
        ("198.18.4.255", "InvalidParameterValue"),
        ("10.0.0.1", "InvalidParameterValue"),
        ("nonsense", "InvalidParameterValue"),
    ],
)
def test_private_address(wanted: str | None, chosen: str) -> None:
    try:
        assert str(addresses.choose_private(SUBNET, wanted, {"198.18.4.11"})) == chosen
    except AwsError as error:
        assert error.code == chosen
