"""Automatic recovery: a host dies, and its instance comes back on another one.

AWS ("Automatic instance recovery"): the recovered instance is identical to the one before, with its id, its private
addresses, its Elastic IPs and its volumes; what was in memory is lost and its uptime begins anew. Meanwhile the system
status check fails and the instance goes on being called `running` (that it never leaves the state is ours: the page
only says that it is migrated during a reboot). Triggered by the harness alone, there are no hosts here that die.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from harness.region.ec2_instances import boot
from harness.region.plane import RETRY_S, Plane

MAX_IMPAIRED_S = 3600.0


def begin_recovery(plane: Plane, instance_id: str, impaired_s: float) -> None:
    """The host of a running instance dies now; the instance is back after `impaired_s`, plus the time of a boot (and
    of what the region's timing says of `recover`).

    Whoever stops or terminates it meanwhile has the last word. `AwsError` for an instance that is not there,
    `ValueError` for one that does not run or has something else under way.
    """
    if not 0 <= impaired_s <= MAX_IMPAIRED_S:
        raise ValueError(f"recover: an instance is impaired for 0 to {MAX_IMPAIRED_S:g} s, not {impaired_s:g}")
    with plane.state.lock:
        record = plane.instance(instance_id)
        if plane.state_of(record) != "running" or record.transition is not None:
            doing = record.transition or plane.state_of(record)
            raise ValueError(f"recover: instance {instance_id} is {doing}, not running")
        back_s = plane.wall_s() + impaired_s + plane.delays.draw("recover")
        plane.state.put(replace(record, transition="recovering", host_back_s=back_s))
    plane.journal.record("host_failed", instance_id=instance_id, impaired_s=impaired_s)
    plane.background(plane.until_done, finish_recovery, plane, instance_id)


def finish_recovery(plane: Plane, instance_id: str) -> None:
    """Worker: the power is gone at once; the machine boots when there is another host for it."""
    with plane.machine_lock(instance_id):
        if not _recovering(plane, instance_id):
            return
        plane.instances.power_off(instance_id)
    while plane.wall_s() < plane.state.instances[instance_id].host_back_s:  # unlocked: a fence need not wait
        if plane.closing.wait(RETRY_S) or not _recovering(plane, instance_id):
            return
    with plane.machine_lock(instance_id):
        if not _recovering(plane, instance_id):
            return
        boot(plane, instance_id, "recovering")
        plane.journal.record("host_recovered", instance_id=instance_id)


def resume(plane: Plane) -> None:
    """Take up the recoveries that a gateway before this one left half done."""
    for record in list(plane.state.instances.values()):
        if record.transition == "recovering":
            plane.background(plane.until_done, finish_recovery, plane, record.instance_id)


def control(plane: Plane, wanted: Any) -> None:
    """The control call `{"recover": {"instance_id": …, "impaired_s": …}}`; ValueError says what is wrong with it."""
    row = wanted if isinstance(wanted, dict) else {}
    instance_id, impaired_s = row.get("instance_id"), row.get("impaired_s", 0)
    if not isinstance(instance_id, str) or not isinstance(impaired_s, int | float):
        raise ValueError('recover: {"instance_id": id, "impaired_s": seconds} is expected')
    begin_recovery(plane, instance_id, float(impaired_s))


def _recovering(plane: Plane, instance_id: str) -> bool:
    return plane.state.instances[instance_id].transition == "recovering"


CONTROLS = {"recover": control}
