"""Volumes: where they are, and what may be attached, detached and deleted."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from harness.region.calls import AwsError
from harness.region.semantics.instances import InstanceState

AttachmentState = Literal["attaching", "attached", "detaching"]


@dataclass(frozen=True, kw_only=True)
class Attachment:
    """A volume's place: the instance that has it, under which device name, since when (ISO 8601, UTC)."""

    instance_id: str
    device: str
    state: AttachmentState
    since: str
    force: bool = False


def decide_attach(
    volume_id: str,
    attachment: Attachment | None,
    *,
    instance_id: str,
    instance: InstanceState,
    device: str,
    same_zone: bool,
    devices_in_use: Collection[str],
) -> None:
    """AttachVolume: a volume without multi-attach has one place at a time, `detaching` included."""
    if instance not in ("running", "stopped"):
        raise AwsError("IncorrectState", f"Instance '{instance_id}' is not 'running'.")
    if not same_zone:
        raise AwsError(
            "InvalidVolume.ZoneMismatch",
            f"The volume '{volume_id}' is not in the same availability zone as instance '{instance_id}'",
        )
    if attachment is not None:
        raise AwsError("VolumeInUse", f"{volume_id} is already attached to an instance")
    if device in devices_in_use:
        raise AwsError(
            "InvalidParameterValue",
            f"Invalid value '{device}' for unixDevice. Attachment point {device} is already in use",
        )


def decide_detach(
    volume_id: str, attachment: Attachment | None, *, instance_id: str | None, device: str | None, force: bool
) -> Attachment:
    """DetachVolume: the attachment as it now is, `detaching`.

    Repeating the call while it is detaching is accepted (ours; the answer of AWS is not documented); with Force it
    turns a detach that waits for an unmount into one that does not.
    """
    if attachment is None:
        raise AwsError("IncorrectState", f"Volume '{volume_id}' is in the 'available' state.")
    if instance_id is not None and instance_id != attachment.instance_id:
        raise AwsError(
            "InvalidAttachment.NotFound", f"The volume '{volume_id}' is not attached to instance '{instance_id}'."
        )
    if device is not None and device != attachment.device:
        raise AwsError(
            "InvalidAttachment.NotFound", f"The volume '{volume_id}' is not attached to instance as device '{device}'."
        )
    return Attachment(
        instance_id=attachment.instance_id,
        device=attachment.device,
        state="detaching",
        since=attachment.since,
        force=force or attachment.force,
    )


def decide_delete(volume_id: str, attachment: Attachment | None) -> None:
    """DeleteVolume: only a volume in the `available` state."""
    if attachment is not None:
        raise AwsError("VolumeInUse", f"Volume {volume_id} is currently attached to {attachment.instance_id}")
