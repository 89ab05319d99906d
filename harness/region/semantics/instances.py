"""Instances: their states, what is said of them, and from which states they can be started, stopped and terminated.

Sources: EC2 API reference (StartInstances, StopInstances, RebootInstances, TerminateInstances, RunInstances,
DescribeInstanceStatus, StateReason), its list of error codes, and the user guide: "Instance state changes", "Methods
for stopping an instance", "Methods for terminating an instance", "Enable stop protection", "Status checks", "Automatic
instance recovery".
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from harness.region.calls import AwsError

Power = Literal["on", "stopping", "off", "gone"]
"""What the data plane says of a machine (Instances.power)."""

Transition = Literal["pending", "stopping", "shutting-down", "rebooting", "recovering"]
"""What the gateway is doing with a machine right now; `recovering`: its host died, and it comes back on another."""

InstanceState = Literal["pending", "running", "stopping", "stopped", "shutting-down", "terminated"]

CheckStatus = Literal["ok", "impaired", "initializing", "not-applicable"]

STATE_CODES: dict[InstanceState, int] = {
    "pending": 0,
    "running": 16,
    "shutting-down": 32,
    "terminated": 48,
    "stopping": 64,
    "stopped": 80,
}
"""InstanceState.code of the API reference."""

TERMINATED_VISIBLE_S = 3600.0
"""Terminated instances stay visible for about an hour (TerminateInstances)."""

INSTANCE_LIMIT = 20
"""Instances of one region that are not terminated: containers of one host (ours; on AWS a quota by vCPUs)."""

INSTANCE_TYPE = re.compile(r"[a-z][a-z0-9-]*\.[a-z0-9-]+")


def instance_state(power: Power, transition: Transition | None) -> InstanceState:
    """The state EC2 reports. The data plane has the last word: `stopped` only when the machine is really off."""
    if transition == "pending":
        return "pending"
    if transition == "shutting-down":
        return "shutting-down"
    if transition == "stopping":
        return "stopping"
    if transition == "rebooting" or transition == "recovering":
        return "running"  # neither leaves the state
    states: dict[Power, InstanceState] = {
        "on": "running",
        "stopping": "stopping",
        "off": "stopped",
        "gone": "terminated",
    }
    return states[power]


def seen_state(power: Power, *, seen: Transition | None, now: Transition | None) -> InstanceState:
    """The state in an answer that lags: as `seen` then, of a machine that has gone on ("Eventual consistency")."""
    if seen is None and now == "stopping":
        return "running"
    if seen is None and now == "pending":
        return "stopped"
    return instance_state(power, seen)


@dataclass(frozen=True, kw_only=True)
class StateReason:
    """Why an instance is in its state (StateReason of the API reference)."""

    code: str
    message: str


USER_INITIATED = StateReason(
    code="Client.UserInitiatedShutdown", message="Client.UserInitiatedShutdown: User initiated shutdown"
)
GUEST_INITIATED = StateReason(
    code="Client.InstanceInitiatedShutdown", message="Client.InstanceInitiatedShutdown: Instance initiated shutdown"
)
LAUNCHING = StateReason(code="pending", message="pending")


def state_reason(state: InstanceState, recorded: StateReason | None) -> StateReason | None:
    """What DescribeInstances says: of a machine that is off, and nobody's call made it so, that its guest halted."""
    if state == "running":
        return None
    if state == "pending":
        return LAUNCHING
    if state == "stopped" and recorded is None:
        return GUEST_INITIATED
    return recorded


def status_checks(
    state: InstanceState, *, host_dead: bool, frozen: bool, initializing: bool
) -> tuple[CheckStatus, CheckStatus]:
    """DescribeInstanceStatus: system and instance status. Whoever is on a dead host is not reachable either."""
    if state != "running":
        return "not-applicable", "not-applicable"
    if host_dead:
        return "impaired", "impaired"
    if initializing:
        return "initializing", "initializing"
    return "ok", "impaired" if frozen else "ok"


def check_instance_id(instance_id: str, known: Collection[str]) -> None:
    """Raise EC2's error unless `instance_id` is one of `known`."""
    if not re.fullmatch(r"i-(?:[0-9a-f]{8}|[0-9a-f]{17})", instance_id):
        raise AwsError("InvalidInstanceID.Malformed", f'Invalid id: "{instance_id}"')
    if instance_id not in known:
        raise AwsError("InvalidInstanceID.NotFound", f"The instance ID '{instance_id}' does not exist")


def decide_count(minimum: str, maximum: str, *, living: int, addressed: bool) -> int:
    """RunInstances: how many. As many as asked for, as far as the limit goes, but never fewer than `minimum`.

    `addressed`: the call names a private address, which only one instance can have.
    """
    for name, value in (("minCount", minimum), ("maxCount", maximum)):
        if not re.fullmatch(r"[1-9][0-9]{0,5}", value):
            raise AwsError("InvalidParameterValue", f"Invalid value '{value}' for {name}. Must be a positive number.")
    if int(minimum) > int(maximum):
        raise AwsError(
            "InvalidParameterValue",
            f"Invalid value '{maximum}' for maxCount. Must be greater than or equal to minCount.",
        )
    count = min(int(maximum), INSTANCE_LIMIT - living)
    if count < int(minimum):
        raise AwsError(
            "InstanceLimitExceeded",
            f"You have requested more instances ({living + int(minimum)}) than your current instance limit "
            f"of {INSTANCE_LIMIT} allows.",
        )
    if count > 1 and addressed:
        raise AwsError(
            "InvalidParameterCombination",
            "A private IP address can only be specified when launching a single instance.",
        )
    return count


def check_instance_type(instance_type: str | None) -> None:
    """RunInstances: a name that an instance type can have; which of them exist is not looked up (ours)."""
    if instance_type is not None and not INSTANCE_TYPE.fullmatch(instance_type):
        raise AwsError("InvalidParameterValue", f"Invalid value '{instance_type}' for InstanceType.")


def check_shutdown_behavior(behavior: str | None) -> None:
    """InstanceInitiatedShutdownBehavior: a guest that halts is `stopped` here, never terminated."""
    if behavior == "terminate":
        raise AwsError(
            "UnsupportedOperation", "This region stops an instance that shuts itself down, it does not terminate it."
        )
    if behavior not in (None, "stop"):
        raise AwsError("InvalidParameterValue", f"Invalid value '{behavior}' for instanceInitiatedShutdownBehavior.")


def no_capacity(instance_type: str, zone: str) -> AwsError:
    """RunInstances, StartInstances: a server error, at once; nothing has changed ("Troubleshoot launch issues")."""
    return AwsError(
        "InsufficientInstanceCapacity",
        f"We currently do not have sufficient {instance_type} capacity in the Availability Zone you requested "
        f"({zone}).",
        500,
    )


def check_hibernation(instance_id: str, *, asked: bool) -> None:
    """StopInstances(Hibernate): only of an instance that was launched for it, which none is here (a real AWS refuses
    it in these words; that a hibernation which fails becomes a plain stop is for those that were)."""
    if asked:
        raise AwsError(
            "UnsupportedHibernationConfiguration",
            f"The instance can't be hibernated because it was not configured at launch for hibernation: {instance_id}",
        )


def check_stop_allowed(instance_id: str, *, stop_protected: bool) -> None:
    """StopInstances: refused under stop protection, whatever state the instance is in (the order is ours)."""
    if stop_protected:
        raise _protected(instance_id, "stopped", "disableApiStop")


def check_terminate_allowed(instance_id: str, *, stop_protected: bool, termination_protected: bool) -> None:
    """TerminateInstances: refused under termination protection, and under stop protection as well."""
    if termination_protected:
        raise _protected(instance_id, "terminated", "disableApiTermination")
    if stop_protected:
        raise _protected(instance_id, "terminated", "disableApiStop")


def decide_stop(
    instance_id: str, state: InstanceState, *, skip_os_shutdown: bool, force: bool = False
) -> Literal["nothing", "shut_down", "power_off", "hurry"]:
    """StopInstances. `Force` does not skip the guest's shutdown, only `SkipOsShutdown` does (API reference).

    A forced stop tries an orderly shutdown first and cuts the power when that takes too long; a plain stop does the
    same here (AWS waits longer, then gives up on the guest as well), so `Force` alone decides nothing. It is meant for
    an instance that hangs in `stopping`: there, with `SkipOsShutdown`, the guest is not waited for any longer. What
    `SkipOsShutdown` alone does there is not documented: nothing here.
    """
    if state == "stopping" and skip_os_shutdown and force:
        return "hurry"
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


def decide_terminate(
    state: InstanceState, *, skip_os_shutdown: bool = False, force: bool = False
) -> Literal["nothing", "shut_down", "power_off", "hurry"]:
    """TerminateInstances: idempotent, from every state; the guest is shut down first, as StopInstances does it."""
    if state == "shutting-down" and skip_os_shutdown and force:
        return "hurry"
    if state in ("shutting-down", "terminated"):
        return "nothing"
    return "power_off" if skip_os_shutdown else "shut_down"


def _protected(instance_id: str, what: str, attribute: str) -> AwsError:
    return AwsError(
        "OperationNotPermitted",
        f"The instance '{instance_id}' may not be {what}. Modify its '{attribute}' instance attribute and try again.",
    )
