"""Volumes: where they are, who may have them, and how they grow."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.local import LocalSite
from tests.contract.promises import API, DATA_PLANE, EBS_GUIDE, ERRORS, promise
from tests.contract.site import DEVICE, Site, error_of

ATTACHING = f"{EBS_GUIDE}ebs-attaching-volume.html"
DETACHING = f"{EBS_GUIDE}ebs-detaching-volume.html"
STATES = f"{EBS_GUIDE}ebs-describing-volumes.html"
MULTI_ATTACH = f"{EBS_GUIDE}ebs-volumes-multi.html"
GROWTH = f"{EBS_GUIDE}ebs-modify-volume.html"
UNKNOWN = "vol-0123456789abcdef0"
GUEST = "needs a guest that has the volume mounted"


@promise("CreateVolume", "a volume is creating, then available, with the size and type asked for", source=STATES)
def test_a_new_volume(site: Site) -> None:
    made = site.ec2().create_volume(AvailabilityZone=site.zone, Size=4, VolumeType="gp3")
    assert made["State"] in ("creating", "available")  # AWS may be that fast
    site.wait_volume(made["VolumeId"], "available")
    seen = site.volume(made["VolumeId"])
    assert (seen["Size"], seen["VolumeType"], seen["AvailabilityZone"]) == (4, "gp3", site.zone)


@promise("CreateVolume", "a size that no volume has is refused: InvalidParameterValue", source=ERRORS)
@pytest.mark.parametrize("size", ["0", "100000", "many"])
def test_a_size_that_no_volume_has_is_refused(site: Site, size: str) -> None:
    answer = site.query("CreateVolume", Size=size, AvailabilityZone=site.zone, VolumeType="gp3")
    assert answer.status_code == 400 and b"<Code>InvalidParameterValue</Code>" in answer.content


@promise("DescribeVolumes", "an unknown volume is refused: InvalidVolume.NotFound", source=ERRORS)
def test_an_unknown_volume(site: Site) -> None:
    assert error_of(site.ec2().describe_volumes, VolumeIds=[UNKNOWN]) == "InvalidVolume.NotFound"


@promise("DeleteVolume", "an id that can't be one is refused", source=ERRORS)
def test_a_malformed_volume_id(site: Site) -> None:
    refused = error_of(site.ec2().delete_volume, VolumeId="vol-zz")
    assert refused in ("InvalidVolumeID.Malformed", "InvalidParameterValue")  # the first is listed, both are seen


@promise("AttachVolume", "the answer says attaching, the volume is in-use, then attached", source=ATTACHING)
def test_an_attachment(site: Site, two: tuple[str, str]) -> None:
    volume_id = site.new_volume()
    answer = site.ec2().attach_volume(VolumeId=volume_id, InstanceId=two[0], Device=DEVICE)
    assert (answer["State"], answer["InstanceId"], answer["Device"]) == ("attaching", two[0], DEVICE)
    site.until("attached", lambda: [p["State"] for p in site.volume(volume_id)["Attachments"]] == ["attached"])
    assert site.volume(volume_id)["State"] == "in-use"


@promise("AttachVolume", "a volume in use is refused: VolumeInUse", source=ERRORS)
@pytest.mark.parametrize("target", [0, 1], ids=["same-instance", "another"])
def test_a_volume_in_use_is_refused(site: Site, two: tuple[str, str], target: int) -> None:
    volume_id = site.new_volume()
    site.attach(volume_id, two[0])
    refused = error_of(site.ec2().attach_volume, VolumeId=volume_id, InstanceId=two[target], Device="/dev/sdg")
    assert refused == "VolumeInUse"
    assert [(p["InstanceId"], p["Device"]) for p in site.volume(volume_id)["Attachments"]] == [(two[0], DEVICE)]


@promise("AttachVolume", "a device name that is in use is refused: InvalidParameterValue", source=ERRORS)
def test_a_device_name_in_use_is_refused(site: Site, two: tuple[str, str]) -> None:
    first, second = site.new_volume(), site.new_volume()
    site.attach(first, two[0])
    refused = error_of(site.ec2().attach_volume, VolumeId=second, InstanceId=two[0], Device=DEVICE)
    assert refused == "InvalidParameterValue"
    assert site.volume(second)["State"] == "available"


@promise(
    "AttachVolume",
    "what is no device name is refused: InvalidParameterValue",
    source=f"{EBS_GUIDE}nvme-ebs-volumes.html",
)
@pytest.mark.parametrize("device", ["data", "/dev/nvme1n1"])
def test_what_is_no_device_name_is_refused(site: Site, two: tuple[str, str], device: str) -> None:
    volume_id = site.new_volume()
    refused = error_of(site.ec2().attach_volume, VolumeId=volume_id, InstanceId=two[0], Device=device)
    assert refused == "InvalidParameterValue"


@promise("AttachVolume", "a volume of another zone is refused: InvalidVolume.ZoneMismatch", source=ERRORS)
def test_a_volume_of_another_zone_is_refused(site: Site, two: tuple[str, str]) -> None:
    volume_id = site.new_volume(AvailabilityZone=site.other_zone)
    refused = error_of(site.ec2().attach_volume, VolumeId=volume_id, InstanceId=two[0], Device=DEVICE)
    assert refused == "InvalidVolume.ZoneMismatch"


@promise(
    "AttachVolume",
    "an instance of another zone gets no volume: InvalidVolume.ZoneMismatch",
    source=ERRORS,
    local_only="needs a second subnet, or a default VPC",
)
def test_an_instance_of_another_zone_gets_no_volume(site: LocalSite) -> None:
    where: Any = {"AvailabilityZone": site.other_zone}
    made = site.ec2().run_instances(ImageId=site.image_id, MinCount=1, MaxCount=1, Placement=where)["Instances"][0]
    site.wait_instance(made["InstanceId"], "running")
    assert site.instance(made["InstanceId"])["Placement"] == {**made["Placement"], **where}
    near, far = site.new_volume(AvailabilityZone=site.other_zone), site.new_volume()
    refused = error_of(site.ec2().attach_volume, VolumeId=far, InstanceId=made["InstanceId"], Device=DEVICE)
    assert refused == "InvalidVolume.ZoneMismatch"
    site.attach(near, made["InstanceId"])


@promise("CreateVolume", "a zone that is not there is refused: InvalidZone.NotFound", source=ERRORS)
def test_a_zone_that_is_not_there(site: Site) -> None:
    nowhere = f"{site.region}z"
    assert error_of(site.ec2().create_volume, AvailabilityZone=nowhere, Size=1) == "InvalidZone.NotFound"


@promise("AttachVolume", "unknown ids are refused: InvalidInstanceID.NotFound, InvalidVolume.NotFound", source=ERRORS)
def test_unknown_ids_are_refused(site: Site, two: tuple[str, str]) -> None:
    attach, volume_id = site.ec2().attach_volume, site.new_volume()
    nobody = {"InstanceId": "i-0123456789abcdef0", "Device": DEVICE}
    assert error_of(attach, VolumeId=volume_id, **nobody) == "InvalidInstanceID.NotFound"
    assert error_of(attach, VolumeId=UNKNOWN, InstanceId=two[0], Device=DEVICE) == "InvalidVolume.NotFound"


@promise("AttachVolume", "an instance that is not there any more is refused: IncorrectState", source=ERRORS)
def test_a_terminated_instance_gets_no_volume(site: Site, two: tuple[str, str]) -> None:
    volume_id = site.new_volume()
    site.terminate(two[0])
    refused = error_of(site.ec2().attach_volume, VolumeId=volume_id, InstanceId=two[0], Device=DEVICE)
    assert refused in ("IncorrectState", "IncorrectInstanceState")  # both are documented for such a case


@promise("DescribeInstances", "block device mappings show the volume, its device and its state", source=ATTACHING)
def test_an_instance_shows_its_volume(site: Site, two: tuple[str, str]) -> None:
    volume_id = site.new_volume()
    site.attach(volume_id, two[0])
    mappings = {m["Ebs"]["VolumeId"]: m for m in site.instance(two[0])["BlockDeviceMappings"]}
    assert mappings[volume_id]["DeviceName"] == DEVICE
    assert mappings[volume_id]["Ebs"]["Status"] == "attached"
    assert mappings[volume_id]["Ebs"]["DeleteOnTermination"] is False
    site.detach(volume_id)
    assert volume_id not in [m["Ebs"]["VolumeId"] for m in site.instance(two[0])["BlockDeviceMappings"]]


@promise(
    "DescribeVolumes",
    "filters by state and by instance tell of those volumes only",
    source=f"{API}API_DescribeVolumes.html",
)
def test_volumes_by_filter(site: Site, two: tuple[str, str]) -> None:
    used, free = site.new_volume(), site.new_volume()
    site.attach(used, two[0])

    def found(name: str, value: str) -> list[str]:
        filters: Any = [{"Name": name, "Values": [value]}, {"Name": "volume-id", "Values": [used, free]}]
        return [v["VolumeId"] for v in site.ec2().describe_volumes(Filters=filters)["Volumes"]]

    assert found("status", "in-use") == [used] and found("status", "available") == [free]
    assert found("attachment.instance-id", two[0]) == [used]
    assert found("attachment.status", "attached") == [used]


@promise("DetachVolume", "a volume that no guest uses is available after a moment", source=DETACHING)
def test_a_detachment(site: Site, two: tuple[str, str]) -> None:
    volume_id = site.new_volume()
    site.attach(volume_id, two[0])
    assert site.ec2().detach_volume(VolumeId=volume_id)["State"] == "detaching"
    site.wait_volume(volume_id, "available")
    assert site.volume(volume_id)["Attachments"] == []
    site.attach(volume_id, two[1])


@promise(
    "DetachVolume", "a mounted volume stays in-use until the guest unmounts it", source=DETACHING, local_only=GUEST
)
def test_a_mounted_volume_is_detaching_until_it_is_let_go(site: LocalSite, two: tuple[str, str]) -> None:
    volume_id = site.new_volume()
    site.attach(volume_id, two[0])
    site.volumes.mounted.add(volume_id)
    site.ec2().detach_volume(VolumeId=volume_id)
    attach = site.ec2().attach_volume
    assert error_of(attach, VolumeId=volume_id, InstanceId=two[1], Device=DEVICE) == "VolumeInUse"
    seen = site.volume(volume_id)
    assert seen["State"] == "in-use" and seen["Attachments"][0]["State"] in ("detaching", "busy")
    site.volumes.mounted.clear()
    site.wait_volume(volume_id, "available")


@promise("DetachVolume", "Force does not wait for the guest", source=f"{API}API_DetachVolume.html", local_only=GUEST)
def test_force_does_not_wait_for_the_guest(site: LocalSite, two: tuple[str, str]) -> None:
    volume_id = site.new_volume()
    site.attach(volume_id, two[0])
    site.volumes.mounted.add(volume_id)
    site.ec2().detach_volume(VolumeId=volume_id)
    site.ec2().detach_volume(VolumeId=volume_id, Force=True)
    site.wait_volume(volume_id, "available")
    assert volume_id in site.volumes.mounted, "the guest has not let go"
    assert site.volumes.attachment(volume_id) is None


@promise("DetachVolume", "a volume that is attached nowhere is refused: IncorrectState", source=ERRORS)
def test_detaching_what_is_free_is_refused(site: Site) -> None:
    assert error_of(site.ec2().detach_volume, VolumeId=site.new_volume()) == "IncorrectState"


@promise(
    "DetachVolume", "another instance than the one that has it is refused: InvalidAttachment.NotFound", source=ERRORS
)
def test_detaching_from_somewhere_else_is_refused(site: Site, two: tuple[str, str]) -> None:
    volume_id = site.new_volume()
    site.attach(volume_id, two[0])
    detach = site.ec2().detach_volume
    assert error_of(detach, VolumeId=volume_id, InstanceId=two[1]) == "InvalidAttachment.NotFound"
    assert site.volume(volume_id)["State"] == "in-use"


@promise("DetachVolume", "another device than its own is refused: InvalidAttachment.NotFound", source=ERRORS)
def test_detaching_another_device_is_refused(site: Site, two: tuple[str, str]) -> None:
    volume_id = site.new_volume()
    site.attach(volume_id, two[0])
    refused = error_of(site.ec2().detach_volume, VolumeId=volume_id, InstanceId=two[0], Device="/dev/sdp")
    assert refused == "InvalidAttachment.NotFound"


@promise("DetachVolume", "an unknown volume is refused: InvalidVolume.NotFound", source=ERRORS)
def test_detaching_an_unknown_volume_is_refused(site: Site) -> None:
    assert error_of(site.ec2().detach_volume, VolumeId=UNKNOWN) == "InvalidVolume.NotFound"


@promise("DeleteVolume", "a volume in use is refused: VolumeInUse", source=ERRORS)
def test_a_volume_in_use_is_not_deleted(site: Site, two: tuple[str, str]) -> None:
    volume_id = site.new_volume()
    site.attach(volume_id, two[0])
    assert error_of(site.ec2().delete_volume, VolumeId=volume_id) == "VolumeInUse"
    assert site.volume(volume_id)["State"] == "in-use"


@promise("DeleteVolume", "a deleted volume is not found any more", source=f"{API}API_DeleteVolume.html")
def test_a_deleted_volume_is_gone(site: Site) -> None:
    volume_id = site.new_volume()
    site.ec2().delete_volume(VolumeId=volume_id)

    def gone() -> bool:
        filters: Any = [{"Name": "volume-id", "Values": [volume_id]}]
        return site.ec2().describe_volumes(Filters=filters)["Volumes"] == []

    site.until("gone", gone)
    assert error_of(site.ec2().describe_volumes, VolumeIds=[volume_id]) == "InvalidVolume.NotFound"


@promise(
    "StopInstances",
    "a stopped instance keeps its volume, from which it can be taken",
    source=f"{API}API_StopInstances.html",
)
def test_a_stopped_instance_keeps_its_volume(site: Site, two: tuple[str, str]) -> None:
    volume_id = site.new_volume()
    site.attach(volume_id, two[0])
    site.stop(two[0])
    assert [p["State"] for p in site.volume(volume_id)["Attachments"]] == ["attached"]
    site.detach(volume_id)
    site.attach(volume_id, two[1])


@promise("AttachVolume", "a volume can be attached to a stopped instance", source=ATTACHING)
def test_a_stopped_instance_gets_a_volume(site: Site, two: tuple[str, str]) -> None:
    volume_id = site.new_volume()
    site.stop(two[0])
    site.attach(volume_id, two[0])
    site.ec2().start_instances(InstanceIds=[two[0]])
    site.wait_instance(two[0], "running")
    assert [p["InstanceId"] for p in site.volume(volume_id)["Attachments"]] == [two[0]]


@promise(
    "StartInstances",
    "a guest finds the volumes that were attached while it was off",
    source=ATTACHING,
    local_only=DATA_PLANE,
)
def test_what_was_attached_to_a_stopped_instance_is_there_when_it_starts(site: LocalSite, two: tuple[str, str]) -> None:
    volume_id = site.new_volume()
    site.stop(two[0])
    site.attach(volume_id, two[0])
    assert site.volumes.attachment(volume_id) is None
    site.ec2().start_instances(InstanceIds=[two[0]])
    site.wait_instance(two[0], "running")
    place = site.volumes.attachment(volume_id)
    assert place is not None and place.instance_id == two[0]


@promise("AttachVolume", "a Multi-Attach volume can be attached to two instances", source=MULTI_ATTACH)
def test_multi_attach(site: Site, two: tuple[str, str]) -> None:
    volume_id = site.new_volume(VolumeType="io2", Iops=100, Size=4, MultiAttachEnabled=True)
    for instance_id in two:
        site.attach(volume_id, instance_id)
    assert {p["InstanceId"] for p in site.volume(volume_id)["Attachments"]} == set(two)
    for instance_id in two:
        site.ec2().detach_volume(VolumeId=volume_id, InstanceId=instance_id)
    site.wait_volume(volume_id, "available")


@promise(
    "DetachVolume",
    "which of its instances gives a Multi-Attach volume up must be said",
    source=f"{API}API_DetachVolume.html",
)
def test_multi_attach_wants_the_instance(site: Site, two: tuple[str, str]) -> None:
    volume_id = site.new_volume(VolumeType="io2", Iops=100, Size=4, MultiAttachEnabled=True)
    for instance_id in two:
        site.attach(volume_id, instance_id)
    site.ec2().detach_volume(VolumeId=volume_id, InstanceId=two[0])
    site.until("one left", lambda: [p["InstanceId"] for p in site.volume(volume_id)["Attachments"]] == [two[1]])
    assert site.volume(volume_id)["State"] == "in-use"


@promise("CreateVolume", "Multi-Attach is for io1 and io2 only", source=MULTI_ATTACH)
def test_multi_attach_is_for_io_volumes(site: Site) -> None:
    create = {"AvailabilityZone": site.zone, "Size": 4, "VolumeType": "gp3", "MultiAttachEnabled": True}
    assert error_of(site.ec2().create_volume, **create).startswith(("InvalidParameter", "Unsupported"))


@promise("ModifyVolume", "a volume grows while it is attached, and stays where it is", source=GROWTH)
def test_a_volume_grows_in_use(site: Site, two: tuple[str, str]) -> None:
    volume_id = site.new_volume()
    site.attach(volume_id, two[0])
    change = site.ec2().modify_volume(VolumeId=volume_id, Size=2)["VolumeModification"]
    assert (change["OriginalSize"], change["TargetSize"]) == (1, 2)
    assert change["ModificationState"] == "modifying"
    site.until("grown", lambda: site.volume(volume_id)["Size"] == 2)
    assert [p["State"] for p in site.volume(volume_id)["Attachments"]] == ["attached"]


@promise(
    "ModifyVolume",
    "a volume does not shrink: InvalidParameterValue",
    source=f"{EBS_GUIDE}modify-volume-requirements.html",
)
def test_a_volume_does_not_shrink(site: Site) -> None:
    volume_id = site.new_volume(Size=4)
    assert error_of(site.ec2().modify_volume, VolumeId=volume_id, Size=2) == "InvalidParameterValue"
    assert site.volume(volume_id)["Size"] == 4


@promise("ModifyVolume", "an unknown volume is refused: InvalidVolume.NotFound", source=ERRORS)
def test_an_unknown_volume_does_not_grow(site: Site) -> None:
    assert error_of(site.ec2().modify_volume, VolumeId=UNKNOWN, Size=2) == "InvalidVolume.NotFound"


@promise(
    "ModifyVolume",
    "a fifth change within 24 hours is refused: VolumeModificationRateExceeded",
    source=f"{API}API_ModifyVolume.html",
)
def test_a_fifth_change_within_a_day_is_refused(site: Site) -> None:
    volume_id = site.new_volume()

    def completed() -> bool:
        found = site.ec2().describe_volumes_modifications(VolumeIds=[volume_id])["VolumesModifications"]
        return found[0]["ModificationState"] == "completed"

    for size in (2, 3, 4, 5):
        site.ec2().modify_volume(VolumeId=volume_id, Size=size)
        site.until(f"{size} GiB", completed)
    assert error_of(site.ec2().modify_volume, VolumeId=volume_id, Size=6) == "VolumeModificationRateExceeded"


@promise(
    "DescribeVolumesModifications",
    "a change is modifying, optimizing, then completed",
    source=f"{EBS_GUIDE}monitoring-volume-modifications.html",
)
def test_the_progress_of_a_change(site: Site) -> None:
    volume_id = site.new_volume()
    site.ec2().modify_volume(VolumeId=volume_id, Size=2)
    changes = site.ec2().describe_volumes_modifications

    def state() -> str:
        return str(changes(VolumeIds=[volume_id])["VolumesModifications"][0]["ModificationState"])

    assert state() in ("modifying", "optimizing", "completed")
    site.until("usable", lambda: state() in ("optimizing", "completed"))


@promise(
    "DescribeVolumeStatus", "the status of a healthy volume is ok", source=f"{EBS_GUIDE}monitoring-volume-checks.html"
)
def test_the_status_of_a_healthy_volume(site: Site) -> None:
    volume_id = site.new_volume()

    def ok() -> bool:
        told = site.ec2().describe_volume_status(VolumeIds=[volume_id])["VolumeStatuses"]
        return [t["VolumeStatus"]["Status"] for t in told] == ["ok"]

    site.until("ok", ok)
    (told,) = site.ec2().describe_volume_status(VolumeIds=[volume_id])["VolumeStatuses"]
    assert (told["VolumeId"], told["AvailabilityZone"]) == (volume_id, site.zone)
