"""Data volumes that an instance is launched with, and those that go when it is terminated (DeleteOnTermination)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from harness.region.calls import AwsError, Call, is_index
from harness.region.ec2_volume_create import enter_volume, make_volume
from harness.region.ec2_volumes import finish_delete, now_text, part_with_volumes
from harness.region.plane import Plane
from harness.region.semantics.volumes import ROOT_DEVICES, Attachment, decide_attach
from harness.region.state import Instance, Volume

OF_THE_VOLUME = {"VolumeSize": "Size", "VolumeType": "VolumeType", "Iops": "Iops", "Throughput": "Throughput"}
"""What BlockDeviceMapping.N.Ebs calls it: what CreateVolume calls it."""


@dataclass(frozen=True, kw_only=True)
class BlockDevice:
    """One data volume to be made at launch; `volume` are the parameters of CreateVolume."""

    device: str
    volume: Mapping[str, str]
    delete_on_termination: bool


def block_devices(params: Mapping[str, str]) -> list[BlockDevice]:
    """The data volumes of a RunInstances call (BlockDeviceMapping.N), checked.

    The root device is not among them: it exists in the books only. A volume made at launch is deleted with the instance
    unless the call says otherwise (EbsBlockDevice: DeleteOnTermination).
    """
    rows: defaultdict[int, dict[str, str]] = defaultdict(dict)
    for key, value in params.items():
        name, _, rest = key.partition(".")
        number, _, field = rest.partition(".")
        if name == "BlockDeviceMapping" and is_index(number):
            rows[int(number)][field] = value
    found: list[BlockDevice] = []
    for _, row in sorted(rows.items()):
        device = row.get("DeviceName", "")
        if device in ROOT_DEVICES or "NoDevice" in row:
            continue
        if "Ebs.SnapshotId" in row or "VirtualName" in row:
            raise AwsError("UnsupportedOperation", "This region has neither snapshots nor instance store volumes.")
        decide_attach(
            "the new volume",
            (),
            instance_id="the new instance",
            instance="running",
            device=device,
            same_zone=True,
            devices_in_use=[each.device for each in found],
        )
        if "Ebs.VolumeSize" not in row:
            raise AwsError("MissingParameter", f"The request must contain the size of the volume at {device}")
        volume = {theirs: row[f"Ebs.{ours}"] for ours, theirs in OF_THE_VOLUME.items() if f"Ebs.{ours}" in row}
        stays = row.get("Ebs.DeleteOnTermination", "true").lower() == "false"
        found.append(BlockDevice(device=device, volume=volume, delete_on_termination=not stays))
    return found


def enter(plane: Plane, call: Call, record: Instance, devices: Sequence[BlockDevice]) -> Iterator[Volume]:
    """Under the lock: the volumes, attached, in the books, each as soon as those know it; to be written down together
    with the instance. The guest has the devices when it boots."""
    for each in devices:
        asked = replace(call, action="CreateVolume", params={**each.volume, "AvailabilityZone": record.zone})
        _, volume = enter_volume(plane, asked)
        where = {"VolumeId": volume.volume_id, "InstanceId": record.instance_id, "Device": each.device}
        place = Attachment(
            instance_id=record.instance_id,
            device=each.device,
            state="attached",
            since=now_text(),
            delete_on_termination=each.delete_on_termination,
        )
        yield volume.placed(place)
        plane.books.call("AttachVolume", where)


def forget(plane: Plane, entered: Sequence[Volume]) -> None:
    """Under the lock: the books forget those that were never written down."""
    for volume in entered:
        if volume.volume_id not in plane.state.volumes:
            with suppress(AwsError):
                where = {"VolumeId": volume.volume_id, "InstanceId": volume.attachments[0].instance_id}
                plane.books.call("DetachVolume", where)
            with suppress(AwsError):
                plane.books.call("DeleteVolume", {"VolumeId": volume.volume_id})


def make(plane: Plane, entered: Sequence[Volume]) -> None:
    """Under the lock: the disks of volumes that are written down."""
    for volume in entered:
        make_volume(plane, volume)
        plane.state.put(replace(volume, creating=False))


def part_and_delete(plane: Plane, instance_id: str, *, every: bool = False) -> None:
    """The instance is gone: its volumes are `available`, those that were to go with it (or every one) are deleted.

    One that is attached to other instances as well stays (ours; AWS deletes it with the last of them). What the books
    do not let go stays `available`.
    """
    doomed = _doom(plane, instance_id, every=every)
    part_with_volumes(plane, instance_id)
    for volume_id in doomed:
        with suppress(AwsError), plane.state.lock:
            if volume_id in plane.state.volumes:
                finish_delete(plane, replace(plane.state.volumes[volume_id], deleting=False))


def _doom(plane: Plane, instance_id: str, *, every: bool) -> list[str]:
    """Mark the volumes that go, so that they go even if the gateway dies before they are deleted."""
    with plane.state.lock:
        doomed = []
        for volume in plane.state.volumes_of(instance_id):
            place = volume.place_at(instance_id)
            if place is not None and (every or place.delete_on_termination) and len(volume.attachments) == 1:
                plane.state.put(replace(volume, deleting=True))
                doomed.append(volume.volume_id)
        return doomed
