"""Instances on real parts: a host that dies, a guest that freezes, halts or does not want to go, twins with volumes.

The plane is built in this process, on a region whose own gateway has been ended: what the harness triggers is called
directly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import docker
import pytest

from harness.command import Completed, run, wait_for
from harness.images import wanted
from harness.region import background, recovery
from harness.region.actions import ACTIONS
from harness.region.books import Books, place_file
from harness.region.calls import Call, Document
from harness.region.gateway import build
from harness.region.plane import Plane
from harness.region.process import start_region, stop_region
from harness.region.timing import Delays
from tests.integration import slots

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

TOPOLOGY = slots.own("machines")
TWIN = f"{TOPOLOGY.cell}-a-twin"
IMAGE = wanted().node


@dataclass(kw_only=True)
class Site:
    plane: Plane
    ids: list[str]

    def call(self, action: str, **params: str) -> Document:
        sent = {name.replace("_", "."): value for name, value in params.items()}
        made = Call(service="ec2", action=action, params=sent, access_key_id="k", source="", request_id="r")
        return Document(ACTIONS[action](self.plane, made))

    def shown(self, instance_id: str) -> Any:
        return next(self.call("DescribeInstances", InstanceId_1=instance_id).items("reservationSet", "instancesSet"))

    def until(self, instance_id: str, state: str) -> None:
        seen: list[str] = []

        def reached() -> bool:
            seen[:] = [str(self.shown(instance_id).findtext("instanceState/name"))]
            return seen == [state]

        wait_for(f"{instance_id} {state}", reached, timeout_s=20, last_seen=lambda: str(seen))

    def checks(self, instance_id: str) -> list[str | None]:
        answer = self.call("DescribeInstanceStatus", InstanceId_1=instance_id)
        item = next(answer.items("instanceStatusSet"))
        return [item.findtext("systemStatus/status"), item.findtext("instanceStatus/status")]

    def container(self, instance_id: str) -> Any:
        return docker.from_env().containers.list(all=True, filters={"label": f"pbx-chaos.instance={instance_id}"})[0]

    def guest(self, instance_id: str, script: str, *, check: bool = True) -> Completed:
        return run(["docker", "exec", self.container(instance_id).id, "sh", "-c", script], timeout_s=20, check=check)

    def events(self, instance_id: str) -> list[str]:
        path = TOPOLOGY.state_dir / "region-events.jsonl"
        return [line for line in path.read_text().splitlines() if f'"{instance_id}"' in line]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    stop_region(TOPOLOGY)
    try:
        start_region(TOPOLOGY, node_image_names=[IMAGE])
        gateway = [pid for pid, command in background.marked(TOPOLOGY.cell).items() if "region.gateway" in command]
        background.end(gateway)
        books = Books.read(place_file(TOPOLOGY))
        assert books is not None
        plane = build(TOPOLOGY, books=books, shut_down_timeout_s=30, delays=Delays())
        made = Site(plane=plane, ids=[])
        image = next(made.plane.books.call("DescribeImages", {}).items("imagesSet")).findtext("imageId") or ""
        answer = made.call(
            "RunInstances",
            ImageId=image,
            MinCount="2",
            MaxCount="2",
            TagSpecification_1_ResourceType="instance",
            TagSpecification_1_Tag_1_Key="Name",
            TagSpecification_1_Tag_1_Value="a twin",
            BlockDeviceMapping_1_DeviceName="/dev/sdf",
            BlockDeviceMapping_1_Ebs_VolumeSize="1",
        )
        made.ids += [item.findtext("instanceId") or "" for item in answer.items("instancesSet")]
        for instance_id in made.ids:
            made.until(instance_id, "running")
        yield made
        plane.close()
    finally:
        stop_region(TOPOLOGY)


def link(site: Site, instance_id: str) -> str:
    (volume,) = site.plane.state.volumes_of(instance_id)
    return f"/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{volume.volume_id.replace('-', '')}"


def test_twins_of_one_name_have_addresses_and_volumes_of_their_own(site: Site) -> None:
    one, two = site.ids
    names = {site.container(one).name, site.container(two).name}  # who comes first has the name
    assert names in ({TWIN, f"{TWIN}-{two}"}, {TWIN, f"{TWIN}-{one}"})
    assert site.guest(one, "hostname -I").stdout != site.guest(two, "hostname -I").stdout
    assert site.guest(one, f"test -b {link(site, one)}").ok and site.guest(two, f"test -b {link(site, two)}").ok


def test_a_machine_whose_host_dies_comes_back_with_everything_but_its_memory(site: Site) -> None:
    one = site.ids[0]
    site.guest(one, "touch /run/in-memory /root/on-disk")
    before, pid = site.shown(one), site.plane.instances.pid(one)
    recovery.begin_recovery(site.plane, one, 0.5)
    wait_for("the host's death", lambda: site.plane.instances.power(one) == "off", timeout_s=10, every_s=0.01)
    assert site.shown(one).findtext("instanceState/name") == "running"
    assert site.checks(one) == ["impaired", "impaired"]
    wait_for("its return", lambda: site.plane.state.instances[one].transition is None, timeout_s=20)
    assert site.checks(one) == ["ok", "ok"]
    assert site.plane.instances.pid(one) not in (None, pid)
    after = site.shown(one)
    assert [after.findtext(name) for name in ("instanceId", "privateIpAddress")] == [
        before.findtext(name) for name in ("instanceId", "privateIpAddress")
    ]
    assert site.guest(one, f"test -b {link(site, one)} && test -e /root/on-disk && ! test -e /run/in-memory").ok


def test_a_frozen_guest_is_impaired(site: Site) -> None:
    one = site.ids[0]
    site.container(one).pause()
    try:
        assert site.checks(one) == ["ok", "impaired"]
        assert site.shown(one).findtext("instanceState/name") == "running"
    finally:
        site.container(one).unpause()
    assert site.checks(one) == ["ok", "ok"]


def test_a_guest_that_halts_itself_is_stopped_and_says_so(site: Site) -> None:
    one = site.ids[0]
    site.guest(one, "kill -TERM 1", check=False)
    site.until(one, "stopped")
    assert site.shown(one).findtext("stateReason/code") == "Client.InstanceInitiatedShutdown"
    site.call("StartInstances", InstanceId_1=one)
    site.until(one, "running")
    assert site.guest(one, f"test -b {link(site, one)}").ok


def test_a_guest_that_does_not_want_to_go_is_forced_by_both_flags(site: Site) -> None:
    one = site.ids[0]
    site.guest(
        one, "mkdir -p /etc/pbx-node; printf '#!/bin/sh\nsleep 60\n' >/etc/pbx-node/halt; chmod +x /etc/pbx-node/halt"
    )
    site.call("StopInstances", InstanceId_1=one)
    wait_for("the shutdown", lambda: "shutdown_asked" in site.events(one)[-1], timeout_s=5)
    site.call("StopInstances", InstanceId_1=one, Force="true")
    assert site.shown(one).findtext("instanceState/name") == "stopping"
    site.call("StopInstances", InstanceId_1=one, Force="true", SkipOsShutdown="true")
    site.until(one, "stopped")
    assert '"power_off"' in site.events(one)[-1]
    site.call("StartInstances", InstanceId_1=one)
    site.until(one, "running")


def test_a_terminated_machine_takes_its_volume_along(site: Site) -> None:
    two = site.ids[1]
    (volume,) = site.plane.state.volumes_of(two)
    site.call("TerminateInstances", InstanceId_1=two)
    site.until(two, "terminated")
    assert '"shut_down"' in " ".join(site.events(two))
    assert volume.volume_id not in site.plane.volumes.list()
