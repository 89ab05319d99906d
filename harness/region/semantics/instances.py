"""Instances: their states, and from which of them they can be started, stopped, rebooted and terminated."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Literal

from harness.region.calls import AwsError

Power = Literal["on", "stopping", "off", "gone"]
"""What the data plane says of a machine (Instances.power)."""

Transition = Literal["pending", "stopping", "shutting-down", "rebooting"]
"""What the gateway is doing with a machine right now."""

InstanceState = Literal["pending", "running", "stopping", "stopped", "shutting-down", "terminated"]

STATE_CODES: dict[InstanceState, int] = {
    "pending": 0,
    "running": 16,
    "shutting-down": 32,
    "terminated": 48,
    "stopping": 64,
    "stopped": 80,
}
"""InstanceState.code of the API reference."""


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
