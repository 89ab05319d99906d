"""ModifyInstanceAttribute and DescribeInstanceAttribute: protection from stop and termination, DeleteOnTermination.

One attribute per call (API reference). The protections are the region's own: the books are never told, so that they
refuse nothing by themselves. What has no effect in this region is recorded by the books.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from harness.region import ec2_filters
from harness.region.calls import AwsError, Call, answer
from harness.region.ec2_interfaces import set_source_dest_check
from harness.region.plane import Action, Plane, refuse_dry_run
from harness.region.semantics.instances import check_instance_type, check_shutdown_behavior
from harness.region.semantics.volumes import ROOT_DEVICES
from harness.region.state import Instance

PROTECTIONS = {"disableApiStop": "stop_protected", "disableApiTermination": "termination_protected"}
"""Attribute: field of the record."""


def modify_instance_attribute(plane: Plane, call: Call) -> bytes:
    """ModifyInstanceAttribute, in either of its forms: `DisableApiStop.Value=true`, or `Attribute=…` with `Value=…`."""
    refuse_dry_run(call)
    attribute, value = _wanted(call)
    with plane.state.lock:
        record = plane.instance(call.require("InstanceId"))
        if attribute in ("groupId", "groupSet"):
            ec2_filters.set_groups(plane, record, call.numbered("GroupId"))
        elif attribute in PROTECTIONS:
            plane.state.put(_protected(record, attribute, value))
        elif attribute == "sourceDestCheck":
            set_source_dest_check(plane, record, value)
        elif attribute == "blockDeviceMapping":
            _modify_devices(plane, call, record)
        else:
            _check(plane, record, attribute, value)
            plane.books.call(call.action, call.params)
            if attribute == "instanceType":
                plane.state.put(replace(record, instance_type=value))
    return answer(call, {"return": True})


def describe_instance_attribute(plane: Plane, call: Call) -> bytes:
    """DescribeInstanceAttribute: protections as they are here, the rest as the books have it."""
    refuse_dry_run(call)
    attribute = call.require("Attribute")
    record = plane.instance(call.require("InstanceId"))
    if attribute == "sourceDestCheck":
        return answer(call, {"instanceId": record.instance_id, attribute: {"value": record.source_dest_check}})
    if attribute not in PROTECTIONS:
        return plane.books.call(call.action, call.params).body(call)
    value = bool(getattr(record, PROTECTIONS[attribute]))
    return answer(call, {"instanceId": record.instance_id, attribute: {"value": value}})


def _wanted(call: Call) -> tuple[str, str]:
    """Which attribute is to be changed, and to what."""
    if call.get("Attribute") is not None:
        return call.require("Attribute"), call.params.get("Value", "")
    heads = dict.fromkeys(key.partition(".")[0] for key in call.params if key not in ("InstanceId", "DryRun"))
    if not heads:
        raise AwsError("InvalidParameterCombination", "No attributes specified.")
    if len(heads) > 1:
        raise AwsError(
            "InvalidParameterCombination", f"Fields for multiple attribute types specified: {', '.join(heads)}"
        )
    head = next(iter(heads))
    return head[0].lower() + head[1:], call.params.get(f"{head}.Value", "")


def _protected(record: Instance, attribute: str, value: str) -> Instance:
    if value.lower() not in ("true", "false"):
        raise AwsError("InvalidParameterValue", f"Value ({value}) for parameter {attribute} is invalid.")
    on = value.lower() == "true"
    if attribute == "disableApiStop":
        return replace(record, stop_protected=on)
    return replace(record, termination_protected=on)


def _check(plane: Plane, record: Instance, attribute: str, value: str) -> None:
    """What is refused of the attributes that the books record."""
    if attribute == "instanceInitiatedShutdownBehavior":
        check_shutdown_behavior(value)
    if attribute in ("instanceType", "userData") and plane.state_of(record) != "stopped":
        raise AwsError("IncorrectInstanceState", f"The instance '{record.instance_id}' is not in the 'stopped' state.")
    if attribute == "instanceType":
        check_instance_type(value)


def _modify_devices(plane: Plane, call: Call, record: Instance) -> None:
    """BlockDeviceMapping.N.Ebs.DeleteOnTermination, of what is attached; all are checked before one is changed."""
    changes: dict[str, bool] = {}
    for key, device in call.params.items():
        found = re.fullmatch(r"(BlockDeviceMapping\.\d+\.)DeviceName", key)
        flag = call.params.get(f"{found[1]}Ebs.DeleteOnTermination") if found else None
        if flag is not None:
            changes[device] = flag.lower() == "true"
    places = {}
    for volume in plane.state.volumes_of(record.instance_id):
        place = volume.place_at(record.instance_id)
        if place is not None:
            places[place.device] = volume, place
    for device in changes:
        if device not in places and device not in ROOT_DEVICES:
            raise AwsError("InvalidInstanceAttributeValue", f"No device is currently mapped at {device}")
    for device, on in changes.items():
        if device in places:
            volume, place = places[device]
            plane.state.put(volume.placed(replace(place, delete_on_termination=on)))
        else:
            mapping = {"DeviceName": device, "Ebs.DeleteOnTermination": str(on).lower()}
            params = {f"BlockDeviceMapping.1.{key}": value for key, value in mapping.items()}
            with suppress(AwsError):  # they have no root volume under this name
                plane.books.call(call.action, {"InstanceId": record.instance_id, **params})


ACTIONS: Mapping[str, Action] = {
    "ModifyInstanceAttribute": modify_instance_attribute,
    "DescribeInstanceAttribute": describe_instance_attribute,
}
