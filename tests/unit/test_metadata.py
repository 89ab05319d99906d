"""Instance metadata: the tree, its folders, tokens that expire; and mounts recognised by device number."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from harness.region.guest_devices import by_id, mounted_numbers
from harness.region.metadata import Tokens, lookup, tree

NOW = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
FACTS = {
    "instance_id": "i-0abc",
    "private_ip": "198.18.0.11",
    "public_ip": "203.0.113.1",
    "mac": "02:42:c6:12:00:0b",
    "interface_id": "eni-0abc",
    "zone": "us-east-1a",
    "region": "us-east-1",
    "hostname": "ip-198-18-0-11.ec2.internal",
    "role": "pbx-node",
    "access_key_id": "AKIATEST",
    "secret_access_key": "s",
    "user_data": "",
}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("meta-data/instance-id", "i-0abc"),
        ("meta-data/placement", "availability-zone\nregion"),
        ("meta-data/placement/", "availability-zone\nregion"),
        ("meta-data/network/interfaces/macs/", "02:42:c6:12:00:0b/"),
        ("meta-data/network/interfaces/macs/02:42:c6:12:00:0b/interface-id", "eni-0abc"),
        ("meta-data/iam/security-credentials/", "pbx-node"),
        ("meta-data/public-ipv4", "203.0.113.1"),
        ("", "dynamic/\nmeta-data/"),
        ("meta-data/nothing", None),
        ("meta-data/instance", None),
        ("user-data", None),
    ],
)
def test_leaves_folders_and_what_is_not_there(path: str, text: str | None) -> None:
    assert lookup(tree(FACTS, now=NOW), path) == text


def test_without_a_public_address_there_is_no_such_leaf() -> None:
    leaves = tree({**FACTS, "public_ip": None}, now=NOW)
    assert lookup(leaves, "meta-data/public-ipv4") is None
    assert "public-ipv4s" not in (lookup(leaves, "meta-data/network/interfaces/macs/02:42:c6:12:00:0b/") or "")


def test_credentials_are_those_of_the_node_and_good_for_hours() -> None:
    found = json.loads(lookup(tree(FACTS, now=NOW), "meta-data/iam/security-credentials/pbx-node") or "")
    assert found["AccessKeyId"] == "AKIATEST"
    assert found["Expiration"] == "2031-05-06T13:08:09Z"


@pytest.mark.parametrize(("ttl", "issued"), [(None, False), ("0", False), ("21601", False), ("x", False), ("60", True)])
def test_a_token_needs_a_sensible_time_to_live(ttl: str | None, issued: bool) -> None:
    assert (Tokens().issue(ttl) is not None) == issued


def test_a_token_is_good_until_it_expires() -> None:
    now_s = 100.0
    tokens = Tokens(clock=lambda: now_s)
    token = tokens.issue("60")
    assert tokens.good(token) and not tokens.good(None) and not tokens.good("made-up")
    now_s = 160.0
    assert not tokens.good(token)


def test_mounts_are_known_by_device_number() -> None:
    table = (
        "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw\n40 35 7:12 / /srv rw - xfs /dev/nvme1n1 rw\n"
    )
    assert mounted_numbers(table) == {"98:0", "7:12"}


def test_a_volume_is_found_by_its_id_without_the_dash() -> None:
    assert by_id("vol-0abc").name == "nvme-Amazon_Elastic_Block_Store_vol0abc"
