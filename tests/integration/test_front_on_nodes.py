"""What nodes meet at the region's front: commands by SSM, faults of the API that their own clients run into."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from botocore.config import Config

from harness.cloud import Cloud
from harness.command import Completed, run, wait_for
from harness.images import wanted
from harness.region import metadata
from harness.region.api_faults import Rule
from harness.region.control import Control
from harness.region.process import start_region, stop_region
from harness.topology import REGION_NAME
from tests.integration import slots

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

TOPOLOGY = slots.own("front")
IMAGE = wanted().node
TOKEN = f"curl -s -o /dev/null -m 1 -w '%{{http_code}}' -X PUT -H '{metadata.TTL_HEADER}: 60' http://169.254.169.254"


@dataclass(kw_only=True)
class Site:
    cloud: Cloud
    ssm: Any
    instance_id: str
    control: Control

    def guest(self, script: str) -> Completed:
        """A shell script on the node, as an agent would run it."""
        environment = {
            "AWS_ENDPOINT_URL": TOPOLOGY.endpoint_url,
            "AWS_DEFAULT_REGION": REGION_NAME,
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_MAX_ATTEMPTS": "1",
        }
        options = [part for key, value in environment.items() for part in ("-e", f"{key}={value}")]
        return run(["docker", "exec", *options, f"{TOPOLOGY.cell}-a", "bash", "-c", script], timeout_s=30, check=False)

    def aws(self, arguments: str, **more: str) -> Completed:
        settings = "".join(f"{key}={value} " for key, value in more.items())
        return self.guest(f"{settings} aws {arguments}")

    def send(self, script: str) -> str:
        """A command's id, as soon as it is taken."""
        sent = self.ssm.send_command(
            DocumentName="AWS-RunShellScript", InstanceIds=[self.instance_id], Parameters={"commands": [script]}
        )
        return str(sent["Command"]["CommandId"])

    def ping(self) -> str:
        return str(self.ssm.describe_instance_information()["InstanceInformationList"][0]["PingStatus"])

    def status(self, command_id: str) -> str:
        return str(self.ssm.get_command_invocation(CommandId=command_id, InstanceId=self.instance_id)["StatusDetails"])


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    stop_region(TOPOLOGY)
    try:
        key = start_region(TOPOLOGY, node_image_names=[IMAGE]).key
        keys = {"access_key_id": key.access_key_id, "secret_access_key": key.secret_access_key}
        cloud = Cloud(endpoint_url=TOPOLOGY.endpoint_url, **keys)
        ids = cloud.run_instances(
            {"a": str(TOPOLOGY.node_address(1))},
            image=IMAGE,
            subnet_id=cloud.create_network(TOPOLOGY.vpc_subnet),
            timeout_s=60,
        )
        ssm: Any = boto3.client(
            "ssm",  # type: ignore[call-overload]
            endpoint_url=TOPOLOGY.endpoint_url,
            region_name=REGION_NAME,
            aws_access_key_id=key.access_key_id,
            aws_secret_access_key=key.secret_access_key,
            config=Config(proxies={}, retries={"total_max_attempts": 1}),
        )
        yield Site(cloud=cloud, ssm=ssm, instance_id=ids["a"], control=Control(TOPOLOGY))
    finally:
        stop_region(TOPOLOGY)


def test_a_command_runs_in_the_guest_as_root(site: Site) -> None:
    script = ["#!/bin/bash", "id -un; hostname; pwd", "echo trouble >&2", "exit 5"]
    result = site.cloud.run_command(site.instance_id, script, timeout_s=10)
    assert (result.status, result.code) == ("Failed", 5)
    assert (result.stdout, result.stderr) == ("root\na\n/\n", "trouble\n")


def test_what_takes_too_long_is_killed_with_all_its_children(site: Site) -> None:
    result = site.cloud.run_command(site.instance_id, ["echo a", "sleep 777 & sleep 777"], timeout_s=1)
    assert (result.status, result.code, result.stdout) == ("TimedOut", 137, "a\n")
    assert site.guest("pgrep -f 'sleep 77[7]'").code == 1


def test_what_is_cancelled_is_killed(site: Site) -> None:
    sent = site.send("sleep 888")
    wait_for("it runs", lambda: site.guest("pgrep -f 'sleep 88[8]'").ok, timeout_s=10)
    site.ssm.cancel_command(CommandId=sent)
    wait_for("cancelled", lambda: site.status(sent) == "Cancelled", timeout_s=10)
    assert site.guest("pgrep -f 'sleep 88[8]'").code == 1


def test_a_node_that_is_frozen_or_cut_off_gets_nothing(site: Site) -> None:
    assert site.ping() == "Online"
    container = f"{TOPOLOGY.cell}-a"
    run(["docker", "pause", container], timeout_s=10)
    try:
        assert site.ping() == "ConnectionLost"
        sent = site.send("touch /tmp/was-here")
        wait_for("delayed", lambda: site.status(sent) == "Delayed", timeout_s=5)
    finally:
        run(["docker", "unpause", container], timeout_s=10)
    wait_for("delivered late", lambda: site.guest("test -e /tmp/was-here").ok, timeout_s=10)
    site.guest("nft add table ip cut; nft 'add chain ip cut o { type filter hook output priority 0; }'")
    site.guest(f"nft add rule ip cut o ip daddr {TOPOLOGY.endpoint_address} drop")
    assert site.ping() == "ConnectionLost"
    site.guest("nft delete table ip cut")
    wait_for("online again", lambda: site.ping() == "Online", timeout_s=5)


def test_the_nodes_own_clients_meet_faults_of_the_api(site: Site) -> None:
    describe = "ec2 describe-addresses"
    assert site.aws(describe).ok
    site.control.set_api_faults(
        Rule(id="throttled", kind="throttle", callers=("a",), actions=("DescribeAddresses",)),
        Rule(id="cut", kind="reset", callers=("a",), actions=("DescribeVolumes",)),
        Rule(id="lost", kind="lost_reply", callers=("a",), actions=("AllocateAddress",), count=1),
        Rule(id="silent", kind="time_out", callers=("a",), actions=("DescribeInstances",)),
    )
    assert "RequestLimitExceeded" in site.aws(describe).stderr
    assert "Could not connect" in (said := site.aws("ec2 describe-volumes").stderr) or "Connection" in said
    assert site.aws("ec2 allocate-address", AWS_MAX_ATTEMPTS="3").ok
    began = time.monotonic()
    assert "timeout" in site.aws("ec2 describe-instances --cli-read-timeout 1").stderr
    assert time.monotonic() - began >= 1
    struck = site.control.clear_api_faults("throttled", "cut", "lost", "silent")
    assert struck == {"throttled": 1, "cut": 1, "lost": 1, "silent": 1}
    addresses = json.loads(site.aws(describe).stdout)["Addresses"]
    assert len(addresses) == 2, "one allocate-address, repeated after a lost reply, makes two addresses"


def test_a_node_knows_itself_by_sts(site: Site) -> None:
    answer = json.loads(site.aws("sts get-caller-identity").stdout)
    assert answer["Arn"].endswith(f":assumed-role/pbx-node/{site.instance_id}")


@pytest.mark.parametrize(("mode", "said"), [("refused", 7), ("silent", 28), ("throttled", "503")])
def test_metadata_fails_on_demand(site: Site, mode: str, said: int | str) -> None:
    ask = f"{TOKEN}/latest/api/token"
    assert site.guest(ask).stdout == "200"
    site.control.switch_metadata({"a": mode})
    try:
        seen = site.guest(ask)
        assert said in (seen.code, seen.stdout)
    finally:
        site.control.switch_metadata({"a": "on"})
    assert site.guest(ask).stdout == "200"


def test_of_a_node_that_loses_its_power_nobody_hears(site: Site) -> None:
    sent = site.send("sleep 999")
    wait_for("it runs", lambda: site.guest("pgrep -f 'sleep 99[9]'").ok, timeout_s=10)
    site.cloud.stop(site.instance_id, power_off=True)
    site.cloud.wait_state(site.instance_id, "stopped", timeout_s=20)
    assert site.ping() == "ConnectionLost"
    assert site.status(sent) == "InProgress"
