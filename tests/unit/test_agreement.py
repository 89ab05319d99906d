"""A gateway that is killed in the middle of a call: whenever it is, the next one finds or makes one whole of it.

The dying one is a plane in this process that stops at one of its seams (books, disk, router, state file) and is never
heard of again; the next one knows what is on disk and what the data plane and the books really did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, cast

import boto3
import pytest

from harness import topology as topologies
from harness.command import wait_for
from harness.region import (
    address_agreement,
    ec2_addresses,
    ec2_instances,
    ec2_launch,
    ec2_volumes,
    idempotency,
    instance_agreement,
)
from harness.region import state as state_module
from harness.region.books import Books
from harness.region.calls import AwsError, Call, Document
from harness.region.gateway import carry_out
from harness.region.plane import Plane
from harness.region.semantics.addresses import agreed
from harness.region.state import Address, Instance
from harness.topology import ZONE
from tests.contract.local import LocalSite, local_site
from tests.in_process import moto

MOST_SEAMS = 200


class Killed(BaseException):
    """kill -9: nothing that catches exceptions notices."""


@dataclass
class Death:
    """Comes at the `at`-th seam that is passed, counting both sides of each: before the thing is done, and after."""

    at: int
    passed: int = 0

    def step(self) -> None:
        self.passed += 1
        if self.passed > self.at:
            raise Killed

    def around(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def mortal(*arguments: Any, **options: Any) -> Any:
            self.step()
            result = work(*arguments, **options)
            self.step()
            return result

        return mortal


@dataclass
class Mortal:
    """A part of the plane in which the gateway may die."""

    real: Any
    death: Death
    seams: tuple[str, ...]

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.real, name)
        return self.death.around(found) if name in self.seams else found


@dataclass
class Region:
    """A data plane and books that outlive any gateway."""

    site: LocalSite
    planes: list[Plane] = field(default_factory=list)

    def dies(self, at: int, action: str, **params: str) -> bool:
        """Make a call of a gateway that dies at this seam; False when it lived to answer."""
        death = Death(at)
        plane = self._new_plane()
        plane.books = cast(Any, Mortal(plane.books, death, ("call",)))
        plane.volumes = cast(Any, Mortal(plane.volumes, death, ("create", "delete")))
        plane.addresses = cast(Any, Mortal(plane.addresses, death, ("change",)))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(plane, "background", lambda *_: None)  # its workers die with it
            for module in (state_module, idempotency):
                patch.setattr(module, "write_json", death.around(vars(module)["write_json"]))
            try:
                call(plane, action, **params)
            except Killed:
                return True
        return False

    def next_gateway(self) -> Plane:
        """As gateway.build makes it."""
        plane = self._new_plane()
        instance_agreement.restore(plane)
        ec2_addresses.resume(plane)
        ec2_volumes.resume(plane)
        ec2_launch.resume(plane)
        ec2_instances.resume(plane)
        self.site.plane = plane
        return plane

    def launch(self, number: int, **params: str) -> str:
        """A running instance at this address of the subnet."""
        plane = self.next_gateway()
        (instance_id,) = ids(call(plane, "RunInstances", PrivateIpAddress=self.site.ip(number), **self.one(), **params))
        running(plane, instance_id)
        return instance_id

    def _new_plane(self) -> Plane:
        """There is one gateway at a time: what the last one's workers were doing is done, or dead with it."""
        self.close()
        self.planes.append(self.site.new_plane())
        return self.planes[-1]

    def close(self) -> None:
        while self.planes:
            self.planes.pop().close()

    def one(self) -> dict[str, str]:
        return {"ImageId": self.site.image_id, "SubnetId": self.site.subnet_id, "MinCount": "1", "MaxCount": "1"}


@pytest.fixture(scope="module")
def books() -> Iterator[Books]:
    with moto() as made:
        yield made


@pytest.fixture(scope="module")
def session() -> boto3.session.Session:
    return boto3.session.Session()


@pytest.fixture
def region(
    books: Books, session: boto3.session.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Region]:
    monkeypatch.setattr(topologies, "STATE_ROOT", tmp_path)
    with ExitStack() as stack:
        made = Region(stack.enter_context(local_site(books, session)))
        stack.callback(made.close)
        yield made


def call(plane: Plane, action: str, **params: str) -> Document:
    """Parameters by their names on the wire, with `_` for the dots."""
    sent = {name.replace("_", "."): value for name, value in params.items()}
    made = Call(service="ec2", action=action, params=sent, access_key_id="k", source="", request_id="r")
    return Document(carry_out(plane, made))


def ids(answer: Document) -> list[str]:
    return [item.findtext("instanceId") or "" for item in answer.items("instancesSet")]


def running(plane: Plane, instance_id: str) -> None:
    state = plane.state
    wait_for("running", lambda: plane.state_of(state.instances[instance_id]) == "running", timeout_s=5, every_s=0.002)


def living(plane: Plane) -> list[str]:
    return sorted(i for i, record in plane.state.instances.items() if not record.terminated)


def in_books(plane: Plane) -> list[str]:
    items = plane.books.call("DescribeInstances", {}).items("reservationSet", "instancesSet")
    return sorted(i.findtext("instanceId") or "" for i in items if i.findtext("instanceState/name") != "terminated")


def test_a_launch_with_a_token_is_one_launch_wherever_the_gateway_died(region: Region) -> None:
    for at in range(MOST_SEAMS):
        volume = {"BlockDeviceMapping_1_DeviceName": "/dev/sdf", "BlockDeviceMapping_1_Ebs_VolumeSize": "1"}
        asked = {**region.one(), "PrivateIpAddress": region.site.ip(11), "ClientToken": f"launch-{at}", **volume}
        died = region.dies(at, "RunInstances", **asked)
        plane = region.next_gateway()
        first, again = (ids(call(plane, "RunInstances", **asked)) for _ in range(2))
        assert first == again == living(plane) == in_books(plane), at
        running(plane, first[0])
        (made,) = plane.state.volumes_of(first[0])
        disk = region.site.volumes.places[made.volume_id]
        wait_for("the disk in the guest", lambda d=disk: list(d), timeout_s=5, every_s=0.002)  # type: ignore[misc]
        assert list(plane.state.volumes) == plane.volumes.list() == [made.volume_id], at
        told = {i.findtext("volumeId"): i for i in plane.books.call("DescribeVolumes", {}).items("volumeSet")}
        data = [i for i, item in told.items() if item.findtext("attachmentSet/item/device") == "/dev/sdf"]
        assert data == [made.volume_id], at
        call(plane, "TerminateInstances", InstanceId_1=first[0])
        wait_for("terminated", lambda p=plane: not living(p), timeout_s=5, every_s=0.002)  # type: ignore[misc]
        assert plane.volumes.list() == [], at
        if not died:
            return
    pytest.fail(f"more than {MOST_SEAMS} seams")


def test_a_volume_with_a_token_is_one_volume_wherever_the_gateway_died(region: Region) -> None:
    for at in range(MOST_SEAMS):
        asked = {"AvailabilityZone": ZONE, "Size": "1", "ClientToken": f"volume-{at}"}
        died = region.dies(at, "CreateVolume", **asked)
        plane = region.next_gateway()
        made = {call(plane, "CreateVolume", **asked).root.findtext("volumeId") or "" for _ in range(2)}
        assert made == set(plane.state.volumes) == set(plane.volumes.list()), at
        told = plane.books.call("DescribeVolumes", {}).items("volumeSet")
        assert made == {item.findtext("volumeId") for item in told}, at
        wait_for("available", lambda s=plane.state: not s.volumes[min(s.volumes)].creating, timeout_s=5, every_s=0.002)  # type: ignore[misc]
        call(plane, "DeleteVolume", VolumeId=made.pop())
        if not died:
            return
    pytest.fail(f"more than {MOST_SEAMS} seams")


def test_the_retried_call_is_answered_like_the_first(region: Region) -> None:
    plane = region.next_gateway()
    asked = {**region.one(), "MaxCount": "2", "ClientToken": "twins"}
    first = call(plane, "RunInstances", **asked)
    for instance_id in ids(first):
        running(plane, instance_id)
    (region.site.topology.state_dir / idempotency.FILE).unlink()
    plane = region.next_gateway()
    again = call(plane, "RunInstances", **asked)
    assert ids(again) == ids(first)
    assert [e.tag for e in again.root if e.tag != "requestId"] == [e.tag for e in first.root if e.tag != "requestId"]
    shown = [(i.findtext("privateIpAddress"), i.findtext("amiLaunchIndex")) for i in again.items("instancesSet")]
    assert shown == [
        (i.findtext("privateIpAddress"), i.findtext("amiLaunchIndex")) for i in first.items("instancesSet")
    ]
    with pytest.raises(AwsError, match="IdempotentParameterMismatch"):
        call(plane, "RunInstances", **{**asked, "MaxCount": "3"})
    call(plane, "TerminateInstances", InstanceId_1=ids(first)[0])
    wait_for("terminated", lambda: len(living(plane)) == 1, timeout_s=5, every_s=0.002)
    with pytest.raises(AwsError, match="IdempotentInstanceTerminated"):
        call(plane, "RunInstances", **asked)


def test_a_launch_that_failed_does_not_use_its_token_up(region: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    plane = region.next_gateway()
    disk = {"BlockDeviceMapping_1_DeviceName": "/dev/sdf", "BlockDeviceMapping_1_Ebs_VolumeSize": "1"}
    asked = {**region.one(), **disk, "ClientToken": "full"}
    with monkeypatch.context() as full:
        full.setattr(plane.volumes, "create", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            call(plane, "RunInstances", **asked)
    assert living(plane) == in_books(plane) == plane.volumes.list() == list(plane.state.volumes) == []
    (made,) = ids(call(plane, "RunInstances", **asked))
    running(plane, made)


def test_a_launch_that_the_disk_refuses_has_not_happened(region: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    plane = region.next_gateway()
    disk = {"BlockDeviceMapping_1_DeviceName": "/dev/sdf", "BlockDeviceMapping_1_Ebs_VolumeSize": "1"}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(state_module, "write_json", full)
        with pytest.raises(OSError, match="No space"):
            call(plane, "RunInstances", **region.one(), **disk)
        with pytest.raises(OSError, match="No space"):
            call(plane, "CreateVolume", AvailabilityZone=ZONE, Size="1")
    assert living(plane) == in_books(plane) == plane.volumes.list() == list(plane.state.volumes) == []
    assert list(plane.books.call("DescribeVolumes", {}).items("volumeSet")) == []


def test_nobody_sees_what_the_books_have_before_it_is_written_down(region: Region) -> None:
    """No Describe call waits for a lock, and no call sees half of another one."""
    plane = region.next_gateway()
    disk = {"BlockDeviceMapping_1_DeviceName": "/dev/sdf", "BlockDeviceMapping_1_Ebs_VolumeSize": "1"}
    told = plane.books
    sets = {
        "DescribeAddresses": "addressesSet",
        "DescribeInstances": "reservationSet",
        "DescribeNetworkInterfaces": "networkInterfaceSet",
        "DescribeVolumes": "volumeSet",
    }
    seen: list[str] = []

    class Watched:
        def call(self, action: str, params: Any) -> Document:
            answer = told.call(action, params)
            if not action.startswith("Describe"):
                plane.books = told
                seen.extend(f"{action}: {name}" for name, of in sets.items() if list(call(plane, name).items(of)))
                plane.books = cast(Any, self)
            return answer

    plane.books = cast(Any, Watched())
    (instance_id,) = ids(call(plane, "RunInstances", **region.one(), **disk))
    assert seen == []
    plane.books = told
    running(plane, instance_id)
    assert all(list(call(plane, name).items(of)) for name, of in sets.items() if name != "DescribeAddresses")
    plane.books = cast(Any, Watched())
    call(plane, "AllocateAddress")
    assert not [line for line in seen if "DescribeAddresses" in line]


@pytest.mark.parametrize("own", [False, True], ids=["two Elastic IPs", "a public address of its own"])
def test_an_association_is_whole_or_not_there_wherever_the_gateway_died(region: Region, own: bool) -> None:
    """The address goes from the first node to the second, which gives up the one that it has."""
    nic = {"NetworkInterface_1_DeviceIndex": "0", "NetworkInterface_1_AssociatePublicIpAddress": "true"}
    a = region.launch(11)
    plane = region.next_gateway()
    wanted = {**region.one(), **nic, "NetworkInterface_1_SubnetId": region.site.subnet_id} if own else region.one()
    if own:
        del wanted["SubnetId"]
    (b,) = ids(call(plane, "RunInstances", **wanted))
    running(plane, b)
    moved, other = (call(plane, "AllocateAddress", Domain="vpc").root.findtext("allocationId") or "" for _ in range(2))
    for at in range(MOST_SEAMS):
        call(plane, "AssociateAddress", AllocationId=moved, InstanceId=a)
        if not own:
            call(plane, "AssociateAddress", AllocationId=other, InstanceId=b)
        before = published(plane)
        died = region.dies(at, "AssociateAddress", AllocationId=moved, InstanceId=b)
        plane = region.next_gateway()
        truth = published(plane)
        assert plane.addresses.table() == truth, at
        public = IPv4Address(plane.state.addresses[moved].public_ip)
        after = {public: IPv4Address(plane.state.instances[b].private_ip)}
        assert truth in ([before, after] if died else [after]), at
        holder = next(call(plane, "DescribeAddresses", AllocationId_1=moved).items("addressesSet")).findtext(
            "instanceId"
        )
        assert holder == (a if truth == before else b), at
        if not died:
            return
    pytest.fail(f"more than {MOST_SEAMS} seams")


def published(plane: Plane) -> dict[IPv4Address, IPv4Address]:
    """What is written down: public address -> private one."""
    tables = plane.state.now()
    elastic = {a.public_ip: a.private_ip for a in tables.addresses.values() if a.private_ip}
    own = {i.own_public: i.private_ip for i in tables.instances.values() if i.own_public and not i.terminated}
    assert not set(elastic.values()) & set(own.values()), "two public addresses lead to one private address"
    return {IPv4Address(public): IPv4Address(private) for public, private in (elastic | own).items()}


@pytest.mark.parametrize("action", ["AllocateAddress", "ReleaseAddress"])
def test_an_address_is_allocated_or_not_wherever_the_gateway_died(region: Region, action: str) -> None:
    plane = region.next_gateway()
    for at in range(MOST_SEAMS):
        params = {"Domain": "vpc"}
        if action == "ReleaseAddress":
            params = {"AllocationId": call(plane, "AllocateAddress").root.findtext("allocationId") or ""}
        died = region.dies(at, action, **params)
        plane = region.next_gateway()
        told = plane.books.call("DescribeAddresses", {}).items("addressesSet")
        known = {item.findtext("allocationId") for item in told}
        assert known == set(plane.state.addresses), at
        for allocation_id in list(plane.state.addresses):
            call(plane, "ReleaseAddress", AllocationId=allocation_id)
        if not died:
            return
    pytest.fail(f"more than {MOST_SEAMS} seams")


def test_a_termination_is_whole_or_not_there_wherever_the_gateway_died(region: Region) -> None:
    for at in range(MOST_SEAMS):
        instance_id = region.launch(11)
        plane = region.next_gateway()
        allocation_id = call(plane, "AllocateAddress").root.findtext("allocationId") or ""
        call(plane, "AssociateAddress", AllocationId=allocation_id, InstanceId=instance_id)
        died = region.dies(at, "TerminateInstances", InstanceId_1=instance_id)
        plane = region.next_gateway()
        ended = plane.state.instances[instance_id].transition == "shutting-down" or not living(plane)
        assert ended or plane.state_of(plane.state.instances[instance_id]) == "running", at
        assert plane.state.addresses[allocation_id].instance_id == (None if ended else instance_id), at
        assert bool(plane.addresses.table()) is not ended, at
        if not ended:
            call(plane, "TerminateInstances", InstanceId_1=instance_id)
        wait_for("terminated", lambda p=plane: not living(p), timeout_s=5, every_s=0.002)  # type: ignore[misc]
        assert in_books(plane) == [], at
        call(plane, "ReleaseAddress", AllocationId=allocation_id)
        if not died:
            return
    pytest.fail(f"more than {MOST_SEAMS} seams")


def test_books_that_are_away_do_not_keep_a_gateway_from_starting(region: Region) -> None:
    plane = region.next_gateway()
    before = plane.state.now()
    plane.books = Books(host="127.0.0.1", port=1)
    instance_agreement.restore(plane)
    address_agreement.restore(plane)
    assert plane.state.now() == before


A = Instance(
    instance_id="i-a", name="a", image="", private_ip="198.18.4.11", interface_id="eni-a", access_key_id="",
    secret_access_key="",
)  # fmt: skip
EIP = Address(
    allocation_id="eipalloc-1", public_ip="203.0.113.33", association_id="eipassoc-1", instance_id="i-a",
    private_ip="198.18.4.11",
)  # fmt: skip
NOBODYS = replace(EIP, association_id=None, instance_id=None, private_ip=None)
OWN = replace(A, own_public="203.0.113.40")


@pytest.mark.parametrize(
    ("addresses", "instances", "mended"),
    [
        pytest.param([EIP], [A], ([], []), id="nothing to mend"),
        pytest.param([NOBODYS], [], ([], []), id="nobody's"),
        pytest.param([EIP], [], ([NOBODYS], []), id="an unknown instance"),
        pytest.param([EIP], [replace(A, terminated=True)], ([NOBODYS], []), id="a terminated instance"),
        pytest.param([EIP], [replace(A, private_ip="198.18.4.12")], ([NOBODYS], []), id="another private address"),
        pytest.param(
            [EIP, replace(EIP, allocation_id="eipalloc-2")], [A], ([NOBODYS], []), id="two at one private address"
        ),
        pytest.param([EIP], [OWN], ([], [A]), id="an Elastic IP and one of its own"),
        pytest.param([NOBODYS], [OWN], ([], []), id="one of its own"),
        pytest.param(
            [], [replace(OWN, terminated=True)], ([], [replace(A, terminated=True)]), id="one of a terminated instance"
        ),
        pytest.param(
            [replace(EIP, private_ip="198.18.4.50")],
            [replace(OWN, secondary_ips=("198.18.4.50",))],
            ([], []),
            id="an Elastic IP at a secondary address",
        ),
    ],
)
def test_what_is_written_down_does_not_contradict_itself(
    addresses: list[Address], instances: list[Instance], mended: Any
) -> None:
    assert agreed(addresses, instances) == mended
