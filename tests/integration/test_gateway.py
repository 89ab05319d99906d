"""The region as a whole, on real parts: stock agents on the nodes, true states, a gateway that comes back."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from harness.cloud import Cloud, ElasticIp
from harness.cloud_calls import CloudError
from harness.command import Completed, run, wait_for
from harness.errors import InfrastructureError
from harness.images import wanted
from harness.region import background
from harness.region.process import region_state, start_gateway, start_region, stop_region, wait_for_gateway
from harness.region.router import create_networks
from harness.topology import REGION_NAME
from tests.integration import slots

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

TOPOLOGY = slots.own("gateway")
IMAGE = wanted().node


@dataclass(kw_only=True)
class Site:
    cloud: Cloud
    ids: dict[str, str]
    volume_id: str
    address: ElasticIp

    def guest(self, name: str, *argv: str, check: bool = True, **env: str) -> Completed:
        """Run a command on a node as an agent would, with the endpoint in its environment."""
        variables = {
            "AWS_ENDPOINT_URL": TOPOLOGY.endpoint_url,
            "AWS_DEFAULT_REGION": REGION_NAME,
            "AWS_CONFIG_FILE": "/root/config",
            **env,
        }
        options = [part for key, value in variables.items() for part in ("-e", f"{key}={value}")]
        return run(["docker", "exec", *options, f"{TOPOLOGY.cell}-{name}", *argv], timeout_s=60, check=check)

    def place(self) -> str | None:
        attachment = self.cloud.volume_attachment(self.volume_id)
        return None if attachment is None else f"{attachment.instance_id} {attachment.state}"

    def at_home(self) -> None:
        """Both nodes on, the volume on a, the address on a."""
        for instance_id in self.ids.values():
            self.cloud.ensure_started(instance_id, timeout_s=60)
        if self.place() != f"{self.ids['a']} attached":
            if self.place() is not None:
                self.cloud.detach(self.volume_id, force=True)
            self.cloud.attach(self.volume_id, self.ids["a"])
        self.cloud.associate(self.address.allocation_id, self.ids["a"])


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (TOPOLOGY.state_dir / name).read_text().splitlines()]


@pytest.fixture(scope="module")
def region() -> Iterator[Site]:
    stop_region(TOPOLOGY)
    try:
        key = start_region(TOPOLOGY, node_image_names=[IMAGE]).key
        cloud = Cloud(
            endpoint_url=TOPOLOGY.endpoint_url,
            access_key_id=key.access_key_id,
            secret_access_key=key.secret_access_key,
        )
        subnet = cloud.create_network(TOPOLOGY.vpc_subnet)
        ips = {name: str(TOPOLOGY.node_address(i)) for i, name in enumerate("ab", 1)}
        ids = cloud.run_instances(ips, image=IMAGE, subnet_id=subnet, timeout_s=60)
        site = Site(cloud=cloud, ids=ids, volume_id=cloud.create_volume(size_gib=8), address=cloud.allocate_address())
        for name in ids:
            site.guest(name, "sh", "-c", "echo '[default]' >/root/config")
        yield site
    finally:
        removed = stop_region(TOPOLOGY)
    assert any("container" in line for line in removed)
    assert stop_region(TOPOLOGY) == []


@pytest.fixture
def site(region: Site) -> Site:
    region.at_home()
    return region


def test_the_state_of_the_data_plane_is_told(site: Site) -> None:
    state = region_state(TOPOLOGY)
    assert {i["name"]: i["power"] for i in state["instances"].values()} == {"a": "on", "b": "on"}
    assert all(Path(f"/proc/{i['pid']}").exists() for i in state["instances"].values())
    assert state["addresses"] == {site.address.public_ip: str(TOPOLOGY.node_address(1))}
    volume = state["volumes"][site.volume_id]
    assert volume["attached_to"] == site.ids["a"] and Path(volume["loop"]).exists()


def test_the_aws_cli_of_a_node_is_known_by_its_own_key(site: Site) -> None:
    answer = json.loads(site.guest("b", "aws", "ec2", "describe-instances").stdout)
    names = {i["InstanceId"]: i["State"]["Name"] for r in answer["Reservations"] for i in r["Instances"]}
    assert names == dict.fromkeys(site.ids.values(), "running")
    call = rows("cloud-calls.jsonl")[-1]
    assert (call["who"], call["action"], call["source"]) == ("b", "DescribeInstances", str(TOPOLOGY.node_address(2)))


def test_a_volume_in_use_is_refused_and_the_guest_that_has_it_keeps_it(site: Site) -> None:
    link = f"/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{site.volume_id.replace('-', '')}"
    assert site.guest("a", "test", "-b", link).ok
    with pytest.raises(CloudError) as caught:
        site.cloud.attach(site.volume_id, site.ids["b"])
    assert caught.value.code == "VolumeInUse"
    assert site.place() == f"{site.ids['a']} attached"
    assert not site.guest("b", "test", "-e", link, check=False).ok


def test_a_mounted_volume_is_busy_until_unmounted(site: Site) -> None:
    link = f"/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{site.volume_id.replace('-', '')}"
    site.guest("a", "sh", "-c", f"mkfs.xfs -qf {link} && mount {link} /mnt && echo kept >/mnt/file")
    with pytest.raises(InfrastructureError, match="busy"):
        site.cloud.detach(site.volume_id, timeout_s=0.5)
    assert site.place() == f"{site.ids['a']} busy"
    assert site.guest("a", "cat", "/mnt/file").stdout == "kept\n"
    site.guest("a", "umount", "/mnt")
    wait_for("available", lambda: site.place() is None, timeout_s=5)
    site.cloud.attach(site.volume_id, site.ids["b"])
    assert site.guest("b", "sh", "-c", f"mount {link} /mnt && cat /mnt/file && umount /mnt").stdout == "kept\n"


def test_power_off_is_stopping_at_once_and_stopped_when_the_machine_is_gone(site: Site) -> None:
    target, pid = site.ids["a"], region_state(TOPOLOGY)["instances"][site.ids["a"]]["pid"]
    site.cloud.stop(target, power_off=True)
    assert site.cloud.wait_state(target, "stopping", "stopped", timeout_s=5)
    site.cloud.wait_state(target, "stopped", timeout_s=10)
    assert not background.alive(pid)
    asked = next(c for c in reversed(rows("cloud-calls.jsonl")) if c["action"] == "StopInstances")
    cut = next(e for e in reversed(rows("region-events.jsonl")) if e["event"] == "links_cut")
    assert cut["instance_id"] == target
    assert 0 < cut["time_ns"] - asked["time_ns"] < 1e9
    assert site.place() == f"{target} attached"
    site.cloud.detach(site.volume_id, timeout_s=5)


def test_a_gateway_killed_in_the_middle_finds_its_state_again(site: Site) -> None:
    before = region_state(TOPOLOGY)
    site.cloud.stop(site.ids["b"], power_off=False)
    pids = [pid for pid, command in background.marked(TOPOLOGY.cell).items() if "harness.region.gateway" in command]
    assert len(pids) == 1
    os.kill(pids[0], signal.SIGKILL)
    wait_for("the gateway's end", lambda: not background.alive(pids[0]), timeout_s=5)
    with pytest.raises(CloudError):
        site.cloud.instance_state(site.ids["b"])
    wait_for_gateway(TOPOLOGY, start_gateway(TOPOLOGY))
    site.cloud.wait_state(site.ids["b"], "stopped", timeout_s=15)
    after = region_state(TOPOLOGY)
    assert after["addresses"] == before["addresses"]
    assert after["volumes"] == before["volumes"]
    site.at_home()
    assert site.guest("b", "true").ok


def test_a_slot_that_is_taken_is_said_in_one_line(site: Site) -> None:
    with pytest.raises(InfrastructureError, match=rf"slot {TOPOLOGY.slot} is not free.*--slot N") as caught:
        create_networks(slots.own("gateway-other"))
    assert "\n" not in str(caught.value)


def test_an_image_that_is_not_there_ends_the_launch_with_its_reason(site: Site) -> None:
    with pytest.raises((CloudError, ClientError), match="InvalidAMIID"):
        site.cloud.image_id("no-such-image:dev")
