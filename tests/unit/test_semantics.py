"""EC2's rules as tables: state in, decision or error out."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from harness.region.calls import AwsError
from harness.region.semantics import addresses, instances

ONE, TWO = "i-00000000000000001", "i-00000000000000002"
SUBNET = IPv4Network("198.18.4.0/24")


def code_of(function: Any, *arguments: Any, **options: Any) -> str | None:
    """The AWS error code, or None when there is none."""
    try:
        function(*arguments, **options)
    except AwsError as error:
        return error.code
    return None


@pytest.mark.parametrize(
    ("power", "transition", "state"),
    [
        ("on", None, "running"),
        ("stopping", None, "stopping"),
        ("off", None, "stopped"),
        ("gone", None, "terminated"),
        ("gone", "pending", "pending"),
        ("on", "pending", "pending"),
        ("on", "stopping", "stopping"),
        ("off", "stopping", "stopping"),
        ("on", "shutting-down", "shutting-down"),
        ("gone", "shutting-down", "shutting-down"),
        ("off", "rebooting", "running"),
    ],
)
def test_state(power: Any, transition: Any, state: str) -> None:
    assert instances.instance_state(power, transition) == state


@pytest.mark.parametrize(
    ("state", "skip", "decided"),
    [
        ("running", True, "power_off"),
        ("running", False, "shut_down"),
        ("stopping", True, "nothing"),
        ("stopped", False, "nothing"),
        ("pending", False, "IncorrectInstanceState"),
        ("terminated", True, "IncorrectInstanceState"),
    ],
)
def test_stop(state: Any, skip: bool, decided: str) -> None:
    try:
        assert instances.decide_stop(ONE, state, skip_os_shutdown=skip) == decided
    except AwsError as error:
        assert error.code == decided


@pytest.mark.parametrize(
    ("state", "decided"),
    [
        ("stopped", "start"),
        ("running", "nothing"),
        ("pending", "nothing"),
        ("stopping", "IncorrectInstanceState"),
        ("shutting-down", "IncorrectInstanceState"),
        ("terminated", "IncorrectInstanceState"),
    ],
)
def test_start(state: Any, decided: str) -> None:
    try:
        assert instances.decide_start(ONE, state) == decided
    except AwsError as error:
        assert error.code == decided


def test_reboot_needs_a_running_instance_and_terminate_nothing() -> None:
    assert code_of(instances.decide_reboot, ONE, "running") is None
    assert code_of(instances.decide_reboot, ONE, "stopped") == "IncorrectState"
    assert instances.decide_terminate("stopped") == "terminate"
    assert instances.decide_terminate("terminated") == "nothing"


@pytest.mark.parametrize(
    ("instance_id", "code"),
    [(ONE, None), ("i-zz", "InvalidInstanceID.Malformed"), (TWO, "InvalidInstanceID.NotFound")],
)
def test_instance_id(instance_id: str, code: str | None) -> None:
    assert code_of(instances.check_instance_id, instance_id, {ONE}) == code


@pytest.mark.parametrize(
    ("owner", "allow", "state", "code"),
    [
        (None, False, "running", None),
        ("198.18.4.11", True, "running", None),
        ("198.18.4.11", False, "running", "Resource.AlreadyAssociated"),
        ("198.18.4.12", False, "running", None),
        (None, True, "stopped", None),
        (None, True, "terminated", "IncorrectInstanceState"),
    ],
)
def test_associate(owner: str | None, allow: bool, state: Any, code: str | None) -> None:
    options = {"target": "198.18.4.12", "target_state": state, "allow_reassociation": allow}
    assert code_of(addresses.decide_associate, "203.0.113.33", owner, **options) == code


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
