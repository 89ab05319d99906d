"""The EC2 actions on volumes: one place at a time, `detaching` until the guest lets go, and states that are true.

How a volume comes to be is in ec2_volume_create.py, what is changed or asked of volumes in use in
ec2_volume_changes.py; how books, state and data plane come to agree again after the death of a gateway, in
volume_agreement.py.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Literal

from harness.region import pages, volume_agreement
from harness.region.calls import AwsError, Call, answer, put, take_filters
from harness.region.plane import RETRY_S, Action, Plane, refuse_dry_run
from harness.region.semantics import volumes as semantics
from harness.region.semantics.matching import Places, item_passes
from harness.region.semantics.volumes import Attachment
from harness.region.state import Tables, Volume
from harness.region.volumes import VolumeBusy

FILTERS: Places = {
    "availability-zone": ("availabilityZone",),
    "create-time": ("createTime",),
    "encrypted": ("encrypted",),
    "status": ("status",),
    "size": ("size",),
    "volume-id": ("volumeId",),
    "volume-type": ("volumeType",),
    "multi-attach-enabled": ("multiAttachEnabled",),
    "attachment.attach-time": ("attachmentSet/item/attachTime",),
    "attachment.status": ("attachmentSet/item/status",),
    "attachment.instance-id": ("attachmentSet/item/instanceId",),
    "attachment.device": ("attachmentSet/item/device",),
    "attachment.delete-on-termination": ("attachmentSet/item/deleteOnTermination",),
}
"""DescribeVolumes' filters on what the region knows better than the books, and where their values are in the answer."""


def delete_volume(plane: Plane, call: Call) -> bytes:
    """DeleteVolume: only when it is attached nowhere."""
    refuse_dry_run(call)
    with plane.state.lock:
        volume = known_volume(plane, call.require("VolumeId"))
        semantics.decide_delete(volume.volume_id, volume.attachments, creating=volume.creating)
        plane.state.put(replace(volume, deleting=True))
        finish_delete(plane, volume)
    return answer(call, {"return": True})


def attach_volume(plane: Plane, call: Call) -> bytes:
    """AttachVolume: `attaching` at once, `attached` when the guest has the device."""
    refuse_dry_run(call)
    device = call.require("Device")
    with plane.state.lock:
        volume = known_volume(plane, call.require("VolumeId"))
        instance = plane.instance(call.require("InstanceId"))
        instance_id = instance.instance_id
        there = [v.place_at(instance_id) for v in plane.state.volumes_of(instance_id)]
        semantics.decide_attach(
            volume.volume_id,
            volume.attachments,
            instance_id=instance_id,
            instance=plane.state_of(instance),
            device=device,
            same_zone=volume.zone == instance.zone,
            devices_in_use=[place.device for place in there if place is not None],
            creating=volume.creating or volume.deleting,
            multi_attach=volume.multi_attach,
        )
        if not volume.multi_attach:  # the books know of one place only; of several they tell nothing true
            where = {"VolumeId": volume.volume_id, "InstanceId": instance_id, "Device": device}
            plane.books.call("AttachVolume", where)
        place = Attachment(instance_id=instance_id, device=device, state="attaching", since=now_text())
        plane.state.put(volume.placed(place))
    plane.background(finish_attach, plane, volume.volume_id, instance_id)
    return answer(call, _row(volume.volume_id, place))


def detach_volume(plane: Plane, call: Call) -> bytes:
    """DetachVolume: `detaching`, and `busy` while the guest has it mounted, until it has unmounted it, or is off, or
    Force is given."""
    refuse_dry_run(call)
    with plane.state.lock:
        volume = known_volume(plane, call.require("VolumeId"))
        instance_id = call.get("InstanceId")
        if instance_id is not None:
            plane.instance(instance_id)
        place = semantics.decide_detach(
            volume.volume_id,
            volume.attachments,
            instance_id=instance_id,
            device=call.get("Device"),
            force=call.flag("Force"),
            multi_attach=volume.multi_attach,
        )
        before = volume.place_at(place.instance_id)
        already = before is not None and before.leaving
        plane.state.put(volume.placed(place))
    if not already:
        plane.background(finish_detach, plane, volume.volume_id, place.instance_id)
    return answer(call, _row(volume.volume_id, place))


def describe_volumes(plane: Plane, call: Call) -> bytes:
    """DescribeVolumes of the books, with state, size and attachments as they are."""
    for volume_id in call.numbered("VolumeId"):
        semantics.check_volume_id(volume_id, [volume_id])  # whether there is one, the books know
    params, wanted = take_filters(call.params, FILTERS)
    before = plane.state.volumes
    document = plane.books.call("DescribeVolumes", pages.unpaged(params))
    tables = plane.seen()
    volumes = tables.volumes
    young = {*before, *plane.state.volumes} - volumes.keys()  # what is too new to be seen is not there yet
    young |= {item.findtext("volumeId") or "" for item in document.items("volumeSet") if not _seen(item, tables)}
    for volume_id in call.numbered("VolumeId"):
        if volume_id in young:
            semantics.check_volume_id(volume_id, volumes)
    keep: dict[str, bool] = {}
    for item in document.items("volumeSet"):
        volume_id = item.findtext("volumeId") or ""
        if volume_id in volumes:
            show_volume(item, volumes[volume_id])
        keep[volume_id] = volume_id not in young and item_passes(item, wanted, FILTERS)
    document.keep("volumeSet", keep, "volumeId")
    pages.cut(document, "volumeSet", call)
    return document.body(call)


def overlay_attachments(instance: ET.Element, volumes: Mapping[str, Volume]) -> None:
    """The attachments inside DescribeInstances' block device mapping: as they are, and only those that are."""
    instance_id = instance.findtext("instanceId") or ""
    places = {v.volume_id: place for v in volumes.values() if (place := v.place_at(instance_id)) is not None}
    if (mapping := instance.find("blockDeviceMapping")) is None:
        mapping = ET.SubElement(instance, "blockDeviceMapping")
    for item in mapping.findall("item"):
        volume_id, ebs = item.findtext("ebs/volumeId") or "", item.find("ebs")
        if ebs is not None and volume_id in places:
            place = places.pop(volume_id)
            put(ebs, "status", place.state)
            put(ebs, "deleteOnTermination", place.delete_on_termination)
        elif volume_id in volumes:
            mapping.remove(item)
    for volume_id, place in places.items():
        item = ET.SubElement(mapping, "item")
        put(item, "deviceName", place.device)
        row = _row(volume_id, place)
        put(item, "ebs", {name: row[name] for name in ("volumeId", "status", "attachTime", "deleteOnTermination")})


def _seen(item: ET.Element, tables: Tables) -> bool:
    """Whether a volume of the books is there: written down, or the root volume (books alone have it) of an instance."""
    places = [element.text for element in item.findall("attachmentSet/item/instanceId")]
    return item.findtext("volumeId") in tables.volumes or any(place in tables.instances for place in places)


def finish_delete(plane: Plane, volume: Volume) -> None:
    """The books no longer know it, then nobody has its data any more. Under the state's lock; can be done again."""
    try:
        plane.books.call("DeleteVolume", {"VolumeId": volume.volume_id})
    except AwsError as error:
        if error.code != "InvalidVolume.NotFound":  # they know of it already
            plane.state.put(volume)
            raise
    if volume.volume_id in plane.volumes.list():
        plane.volumes.delete(volume.volume_id)
    plane.state.drop(volume)


def finish_create(plane: Plane, volume_id: str) -> None:
    """Worker: `available` after the time that AWS takes."""
    plane.take("create")
    with plane.state.lock:
        volume = plane.state.volumes.get(volume_id)
        if volume is not None:
            plane.state.put(replace(volume, creating=False))


def finish_attach(plane: Plane, volume_id: str, instance_id: str) -> None:
    """Worker: give the guest the device. A machine that is off gets it when it starts."""
    place = place_of(plane, volume_id, instance_id)
    if place is None:
        return
    plane.take("attach")
    late_s = plane.delays.draw("device")
    if late_s > 0:  # the control plane says yes before the guest has the device
        _now_attached(plane, volume_id, place)
        plane.closing.wait(late_s)
    try:
        with plane.machine_lock(instance_id):
            if not _still(place_of(plane, volume_id, instance_id), place):
                return
            _connect(plane, volume_id, place)
            _now_attached(plane, volume_id, place)
    except Exception:
        plane.until_done(_abandon, plane, volume_id, instance_id)
        raise


def _abandon(plane: Plane, volume_id: str, instance_id: str) -> None:
    """It could not be attached: the data plane, the books and the state forget that it was to be."""
    if plane.volumes.attachment(volume_id, instance_id=instance_id) is not None:
        plane.volumes.detach(volume_id, force=True, instance_id=instance_id)
    with suppress(AwsError):
        _tell_detached(plane, volume_id, instance_id)
    _forget(plane, volume_id, instance_id)


def finish_detach(plane: Plane, volume_id: str, instance_id: str) -> None:
    """Worker: wait, as long as it takes, until the guest lets go; then the volume is free.

    Without the machine's lock, so that a fence does not wait: operations on one volume take turns as it is.
    """
    while not plane.closing.is_set():
        place = place_of(plane, volume_id, instance_id)
        if place is None or not place.leaving:
            return
        try:
            went = _disconnect(plane, volume_id, place)
        except Exception:  # as after EC2's own failures it is attached, and can be told to detach again
            _restate(plane, volume_id, instance_id, "attached")
            raise
        if went == "gone":
            plane.take("force_detach" if place.force else "detach")
            _forget(plane, volume_id, instance_id)
            return
        if went == "busy" and place.state != "busy":
            _restate(plane, volume_id, instance_id, "busy")
        plane.closing.wait(RETRY_S)


def connect_volumes(plane: Plane, instance_id: str) -> None:
    """Worker, machine lock held: give a machine that was just started what was attached to it while it was off."""
    for volume in plane.state.volumes_of(instance_id):
        place = volume.place_at(instance_id)
        if place is not None and not place.leaving:
            _connect(plane, volume.volume_id, place)


def part_with_volumes(plane: Plane, instance_id: str) -> None:
    """Worker, machine lock held: the instance is terminated, its volumes become `available`."""
    made = plane.volumes.list()
    for volume in plane.state.volumes_of(instance_id):
        there = volume.volume_id in made
        if there and plane.volumes.attachment(volume.volume_id, instance_id=instance_id) is not None:
            plane.volumes.detach(volume.volume_id, force=True, instance_id=instance_id)
        with suppress(AwsError):
            _tell_detached(plane, volume.volume_id, instance_id)
        _forget(plane, volume.volume_id, instance_id)


def resume(plane: Plane) -> None:
    """Take up what a gateway before this one left half done; then books, state and data plane agree again."""
    volume_agreement.restore(plane)
    for volume in list(plane.state.volumes.values()):
        if volume.deleting:
            with suppress(AwsError), plane.state.lock:
                finish_delete(plane, volume)
        if volume.creating:
            plane.background(finish_create, plane, volume.volume_id)
        for place in volume.attachments:
            finish = {"attaching": finish_attach, "attached": finish_device}.get(place.state, finish_detach)
            plane.background(finish, plane, volume.volume_id, place.instance_id)


def finish_device(plane: Plane, volume_id: str, instance_id: str) -> None:
    """Worker: it was `attached` already when the gateway ended, perhaps before the guest had the device."""
    with plane.machine_lock(instance_id):
        place = place_of(plane, volume_id, instance_id)
        if place is not None and not place.leaving:
            _connect(plane, volume_id, place)


def place_of(plane: Plane, volume_id: str, instance_id: str) -> Attachment | None:
    """The attachment as it is now; None also when the volume is deleted."""
    with plane.state.lock:
        volume = plane.state.volumes.get(volume_id)
        return volume.place_at(instance_id) if volume is not None else None


def known_volume(plane: Plane, volume_id: str) -> Volume:
    """The record, or EC2's error."""
    semantics.check_volume_id(volume_id, plane.state.volumes)
    return plane.state.volumes[volume_id]


def now_text() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _forget(plane: Plane, volume_id: str, instance_id: str) -> None:
    """The volume is no longer attached to this instance."""
    with plane.state.lock:
        volume = plane.state.volumes.get(volume_id)
        if volume is not None:
            plane.state.put(volume.without(instance_id))


def _restate(plane: Plane, volume_id: str, instance_id: str, state: Literal["attached", "busy"]) -> None:
    """What became of a detach that did not succeed at once; `force` may have been asked for meanwhile."""
    with plane.state.lock:
        place = place_of(plane, volume_id, instance_id)
        if place is not None and place.leaving:
            force = place.force and state == "busy"
            plane.state.put(plane.state.volumes[volume_id].placed(replace(place, state=state, force=force)))


def _now_attached(plane: Plane, volume_id: str, place: Attachment) -> None:
    """Say `attached`, unless it was told to detach meanwhile."""
    with plane.state.lock:
        if place_of(plane, volume_id, place.instance_id) == place:
            plane.state.put(plane.state.volumes[volume_id].placed(replace(place, state="attached")))


def _still(now: Attachment | None, place: Attachment) -> bool:
    """Whether a volume still has the place that it was given."""
    return now is not None and not now.leaving and replace(now, state=place.state) == place


def _connect(plane: Plane, volume_id: str, place: Attachment) -> None:
    """Machine lock held: the device for a machine that is on and does not have it, unless it is to be detached."""
    instance_id = place.instance_id
    with plane.volume_lock(volume_id):
        now, pid = place_of(plane, volume_id, instance_id), plane.instances.pid(instance_id)
        if now is None or now.leaving or pid is None:
            return
        if plane.volumes.attachment(volume_id, instance_id=instance_id) is None:
            plane.volumes.attach(volume_id, instance_id=instance_id, guest_pid=pid, device=place.device)


def _disconnect(plane: Plane, volume_id: str, place: Attachment) -> Literal["gone", "busy", "no answer"]:
    """Take the device from the guest and tell the books."""
    if not place.force and plane.state.instances[place.instance_id].transition == "recovering":
        return "no answer"  # its host is dead, nobody there lets go of anything (ours)
    try:
        with plane.volume_lock(volume_id):
            if plane.volumes.attachment(volume_id, instance_id=place.instance_id) is not None:
                plane.volumes.detach(volume_id, force=place.force, instance_id=place.instance_id)
        _tell_detached(plane, volume_id, place.instance_id)
    except VolumeBusy:
        return "busy"
    except AwsError as error:  # a refusal: they have been told already, by a gateway that was killed right after
        return "gone" if error.status < 500 else "no answer"
    return "gone"


def _tell_detached(plane: Plane, volume_id: str, instance_id: str) -> None:
    """To the books, which were told of the attachment if there could be no other."""
    if not plane.state.volumes[volume_id].multi_attach:
        plane.books.call("DetachVolume", {"VolumeId": volume_id, "InstanceId": instance_id})


def show_volume(item: ET.Element, volume: Volume) -> None:
    """A volume of the books as it is."""
    in_use = "in-use" if volume.attachments else "available"
    put(item, "status", "creating" if volume.creating else "deleting" if volume.deleting else in_use)
    put(item, "size", volume.size_gib)
    put(item, "volumeType", volume.volume_type)
    put(item, "iops", volume.iops)
    put(item, "throughput", volume.throughput)
    put(item, "multiAttachEnabled", volume.multi_attach)
    put(item, "attachmentSet", [_row(volume.volume_id, place) for place in volume.attachments])


def _row(volume_id: str, place: Attachment) -> dict[str, str | bool]:
    return {
        "volumeId": volume_id,
        "instanceId": place.instance_id,
        "device": place.device,
        "status": place.state,
        "attachTime": place.since,
        "deleteOnTermination": place.delete_on_termination,
    }


ACTIONS: Mapping[str, Action] = {
    "DeleteVolume": delete_volume,
    "AttachVolume": attach_volume,
    "DetachVolume": detach_volume,
    "DescribeVolumes": describe_volumes,
}
