"""The EBS agent in a container against a real EC2 endpoint (moto); the kernel's side of an attachment is played here.

The whole truth, with devices and power, is in the tests of the region and of the cell.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import boto3
import docker
import pytest
import requests
from docker.types import IPAMConfig, IPAMPool

from harness.cell.guest import agent_files
from harness.cell.node import ContainerNode, File
from harness.command import Completed, wait_for
from harness.images import wanted
from harness.topology import CELL_LABEL, GATEWAY_PORT, REGION_NAME, ZONE
from tests.integration import slots

pytestmark = pytest.mark.integration

TOPOLOGY = slots.own("ebs")
AGENT = "/usr/lib/ocf/resource.d/pbxha/awsebs"
LINK = "/dev/pbx-data"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIATEST", "AWS_SECRET_ACCESS_KEY": "test"}


@dataclass
class Bench:
    """One node, two instances in the books of which it is the first, and a volume."""

    node: ContainerNode
    ec2: Any
    me: str
    other: str
    volume_id: str

    def agent(self, action: str, *, timeout_s: int = 20) -> Completed:
        given = {**KEYS, "OCF_RESKEY_volume_id": self.volume_id, "OCF_RESKEY_CRM_meta_timeout": str(timeout_s * 1000)}
        settings = [f"{key}={value}" for key, value in given.items()]
        return self.node.run(["env", *settings, AGENT, action], timeout_s=timeout_s, check=False)

    def holder(self) -> str | None:
        attachments = self.ec2.describe_volumes(VolumeIds=[self.volume_id])["Volumes"][0]["Attachments"]
        return attachments[0]["InstanceId"] if attachments else None

    @property
    def by_id(self) -> str:
        return f"/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{self.volume_id.replace('-', '')}"

    def plug(self, name: str = "nvme1n1", minor: int = 200) -> None:
        """What the hypervisor and udev do once the books say "attached"."""
        make = f"mkdir -p /dev/disk/by-id && mknod /dev/{name} b 7 {minor} && ln -sfn /dev/{name} {self.by_id}"
        self.node.run(["sh", "-c", make], timeout_s=5)

    def unplug(self) -> None:
        self.node.run(["sh", "-c", f"rm -f $(readlink {self.by_id}) {self.by_id}"], timeout_s=5)

    def meanwhile(self, action: str, condition: Any, then: Any) -> Completed:
        """Run the agent; when the books have come to a condition, let the hardware follow."""
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(self.agent, action)
            wait_for("the books to follow the agent", condition, timeout_s=10, last_seen=lambda: str(self.holder()))
            then()
            return running.result(timeout=30)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    engine = docker.from_env()
    labels = {CELL_LABEL: TOPOLOGY.cell}
    with ExitStack() as undo:
        pool = IPAMPool(subnet=str(TOPOLOGY.vpc_subnet), gateway=str(TOPOLOGY.endpoint_address))
        network: Any = engine.networks.create(TOPOLOGY.vpc_network, labels=labels, ipam=IPAMConfig(pool_configs=[pool]))
        undo.callback(network.remove)
        serve = [sys.executable, "-m", "moto.server", "-H", str(TOPOLOGY.endpoint_address), "-p", str(GATEWAY_PORT)]
        server = subprocess.Popen(serve, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        undo.callback(server.wait, timeout=10)
        undo.callback(server.terminate)
        container: Any = engine.containers.run(
            wanted().node, name=TOPOLOGY.cell, labels=labels, network=network.name, tmpfs={"/run": "exec"}, detach=True
        )
        undo.callback(container.remove, force=True)
        wait_for("moto to answer", _answers, timeout_s=30)
        ec2 = boto3.client(
            "ec2",
            endpoint_url=TOPOLOGY.endpoint_url,
            region_name=REGION_NAME,
            aws_access_key_id="AKIATEST",
            aws_secret_access_key="test",
        )
        image = ec2.describe_images()["Images"][0]["ImageId"]
        made = ec2.run_instances(ImageId=image, MinCount=2, MaxCount=2, Placement={"AvailabilityZone": ZONE})
        me, other = (instance["InstanceId"] for instance in made["Instances"])
        volume_id = ec2.create_volume(AvailabilityZone=ZONE, Size=1)["VolumeId"]
        node = ContainerNode(name=TOPOLOGY.cell, instance_id=me, private_ip="", container=str(container.id))
        config = f"[default]\nregion = {REGION_NAME}\nendpoint_url = {TOPOLOGY.endpoint_url}\n"
        node.put(
            agent_files()
            | {
                "/etc/pbx-node/env": File(content=f"PBX_INSTANCE_ID={me}\n".encode()),
                "/etc/pbx-node/aws-config": File(content=config.encode()),
            }
        )
        yield Bench(node=node, ec2=ec2, me=me, other=other, volume_id=volume_id)


def _answers() -> bool:
    with suppress(requests.RequestException):
        return requests.get(f"{TOPOLOGY.endpoint_url}/moto-api/", timeout=1).ok
    return False


def test_the_volume_follows_the_resource(bench: Bench) -> None:
    assert bench.agent("validate-all").ok
    assert bench.agent("monitor").code == 7
    assert bench.agent("stop").ok, "a stop of what was never started"

    bench.ec2.attach_volume(VolumeId=bench.volume_id, InstanceId=bench.other, Device="/dev/sdf")
    bench.ec2.stop_instances(InstanceIds=[bench.other])
    started = bench.meanwhile("start", lambda: bench.holder() == bench.me, bench.plug)
    assert started.ok, started.stderr
    assert bench.agent("monitor").ok
    assert bench.node.run(["readlink", LINK], timeout_s=5).stdout.strip() == "/dev/nvme1n1"
    again = bench.agent("start")
    assert again.ok, "a second start changes nothing"

    stopped = bench.meanwhile("stop", lambda: bench.holder() is None, bench.unplug)
    assert stopped.ok, stopped.stderr
    assert bench.agent("monitor").code == 7
    assert not bench.node.run(["test", "-L", LINK], timeout_s=5, check=False).ok

    started = bench.meanwhile("start", lambda: bench.holder() == bench.me, lambda: bench.plug("nvme2n1", 201))
    assert started.ok, started.stderr
    assert bench.node.run(["readlink", LINK], timeout_s=5).stdout.strip() == "/dev/nvme2n1"
    bench.meanwhile("stop", lambda: bench.holder() is None, bench.unplug)


def test_a_device_that_never_appears_fails_the_start_in_time_and_is_given_back(bench: Bench) -> None:
    started = bench.agent("start", timeout_s=4)
    assert started.code == 1
    assert "did not appear" in started.stderr
    assert started.took_s < 8, "its own time-out, not the cloud's"
    assert bench.agent("stop").ok
    assert bench.holder() is None


def test_a_volume_that_does_not_exist_is_named(bench: Bench) -> None:
    absent = Bench(node=bench.node, ec2=bench.ec2, me=bench.me, other=bench.other, volume_id="vol-0" + "a" * 16)
    started = absent.agent("start", timeout_s=10)
    assert started.code == 2
    assert "InvalidVolume.NotFound" in started.stderr
