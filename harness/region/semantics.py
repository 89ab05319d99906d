"""What EC2 promises, as pure functions: the state goes in, a decision or EC2's own error comes out.

The books (moto, LocalStack) accept nearly everything at once; what is decided here is what makes the local region no
kinder than AWS. Sources are the EC2 API reference and user guide, by action; a choice that is ours is marked so.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Literal

from harness.region.calls import AwsError

Power = Literal["on", "stopping", "off", "gone"]
"""What the data plane says of a machine (Instances.power)."""

Transition = Literal["pending", "stopping", "shutting-down", "rebooting"]
"""What the gateway is doing with a machine right now."""

InstanceState = Literal["pending", "running", "stopping", "stopped", "shutting-down", "terminated"]
AttachmentState = Literal["attaching", "attached", "detaching"]

STATE_CODES: dict[InstanceState, int] = {
    "pending": 0,
    "running": 16,
    "shutting-down": 32,
    "terminated": 48,
    "stopping": 64,
    "stopped": 80,
}
"""InstanceState.code of the API reference."""

RESERVED_HOSTS = 4
"""AWS reserves the first four addresses and the last one of every subnet."""


@dataclass(frozen=True, kw_only=True)
class Attachment:
    """A volume's place: the instance that has it, under which device name, since when (ISO 8601, UTC)."""

    instance_id: str
    device: str
    state: AttachmentState
    since: str
    force: bool = False


def instance_state(power: Power, transition: Transition | None) -> InstanceState:
    """The state EC2 reports. The data plane has the last word: `stopped` only when the machine is really off."""
    if transition == "pending":
        return "pending"
    if transition == "shutting-down":
        return "shutting-down"
    if transition == "stopping":
        return "stopping"
    if transition == "rebooting":
        return "running"  # a reboot does not leave the state
    states: dict[Power, InstanceState] = {
        "on": "running",
        "stopping": "stopping",
        "off": "stopped",
        "gone": "terminated",
    }
    return states[power]


def check_instance_id(instance_id: str, known: Collection[str]) -> None:
    """Raise EC2's error unless `instance_id` is one of `known`."""
    if not re.fullmatch(r"i-(?:[0-9a-f]{8}|[0-9a-f]{17})", instance_id):
        raise AwsError("InvalidInstanceID.Malformed", f'Invalid id: "{instance_id}"')
    if instance_id not in known:
        raise AwsError("InvalidInstanceID.NotFound", f"The instance ID '{instance_id}' does not exist")


def decide_stop(
    instance_id: str, state: InstanceState, *, skip_os_shutdown: bool
) -> Literal["nothing", "shut_down", "power_off"]:
    """StopInstances. `Force` does not skip the guest's shutdown, only `SkipOsShutdown` does (API reference).

    A forced stop tries an orderly shutdown first and cuts the power when that takes too long; a plain stop does the
    same here (AWS waits longer, then gives up on the guest as well), so `Force` decides nothing.
    """
    if state in ("stopping", "stopped"):
        return "nothing"
    if state != "running":
        raise AwsError(
            "IncorrectInstanceState",
            f"The instance '{instance_id}' is not in a state from which it can be stopped.",
        )
    return "power_off" if skip_os_shutdown else "shut_down"


def decide_start(instance_id: str, state: InstanceState) -> Literal["nothing", "start"]:
    """StartInstances: only from `stopped`; starting what runs already changes nothing."""
    if state in ("pending", "running"):
        return "nothing"
    if state != "stopped":
        raise AwsError(
            "IncorrectInstanceState",
            f"The instance '{instance_id}' is not in a state from which it can be started.",
        )
    return "start"


def decide_reboot(instance_id: str, state: InstanceState) -> None:
    """RebootInstances: asks the guest to restart; needs a running one."""
    if state != "running":
        raise AwsError("IncorrectState", f"The instance '{instance_id}' is not in the 'running' state.")


def decide_terminate(state: InstanceState) -> Literal["nothing", "terminate"]:
    """TerminateInstances: idempotent, from every state."""
    return "nothing" if state in ("shutting-down", "terminated") else "terminate"


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


def decide_associate(
    public_ip: str, owner: str | None, *, target: str, target_state: InstanceState, allow_reassociation: bool
) -> None:
    """AssociateAddress: in a VPC an address moves without asking, unless the caller said it must not.

    `owner` and `target` are private addresses.
    """
    if target_state in ("terminated", "shutting-down"):
        raise AwsError("IncorrectInstanceState", f"The instance with address {target} is {target_state}.")
    if owner is not None and owner != target and not allow_reassociation:
        raise AwsError("Resource.AlreadyAssociated", f"resource {public_ip} is already associated with {owner}")


def free_elastic(elastic: IPv4Network, taken: Iterable[str]) -> IPv4Address:
    """The lowest Elastic IP that nobody holds (AWS hands out any; the lowest is ours, so that runs look alike)."""
    used = set(taken)
    for address in elastic.hosts():
        if str(address) not in used:
            return address
    raise AwsError("AddressLimitExceeded", "The maximum number of addresses has been reached.")


def choose_private(subnet: IPv4Network, wanted: str | None, taken: Collection[str]) -> IPv4Address:
    """The private address of a new instance: the one asked for, or the lowest free one from .11 up (ours)."""
    if wanted is None:
        for host in list(subnet.hosts())[10:]:
            if str(host) not in taken:
                return host
        raise AwsError("InsufficientFreeAddressesInSubnet", "The subnet does not have enough free addresses.")
    try:
        address = IPv4Address(wanted)
    except ValueError:
        raise AwsError("InvalidParameterValue", f"Invalid value '{wanted}' for privateIpAddress.") from None
    reserved = [*list(subnet)[:RESERVED_HOSTS], subnet.broadcast_address]
    if address not in subnet or address in reserved:
        raise AwsError("InvalidParameterValue", f"Address {wanted} does not fall within the subnet's address range")
    if wanted in taken:
        raise AwsError("InvalidIPAddress.InUse", f"Address {wanted} is in use.")
    return address
