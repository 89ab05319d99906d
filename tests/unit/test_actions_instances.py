"""The actions on instances, as calls: a data plane of dictionaries, and moto in this process for the books."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from harness import topology as topologies
from harness.command import wait_for
from harness.region import capacity, ec2_instances, ec2_launch, recovery
from harness.region.actions import ACTIONS
from harness.region.books import Books
from harness.region.calls import AwsError, Call, Document
from harness.region.plane import Plane
from harness.region.semantics.instances import INSTANCE_LIMIT, TERMINATED_VISIBLE_S
from harness.region.state import State
from harness.region.timing import Delays
from harness.topology import Topology
from tests.in_process import moto
from tests.planes import FakeAddresses, FakeInstances, FakeJournal, FakeVolumes

GONE = "i-0123456789abcdef0"


@pytest.fixture(scope="module")
def books() -> Iterator[Books]:
    with moto() as made:
        made.call("RegisterImage", {"Name": "node:test", "RootDeviceName": "/dev/xvda", "Architecture": "x86_64"})
        yield made


class Region:
    """A plane, and calls on it as the gateway makes them."""

    def __init__(self, books: Books) -> None:
        self.topology = Topology(cell="unit-instances", slot=2)
        (self.topology.state_dir / "metadata").mkdir(parents=True)
        self.books, self.journal = books, FakeJournal()
        self.machines, self.volumes = FakeInstances(), FakeVolumes()
        self.now_s = 1_000_000.0
        self.plane = self.new_plane()
        images = books.call("DescribeImages", {"Filter.1.Name": "name", "Filter.1.Value.1": "node:test"})
        self.image = next(images.items("imagesSet")).findtext("imageId") or ""
        vpc = books.call("CreateVpc", {"CidrBlock": str(self.topology.vpc_subnet)}).root.findtext("vpc/vpcId") or ""
        self.subnet = self.new_subnet(vpc, str(self.topology.vpc_subnet), topologies.ZONE)

    def new_subnet(self, vpc_id: str, block: str, zone: str) -> str:
        where = {"VpcId": vpc_id, "CidrBlock": block, "AvailabilityZone": zone}
        return self.books.call("CreateSubnet", where).root.findtext("subnet/subnetId") or ""

    def new_plane(self) -> Plane:
        return Plane(
            topology=self.topology,
            state=State(self.topology.state_dir),
            books=self.books,
            journal=cast(Any, self.journal),
            instances=cast(Any, self.machines),
            volumes=cast(Any, self.volumes),
            addresses=cast(Any, FakeAddresses()),
            delays=Delays(),
            wall_s=lambda: self.now_s,
        )

    def call(self, action: str, **params: str) -> Document:
        """Parameters by their names on the wire, with `_` for the dots."""
        sent = {name.replace("_", "."): value for name, value in params.items()}
        made = Call(service="ec2", action=action, params=sent, access_key_id="k", source="", request_id="r")
        return Document(ACTIONS[action](self.plane, made))

    def error(self, action: str, **params: str) -> str:
        with pytest.raises(AwsError) as caught:
            self.call(action, **params)
        return caught.value.code

    def run(self, count: int = 1, **params: str) -> list[str]:
        """Launch instances and wait until they run; their ids."""
        counts = {"MinCount": str(count), "MaxCount": str(count)}
        asked = {"ImageId": self.image, "SubnetId": self.subnet, **counts, **params}
        made = self.call("RunInstances", **asked)
        ids = [item.findtext("instanceId") or "" for item in made.items("instancesSet")]
        for instance_id in ids:
            self.until(instance_id, "running")
        return ids

    def shown(self, instance_id: str) -> Any:
        return next(self.call("DescribeInstances", InstanceId_1=instance_id).items("reservationSet", "instancesSet"))

    def state(self, instance_id: str) -> str:
        return str(self.shown(instance_id).findtext("instanceState/name"))

    def until(self, instance_id: str, state: str) -> None:
        wait_for(f"{instance_id} {state}", lambda: self.state(instance_id) == state, timeout_s=5, every_s=0.002)

    def checks(self, instance_id: str, **params: str) -> tuple[str | None, str | None] | None:
        answer = self.call("DescribeInstanceStatus", InstanceId_1=instance_id, **params)
        item = next(answer.items("instanceStatusSet"), None)
        return None if item is None else (item.findtext("systemStatus/status"), item.findtext("instanceStatus/status"))


@pytest.fixture
def region(books: Books, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Region]:
    monkeypatch.setattr(topologies, "STATE_ROOT", tmp_path)
    made = Region(books)
    yield made
    made.machines.gate.set()
    made.plane.close()


@pytest.fixture
def one(region: Region) -> str:
    return region.run()[0]


def stopped(region: Region, instance_id: str) -> str:
    region.call("StopInstances", InstanceId_1=instance_id)
    region.until(instance_id, "stopped")
    return instance_id


def test_several_instances_of_one_call_have_addresses_of_their_own(region: Region) -> None:
    tags = {"TagSpecification_1_ResourceType": "instance", "TagSpecification_1_Tag_1_Key": "role"}
    ids = region.run(3, InstanceType="m5.large", TagSpecification_1_Tag_1_Value="node", **tags)
    items = [region.shown(i) for i in ids]
    assert [i.findtext("privateIpAddress") for i in items] == ["198.18.4.11", "198.18.4.12", "198.18.4.13"]
    assert {i.findtext("instanceType") for i in items} == {"m5.large"}
    assert {i.findtext("tagSet/item/value") for i in items} == {"node"}
    assert sorted(region.machines.specs) == sorted(ids)


def test_a_launch_is_all_or_nothing(region: Region) -> None:
    few = str(INSTANCE_LIMIT + 1)
    counts = {"ImageId": region.image, "MinCount": few, "MaxCount": few}
    assert region.error("RunInstances", **counts) == "InstanceLimitExceeded"
    devices = {"BlockDeviceMapping_1_DeviceName": "/dev/sdf", "BlockDeviceMapping_1_Ebs_VolumeSize": "99999"}
    asked = {"ImageId": region.image, "SubnetId": region.subnet, "MinCount": "2", "MaxCount": "2"}
    assert region.error("RunInstances", **asked, **devices) == "InvalidParameterValue"
    assert not list(region.call("DescribeInstances").items("reservationSet", "instancesSet"))
    assert region.run(PrivateIpAddress="198.18.4.11")
    assert not region.volumes.places


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"ImageId": "ami-00000000000000000"}, "InvalidAMIID.NotFound"),
        ({"ImageId": "centos"}, "InvalidAMIID.Malformed"),
        ({"SubnetId": "subnet-00000000000000000"}, "InvalidSubnetID.NotFound"),
        ({"InstanceType": "huge"}, "InvalidParameterValue"),
        ({"MinCount": "2", "MaxCount": "2", "PrivateIpAddress": "198.18.4.20"}, "InvalidParameterCombination"),
        ({"MinCount": "0"}, "InvalidParameterValue"),
        ({"MinCount": ""}, "MissingParameter"),
        ({"NetworkInterface_1_DeviceIndex": "0"}, "InvalidParameterCombination"),
        ({"UserData": "%%%"}, "InvalidUserData.Malformed"),
        ({"IamInstanceProfile_Arn": "role/x"}, "InvalidParameterValue"),
        ({"InstanceInitiatedShutdownBehavior": "terminate"}, "UnsupportedOperation"),
        ({"BlockDeviceMapping_1_DeviceName": "/dev/sdf"}, "MissingParameter"),
        (
            {"BlockDeviceMapping_1_DeviceName": "/dev/sdf", "BlockDeviceMapping_1_Ebs_SnapshotId": "snap-1"},
            "UnsupportedOperation",
        ),
        (
            {"BlockDeviceMapping_1_DeviceName": "sdf", "BlockDeviceMapping_1_Ebs_VolumeSize": "8"},
            "InvalidParameterValue",
        ),
        ({"DryRun": "true"}, "DryRunOperation"),
    ],
)
def test_a_launch_that_is_refused_leaves_nothing(region: Region, params: dict[str, str], code: str) -> None:
    asked = {"ImageId": region.image, "SubnetId": region.subnet, "MinCount": "1", "MaxCount": "1", **params}
    assert region.error("RunInstances", **asked) == code
    assert not region.plane.state.instances and not region.machines.specs


def test_a_profile_and_user_data_are_kept(region: Region) -> None:
    user_data = base64.b64encode(b"#!/bin/sh\n").decode()
    (instance_id,) = region.run(IamInstanceProfile_Name="pbx", UserData=user_data)
    arn = region.shown(instance_id).findtext("iamInstanceProfile/arn")
    assert arn == "arn:aws:iam::123456789012:instance-profile/pbx"
    assert region.machines.specs[instance_id].user_data == "#!/bin/sh\n"


def test_a_launch_that_fails_is_terminated_and_takes_its_volume_along(region: Region) -> None:
    region.machines.fail_launch = True
    devices = {"BlockDeviceMapping_1_DeviceName": "/dev/sdf", "BlockDeviceMapping_1_Ebs_VolumeSize": "8"}
    counts = {"ImageId": region.image, "SubnetId": region.subnet, "MinCount": "1", "MaxCount": "1"}
    made = region.call("RunInstances", **counts, **devices)
    instance_id = next(made.items("instancesSet")).findtext("instanceId") or ""
    region.until(instance_id, "terminated")
    assert region.shown(instance_id).findtext("stateReason/code") == "Server.InternalError"
    assert region.volumes.places == {} and not region.plane.state.volumes


def test_a_volume_made_at_launch_goes_with_its_instance_and_another_stays(region: Region) -> None:
    first, second = ("BlockDeviceMapping_1", "BlockDeviceMapping_2")
    devices = {f"{first}_DeviceName": "/dev/sdf", f"{first}_Ebs_VolumeSize": "8"}
    devices |= {f"{second}_DeviceName": "/dev/sdg", f"{second}_Ebs_VolumeSize": "9"}
    (instance_id,) = region.run(**devices, **{f"{second}_Ebs_DeleteOnTermination": "false"})
    shown = {
        item.findtext("deviceName"): item.findtext("ebs/deleteOnTermination")
        for item in region.shown(instance_id).findall("blockDeviceMapping/item")
    }
    assert (shown["/dev/sdf"], shown["/dev/sdg"]) == ("true", "false")
    assert {place.device for places in region.volumes.places.values() for place in places.values()} == {
        "/dev/sdf",
        "/dev/sdg",
    }
    region.call("TerminateInstances", InstanceId_1=instance_id)
    region.until(instance_id, "terminated")
    (left,) = region.plane.state.volumes.values()
    assert (left.size_gib, left.attachments) == (9, ())
    assert list(region.volumes.places) == [left.volume_id]


def test_what_goes_with_an_instance_can_be_changed(region: Region, one: str) -> None:
    created = region.call("CreateVolume", Size="8", AvailabilityZone=topologies.ZONE)
    volume_id = created.root.findtext("volumeId") or ""
    wait_for("available", lambda: not region.plane.state.volumes[volume_id].creating, timeout_s=5, every_s=0.002)
    region.call("AttachVolume", VolumeId=volume_id, InstanceId=one, Device="/dev/sdf")
    flag = "volumeSet/item/attachmentSet/item/deleteOnTermination"
    assert region.call("DescribeVolumes", VolumeId_1=volume_id).root.findtext(flag) == "false"
    change = {"BlockDeviceMapping_1_Ebs_DeleteOnTermination": "true", "InstanceId": one}
    refused = region.error("ModifyInstanceAttribute", BlockDeviceMapping_1_DeviceName="/dev/sdz", **change)
    assert refused == "InvalidInstanceAttributeValue"
    region.call("ModifyInstanceAttribute", BlockDeviceMapping_1_DeviceName="/dev/sdf", **change)
    assert region.call("DescribeVolumes", VolumeId_1=volume_id).root.findtext(flag) == "true"
    region.call("TerminateInstances", InstanceId_1=one)
    region.until(one, "terminated")
    assert not region.plane.state.volumes


def test_a_protected_instance_is_not_fenced(region: Region, one: str) -> None:
    (other,) = region.run()
    region.call("ModifyInstanceAttribute", InstanceId=one, DisableApiStop_Value="true")
    shown = region.call("DescribeInstanceAttribute", InstanceId=one, Attribute="disableApiStop")
    assert shown.root.findtext("disableApiStop/value") == "true"
    both = {"InstanceId_1": other, "InstanceId_2": one, "Force": "true", "SkipOsShutdown": "true"}
    assert region.error("StopInstances", **both) == "OperationNotPermitted"
    assert region.error("TerminateInstances", InstanceId_1=one) == "OperationNotPermitted"
    assert region.state(other) == "running"
    region.call("RebootInstances", InstanceId_1=one)
    wait_for("the reboot", lambda: ("start", one) in region.machines.done, timeout_s=5, every_s=0.002)
    region.call("ModifyInstanceAttribute", InstanceId=one, Attribute="disableApiStop", Value="false")
    region.call("ModifyInstanceAttribute", InstanceId=one, DisableApiTermination_Value="true")
    assert region.error("TerminateInstances", InstanceId_1=one) == "OperationNotPermitted"
    stopped(region, one)


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({}, "InvalidParameterCombination"),
        ({"DisableApiStop_Value": "true", "DisableApiTermination_Value": "true"}, "InvalidParameterCombination"),
        ({"DisableApiStop_Value": "perhaps"}, "InvalidParameterValue"),
        ({"InstanceType_Value": "m5.large"}, "IncorrectInstanceState"),
        ({"InstanceInitiatedShutdownBehavior_Value": "terminate"}, "UnsupportedOperation"),
        ({"InstanceId": GONE, "DisableApiStop_Value": "true"}, "InvalidInstanceID.NotFound"),
    ],
)
def test_attributes_that_are_refused(region: Region, one: str, params: dict[str, str], code: str) -> None:
    assert region.error("ModifyInstanceAttribute", **{"InstanceId": one, **params}) == code


def test_another_type_for_a_stopped_instance(region: Region, one: str) -> None:
    stopped(region, one)
    region.call("ModifyInstanceAttribute", InstanceId=one, InstanceType_Value="m5.xlarge")
    assert region.shown(one).findtext("instanceType") == "m5.xlarge"


@pytest.mark.parametrize("who", [None, capacity.EVERY])
def test_without_capacity_a_stopped_instance_stays_stopped(region: Region, one: str, who: str | None) -> None:
    stopped(region, one)
    capacity.control(region.plane, {"no_capacity": [who or one]})
    with pytest.raises(AwsError) as caught:
        region.call("StartInstances", InstanceId_1=one)
    assert (caught.value.code, caught.value.status) == ("InsufficientInstanceCapacity", 500)
    assert region.state(one) == "stopped"
    capacity.control(region.plane, {"no_capacity": []})
    region.call("StartInstances", InstanceId_1=one)
    region.until(one, "running")


def test_without_capacity_nothing_is_launched_but_what_is_there_starts(region: Region, one: str) -> None:
    stopped(region, one)
    capacity.exhaust(region.topology, [capacity.LAUNCH])
    counts = {"ImageId": region.image, "MinCount": "1", "MaxCount": "1"}
    assert region.error("RunInstances", **counts) == "InsufficientInstanceCapacity"
    region.call("StartInstances", InstanceId_1=one)
    region.until(one, "running")


@pytest.mark.parametrize("wanted", [None, [], {"no_capacity": "all"}, {"no_capacity": [1]}, {"no_capacity": [GONE]}])
def test_a_control_call_that_makes_no_sense_is_refused(region: Region, wanted: Any) -> None:
    with pytest.raises(ValueError, match="capacity: "):
        capacity.control(region.plane, wanted)
    assert capacity.exhausted(region.topology) == frozenset()


def test_who_made_it_stop_is_told(region: Region, one: str) -> None:
    assert region.shown(one).find("stateReason") is None
    stopped(region, one)
    shown = region.shown(one)
    assert shown.findtext("stateReason/code") == "Client.UserInitiatedShutdown"
    assert (shown.findtext("reason") or "").startswith("User initiated (")
    region.call("StartInstances", InstanceId_1=one)
    region.until(one, "running")
    assert region.shown(one).findtext("reason") == ""
    region.machines.powers[one] = "off"
    assert region.shown(one).findtext("stateReason/code") == "Client.InstanceInitiatedShutdown"


def test_a_start_that_fails_leaves_it_stopped_with_a_reason(region: Region, one: str) -> None:
    stopped(region, one)
    region.machines.fail_start = True
    region.call("StartInstances", InstanceId_1=one)
    region.until(one, "stopped")
    assert region.shown(one).findtext("stateReason/code") == "Server.InternalError"


@pytest.mark.parametrize(
    ("call", "how"), [({}, "shut_down"), ({"Force": "true"}, "shut_down"), ({"SkipOsShutdown": "true"}, "power_off")]
)
def test_a_guest_is_shut_down_before_it_is_terminated(region: Region, one: str, call: dict[str, str], how: str) -> None:
    region.call("TerminateInstances", InstanceId_1=one, **call)
    region.until(one, "terminated")
    done = [what for what, _ in region.machines.done]
    assert done == (["launch", "shut_down", "terminate"] if how == "shut_down" else ["launch", "terminate"])
    assert region.shown(one).findtext("stateReason/code") == "Client.UserInitiatedShutdown"


def test_a_stop_that_hangs_is_forced_by_both_flags_together(region: Region, one: str) -> None:
    region.machines.gate.clear()
    region.call("StopInstances", InstanceId_1=one)
    region.call("StopInstances", InstanceId_1=one, Force="true")
    region.call("StopInstances", InstanceId_1=one, SkipOsShutdown="true")
    assert ("hurry", one) not in region.machines.done
    region.call("StopInstances", InstanceId_1=one, Force="true", SkipOsShutdown="true")
    assert ("hurry", one) in region.machines.done
    assert region.state(one) == "stopping"


def test_terminated_is_for_good_and_visible_for_an_hour(region: Region, one: str) -> None:
    region.call("TerminateInstances", InstanceId_1=one)
    region.until(one, "terminated")
    region.call("TerminateInstances", InstanceId_1=one)
    assert region.error("StartInstances", InstanceId_1=one) == "IncorrectInstanceState"
    assert region.error("StopInstances", InstanceId_1=one) == "IncorrectInstanceState"
    assert region.error("RebootInstances", InstanceId_1=one) == "IncorrectState"
    region.now_s += TERMINATED_VISIBLE_S + 1
    assert region.error("DescribeInstances", InstanceId_1=one) == "InvalidInstanceID.NotFound"
    assert region.error("TerminateInstances", InstanceId_1=one) == "InvalidInstanceID.NotFound"
    assert not list(region.call("DescribeInstances").items("reservationSet", "instancesSet"))


def test_a_terminated_instance_frees_its_address(region: Region) -> None:
    (old,) = region.run(PrivateIpAddress="198.18.4.11")
    counts = {"ImageId": region.image, "SubnetId": region.subnet, "MinCount": "1", "MaxCount": "1"}
    assert region.error("RunInstances", PrivateIpAddress="198.18.4.11", **counts) == "InvalidIPAddress.InUse"
    region.call("TerminateInstances", InstanceId_1=old)
    region.until(old, "terminated")
    (new,) = region.run(PrivateIpAddress="198.18.4.11")
    assert new != old
    assert region.shown(new).findtext("privateIpAddress") == "198.18.4.11"


def test_terminated_before_it_was_launched_it_never_is(region: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[Any] = []
    monkeypatch.setattr(region.plane, "background", lambda work, *arguments: held.append((work, arguments)))
    made = region.call("RunInstances", ImageId=region.image, SubnetId=region.subnet, MinCount="1", MaxCount="1")
    instance_id = next(made.items("instancesSet")).findtext("instanceId") or ""
    region.call("TerminateInstances", InstanceId_1=instance_id)
    for work, arguments in reversed(held):
        work(*arguments)
    assert region.state(instance_id) == "terminated"
    assert "launch" not in [what for what, _ in region.machines.done]


def test_a_new_instance_is_not_seen_before_the_lag_has_passed(region: Region) -> None:
    region.plane.delays.hold({"consistency": 30.0})
    made = region.call("RunInstances", ImageId=region.image, SubnetId=region.subnet, MinCount="1", MaxCount="1")
    instance_id = next(made.items("instancesSet")).findtext("instanceId") or ""
    assert region.error("DescribeInstances", InstanceId_1=instance_id) == "InvalidInstanceID.NotFound"
    region.plane.delays.hold({})
    region.until(instance_id, "running")
    region.machines.gate.clear()
    region.call("StopInstances", InstanceId_1=instance_id)
    assert region.state(instance_id) == "stopping"
    region.plane.delays.hold({"consistency": 0.001})


def test_status_checks_begin_with_a_launch_and_notice_a_frozen_guest(region: Region) -> None:
    region.plane.delays.hold({"status_checks": 60.0})
    (one,) = region.run()
    assert region.checks(one) == ("initializing", "initializing")
    region.now_s += 61
    assert region.checks(one) == ("ok", "ok")
    region.machines.paused.add(one)
    assert region.checks(one) == ("ok", "ok")
    region.now_s += 61
    assert region.checks(one) == ("ok", "impaired")
    impaired = {"Filter_1_Name": "instance-status.status", "Filter_1_Value_1": "impaired"}
    assert len(list(region.call("DescribeInstanceStatus", **impaired).items("instanceStatusSet"))) == 1
    region.machines.paused.clear()
    assert region.checks(one) == ("ok", "ok")
    assert not list(region.call("DescribeInstanceStatus", **impaired).items("instanceStatusSet"))
    assert region.error("DescribeInstanceStatus", InstanceId_1=GONE) == "InvalidInstanceID.NotFound"


def test_status_of_what_does_not_run_is_told_when_asked_for(region: Region, one: str) -> None:
    stopped(region, one)
    assert region.checks(one) is None
    assert region.checks(one, IncludeAllInstances="true") == ("not-applicable", "not-applicable")


def test_an_instance_whose_host_dies_comes_back_as_it_was(region: Region, one: str) -> None:
    before = region.shown(one)
    recovery.control(region.plane, {"instance_id": one, "impaired_s": 30})
    wait_for("the host's death", lambda: region.machines.power(one) == "off", timeout_s=5, every_s=0.002)
    assert region.state(one) == "running"
    assert region.checks(one) == ("impaired", "impaired")
    region.call("RebootInstances", InstanceId_1=one)
    assert region.machines.done[-1] == ("power_off", one)
    region.now_s += 31
    wait_for("its return", lambda: region.plane.state.instances[one].transition is None, timeout_s=5, every_s=0.002)
    assert region.machines.done[-2:] == [("power_off", one), ("start", one)]
    assert region.checks(one) == ("ok", "ok")
    after = region.shown(one)
    for field in ("instanceId", "privateIpAddress", "instanceState/name"):
        assert after.findtext(field) == before.findtext(field)
    assert [row["event"] for row in region.journal.rows] == ["host_failed", "host_recovered"]


def test_a_recovery_and_its_checks_take_as_long_as_the_timing_says(region: Region, one: str) -> None:
    region.plane.delays.hold({"recover": 60, "status_checks": 20})
    recovery.begin_recovery(region.plane, one, 30)
    assert region.checks(one) == ("ok", "ok"), "no check has looked yet"
    region.now_s += 31
    assert region.checks(one) == ("impaired", "impaired")
    assert region.plane.state.instances[one].host_back_s == 1_000_000 + 30 + 60
    region.now_s += 60
    wait_for("its return", lambda: region.plane.state.instances[one].transition is None, timeout_s=5, every_s=0.002)
    assert region.checks(one) == ("initializing", "initializing")
    region.now_s += 20
    assert region.checks(one) == ("ok", "ok")


def test_a_reboot_takes_as_long_as_the_timing_says_and_a_fence_overtakes_it(region: Region, one: str) -> None:
    region.plane.delays.hold({"reboot": 600})
    region.call("RebootInstances", InstanceId_1=one)
    wait_for("the guest's end", lambda: region.machines.power(one) == "off", timeout_s=5, every_s=0.002)
    assert region.state(one) == "running"
    stopped(region, one)
    region.plane.close()
    assert region.state(one) == "stopped"
    assert ("start", one) not in region.machines.done


def test_a_fence_overtakes_a_recovery(region: Region, one: str) -> None:
    recovery.begin_recovery(region.plane, one, 30)
    stopped(region, one)
    region.now_s += 31
    region.plane.close()
    assert region.state(one) == "stopped"
    assert ("start", one) not in region.machines.done


def test_a_recovery_survives_the_gateway(region: Region, one: str) -> None:
    recovery.begin_recovery(region.plane, one, 30)
    wait_for("the host's death", lambda: region.machines.power(one) == "off", timeout_s=5, every_s=0.002)
    region.plane.close()
    region.plane = region.new_plane()
    for module in (ec2_launch, ec2_instances, recovery):
        module.resume(region.plane)
    assert region.checks(one) == ("impaired", "impaired")
    region.now_s += 31
    wait_for("its return", lambda: region.machines.power(one) == "on", timeout_s=5, every_s=0.002)


def test_only_a_running_instance_can_lose_its_host(region: Region, one: str) -> None:
    stopped(region, one)
    with pytest.raises(ValueError, match="is stopped, not running"):
        recovery.begin_recovery(region.plane, one, 1)
    for wanted in (None, {}, {"instance_id": one, "impaired_s": "long"}, {"instance_id": one, "impaired_s": -1}):
        with pytest.raises(ValueError, match="recover: "):
            recovery.control(region.plane, wanted)


def test_the_volume_of_a_dead_host_is_not_let_go_unless_forced(region: Region, one: str) -> None:
    created = region.call("CreateVolume", Size="8", AvailabilityZone=topologies.ZONE)
    volume_id = created.root.findtext("volumeId") or ""
    wait_for("available", lambda: not region.plane.state.volumes[volume_id].creating, timeout_s=5, every_s=0.002)
    region.call("AttachVolume", VolumeId=volume_id, InstanceId=one, Device="/dev/sdf")
    wait_for("attached", lambda: bool(region.volumes.places[volume_id]), timeout_s=5, every_s=0.002)
    recovery.begin_recovery(region.plane, one, 30)
    wait_for("the host's death", lambda: region.machines.power(one) == "off", timeout_s=5, every_s=0.002)
    region.call("DetachVolume", VolumeId=volume_id)
    place = region.plane.state.volumes[volume_id].attachment
    assert place is not None and place.state == "detaching"
    assert region.volumes.places[volume_id]
    region.call("DetachVolume", VolumeId=volume_id, Force="true")
    wait_for("free", lambda: not region.plane.state.volumes[volume_id].attachments, timeout_s=5, every_s=0.002)


def test_an_old_record_without_the_newer_fields_is_still_read(region: Region, one: str) -> None:
    record = region.plane.state.instances[one]
    region.plane.state.put(replace(record, transition=None))
    assert State(region.topology.state_dir).instances[one] == replace(record, transition=None)
