"""Whether the zone has room for a machine, as the harness says: capacity.json in the cell's state folder.

It is read at each call, so that it outlives the gateway. AWS: "Troubleshoot Amazon EC2 instance launch issues",
InsufficientInstanceCapacity; a stopped instance has no claim on the capacity that it had.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from harness.region.files import write_json
from harness.region.plane import Plane
from harness.region.semantics.instances import no_capacity
from harness.topology import Topology

CAPACITY_FILE = "capacity.json"
EVERY = "*"
"""In place of an instance id: no machine at all can be started or launched."""

LAUNCH = "launch"
"""In place of an instance id: no new instance can be launched."""


def exhaust(topology: Topology, who: Collection[str]) -> None:
    """From now on there is no room for these instances (ids, EVERY, LAUNCH); for nobody: there is room again."""
    write_json(topology.state_dir / CAPACITY_FILE, {"no_capacity": sorted(who)})


def exhausted(topology: Topology) -> frozenset[str]:
    """For whom there is no room now."""
    try:
        row = json.loads((topology.state_dir / CAPACITY_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return frozenset()
    return frozenset(row["no_capacity"])


def check_room(topology: Topology, who: str, instance_type: str, zone: str) -> None:
    """EC2's error when there is no room for this instance id, or LAUNCH."""
    if exhausted(topology) & {EVERY, who}:
        raise no_capacity(instance_type, zone)


def control(plane: Plane, wanted: Any) -> None:
    """The control call `{"capacity": {"no_capacity": [...]}}`; ValueError says what is wrong with it."""
    who = wanted.get("no_capacity") if isinstance(wanted, dict) else None
    if not isinstance(who, list) or not all(isinstance(each, str) for each in who):
        raise ValueError('capacity: {"no_capacity": [instance ids, "*" or "launch"]} is expected')
    unknown = sorted(set(who) - {EVERY, LAUNCH} - set(plane.state.instances))
    if unknown:
        raise ValueError(f"capacity: there is no instance {unknown[0]!r}")
    exhaust(plane.topology, who)


CONTROLS = {"capacity": control}
