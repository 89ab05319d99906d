"""The EC2 actions on volumes in use: ModifyVolume (online growth), its progress, and whether a volume is well."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from harness.errors import InfrastructureError
from harness.region import pages
from harness.region.calls import AwsError, Call, answer, take_filters
from harness.region.ec2_volumes import known_volume, now_text
from harness.region.plane import Action, Plane, refuse_dry_run
from harness.region.semantics.matching import Filters, all_pass
from harness.region.semantics.volume_changes import Modification, Shape, Wish, decide_modify, recent, volume_status
from harness.region.semantics.volumes import check_volume_id
from harness.region.state import Volume


def modify_volume(plane: Plane, call: Call) -> bytes:
    """ModifyVolume: `modifying` at once; when it is `optimizing` the guest has the new size, attached as it was."""
    refuse_dry_run(call)
    if call.get("MultiAttachEnabled") is not None:
        raise AwsError("UnsupportedOperation", "In this region Multi-Attach is chosen when a volume is created.")
    names = {"Size": "size", "VolumeType": "volume_type", "Iops": "iops", "Throughput": "throughput"}
    wish = Wish(**{field: call.get(name) for name, field in names.items()})
    with plane.state.lock:
        volume, now_s = known_volume(plane, call.require("VolumeId")), plane.wall_s()
        target = decide_modify(
            volume.volume_id,
            volume.shape,
            wish,
            going_on=volume.modification,
            creating=volume.creating,
            modified_s=volume.modified_s,
            now_s=now_s,
        )
        change = Modification(state="modifying", original=volume.shape, target=target, started=now_text())
        modified_s = (*recent(volume.modified_s, now_s), now_s)
        plane.state.put(replace(volume, modification=change, modified_s=modified_s))
    plane.background(finish_modify, plane, volume.volume_id)
    return answer(call, {"volumeModification": _row(volume.volume_id, change)})


def describe_volumes_modifications(plane: Plane, call: Call) -> bytes:
    """DescribeVolumesModifications: the latest one of each volume that was ever modified."""
    refuse_dry_run(call)
    ids = call.numbered("VolumeId")
    wanted = _filters(call, FILTERS)
    with plane.state.lock:
        for volume_id in ids:
            known_volume(plane, volume_id)
        volumes = plane.seen().volumes
    rows = [
        _row(volume.volume_id, volume.modification)
        for volume in volumes.values()
        if volume.modification is not None and (not ids or volume.volume_id in ids)
    ]
    if ids and not rows:
        raise AwsError("InvalidVolumeModification.NotFound", f"Modification for volume '{ids[0]}' does not exist.")
    kept = [row for row in rows if all_pass(wanted, {name: [_text(row[of])] for name, of in FILTERS.items()})]
    return pages.answered(call, "volumeModificationSet", kept)


def describe_volume_status(plane: Plane, call: Call) -> bytes:
    """DescribeVolumeStatus: what the volume's own server says of requests that wait."""
    refuse_dry_run(call)
    ids = call.numbered("VolumeId")
    wanted = _filters(call, STATUS_FILTERS)
    with plane.state.lock:
        seen = plane.seen().volumes  # which there are; how they are is looked at now
    for volume_id in ids:
        check_volume_id(volume_id, seen)
    volumes = [seen[volume_id] for volume_id in ids] or list(seen.values())
    kept = [row for row in (_status(plane, volume) for volume in volumes) if all_pass(wanted, _told(row))]
    return pages.answered(call, "volumeStatusSet", kept)


def enable_volume_io(plane: Plane, call: Call) -> bytes:
    """EnableVolumeIO: accepted. EBS disables I/O when a volume's data may be inconsistent; that never happens here."""
    refuse_dry_run(call)
    with plane.state.lock:
        known_volume(plane, call.require("VolumeId"))
    return answer(call, {"return": True})


def finish_modify(plane: Plane, volume_id: str) -> None:
    """Worker: the new shape, then `completed`. What can't be done is `failed`, and the volume as it was."""
    volume = _modified(plane, volume_id, "modifying")
    if volume is not None and volume.modification is not None:
        plane.take("modify")
        try:
            _carry_out(plane, volume, volume.modification.target)
        except Exception as error:
            failed = replace(volume.modification, state="failed", ended=now_text(), reason=str(error))
            _write(plane, volume_id, failed, volume.shape)
            raise
        _write(plane, volume_id, replace(volume.modification, state="optimizing"), volume.modification.target)
    volume = _modified(plane, volume_id, "optimizing")
    if volume is not None and volume.modification is not None:
        plane.take("optimize")
        if not plane.closing.is_set():  # else the next gateway goes on from here
            _write(plane, volume_id, replace(volume.modification, state="completed", ended=now_text()), volume.shape)


def resume(plane: Plane) -> None:
    """Take up modifications that a gateway before this one left half done."""
    for volume in list(plane.state.volumes.values()):
        if volume.modification is not None and volume.modification.going_on:
            plane.background(finish_modify, plane, volume.volume_id)


def _carry_out(plane: Plane, volume: Volume, target: Shape) -> None:
    """Can be done again. The books need not know: what is described of a volume's shape is the region's own."""
    if target.size_gib != volume.size_gib:
        plane.volumes.grow(volume.volume_id, size_gib=target.size_gib)
    changes = {"VolumeId": volume.volume_id, "Size": str(target.size_gib), "VolumeType": target.volume_type}
    with suppress(AwsError):
        plane.books.call("ModifyVolume", changes)


def _modified(plane: Plane, volume_id: str, state: str) -> Volume | None:
    """The volume if its modification is in this state."""
    with plane.state.lock:
        volume = plane.state.volumes.get(volume_id)
    in_state = volume is not None and volume.modification is not None and volume.modification.state == state
    return volume if in_state else None


def _write(plane: Plane, volume_id: str, change: Modification, shape: Shape) -> None:
    with plane.state.lock:
        volume = plane.state.volumes.get(volume_id)
        if volume is not None:
            plane.state.put(
                replace(
                    volume,
                    modification=change,
                    size_gib=shape.size_gib,
                    volume_type=shape.volume_type,
                    iops=shape.iops,
                    throughput=shape.throughput,
                )
            )


def _row(volume_id: str, change: Modification) -> dict[str, Any]:
    before, after = change.original, change.target
    return {
        "volumeId": volume_id,
        "modificationState": change.state,
        "statusMessage": change.reason or None,
        "originalSize": before.size_gib,
        "targetSize": after.size_gib,
        "originalVolumeType": before.volume_type,
        "targetVolumeType": after.volume_type,
        "originalIops": before.iops,
        "targetIops": after.iops,
        "originalThroughput": before.throughput,
        "targetThroughput": after.throughput,
        "progress": change.progress,
        "startTime": change.started,
        "endTime": change.ended,
    }


def _status(plane: Plane, volume: Volume) -> dict[str, Any]:
    stalled_s: float | None = None
    with suppress(InfrastructureError):  # its server is dead or deaf
        stalled_s = None if volume.creating else float(plane.volumes.status(volume.volume_id)["stalled_s"])
    status = volume_status(stalled_s, volume_type=volume.volume_type)
    details = [
        {"name": "io-enabled", "status": status.io_enabled},
        {"name": "io-performance", "status": status.io_performance},
    ]
    return {
        "volumeId": volume.volume_id,
        "availabilityZone": volume.zone,
        "volumeStatus": {"status": status.status, "details": details},
        "eventsSet": [],
        "actionsSet": [],
    }


def _filters(call: Call, known: Collection[str]) -> Filters:
    """The filters of a call that the books are not asked for; all of them have to be known."""
    rest, wanted = take_filters(call.params, known)
    unknown = [value for key, value in rest.items() if re.fullmatch(r"Filter\.[0-9]+\.Name", key)]
    if unknown:
        raise AwsError("InvalidParameterValue", f"The filter '{unknown[0][:64]}' is invalid")
    return wanted


def _told(row: Mapping[str, Any]) -> dict[str, list[str]]:
    """What STATUS_FILTERS are about, of one volume."""
    status = row["volumeStatus"]
    return {
        "availability-zone": [row["availabilityZone"]],
        "volume-status.status": [status["status"]],
        "volume-status.details-name": [each["name"] for each in status["details"]],
        "volume-status.details-status": [each["status"] for each in status["details"]],
    }


def _text(value: object) -> str:
    return "" if value is None else str(value)


STATUS_FILTERS = (
    "availability-zone",
    "volume-status.status",
    "volume-status.details-name",
    "volume-status.details-status",
)
"""DescribeVolumeStatus' filters. (Those on events and actions, of which there are none, are refused.)"""

FILTERS: Mapping[str, str] = {
    "volume-id": "volumeId",
    "modification-state": "modificationState",
    "original-size": "originalSize",
    "original-volume-type": "originalVolumeType",
    "original-iops": "originalIops",
    "target-size": "targetSize",
    "target-volume-type": "targetVolumeType",
    "target-iops": "targetIops",
    "start-time": "startTime",
}
"""DescribeVolumesModifications' filters, and the element of the answer that each is about."""

ACTIONS: Mapping[str, Action] = {
    "ModifyVolume": modify_volume,
    "DescribeVolumesModifications": describe_volumes_modifications,
    "DescribeVolumeStatus": describe_volume_status,
    "EnableVolumeIO": enable_volume_io,
}
