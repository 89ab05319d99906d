"""Zones and networks as tables: what was asked for in, decision or error out."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any

import pytest

from harness.region.calls import AwsError
from harness.region.semantics import placement
from harness.topology import ZONE

ZONES = ("us-east-1a", "us-east-1b")
SUBNET_B = ("subnet-1", "us-east-1b")


@pytest.mark.parametrize(
    ("asked", "subnet", "zone"),
    [
        (None, None, ZONE),
        ("us-east-1b", None, "us-east-1b"),
        (None, SUBNET_B, "us-east-1b"),
        ("us-east-1b", SUBNET_B, "us-east-1b"),
    ],
)
def test_the_zone_of_an_instance(asked: str | None, subnet: tuple[str, str] | None, zone: str) -> None:
    assert placement.decide_zone(asked, subnet=subnet, zones=ZONES) == zone


@pytest.mark.parametrize(
    ("check", "arguments", "options", "code"),
    [
        (placement.decide_zone, ["us-east-1a"], {"subnet": SUBNET_B, "zones": ZONES}, "InvalidParameterValue"),
        (placement.decide_zone, ["us-east-1z"], {"subnet": None, "zones": ZONES}, "InvalidParameterValue"),
        (placement.check_zone, ["us-east-1z", ZONES], {}, "InvalidZone.NotFound"),
        (placement.check_zone, ["us-east-1a", ZONES], {}, None),
        (placement.check_subnet, ["subnet-1", "10.0.0.0/24", IPv4Network("198.18.4.0/24")], {}, "UnsupportedOperation"),
        (placement.check_subnet, ["subnet-1", "198.18.4.0/24", IPv4Network("198.18.4.0/24")], {}, None),
        (placement.check_deletable, ["subnet", "subnet-1"], {"used_by": ["i-1"]}, "DependencyViolation"),
        (placement.check_deletable, ["vpc", "vpc-1"], {"used_by": []}, None),
        (placement.check_interface_free, ["eni-1", "i-1"], {}, "InvalidParameterValue"),
        (placement.check_interface_free, ["eni-1", None], {}, None),
    ],
)
def test_what_is_refused(check: Any, arguments: list[Any], options: dict[str, Any], code: str | None) -> None:
    try:
        check(*arguments, **options)
    except AwsError as error:
        assert error.code == code
    else:
        assert code is None
