"""The EC2 actions on instances that are there: an answer at once, a machine that follows, and states that are true.

How an instance comes to be is in ec2_launch.py, its status checks in ec2_instance_status.py, its attributes in
ec2_instance_attributes.py, the death of its host in recovery.py.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from harness.region import capacity, ec2_addresses, ec2_filters, ec2_interfaces, launch_volumes, pages
from harness.region.calls import BOOKS_ACCOUNT, AwsError, Call, answer, put, take_filters
from harness.region.ec2_routes import sync_routes
from harness.region.ec2_volumes import connect_volumes, overlay_attachments
from harness.region.plane import Action, Plane, refuse_dry_run
from harness.region.semantics import instances
from harness.region.semantics.instances import STATE_CODES, InstanceState, StateReason, Transition
from harness.region.semantics.matching import Places, item_passes
from harness.region.state import LAUNCH_TIME, Address, Instance

STATE_FILTERS: Places = {
    "instance-state-name": ("instanceState/name",),
    "instance-state-code": ("instanceState/code",),
}
FILTERS: Places = {
    **STATE_FILTERS,
    **ec2_interfaces.INSTANCE_FILTERS,
    "architecture": ("architecture",),
    "availability-zone": ("placement/availabilityZone",),
    "image-id": ("imageId",),
    "instance-id": ("instanceId",),
    "instance-type": ("instanceType",),
    "key-name": ("keyName",),
    "launch-time": ("launchTime",),
    "private-dns-name": ("privateDnsName",),
    "private-ip-address": ("privateIpAddress",),
    "reason": ("reason",),
    "state-reason-code": ("stateReason/code",),
    "subnet-id": ("subnetId",),
    "vpc-id": ("vpcId",),
}
"""DescribeInstances' filters that are judged here, and where their values stand in the answer."""


def start_instances(plane: Plane, call: Call) -> bytes:
    """StartInstances: `pending` at once, the machine boots in a worker with its volumes and its address."""

    def decide(record: Instance, state: InstanceState) -> str:
        decided = instances.decide_start(record.instance_id, state)
        if decided == "start":
            capacity.check_room(plane.topology, record.instance_id, record.instance_type, record.zone)
        return decided

    return _switch(plane, call, "StartInstances", decide)


def stop_instances(plane: Plane, call: Call) -> bytes:
    """StopInstances: `stopping` at once; `stopped` only when the machine is off."""
    skip, force = call.flag("SkipOsShutdown"), call.flag("Force")
    hibernate = call.flag("Hibernate")

    def decide(record: Instance, state: InstanceState) -> str:
        instances.check_hibernation(record.instance_id, asked=hibernate)
        instances.check_stop_allowed(record.instance_id, stop_protected=record.stop_protected)
        return instances.decide_stop(record.instance_id, state, skip_os_shutdown=skip, force=force)

    return _switch(plane, call, "StopInstances", decide)


def terminate_instances(plane: Plane, call: Call) -> bytes:
    """TerminateInstances: `shutting-down` at once; the address is given up, volumes stay as `available`, but for those
    that are to go with it (DeleteOnTermination)."""
    skip, force = call.flag("SkipOsShutdown"), call.flag("Force")

    def decide(record: Instance, state: InstanceState) -> str:
        decided = instances.decide_terminate(state, skip_os_shutdown=skip, force=force)
        if decided != "nothing":
            instances.check_terminate_allowed(
                record.instance_id,
                stop_protected=record.stop_protected,
                termination_protected=record.termination_protected,
            )
        return decided

    return _switch(plane, call, "TerminateInstances", decide)


def reboot_instances(plane: Plane, call: Call) -> bytes:
    """RebootInstances: the guest shuts down and boots again; the state stays `running`.

    On a dead host there is nobody who could do it: accepted, and nothing happens (ours).
    """
    refuse_dry_run(call)
    with plane.state.lock:
        records = [plane.instance(i) for i in _instance_ids(call)]
        for record in records:
            instances.decide_reboot(record.instance_id, plane.state_of(record))
        idle = [record for record in records if record.transition is None]
        for record in idle:
            plane.state.put(replace(record, transition="rebooting"))
    for record in idle:
        plane.background(finish_reboot, plane, record.instance_id)
    return answer(call, {"return": True})


def describe_instances(plane: Plane, call: Call) -> bytes:
    """DescribeInstances of the books, with states and attachments as they are."""
    params, wanted = take_filters(call.params, FILTERS)
    tables = plane.seen()
    records = plane.visible(tables.instances)  # what is too new to be seen is not there yet
    for instance_id in call.numbered("InstanceId"):
        instances.check_instance_id(instance_id, records)
    document = plane.books.call("DescribeInstances", pages.unpaged(params))
    names = ec2_filters.group_names(plane)
    young = {volume_id: replace(volume, attachments=()) for volume_id, volume in plane.state.volumes.items()}
    volumes = {**young, **tables.volumes}
    keep: dict[str, bool] = {}
    for item in document.items("reservationSet", "instancesSet"):
        instance_id = item.findtext("instanceId") or ""
        if instance_id not in records:
            keep[instance_id] = False
            continue
        state = plane.state_of(records[instance_id])
        show(item, records[instance_id], state)
        ec2_interfaces.show_network(item, records[instance_id], tables, names)
        overlay_attachments(item, volumes)
        keep[instance_id] = item_passes(item, wanted, FILTERS)
    document.keep("reservationSet/item/instancesSet", keep, "instanceId")
    for reservations in document.root.findall("reservationSet"):
        for reservation in reservations.findall("item"):
            if reservation.find("instancesSet/item") is None:
                reservations.remove(reservation)
    pages.cut(document, "reservationSet", call)
    return document.body(call)


def finish_stop(plane: Plane, instance_id: str) -> None:
    """Worker: switch the machine off, the way it was decided. One that could not be is `running`: tell it again."""
    try:
        with plane.machine_lock(instance_id):
            if not still(plane, instance_id, "stopping"):
                return
            how = plane.state.instances[instance_id].how
            if how == "power_off":
                plane.instances.power_off(instance_id)
            else:
                plane.instances.shut_down(instance_id, timeout_s=plane.shut_down_timeout_s)
        plane.take("power_off" if how == "power_off" else "stop")
        plane.until_done(ec2_addresses.release_own_address, plane, instance_id)
    finally:
        transition_done(plane, instance_id, "stopping")


def finish_start(plane: Plane, instance_id: str) -> None:
    """Worker: boot the machine, with the volumes that were attached while it was off."""
    plane.take("start")
    with plane.machine_lock(instance_id):
        if still(plane, instance_id, "pending"):
            ec2_addresses.renew_own_address(plane, instance_id)
            boot(plane, instance_id, "pending")


def finish_reboot(plane: Plane, instance_id: str) -> None:
    """Worker: off in order, on again; whoever stops or terminates it in between has the last word."""
    with plane.machine_lock(instance_id):
        if not still(plane, instance_id, "rebooting"):
            return
        try:
            plane.instances.shut_down(instance_id, timeout_s=plane.shut_down_timeout_s)
        except Exception:
            transition_done(plane, instance_id, "rebooting")
            raise
    plane.take("reboot")
    with plane.machine_lock(instance_id):
        if still(plane, instance_id, "rebooting"):
            boot(plane, instance_id, "rebooting")


def boot(plane: Plane, instance_id: str, transition: Transition) -> None:
    """Worker, machine lock held: switch the machine on; one that does not come up is stopped, with a reason."""
    try:
        plane.instances.start(instance_id)
        connect_volumes(plane, instance_id)
        plane.refresh_metadata(instance_id)
    except Exception as error:
        why = StateReason(code="Server.InternalError", message=f"Server.InternalError: {error}")
        with plane.state.lock:
            plane.state.put(plane.state.instances[instance_id].because(why))
        raise
    finally:
        transition_done(plane, instance_id, transition)


def finish_terminate(plane: Plane, instance_id: str) -> None:
    """Worker: the guest shuts down, the machine goes; its volumes stay, or go with it. Can be done again."""
    plane.refresh_metadata(instance_id)
    with plane.machine_lock(instance_id):
        if not still(plane, instance_id, "shutting-down"):
            return
        if plane.state.instances[instance_id].how != "power_off":
            plane.instances.shut_down(instance_id, timeout_s=plane.shut_down_timeout_s)
        plane.instances.terminate(instance_id)
        tell_terminated(plane, instance_id)
        launch_volumes.part_and_delete(plane, instance_id)
    plane.take("terminate")
    with plane.machine_lock(instance_id):
        gone(plane, instance_id, instances.USER_INITIATED)


def resume(plane: Plane) -> None:
    """Take up what a gateway before this one left half done."""
    finish = {
        "pending": finish_start,
        "stopping": finish_stop,
        "rebooting": finish_reboot,
    }
    for record in list(plane.state.instances.values()):
        if record.transition == "shutting-down":
            plane.background(plane.until_done, finish_terminate, plane, record.instance_id)
        elif record.transition in finish and (record.transition != "pending" or record.how == "start"):
            plane.background(finish[record.transition], plane, record.instance_id)


def transition_done(plane: Plane, instance_id: str, transition: Transition) -> None:
    """Worker: clear the transition, unless a later call has already begun another one."""
    plane.until_done(_clear_transition, plane, instance_id, transition)


def _clear_transition(plane: Plane, instance_id: str, transition: Transition) -> None:
    with plane.state.lock:
        record = plane.state.instances[instance_id]
        if record.transition == transition:
            if transition in ("pending", "recovering") and record.state_reason is None:
                record = replace(record, checks_ok_s=plane.wall_s() + plane.delays.draw("status_checks"))
            plane.state.put(replace(record, transition=None, how=""))


def _switch(plane: Plane, call: Call, action: str, decide: Callable[[Instance, InstanceState], str]) -> bytes:
    """Stop, start, terminate: all instances of the call are checked before the first is touched."""
    refuse_dry_run(call)
    with plane.state.lock:
        records = [plane.instance(i) for i in _instance_ids(call)]
        before: dict[str, InstanceState] = {r.instance_id: plane.state_of(r) for r in records}
        decided = {r.instance_id: decide(r, before[r.instance_id]) for r in records}
        after = dict(before)
        for record in records:
            how = decided[record.instance_id]
            if how == "hurry":
                plane.state.put(replace(record, how="power_off"))
            elif how != "nothing":
                after[record.instance_id] = _begin(plane, record, action, how)
            if how in ("hurry", "power_off") and record.transition is not None:  # it is being shut down: enough of that
                plane.instances.hurry(record.instance_id)
    rows = [{"instanceId": i, "currentState": _state(after[i]), "previousState": _state(before[i])} for i in before]
    return answer(call, {"instancesSet": rows})


def _begin(plane: Plane, record: Instance, action: str, how: str) -> InstanceState:
    """Write the transition down and set the worker off. Called under the lock.

    The books are not asked whether a machine may be fenced: what is described of its state is the region's own.
    """
    now = datetime.now(UTC)
    if action == "StartInstances":
        starting = replace(record, transition="pending", how=how, launched=now.strftime(LAUNCH_TIME))
        plane.state.put(starting.because(None))
        plane.background(finish_start, plane, record.instance_id)
        return "pending"
    asked = record.because(instances.USER_INITIATED, now.strftime("User initiated (%Y-%m-%d %H:%M:%S GMT)"))
    if action == "StopInstances":
        plane.state.put(replace(asked, transition="stopping", how=how))
        plane.background(finish_stop, plane, record.instance_id)
        return "stopping"
    freed = begin_terminate(plane, asked, how)
    plane.background(plane.until_done, finish_terminate, plane, record.instance_id)
    ec2_addresses.follow_freed(plane, freed)
    return "shutting-down"


def begin_terminate(plane: Plane, record: Instance, how: str) -> list[Address]:
    """Under the lock: the instance is `shutting-down` and has no Elastic IP any more, or neither. Returns its former
    ones, which the router does not know yet."""
    freed = [ec2_addresses.freed(address) for address in plane.state.addresses_of(record.instance_id)]
    plane.state.put(replace(record, transition="shutting-down", how=how), *freed)
    return freed


def gone(plane: Plane, instance_id: str, why: StateReason) -> None:
    """The instance is terminated: to be seen for a while, never to come back. Nobody sees it so before the network
    has followed."""
    with plane.state.lock:
        record = plane.state.instances[instance_id]
        gone = replace(record, transition=None, how="", terminated=True, terminated_s=plane.wall_s(), secondary_ips=())
        plane.state.put(gone.because(why, record.transition_reason))
        try:
            _leave_network(plane, instance_id)
        except Exception:  # it will have followed as soon as it can
            plane.background(plane.until_done, _leave_network, plane, instance_id)
            raise


def _leave_network(plane: Plane, instance_id: str) -> None:
    with plane.state.lock:
        ec2_addresses.release_own_address(plane, instance_id)
        ec2_interfaces.sync_owners(plane)
        ec2_filters.sync(plane)
        sync_routes(plane)


def tell_terminated(plane: Plane, instance_id: str) -> None:
    """To the books, which give its private address to nobody else before. A refusal: they have been told."""
    try:
        plane.books.call("TerminateInstances", {"InstanceId.1": instance_id})
    except AwsError as error:
        if error.status >= 500:
            raise


def still(plane: Plane, instance_id: str, transition: Transition) -> bool:
    """Whether no later call has begun something else with the machine."""
    return plane.state.instances[instance_id].transition == transition


def _instance_ids(call: Call) -> list[str]:
    ids = call.numbered("InstanceId")
    if not ids:
        raise AwsError("MissingParameter", "The request must contain the parameter InstanceId")
    return ids


def _state(state: InstanceState) -> dict[str, Any]:
    return {"code": STATE_CODES[state], "name": state}


def show_state(item: ET.Element, state: InstanceState) -> None:
    put(item, "instanceState", _state(state))


def shown_profile(profile: str) -> dict[str, str]:
    """An IAM instance profile by name or ARN: any will do, and the guest always gets the same role (ours)."""
    arn = profile if profile.startswith("arn:") else f"arn:aws:iam::{BOOKS_ACCOUNT}:instance-profile/{profile}"
    return {"arn": arn, "id": "AIPA" + sha256(arn.encode()).hexdigest()[:17].upper()}


def show(item: ET.Element, record: Instance, state: InstanceState) -> None:
    """An instance of the books as it is."""
    show_state(item, state)
    why = instances.state_reason(state, record.state_reason)
    put(item, "stateReason", {"code": why.code, "message": why.message} if why is not None else None)
    put(item, "reason", record.transition_reason)
    put(item, "clientToken", record.client_token)
    if record.launched:
        put(item, "launchTime", record.launched)
    if record.profile:
        put(item, "iamInstanceProfile", shown_profile(record.profile))


ACTIONS: Mapping[str, Action] = {
    "StartInstances": start_instances,
    "StopInstances": stop_instances,
    "RebootInstances": reboot_instances,
    "TerminateInstances": terminate_instances,
    "DescribeInstances": describe_instances,
}
