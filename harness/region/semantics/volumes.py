"""Volumes: where they are, and what may be created, attached, detached, deleted."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from harness.region.calls import AwsError
from harness.region.semantics.instances import InstanceState

AttachmentState = Literal["attaching", "attached", "detaching", "busy"]

MULTI_ATTACH_LIMIT = 16
"""Instances per volume ("Amazon EBS Multi-Attach")."""
MULTI_ATTACH_TYPES = ("io1", "io2")

ROOT_DEVICES = ("/dev/sda1", "/dev/xvda")
"""Where the root volume is, whose record is in the books only."""

_DEVICE = re.compile(r"/dev/(sd[b-z]([1-9]|1[0-5])?|xvd[b-z]|xvd[b-d][a-z])")
"""User guide, "Device names for volumes on Amazon EC2 instances" (HVM); the guest's own names are NVMe ones."""


@dataclass(frozen=True, kw_only=True)
class Attachment:
    """A volume's place: the instance that has it, under which device name, since when (ISO 8601, UTC)."""

    instance_id: str
    device: str
    state: AttachmentState
    since: str
    force: bool = False
    delete_on_termination: bool = False

    @property
    def leaving(self) -> bool:
        """Told to detach, and not yet gone."""
        return self.state in ("detaching", "busy")


def check_volume_id(volume_id: str, known: Collection[str]) -> None:
    """Raise EC2's error unless `volume_id` is one of `known`."""
    if not volume_id.startswith("vol-"):
        raise AwsError(
            "InvalidParameterValue", f"Value ({volume_id}) for parameter volumeId is invalid. Expected: 'vol-...'."
        )
    if not re.fullmatch(r"vol-(?:[0-9a-f]{8}|[0-9a-f]{17})", volume_id):
        raise AwsError("InvalidVolumeID.Malformed", f'Invalid id: "{volume_id}"')
    if volume_id not in known:
        raise AwsError("InvalidVolume.NotFound", f"The volume '{volume_id}' does not exist.")


def decide_create(*, volume_type: str, multi_attach: bool, snapshot_id: str | None) -> None:
    """CreateVolume: Multi-Attach is for io1 and io2 (API reference; the code of the refusal is ours)."""
    if snapshot_id is not None:
        raise AwsError("UnsupportedOperation", "This region has no snapshots.")
    if multi_attach and volume_type not in MULTI_ATTACH_TYPES:
        raise AwsError(
            "InvalidParameterCombination",
            f"The parameter MultiAttachEnabled is not supported for {volume_type} volumes.",
        )


def decide_attach(
    volume_id: str,
    attachments: Sequence[Attachment],
    *,
    instance_id: str,
    instance: InstanceState,
    device: str,
    same_zone: bool,
    devices_in_use: Collection[str],
    creating: bool = False,
    multi_attach: bool = False,
) -> None:
    """AttachVolume: a volume has one place at a time, `detaching` included; with Multi-Attach up to sixteen.

    Which of several errors comes first is ours, and so is the code beyond the sixteenth instance.
    """
    if not _DEVICE.fullmatch(device) and device not in ROOT_DEVICES:
        raise AwsError(
            "InvalidParameterValue",
            f"Value ({device}) for parameter device is invalid. {device} is not a valid EBS device name.",
        )
    if creating:
        raise AwsError("IncorrectState", f"{volume_id} is not 'available'.")
    if instance not in ("running", "stopped"):
        raise AwsError("IncorrectState", f"Instance '{instance_id}' is not 'running'.")
    if not same_zone:
        raise AwsError(
            "InvalidVolume.ZoneMismatch",
            f"The volume '{volume_id}' is not in the same availability zone as instance '{instance_id}'",
        )
    here = any(place.instance_id == instance_id for place in attachments)
    if here or (attachments and not multi_attach) or len(attachments) >= MULTI_ATTACH_LIMIT:
        raise AwsError("VolumeInUse", f"{volume_id} is already attached to an instance")
    if device in devices_in_use or device in ROOT_DEVICES:
        raise AwsError(
            "InvalidParameterValue",
            f"Invalid value '{device}' for unixDevice. Attachment point {device} is already in use",
        )


def decide_detach(
    volume_id: str,
    attachments: Sequence[Attachment],
    *,
    instance_id: str | None,
    device: str | None,
    force: bool,
    multi_attach: bool = False,
) -> Attachment:
    """DetachVolume: the attachment as it now is, `detaching`, or `busy` as long as the guest has it mounted.

    Repeating the call is accepted (ours; the answer of AWS is not documented); with Force it turns a detach that waits
    for an unmount into one that does not. So is detaching what is still `attaching`, AWS's own advice where that hangs.
    """
    if not attachments:
        raise AwsError("IncorrectState", f"Volume '{volume_id}' is in the 'available' state.")
    if multi_attach and instance_id is None:
        raise AwsError("MissingParameter", "An instance ID must be specified to detach a Multi-Attach enabled volume.")
    place = next((each for each in attachments if instance_id in (None, each.instance_id)), None)
    if place is None:
        raise AwsError(
            "InvalidAttachment.NotFound", f"The volume '{volume_id}' is not attached to instance '{instance_id}'."
        )
    if device is not None and device != place.device:
        raise AwsError(
            "InvalidAttachment.NotFound", f"The volume '{volume_id}' is not attached to instance as device '{device}'."
        )
    return replace(place, state="busy" if place.state == "busy" else "detaching", force=force or place.force)


def decide_delete(volume_id: str, attachments: Sequence[Attachment], *, creating: bool = False) -> None:
    """DeleteVolume: only a volume in the `available` state."""
    if creating:
        raise AwsError("IncorrectState", f"The volume '{volume_id}' is 'creating'.")
    if attachments:
        raise AwsError("VolumeInUse", f"Volume {volume_id} is currently attached to {attachments[0].instance_id}")
