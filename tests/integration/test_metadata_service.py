"""Instance metadata on a node: version 2 only, keys for the AWS clients, the public address as it is now."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from harness.command import wait_for
from harness.region import background, metadata
from tests.integration import slots
from tests.integration.data_plane import DataPlane, data_plane

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

URL = "http://169.254.169.254/latest"
WITH_TOKEN = (
    f"T=$(curl -sf -X PUT -H '{metadata.TTL_HEADER}: 60' {URL}/api/token); curl -s -H \"{metadata.TOKEN_HEADER}: $T\""
)
BOTO3 = """
import boto3, json
keys = boto3.Session().get_credentials().get_frozen_credentials()
print(json.dumps([keys.access_key, keys.secret_key]))
"""


@pytest.fixture(scope="module")
def plane() -> Iterator[DataPlane]:
    with data_plane(slots.own("metadata")) as plane:
        plane.launch(1)
        yield plane


def test_without_a_token_nothing_is_told(plane: DataPlane) -> None:
    assert plane.run(1, f"curl -s -o /dev/null -w '%{{http_code}}' {URL}/meta-data/instance-id") == "401"
    assert plane.run(1, f"{WITH_TOKEN} {URL}/meta-data/instance-id") == "i-00000000000000001"


def test_the_mac_address_leads_to_the_interface(plane: DataPlane) -> None:
    mac = plane.run(1, "cat /sys/class/net/eth0/address").strip()
    assert plane.run(1, f"{WITH_TOKEN} {URL}/meta-data/mac") == mac
    assert plane.run(1, f"{WITH_TOKEN} {URL}/meta-data/network/interfaces/macs/{mac}/interface-id").startswith("eni-")


def test_the_public_address_is_the_one_in_the_file_now(plane: DataPlane) -> None:
    ask = f"{WITH_TOKEN} -w '%{{http_code}}' {URL}/meta-data/public-ipv4"
    assert plane.run(1, ask) == "404"
    facts = metadata.read_facts(plane.topology, "i-00000000000000001")
    metadata.write_facts(plane.topology, {**facts, "public_ip": "203.0.113.17"})
    assert plane.run(1, ask) == "203.0.113.17200"
    metadata.write_facts(plane.topology, facts)


def test_boto3_and_the_command_line_get_the_nodes_own_keys(plane: DataPlane) -> None:
    assert json.loads(plane.run(1, f"/opt/aws/bin/python3 -c '{BOTO3}'")) == ["AKIATEST1", "not-a-secret"]
    assert "iam-role" in plane.run(1, "/opt/aws/bin/aws configure list")


def test_the_service_ends_with_its_guest_and_comes_back_with_it(plane: DataPlane) -> None:
    def services() -> list[int]:
        return [
            p for p, command in background.marked(plane.topology.cell).items() if "harness.region.metadata" in command
        ]

    before = services()
    assert len(before) == 1
    plane.client.containers.get(f"{plane.topology.cell}-pbx-1").kill()
    wait_for("the end of the service", lambda: not services(), timeout_s=5)
    plane.instances.start("i-00000000000000001")
    assert len(services()) == 1
    assert plane.run(1, f"{WITH_TOKEN} {URL}/meta-data/local-ipv4") == str(plane.topology.node_address(1))


def test_names_are_refused_at_once_instead_of_asked_outside(plane: DataPlane) -> None:
    assert plane.run(1, "code=0; timeout 2 getent hosts example.com || code=$?; echo $code").strip() == "2"
