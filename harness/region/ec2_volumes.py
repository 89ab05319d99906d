"""The EC2 actions on volumes: one place at a time, `detaching` until the guest lets go, and states that are true."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from harness.region.calls import AwsError, Call, answer, put, take_filters
from harness.region.plane import RETRY_S, Action, Plane, refuse_dry_run
from harness.region.semantics import volumes as semantics
from harness.region.semantics.volumes import Attachment
from harness.region.state import Volume
from harness.region.volumes import VolumeBusy
from harness.topology import ZONE

STATE_FILTERS = ("status", "attachment.status")


def create_volume(plane: Plane, call: Call) -> bytes:
    """CreateVolume: an entry in the books and a block device that keeps what is flushed to it."""
    refuse_dry_run(call)
    if call.get("SnapshotId"):
        raise AwsError("UnsupportedOperation", "This region has no snapshots.")
    size = call.require("Size")
    if not re.fullmatch(r"[1-9][0-9]{0,4}", size):
        raise AwsError("InvalidParameterValue", f"Invalid value '{size}' for Size. Volumes have 1 to 16384 GiB.")
    size_gib = int(size)
    with plane.state.lock:
        document = plane.books.call("CreateVolume", call.params)
        volume_id = document.root.findtext("volumeId") or ""
        if volume_id in plane.state.volumes:  # the same ClientToken again
            return document.body(call)
        plane.volumes.create(volume_id, size_gib=size_gib)
        plane.state.put(Volume(volume_id=volume_id, size_gib=size_gib, zone=call.require("AvailabilityZone")))
    return document.body(call)


def delete_volume(plane: Plane, call: Call) -> bytes:
    """DeleteVolume: only when it is attached nowhere."""
    refuse_dry_run(call)
    with plane.state.lock:
        volume = _volume(plane, call.require("VolumeId"))
        semantics.decide_delete(volume.volume_id, volume.attachment)
        plane.books.call("DeleteVolume", {"VolumeId": volume.volume_id})
        plane.volumes.delete(volume.volume_id)
        plane.state.drop(volume)
    return answer(call, {"return": True})


def attach_volume(plane: Plane, call: Call) -> bytes:
    """AttachVolume: `attaching` at once, `attached` when the guest has the device."""
    refuse_dry_run(call)
    device = call.require("Device")
    with plane.state.lock:
        volume = _volume(plane, call.require("VolumeId"))
        instance = plane.instance(call.require("InstanceId"))
        semantics.decide_attach(
            volume.volume_id,
            volume.attachment,
            instance_id=instance.instance_id,
            instance=plane.state_of(instance),
            device=device,
            same_zone=volume.zone == ZONE,
            devices_in_use=[v.attachment.device for v in plane.state.volumes_of(instance.instance_id) if v.attachment],
        )
        where = {"VolumeId": volume.volume_id, "InstanceId": instance.instance_id, "Device": device}
        plane.books.call("AttachVolume", where)
        place = Attachment(instance_id=instance.instance_id, device=device, state="attaching", since=_now())
        plane.state.put(replace(volume, attachment=place))
    plane.background(finish_attach, plane, volume.volume_id)
    return answer(call, _row(volume.volume_id, place))


def detach_volume(plane: Plane, call: Call) -> bytes:
    """DetachVolume: `detaching` until the guest has unmounted it, or is off, or Force is given."""
    refuse_dry_run(call)
    with plane.state.lock:
        volume = _volume(plane, call.require("VolumeId"))
        instance_id = call.get("InstanceId")
        if instance_id is not None:
            plane.instance(instance_id)
        place = semantics.decide_detach(
            volume.volume_id,
            volume.attachment,
            instance_id=instance_id,
            device=call.get("Device"),
            force=call.flag("Force"),
        )
        already = volume.attachment is not None and volume.attachment.state == "detaching"
        plane.state.put(replace(volume, attachment=place))
    if not already:
        plane.background(finish_detach, plane, volume.volume_id)
    return answer(call, _row(volume.volume_id, place))


def describe_volumes(plane: Plane, call: Call) -> bytes:
    """DescribeVolumes of the books, with attachments as they are."""
    params, wanted = take_filters(call.params, STATE_FILTERS)
    with plane.state.lock:
        document = plane.books.call("DescribeVolumes", params)
        volumes = plane.seen().volumes
    keep: dict[str, bool] = {}
    for item in document.items("volumeSet"):
        volume = volumes.get(item.findtext("volumeId") or "")
        if volume is not None:
            place = volume.attachment
            put(item, "status", "in-use" if place else "available")
            put(item, "attachmentSet", [_row(volume.volume_id, place)] if place else [])
        status = item.findtext("status") or ""
        attachment = item.findtext("attachmentSet/item/status") or ""
        keep[item.findtext("volumeId") or ""] = status in wanted.get("status", {status}) and attachment in wanted.get(
            "attachment.status", {attachment}
        )
    document.keep("volumeSet", keep, "volumeId")
    return document.body(call)


def overlay_attachment(ebs: ET.Element, place: Attachment | None) -> None:
    """The attachment status inside DescribeInstances' block device mapping."""
    if place is not None:
        put(ebs, "status", place.state)


def finish_attach(plane: Plane, volume_id: str) -> None:
    """Worker: give the guest the device. A machine that is off gets it when it starts."""
    place = plane.state.volumes[volume_id].attachment
    if place is None:
        return
    plane.take("attach")
    late_s = plane.delays.draw("device")
    if late_s > 0:  # the control plane says yes before the guest has the device
        _now_attached(plane, volume_id, place)
        plane.closing.wait(late_s)
    with plane.machine_lock(place.instance_id):
        if not _still(plane.state.volumes[volume_id].attachment, place):
            return
        try:
            _connect(plane, volume_id, place)
        except Exception:
            with suppress(AwsError):
                plane.books.call("DetachVolume", {"VolumeId": volume_id, "InstanceId": place.instance_id})
            with plane.state.lock:
                plane.state.put(replace(plane.state.volumes[volume_id], attachment=None))
            raise
        _now_attached(plane, volume_id, place)


def finish_detach(plane: Plane, volume_id: str) -> None:
    """Worker: wait, as long as it takes, until the guest lets go; then the volume is free."""
    while not plane.closing.is_set():
        with plane.state.lock:
            place = plane.state.volumes[volume_id].attachment
        if place is None or place.state != "detaching":
            return
        with plane.machine_lock(place.instance_id):
            try:
                freed = _disconnect(plane, volume_id, place)
            except Exception:  # as after EC2's own failures it is attached, and can be told to detach again
                with plane.state.lock:
                    stuck = plane.state.volumes[volume_id]
                    plane.state.put(replace(stuck, attachment=replace(place, state="attached", force=False)))
                raise
        if freed:
            plane.take("force_detach" if place.force else "detach")
            with plane.state.lock:
                plane.state.put(replace(plane.state.volumes[volume_id], attachment=None))
            return
        plane.closing.wait(RETRY_S)


def connect_volumes(plane: Plane, instance_id: str) -> None:
    """Worker, machine lock held: give a machine that was just started what was attached to it while it was off."""
    for volume in plane.state.volumes_of(instance_id):
        if volume.attachment is not None and plane.volumes.attachment(volume.volume_id) is None:
            _connect(plane, volume.volume_id, volume.attachment)


def part_with_volumes(plane: Plane, instance_id: str) -> None:
    """Worker, machine lock held: the instance is terminated, its volumes become `available`."""
    for volume in plane.state.volumes_of(instance_id):
        if plane.volumes.attachment(volume.volume_id) is not None:
            plane.volumes.detach(volume.volume_id, force=True)
        with suppress(AwsError):
            plane.books.call("DetachVolume", {"VolumeId": volume.volume_id, "InstanceId": instance_id})
        with plane.state.lock:
            plane.state.put(replace(plane.state.volumes[volume.volume_id], attachment=None))


def resume(plane: Plane) -> None:
    """Take up attachments that a gateway before this one left half done."""
    for volume in list(plane.state.volumes.values()):
        if volume.attachment is not None and volume.attachment.state == "attaching":
            plane.background(finish_attach, plane, volume.volume_id)
        elif volume.attachment is not None and volume.attachment.state == "detaching":
            plane.background(finish_detach, plane, volume.volume_id)


def _now_attached(plane: Plane, volume_id: str, place: Attachment) -> None:
    """Say `attached`, unless it was told to detach meanwhile."""
    with plane.state.lock:
        volume = plane.state.volumes[volume_id]
        if volume.attachment == place:
            plane.state.put(replace(volume, attachment=replace(place, state="attached")))


def _still(now: Attachment | None, place: Attachment) -> bool:
    """Whether a volume still has the place that it was given."""
    return now is not None and now.state != "detaching" and replace(now, state=place.state) == place


def _connect(plane: Plane, volume_id: str, place: Attachment) -> None:
    pid = plane.instances.pid(place.instance_id)
    if pid is not None and plane.volumes.attachment(volume_id) is None:
        plane.volumes.attach(volume_id, instance_id=place.instance_id, guest_pid=pid, device=place.device)


def _disconnect(plane: Plane, volume_id: str, place: Attachment) -> bool:
    """Take the device from the guest and tell the books; False while the guest holds on to it or the books are away."""
    try:
        if plane.volumes.attachment(volume_id) is not None:
            plane.volumes.detach(volume_id, force=place.force)
        plane.books.call("DetachVolume", {"VolumeId": volume_id, "InstanceId": place.instance_id})
    except VolumeBusy:
        return False
    except AwsError as error:  # a refusal: they have been told already, by a gateway that was killed right after
        return error.status < 500
    return True


def _volume(plane: Plane, volume_id: str) -> Volume:
    volume = plane.state.volumes.get(volume_id)
    if volume is None:
        raise AwsError("InvalidVolume.NotFound", f"The volume '{volume_id}' does not exist.")
    return volume


def _row(volume_id: str, place: Attachment) -> dict[str, str | bool]:
    return {
        "volumeId": volume_id,
        "instanceId": place.instance_id,
        "device": place.device,
        "status": place.state,
        "attachTime": place.since,
        "deleteOnTermination": False,
    }


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


ACTIONS: Mapping[str, Action] = {
    "CreateVolume": create_volume,
    "DeleteVolume": delete_volume,
    "AttachVolume": attach_volume,
    "DetachVolume": detach_volume,
    "DescribeVolumes": describe_volumes,
}
