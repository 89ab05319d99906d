"""What EC2 promises, seen by boto3 through the gateway: a data plane of dictionaries, real books of either kind.

LocalStack's run where its image is built (`pbx-chaos run … --cloud localstack` builds it, once).
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import boto3
import pytest
from aiohttp import web
from botocore.config import Config
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer

from harness import topology as topologies
from harness.cloud import Cloud
from harness.command import wait_for
from harness.region import ec2_addresses, ec2_instances, ec2_volumes, localstack
from harness.region.books import Books, place_file
from harness.region.calls import AwsError, Call
from harness.region.cleanup import cleanup
from harness.region.gateway import Gateway
from harness.region.plane import Plane
from harness.region.state import State
from harness.topology import ZONE, Topology
from tests.integration.data_plane import localstack_image
from tests.planes import FakeAddresses, FakeFilters, FakeInstances, FakeJournal, FakeVolumes

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

KEY = "harness-key"


@dataclass(kw_only=True)
class Site:
    topology: Topology
    books: Books
    instances: FakeInstances
    volumes: FakeVolumes
    addresses: FakeAddresses
    journal: FakeJournal
    plane: Plane
    url: str
    filters: FakeFilters = field(default_factory=FakeFilters)
    _clients: dict[str, EC2Client] = field(default_factory=dict)
    _cloud: Cloud | None = None

    def ec2(self, key: str = KEY) -> EC2Client:
        if key not in self._clients:
            self._clients[key] = boto3.client(
                "ec2",
                endpoint_url=self.url,
                region_name="us-east-1",
                aws_access_key_id=key,
                aws_secret_access_key="x",
                config=Config(retries={"total_max_attempts": 1}, read_timeout=10),
            )
        return self._clients[key]

    def cloud(self) -> Cloud:
        self._cloud = self._cloud or Cloud(endpoint_url=self.url, access_key_id=KEY, secret_access_key="x")
        return self._cloud

    def calls(self) -> list[dict[str, Any]]:
        text = (self.topology.state_dir / "cloud-calls.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def new_plane(self) -> Plane:
        """A plane as a gateway has it that starts over what is there."""
        return Plane(
            topology=self.topology,
            state=State(self.topology.state_dir),
            books=self.books,
            journal=cast(Any, self.journal),
            instances=cast(Any, self.instances),
            volumes=cast(Any, self.volumes),
            addresses=cast(Any, self.addresses),
            filters=cast(Any, self.filters),
        )


def serve(plane: Plane) -> tuple[str, Callable[[], None]]:
    """The gateway on a free port of the loopback, in a thread of its own; returns its URL and what ends it."""
    loop = asyncio.new_event_loop()
    started: list[str] = []

    async def start() -> web.AppRunner:
        runner = web.AppRunner(Gateway(plane=plane, harness_key=KEY).app())
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        started.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
        return runner

    runner = loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def stop() -> None:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)

    return started[0], stop


@pytest.fixture(scope="module", params=["moto", "localstack"])
def books(request: pytest.FixtureRequest) -> Iterator[Books]:
    if request.param == "moto":
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        yield Books(host="127.0.0.1", port=server.get_host_and_port()[1])
        server.stop()
        return
    topology = Topology(cell="lst-actions", slot=7)
    image = localstack_image()
    topology.state_dir.mkdir(parents=True, exist_ok=True)
    try:
        localstack.start(topology, image)
        yield localstack.wait(topology, place_file(topology))
    finally:
        cleanup(topology)


@pytest.fixture
def site(books: Books, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(topologies, "STATE_ROOT", tmp_path)
    topology = Topology(cell="rco-actions", slot=2)
    (topology.state_dir / "metadata").mkdir(parents=True)
    books.call("RegisterImage", {"Name": "node:test", "RootDeviceName": "/dev/xvda", "Architecture": "x86_64"})
    made = Site(
        topology=topology,
        books=books,
        instances=FakeInstances(),
        volumes=FakeVolumes(),
        addresses=FakeAddresses(),
        journal=FakeJournal(),
        plane=cast(Any, None),
        url="",
    )
    made.plane = made.new_plane()
    made.url, stop = serve(made.plane)
    yield made
    made.instances.gate.set()
    stop()


@pytest.fixture
def two(site: Site) -> tuple[str, str]:
    """Two running instances, a and b."""
    cloud = site.cloud()
    subnet = cloud.create_network(site.topology.vpc_subnet)
    ips = {"a": str(site.topology.node_address(1)), "b": str(site.topology.node_address(2))}
    ids = cloud.run_instances(ips, image="node:test", subnet_id=subnet, timeout_s=10)
    return ids["a"], ids["b"]


def error_of(call: Callable[..., object], **params: object) -> str:
    with pytest.raises(ClientError) as caught:
        call(**params)
    return str(caught.value.response["Error"]["Code"])


def described(site: Site, instance_id: str) -> Any:
    return site.ec2().describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]


def test_a_launched_instance_has_its_name_and_address(site: Site, two: tuple[str, str]) -> None:
    spec = site.instances.specs[two[0]]
    assert (spec.name, spec.image, spec.private_ip) == ("a", "node:test", "198.18.4.11")
    seen = described(site, two[0])
    assert seen["PrivateIpAddress"] == "198.18.4.11"
    assert seen["State"]["Name"] == "running"
    assert spec.access_key_id != site.instances.specs[two[1]].access_key_id


def test_a_launch_that_fails_ends_terminated(site: Site) -> None:
    site.instances.fail_launch = True
    cloud = site.cloud()
    subnet = cloud.create_network(site.topology.vpc_subnet)
    with pytest.raises(Exception, match="a is terminated at launch: no such image"):
        cloud.run_instances({"a": "198.18.4.11"}, image="node:test", subnet_id=subnet, timeout_s=10)
    wait_for("the journal", lambda: [row["event"] for row in site.journal.rows] == ["operation_failed"], timeout_s=5)


def test_an_address_in_use_is_refused(site: Site, two: tuple[str, str]) -> None:
    image = site.cloud().image_id("node:test")
    run = site.ec2().run_instances
    params = {"ImageId": image, "MinCount": 1, "MaxCount": 1}
    assert error_of(run, PrivateIpAddress="198.18.4.11", **params) == "InvalidIPAddress.InUse"
    assert error_of(run, PrivateIpAddress="198.18.4.2", **params) == "InvalidParameterValue"


def test_a_stop_is_stopping_until_the_machine_is_off(site: Site, two: tuple[str, str]) -> None:
    ec2 = site.ec2()
    site.instances.gate.clear()
    answer = ec2.stop_instances(InstanceIds=[two[0]], Force=True)["StoppingInstances"][0]
    assert (answer["PreviousState"]["Name"], answer["CurrentState"]["Name"]) == ("running", "stopping")
    assert described(site, two[0])["State"]["Name"] == "stopping"
    assert error_of(ec2.start_instances, InstanceIds=[two[0]]) == "IncorrectInstanceState"
    filters: Any = [{"Name": "instance-state-name", "Values": ["running"]}]
    running = [i["InstanceId"] for r in ec2.describe_instances(Filters=filters)["Reservations"] for i in r["Instances"]]
    assert two[0] not in running and two[1] in running
    site.instances.gate.set()
    site.cloud().wait_state(two[0], "stopped", timeout_s=5)
    assert ("shut_down", two[0]) in site.instances.done
    status = ec2.describe_instance_status(InstanceIds=[two[0]])["InstanceStatuses"]
    assert status == []
    status = ec2.describe_instance_status(InstanceIds=[two[0]], IncludeAllInstances=True)["InstanceStatuses"]
    assert status[0]["InstanceState"]["Name"] == "stopped"


def test_only_skip_os_shutdown_cuts_the_power(site: Site, two: tuple[str, str]) -> None:
    site.cloud().stop(two[0], power_off=True)
    site.cloud().wait_state(two[0], "stopped", timeout_s=5)
    assert site.instances.done[-1] == ("power_off", two[0])


def test_a_machine_that_went_off_by_itself_is_stopped(site: Site, two: tuple[str, str]) -> None:
    site.instances.powers[two[0]] = "off"
    assert described(site, two[0])["State"]["Name"] == "stopped"
    site.cloud().ensure_started(two[0], timeout_s=5)
    assert site.instances.power(two[0]) == "on"


def test_a_reboot_stays_running(site: Site, two: tuple[str, str]) -> None:
    site.instances.gate.clear()
    site.ec2().reboot_instances(InstanceIds=[two[0]])
    assert described(site, two[0])["State"]["Name"] == "running"
    site.instances.gate.set()
    wait_for("reboot", lambda: ("start", two[0]) in site.instances.done, timeout_s=5)


def test_ids_are_checked_before_anything_is_touched(site: Site, two: tuple[str, str]) -> None:
    ec2 = site.ec2()
    missing = "i-0123456789abcdef0"
    assert error_of(ec2.stop_instances, InstanceIds=[two[0], missing]) == "InvalidInstanceID.NotFound"
    assert error_of(ec2.stop_instances, InstanceIds=["i-zz"]) == "InvalidInstanceID.Malformed"
    assert error_of(ec2.stop_instances, InstanceIds=[two[0]], DryRun=True) == "DryRunOperation"
    assert described(site, two[0])["State"]["Name"] == "running"


def test_a_volume_has_one_place_at_a_time(site: Site, two: tuple[str, str]) -> None:
    ec2, cloud = site.ec2(), site.cloud()
    volume_id = cloud.create_volume(size_gib=1)
    cloud.attach(volume_id, two[0])
    assert error_of(ec2.attach_volume, VolumeId=volume_id, InstanceId=two[1], Device="/dev/sdf") == "VolumeInUse"
    assert error_of(ec2.delete_volume, VolumeId=volume_id) == "VolumeInUse"
    place = cloud.volume_attachment(volume_id)
    assert place is not None and (place.instance_id, place.state) == (two[0], "attached")
    mapping = described(site, two[0])["BlockDeviceMappings"]
    assert [m["Ebs"]["Status"] for m in mapping if m["Ebs"]["VolumeId"] == volume_id] == ["attached"]
    other = cloud.create_volume(size_gib=1)
    same_device = {"VolumeId": other, "InstanceId": two[0], "Device": "/dev/sdf"}
    assert error_of(ec2.attach_volume, **same_device) == "InvalidParameterValue"
    cloud.detach(volume_id)
    cloud.attach(volume_id, two[1])
    cloud.detach(volume_id)
    cloud.delete_volume(volume_id)
    assert error_of(ec2.describe_volumes, VolumeIds=[volume_id]) == "InvalidVolume.NotFound"


def test_a_mounted_volume_is_busy_until_it_is_let_go(site: Site, two: tuple[str, str]) -> None:
    ec2, cloud = site.ec2(), site.cloud()
    volume_id = cloud.create_volume(size_gib=1)
    cloud.attach(volume_id, two[0])
    site.volumes.mounted.add(volume_id)
    assert ec2.detach_volume(VolumeId=volume_id)["State"] == "detaching"
    assert error_of(ec2.attach_volume, VolumeId=volume_id, InstanceId=two[1], Device="/dev/sdf") == "VolumeInUse"

    def seen() -> tuple[str, str]:
        volume = ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"][0]
        return volume["State"], volume["Attachments"][0]["State"]

    wait_for("busy", lambda: seen() == ("in-use", "busy"), timeout_s=5)
    assert ec2.detach_volume(VolumeId=volume_id)["State"] == "busy"
    site.volumes.mounted.clear()
    wait_for("detached", lambda: cloud.volume_attachment(volume_id) is None, timeout_s=5)


def test_force_does_not_wait_for_the_guest(site: Site, two: tuple[str, str]) -> None:
    cloud = site.cloud()
    volume_id = cloud.create_volume(size_gib=1)
    cloud.attach(volume_id, two[0])
    site.volumes.mounted.add(volume_id)
    site.ec2().detach_volume(VolumeId=volume_id)
    cloud.detach(volume_id, force=True, timeout_s=5)
    assert cloud.volume_attachment(volume_id) is None


def test_detaching_from_somewhere_else_is_refused(site: Site, two: tuple[str, str]) -> None:
    ec2, cloud = site.ec2(), site.cloud()
    volume_id = cloud.create_volume(size_gib=1)
    assert error_of(ec2.detach_volume, VolumeId=volume_id) == "IncorrectState"
    cloud.attach(volume_id, two[0])
    assert error_of(ec2.detach_volume, VolumeId=volume_id, InstanceId=two[1]) == "InvalidAttachment.NotFound"
    assert error_of(ec2.detach_volume, VolumeId="vol-0123456789abcdef0") == "InvalidVolume.NotFound"
    cloud.detach(volume_id)


def test_a_volume_stays_with_a_stopped_instance_and_can_be_taken_from_it(site: Site, two: tuple[str, str]) -> None:
    cloud = site.cloud()
    volume_id = cloud.create_volume(size_gib=1)
    cloud.attach(volume_id, two[0])
    cloud.stop(two[0], power_off=True)
    cloud.wait_state(two[0], "stopped", timeout_s=5)
    assert cloud.volume_attachment(volume_id) is not None
    cloud.detach(volume_id, timeout_s=5)
    cloud.attach(volume_id, two[1])


def test_what_was_attached_to_a_stopped_instance_is_there_when_it_starts(site: Site, two: tuple[str, str]) -> None:
    cloud = site.cloud()
    volume_id = cloud.create_volume(size_gib=1)
    cloud.stop(two[0], power_off=True)
    cloud.wait_state(two[0], "stopped", timeout_s=5)
    cloud.attach(volume_id, two[0])
    assert site.volumes.attachment(volume_id) is None
    cloud.ensure_started(two[0], timeout_s=5)
    place = site.volumes.attachment(volume_id)
    assert place is not None and place.instance_id == two[0]


def test_an_attach_that_fails_leaves_the_volume_free(site: Site, two: tuple[str, str]) -> None:
    cloud = site.cloud()
    volume_id = cloud.create_volume(size_gib=1)
    site.volumes.fail_attach = True
    site.ec2().attach_volume(VolumeId=volume_id, InstanceId=two[0], Device="/dev/sdf")
    wait_for("free again", lambda: cloud.volume_attachment(volume_id) is None, timeout_s=5)
    site.volumes.fail_attach = False
    cloud.attach(volume_id, two[1])
    place = cloud.volume_attachment(volume_id)
    assert place is not None and place.instance_id == two[1]


def test_an_address_moves_and_its_old_owner_loses_it(site: Site, two: tuple[str, str]) -> None:
    ec2, cloud = site.ec2(), site.cloud()
    address = cloud.allocate_address()
    assert IPv4Address(address.public_ip) in site.topology.elastic_range
    cloud.associate(address.allocation_id, two[0])
    assert described(site, two[0])["PublicIpAddress"] == address.public_ip
    again = ec2.associate_address(AllocationId=address.allocation_id, InstanceId=two[1])["AssociationId"]
    assert cloud.address_owner(address.allocation_id) == two[1]
    assert "PublicIpAddress" not in described(site, two[0])
    assert described(site, two[1])["PublicIpAddress"] == address.public_ip
    assert site.addresses.table() == {IPv4Address(address.public_ip): site.topology.node_address(2)}
    refused = {"AllocationId": address.allocation_id, "InstanceId": two[0], "AllowReassociation": False}
    assert error_of(ec2.associate_address, **refused) == "Resource.AlreadyAssociated"
    assert error_of(ec2.release_address, AllocationId=address.allocation_id) == "InvalidIPAddress.InUse"
    ec2.disassociate_address(AssociationId=again)
    assert error_of(ec2.disassociate_address, AssociationId=again) == "InvalidAssociationID.NotFound"
    assert cloud.address_owner(address.allocation_id) is None
    assert site.addresses.table() == {}
    ec2.release_address(AllocationId=address.allocation_id)


def test_an_address_goes_to_a_network_interface(site: Site, two: tuple[str, str]) -> None:
    address = site.cloud().allocate_address()
    interface = described(site, two[0])["NetworkInterfaces"][0]["NetworkInterfaceId"]
    params = {"AllocationId": address.allocation_id, "NetworkInterfaceId": interface}
    site.ec2().associate_address(PrivateIpAddress="198.18.4.11", **params)
    assert site.cloud().address_owner(address.allocation_id) == two[0]
    assert error_of(site.ec2().associate_address, PrivateIpAddress="198.18.4.77", **params) == "InvalidParameterValue"


def test_an_instance_has_one_address(site: Site, two: tuple[str, str]) -> None:
    cloud = site.cloud()
    first, second = cloud.allocate_address(), cloud.allocate_address()
    cloud.associate(first.allocation_id, two[0])
    cloud.associate(second.allocation_id, two[0])
    cloud.associate(second.allocation_id, two[0])
    assert cloud.address_owner(first.allocation_id) is None
    assert list(site.addresses.table()) == [IPv4Address(second.public_ip)]


def test_metadata_follows_the_address(site: Site, two: tuple[str, str]) -> None:
    files = [site.topology.state_dir / "metadata" / f"{i}.json" for i in two]
    for path in files:
        path.write_text(json.dumps({"instance_id": path.stem, "public_ip": None}))
    cloud = site.cloud()
    address = cloud.allocate_address()
    cloud.associate(address.allocation_id, two[0])
    cloud.associate(address.allocation_id, two[1])
    facts = [json.loads(path.read_text()) for path in files]
    assert [f["public_ip"] for f in facts] == [None, address.public_ip]
    assert facts[0]["instance_id"] == two[0]
    assert facts[0]["interface_id"].startswith("eni-")


def test_a_terminated_instance_leaves_its_volume_and_its_address(site: Site, two: tuple[str, str]) -> None:
    cloud = site.cloud()
    volume_id, address = cloud.create_volume(size_gib=1), cloud.allocate_address()
    cloud.attach(volume_id, two[0])
    cloud.associate(address.allocation_id, two[0])
    cloud.terminate(two[0], timeout_s=5)
    assert cloud.volume_attachment(volume_id) is None
    assert cloud.address_owner(address.allocation_id) is None
    assert site.addresses.table() == {}
    cloud.attach(volume_id, two[1])
    assert error_of(site.ec2().start_instances, InstanceIds=[two[0]]) == "IncorrectInstanceState"


def test_calls_are_logged_by_who_made_them_without_secrets(site: Site, two: tuple[str, str]) -> None:
    spec = site.instances.specs[two[0]]
    site.ec2(spec.access_key_id).describe_addresses()
    assert error_of(site.ec2().delete_volume, VolumeId="vol-00000000") == "InvalidVolume.NotFound"
    assert error_of(site.ec2("nobody").describe_addresses) == "AuthFailure"
    *_, by_node, refused, stranger = site.calls()
    assert (by_node["who"], by_node["action"], by_node["status"], by_node["error"]) == (
        "a",
        "DescribeAddresses",
        200,
        None,
    )
    assert (refused["who"], refused["error"]) == ("harness", "InvalidVolume.NotFound")
    assert refused["params"] == {"VolumeId": "vol-00000000"}
    assert (stranger["who"], stranger["status"]) == ("unknown", 401)
    text = (site.topology.state_dir / "cloud-calls.jsonl").read_text()
    assert "Signature" not in text and spec.secret_access_key not in text


def test_what_the_region_has_no_opinion_on_passes_through(site: Site, two: tuple[str, str]) -> None:
    ec2 = site.ec2()
    ec2.create_tags(Resources=[two[0]], Tags=[{"Key": "cluster", "Value": "pbx"}])
    filters: Any = [{"Name": "tag:cluster", "Values": ["pbx"]}]
    assert len(ec2.describe_instances(Filters=filters)["Reservations"]) == 1
    sts = boto3.client(
        "sts", endpoint_url=site.url, region_name="us-east-1", aws_access_key_id=KEY, aws_secret_access_key="x"
    )
    assert sts.get_caller_identity()["Account"] == "123456789012"
    zones = ec2.describe_availability_zones()["AvailabilityZones"]
    assert ZONE in [zone["ZoneName"] for zone in zones]


def test_a_new_gateway_takes_up_what_the_old_one_left(site: Site, two: tuple[str, str]) -> None:
    cloud = site.cloud()
    volume_id, address = cloud.create_volume(size_gib=1), cloud.allocate_address()
    cloud.attach(volume_id, two[0])
    cloud.associate(address.allocation_id, two[0])
    site.volumes.mounted.add(volume_id)
    site.ec2().detach_volume(VolumeId=volume_id)
    site.plane.close()  # the old gateway is gone: its waiting workers end, the volume stays `detaching`
    state = site.plane.state
    state.put(replace(state.instances[two[1]], transition="stopping", how="power_off"))
    site.addresses.known = {}
    site.volumes.mounted.clear()
    plane = site.new_plane()
    ec2_addresses.resume(plane)
    ec2_instances.resume(plane)
    ec2_volumes.resume(plane)
    wait_for("stopped", lambda: site.instances.power(two[1]) == "off", timeout_s=5)
    wait_for("detached", lambda: plane.state.volumes[volume_id].attachment is None, timeout_s=5)
    assert site.addresses.table() == {IPv4Address(address.public_ip): site.topology.node_address(1)}
    plane.close()


def test_a_detach_that_the_books_know_of_already_comes_to_its_end(site: Site, two: tuple[str, str]) -> None:
    cloud = site.cloud()
    volume_id = cloud.create_volume(size_gib=1)
    cloud.attach(volume_id, two[0])
    site.books.call("DetachVolume", {"VolumeId": volume_id, "InstanceId": two[0]})  # and then the gateway was killed
    site.ec2().detach_volume(VolumeId=volume_id)
    wait_for("detached", lambda: site.plane.state.volumes[volume_id].attachment is None, timeout_s=5)


def test_a_detach_that_fails_can_be_asked_for_again(site: Site, two: tuple[str, str]) -> None:
    cloud = site.cloud()
    volume_id = cloud.create_volume(size_gib=1)
    cloud.attach(volume_id, two[0])
    site.volumes.fail_detach = True
    site.ec2().detach_volume(VolumeId=volume_id)
    wait_for("the journal", lambda: any(r["event"] == "operation_failed" for r in site.journal.rows), timeout_s=5)
    place = cloud.volume_attachment(volume_id)
    assert place is not None and place.state == "attached"
    site.volumes.fail_detach = False
    cloud.detach(volume_id, timeout_s=5)


def test_a_start_that_somebody_else_overtakes_is_no_error(site: Site, two: tuple[str, str]) -> None:
    site.ec2().stop_instances(InstanceIds=[two[0]])
    site.cloud().wait_state(two[0], "stopped", timeout_s=5)
    site.instances.gate.clear()
    state = site.plane.state
    state.put(replace(state.instances[two[0]], transition="stopping"))
    site.cloud()._start(two[0])
    state.put(replace(state.instances[two[0]], transition=None))
    site.instances.gate.set()
    site.cloud().ensure_started(two[0], timeout_s=5)
    assert site.cloud().instance_state(two[0]) == "running"


@pytest.mark.parametrize("size", ["0", "-1", "x", "100000"])
def test_a_size_that_no_volume_has_is_refused(site: Site, size: str) -> None:
    with pytest.raises(AwsError, match="InvalidParameterValue"):
        ec2_volumes.create_volume(site.plane, Call(
            service="ec2", action="CreateVolume", params={"Size": size, "AvailabilityZone": ZONE},
            access_key_id=KEY, source="", request_id="r",
        ))  # fmt: skip
