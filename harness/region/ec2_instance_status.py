"""DescribeInstanceStatus: what AWS's status checks say of machines, as they really are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.region import pages
from harness.region.calls import Call, put, take_filters
from harness.region.ec2_instances import STATE_FILTERS, show_state
from harness.region.plane import Action, Plane
from harness.region.semantics.instances import CheckStatus, InstanceState, check_instance_id, status_checks
from harness.region.semantics.matching import Places, item_passes
from harness.region.state import Instance

FILTERS: Places = {
    **STATE_FILTERS,
    "availability-zone": ("availabilityZone",),
    "system-status.status": ("systemStatus/status",),
    "system-status.reachability": ("systemStatus/details/item/status",),
    "instance-status.status": ("instanceStatus/status",),
    "instance-status.reachability": ("instanceStatus/details/item/status",),
}
REACHABILITY: Mapping[CheckStatus, str] = {"ok": "passed", "impaired": "failed", "initializing": "initializing"}


def describe_instance_status(plane: Plane, call: Call) -> bytes:
    """DescribeInstanceStatus: running instances only, unless all are asked for."""
    params, wanted = take_filters(call.params, FILTERS)
    with plane.state.lock:
        records = plane.visible(plane.seen().instances)
    for instance_id in call.numbered("InstanceId"):
        check_instance_id(instance_id, records)
    document = plane.books.call("DescribeInstanceStatus", {**pages.unpaged(params), "IncludeAllInstances": "true"})
    keep: dict[str, bool] = {}
    for item in document.items("instanceStatusSet"):
        record = records.get(item.findtext("instanceId") or "")
        if record is None:
            keep[item.findtext("instanceId") or ""] = False
            continue
        state = plane.state_of(record)
        show_state(item, state)
        system, instance = _checks(plane, record, state)
        put(item, "systemStatus", _status(system))
        put(item, "instanceStatus", _status(instance))
        shown = state == "running" or call.flag("IncludeAllInstances")
        keep[record.instance_id] = shown and item_passes(item, wanted, FILTERS)
    document.keep("instanceStatusSet", keep, "instanceId")
    pages.cut(document, "instanceStatusSet", call)
    return document.body(call)


def _checks(plane: Plane, record: Instance, state: InstanceState) -> tuple[CheckStatus, CheckStatus]:
    now_s = plane.wall_s()
    dead = record.transition == "recovering"
    failing = state == "running" and (dead or plane.instances.frozen(record.instance_id))
    noticed = plane.noticed(record.instance_id, now_s, failing=failing)
    return status_checks(
        state, host_dead=noticed and dead, frozen=noticed and not dead, initializing=now_s < record.checks_ok_s
    )


def _status(status: CheckStatus) -> dict[str, Any]:
    if status not in REACHABILITY:
        return {"status": status}
    return {"status": status, "details": [{"name": "reachability", "status": REACHABILITY[status]}]}


ACTIONS: Mapping[str, Action] = {"DescribeInstanceStatus": describe_instance_status}
