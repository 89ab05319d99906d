"""The EC2 actions on instances: an answer at once, a machine that follows, and states that are true."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from harness.region import ec2_addresses, ec2_filters, ec2_interfaces
from harness.region.calls import AwsError, Call, Document, answer, put, take_filters
from harness.region.credentials import new_access_key_id
from harness.region.ec2_routes import sync_routes
from harness.region.ec2_volumes import connect_volumes, overlay_attachment, part_with_volumes
from harness.region.instances import InstanceSpec
from harness.region.plane import Action, Plane, refuse_dry_run
from harness.region.semantics import addresses, instances
from harness.region.semantics.instances import STATE_CODES, InstanceState, Transition
from harness.region.state import Instance

STATE_FILTERS = ("instance-state-name", "instance-state-code")


def run_instances(plane: Plane, call: Call) -> bytes:
    """RunInstances, one instance per call: entered in the books, `pending`, launched by a worker."""
    refuse_dry_run(call)
    if call.get("MaxCount") not in (None, "1"):
        raise AwsError("UnsupportedOperation", "This region launches one instance per call (MaxCount=1).")
    image = _image_reference(plane, call.require("ImageId"))
    with plane.state.lock:
        group_ids = ec2_filters.launch_groups(plane, call)
        living = [i for i in plane.state.instances.values() if not i.terminated]
        wanted, others = ec2_interfaces.asked_at_launch(call)
        taken = {ip for i in living for ip in i.private_ips}
        address = addresses.choose_private(plane.topology.vpc_subnet, wanted, taken)
        secondaries = ec2_interfaces.secondaries_at_launch(plane, call, others, taken={*taken, str(address)})
        params = ec2_interfaces.without_addresses(call.params)
        inside = "NetworkInterface.1.DeviceIndex" in params
        params["NetworkInterface.1.PrivateIpAddress" if inside else "PrivateIpAddress"] = str(address)
        document = plane.books.call("RunInstances", params)
        item = next(document.items("instancesSet"))
        instance_id = item.findtext("instanceId") or ""
        record = Instance(
            instance_id=instance_id,
            name=_tag(call, "Name") or instance_id,
            image=image,
            private_ip=str(address),
            interface_id=item.findtext("networkInterfaceSet/item/networkInterfaceId") or "",
            access_key_id=new_access_key_id(),
            secret_access_key=secrets.token_urlsafe(30),
            user_data=_decoded(call.get("UserData")),
            transition="pending",
            secondary_ips=tuple(secondaries),
            wants_public=_wants_public(plane, call, item.findtext("subnetId") or ""),
            group_ids=group_ids,
        )
        plane.state.put(record)
        ec2_filters.sync(plane)
        ec2_interfaces.show_network(item, record, plane.state.now(), ec2_filters.group_names(plane))
    plane.background(finish_launch, plane, instance_id)
    _show_state(item, "pending")
    return document.body(call)


def start_instances(plane: Plane, call: Call) -> bytes:
    """StartInstances: `pending` at once, the machine boots in a worker with its volumes and its address."""
    return _switch(plane, call, "StartInstances", instances.decide_start)


def stop_instances(plane: Plane, call: Call) -> bytes:
    """StopInstances: `stopping` at once; `stopped` only when the machine is off."""
    skip = call.flag("SkipOsShutdown")
    return _switch(plane, call, "StopInstances", lambda i, s: instances.decide_stop(i, s, skip_os_shutdown=skip))


def terminate_instances(plane: Plane, call: Call) -> bytes:
    """TerminateInstances: `shutting-down` at once; the address is given up, volumes stay as `available`."""
    return _switch(plane, call, "TerminateInstances", lambda _, s: instances.decide_terminate(s))


def reboot_instances(plane: Plane, call: Call) -> bytes:
    """RebootInstances: the guest shuts down and boots again; the state stays `running`."""
    refuse_dry_run(call)
    with plane.state.lock:
        records = [plane.instance(i) for i in _instance_ids(call)]
        for record in records:
            instances.decide_reboot(record.instance_id, plane.state_of(record))
        for record in records:
            plane.state.put(replace(record, transition="rebooting"))
    for record in records:
        plane.background(finish_reboot, plane, record.instance_id)
    return answer(call, {"return": True})


def describe_instances(plane: Plane, call: Call) -> bytes:
    """DescribeInstances of the books, with states and attachments as they are."""
    params, wanted = take_filters(call.params, STATE_FILTERS)
    params, of_network = take_filters(params, tuple(ec2_interfaces.INSTANCE_FILTERS))
    with plane.state.lock:
        document = plane.books.call("DescribeInstances", params)
        tables = plane.seen()
        names = ec2_filters.group_names(plane)
    records = tables.instances
    places = {v.volume_id: v.attachment for v in tables.volumes.values()}
    keep: dict[str, bool] = {}
    for item in document.items("reservationSet", "instancesSet"):
        instance_id = item.findtext("instanceId") or ""
        if instance_id not in records:
            keep[instance_id] = ec2_interfaces.matches(item, of_network, ec2_interfaces.INSTANCE_FILTERS)
            continue
        state = plane.state_of(records[instance_id])
        _show_state(item, state)
        ec2_interfaces.show_network(item, records[instance_id], tables, names)
        if records[instance_id].reason:
            put(item, "stateReason", {"code": "Server.InternalError", "message": records[instance_id].reason})
        keep[instance_id] = _matches(state, wanted) and ec2_interfaces.matches(
            item, of_network, ec2_interfaces.INSTANCE_FILTERS
        )
        for mapping in item.findall("blockDeviceMapping/item/ebs"):
            overlay_attachment(mapping, places.get(mapping.findtext("volumeId") or ""))
    document.keep("reservationSet/item/instancesSet", keep, "instanceId")
    for reservations in document.root.findall("reservationSet"):
        for reservation in reservations.findall("item"):
            if reservation.find("instancesSet/item") is None:
                reservations.remove(reservation)
    return document.body(call)


def describe_instance_status(plane: Plane, call: Call) -> bytes:
    """DescribeInstanceStatus: running instances only, unless all are asked for."""
    params, wanted = take_filters(call.params, STATE_FILTERS)
    document = plane.books.call("DescribeInstanceStatus", {**params, "IncludeAllInstances": "true"})
    keep: dict[str, bool] = {}
    for item in document.items("instanceStatusSet"):
        instance_id = item.findtext("instanceId") or ""
        record = plane.state.instances.get(instance_id)
        if record is None:
            continue
        state = plane.state_of(record)
        _show_state(item, state)
        if state != "running":
            for part in ("instanceStatus", "systemStatus"):
                put(item, part, {"status": "not-applicable"})
        shown = state == "running" or call.flag("IncludeAllInstances")
        keep[instance_id] = shown and _matches(state, wanted)
    document.keep("instanceStatusSet", keep, "instanceId")
    return document.body(call)


def finish_launch(plane: Plane, instance_id: str) -> None:
    """Worker: make the machine. A launch that fails ends as EC2's do: terminated, with a reason."""
    record = plane.state.instances[instance_id]
    spec = InstanceSpec(
        instance_id=instance_id,
        name=record.name,
        image=record.image,
        private_ip=record.private_ip,
        access_key_id=record.access_key_id,
        secret_access_key=record.secret_access_key,
        user_data=record.user_data,
    )
    with plane.machine_lock(instance_id):
        try:
            if instance_id in plane.instances.list():  # made by a gateway that was killed before it ran
                plane.instances.start(instance_id)
            else:
                plane.take("launch")
                ec2_addresses.give_own_address(plane, instance_id)
                ec2_interfaces.sync_owners(plane)
                plane.instances.launch(spec)
            plane.refresh_metadata(instance_id)
        except Exception as error:
            with plane.state.lock:
                failed = plane.state.instances[instance_id]
                plane.state.put(replace(failed, transition=None, terminated=True, reason=str(error)))
            with suppress(Exception):
                ec2_addresses.release_own_address(plane, instance_id)
                plane.instances.terminate(instance_id)
            with suppress(AwsError):
                plane.books.call("TerminateInstances", {"InstanceId.1": instance_id})
            raise
        _transition_done(plane, instance_id, "pending")


def finish_stop(plane: Plane, instance_id: str) -> None:
    """Worker: switch the machine off, the way it was decided."""
    with plane.machine_lock(instance_id):
        try:
            if plane.state.instances[instance_id].how == "power_off":
                plane.instances.power_off(instance_id)
                plane.take("power_off")
            else:
                plane.instances.shut_down(instance_id, timeout_s=plane.shut_down_timeout_s)
                plane.take("stop")
        finally:
            ec2_addresses.release_own_address(plane, instance_id)
            _transition_done(plane, instance_id, "stopping")


def finish_start(plane: Plane, instance_id: str) -> None:
    """Worker: boot the machine, with the volumes that were attached while it was off."""
    with plane.machine_lock(instance_id):
        try:
            plane.take("start")
            ec2_addresses.renew_own_address(plane, instance_id)
            plane.instances.start(instance_id)
            connect_volumes(plane, instance_id)
            plane.refresh_metadata(instance_id)
        finally:
            _transition_done(plane, instance_id, "pending")


def finish_reboot(plane: Plane, instance_id: str) -> None:
    """Worker: off in order, on again."""
    with plane.machine_lock(instance_id):
        try:
            plane.instances.shut_down(instance_id, timeout_s=plane.shut_down_timeout_s)
            plane.instances.start(instance_id)
            connect_volumes(plane, instance_id)
            plane.refresh_metadata(instance_id)
        finally:
            _transition_done(plane, instance_id, "rebooting")


def finish_terminate(plane: Plane, instance_id: str) -> None:
    """Worker: the machine goes, its volumes stay."""
    with plane.machine_lock(instance_id):
        plane.instances.terminate(instance_id)
        part_with_volumes(plane, instance_id)
        ec2_addresses.release_own_address(plane, instance_id)
        plane.take("terminate")
        with plane.state.lock:
            gone = replace(plane.state.instances[instance_id], transition=None, terminated=True, secondary_ips=())
            plane.state.put(gone)
        ec2_interfaces.sync_owners(plane)
        ec2_filters.sync(plane)
        sync_routes(plane)


def resume(plane: Plane) -> None:
    """Take up what a gateway before this one left half done."""
    finish = {"stopping": finish_stop, "shutting-down": finish_terminate, "rebooting": finish_reboot}
    for record in list(plane.state.instances.values()):
        if record.transition == "pending":
            plane.background(finish_start if record.how == "start" else finish_launch, plane, record.instance_id)
        elif record.transition is not None:
            plane.background(finish[record.transition], plane, record.instance_id)


def _switch(plane: Plane, call: Call, action: str, decide: Callable[[str, InstanceState], str]) -> bytes:
    """Stop, start, terminate: all instances of the call are checked before the first is touched."""
    refuse_dry_run(call)
    with plane.state.lock:
        records = [plane.instance(i) for i in _instance_ids(call)]
        before: dict[str, InstanceState] = {r.instance_id: plane.state_of(r) for r in records}
        decided = {r.instance_id: decide(r.instance_id, before[r.instance_id]) for r in records}
        after = dict(before)
        for record in records:
            if decided[record.instance_id] != "nothing":
                after[record.instance_id] = _begin(plane, record, action, decided[record.instance_id])
    rows = [{"instanceId": i, "currentState": _state(after[i]), "previousState": _state(before[i])} for i in before]
    return answer(call, {"instancesSet": rows})


def _begin(plane: Plane, record: Instance, action: str, how: str) -> InstanceState:
    """Write the transition down, tell the books, and set the worker off. Called under the lock."""
    if action == "TerminateInstances":
        ec2_addresses.release_instance_address(plane, record.instance_id)
    plane.books.call(action, {"InstanceId.1": record.instance_id})
    if action == "StartInstances":
        plane.state.put(replace(record, transition="pending", how=how))
        plane.background(finish_start, plane, record.instance_id)
        return "pending"
    if action == "StopInstances":
        plane.state.put(replace(record, transition="stopping", how=how))
        plane.background(finish_stop, plane, record.instance_id)
        return "stopping"
    plane.state.put(replace(record, transition="shutting-down", how=how))
    plane.background(finish_terminate, plane, record.instance_id)
    return "shutting-down"


def _transition_done(plane: Plane, instance_id: str, transition: Transition) -> None:
    """Clear the transition, unless a later call has already begun another one."""
    with plane.state.lock:
        record = plane.state.instances[instance_id]
        if record.transition == transition:
            plane.state.put(replace(record, transition=None, how=""))


def _image_reference(plane: Plane, image_id: str) -> str:
    """The Docker image behind an AMI: its name, as `start_region` registered it."""
    document: Document = plane.books.call("DescribeImages", {"ImageId.1": image_id})
    item = next(document.items("imagesSet"), None)
    if item is None:
        raise AwsError("InvalidAMIID.NotFound", f"The image id '[{image_id}]' does not exist")
    return item.findtext("name") or ""


def _instance_ids(call: Call) -> list[str]:
    ids = call.numbered("InstanceId")
    if not ids:
        raise AwsError("MissingParameter", "The request must contain the parameter InstanceId")
    return ids


def _wants_public(plane: Plane, call: Call, subnet_id: str) -> bool:
    """Whether it gets a public address of its own: as the call says, else as its subnet does (MapPublicIpOnLaunch)."""
    asked = call.get("NetworkInterface.1.AssociatePublicIpAddress")
    if asked is not None:
        return asked.lower() == "true"
    subnet = next(plane.books.call("DescribeSubnets", {"SubnetId.1": subnet_id}).items("subnetSet"), None)
    return subnet is not None and subnet.findtext("mapPublicIpOnLaunch") == "true"


def _tag(call: Call, key: str) -> str | None:
    """A tag of the instance given at launch (TagSpecification.N.Tag.M)."""
    for name, value in call.params.items():
        if name.startswith("TagSpecification.") and name.endswith(".Key") and value == key:
            owner = name.split(".Tag.")[0] + ".ResourceType"
            if call.params.get(owner, "instance") == "instance":
                return call.params.get(name.removesuffix("Key") + "Value")
    return None


def _decoded(user_data: str | None) -> str:
    return base64.b64decode(user_data).decode("utf-8", "replace") if user_data else ""


def _state(state: InstanceState) -> dict[str, Any]:
    return {"code": STATE_CODES[state], "name": state}


def _show_state(item: Any, state: InstanceState) -> None:
    put(item, "instanceState", _state(state))


def _matches(state: InstanceState, wanted: dict[str, set[str]]) -> bool:
    names = wanted.get("instance-state-name")
    codes = wanted.get("instance-state-code")
    return (names is None or state in names) and (codes is None or str(STATE_CODES[state]) in codes)


ACTIONS: Mapping[str, Action] = {
    "RunInstances": run_instances,
    "StartInstances": start_instances,
    "StopInstances": stop_instances,
    "RebootInstances": reboot_instances,
    "TerminateInstances": terminate_instances,
    "DescribeInstances": describe_instances,
    "DescribeInstanceStatus": describe_instance_status,
}
