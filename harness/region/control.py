"""What the harness can do to the region beyond AWS's API: set faults, hold delays, switch metadata off.

`POST /_region/control` with the harness's key sets what its JSON says, key by key; `GET` shows what is set. `Control`
is the client. Modules of the region add keys of their own by CONTROLS and SHOWN (plane.py).
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from harness.clock import NS_PER_S, now_ns
from harness.errors import InfrastructureError, UsageError
from harness.region import metadata
from harness.region.api_faults import Rule
from harness.region.calls import AwsError
from harness.region.credentials import HarnessKey
from harness.region.files import write_json
from harness.region.metadata import MODES
from harness.region.plane import Control as ControlFunction
from harness.region.plane import Plane, Shown
from harness.topology import Topology

KEY_HEADER = "X-Pbx-Chaos-Key"
PATH = "/_region/control"
DELAYS_FILE = "held-delays.json"
TIMEOUT_S = 15.0


class Control:
    """The client: what it sets is in effect when the call returns. `InfrastructureError` when the region refuses."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology

    def set_api_faults(self, *rules: Rule) -> None:
        """Add these rules; one whose id is there already begins anew."""
        self.set(api_faults=[asdict(rule) for rule in rules])

    def clear_api_faults(self, *ids: str) -> dict[str, int]:
        """Remove these rules, if they are there; how many calls each of them had struck."""
        return dict(self.set(api_faults={"clear": list(ids)})["api_faults"])

    def hold_delays(self, delays_s: Mapping[str, float | None]) -> None:
        """From now on these operations take exactly so long, None: as long as the timing says again."""
        self.set(delays=dict(delays_s))

    def switch_metadata(self, modes: Mapping[str, str]) -> None:
        """Per node: on, refused, silent or throttled."""
        self.set(metadata=dict(modes))

    def set(self, **what: Any) -> dict[str, Any]:
        """Set anything that the region has a control for; what each answered, by its key."""
        return self._call(json.dumps(what).encode())

    def show(self) -> dict[str, Any]:
        """What is set: api_faults, delays, metadata, …"""
        return self._call(None)

    def _call(self, body: bytes | None) -> dict[str, Any]:
        key = HarnessKey.read(self._topology.state_dir)
        request = urllib.request.Request(
            self._topology.endpoint_url + PATH, data=body, headers={KEY_HEADER: key.access_key_id}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=TIMEOUT_S) as response:
                return dict(json.load(response))
        except urllib.error.HTTPError as error:
            raise InfrastructureError(f"the region refused {PATH}: {_reason(error)}") from error
        except OSError as error:
            raise InfrastructureError(f"the region of {self._topology.cell} does not answer ({error})") from error


def apply(plane: Plane, controls: Mapping[str, ControlFunction], body: bytes) -> dict[str, Any]:
    """Server: do what a POST says; nothing of it when a key is unknown. `UsageError`, one line, for what can't be."""
    try:
        wanted = json.loads(body)
    except ValueError as error:
        raise UsageError(f"not JSON: {error}") from error
    if not isinstance(wanted, dict):
        raise UsageError("not a mapping")
    unknown = sorted(set(wanted) - set(controls))
    if unknown:
        raise UsageError(f"unknown {unknown[0]!r}; there are: {', '.join(sorted(controls))}")
    try:
        return {key: controls[key](plane, value) for key, value in wanted.items()}
    except (ValueError, AwsError, InfrastructureError) as error:
        raise UsageError(str(error)) from error


def control_api_faults(plane: Plane, wanted: Any) -> dict[str, int]:
    """A list of rules: they are added. {"clear": ids}: those are removed, and what each struck is told."""
    now_s = now_ns() / NS_PER_S
    if isinstance(wanted, list):
        rules = [Rule.of(row) for row in wanted]
        plane.api_faults.set(rules, now_s=now_s)
        for rule in rules:
            plane.journal.record("api_fault_set", rule=rule.id, kind=rule.kind)
        return {rule.id: 0 for rule in rules}
    ids = wanted.get("clear") if isinstance(wanted, dict) else None
    if not isinstance(ids, list):
        raise ValueError('api_faults: a list of rules, or {"clear": [ids]}')
    gone = plane.api_faults.clear(map(str, ids))
    for rule_id, struck in gone.items():
        plane.journal.record("api_fault_cleared", rule=rule_id, struck=struck)
    return gone


def control_delays(plane: Plane, wanted: Any) -> dict[str, float]:
    """{operation: seconds, or null}: held from now on, or no longer; {} ends all."""
    if not isinstance(wanted, dict):
        raise ValueError("delays: {operation: seconds or null}")
    for name, seconds in wanted.items():
        number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if seconds is not None and not (number and 0 <= seconds <= 600):
            raise ValueError(f"delays: {name} takes 0 to 600 s, or null, not {seconds!r}")
    merged = {**plane.delays.held(), **wanted} if wanted else {}
    held = {name: float(seconds) for name, seconds in merged.items() if seconds is not None}
    plane.delays.hold(held)
    write_json(plane.topology.state_dir / DELAYS_FILE, held)
    plane.journal.record("delays_held", delays_s=held)
    return held


def restore_delays(plane: Plane) -> None:
    """What a gateway before this one held."""
    path = plane.topology.state_dir / DELAYS_FILE
    if path.exists():
        plane.delays.hold(json.loads(path.read_text(encoding="utf-8")))


def control_metadata(plane: Plane, wanted: Any) -> None:
    """{node's name or instance id: mode}; returns when the services that run are so."""
    if not isinstance(wanted, dict):
        raise ValueError("metadata: {node: mode}")
    with plane.state.lock:
        living = {i: r.name for i, r in plane.state.instances.items() if not r.terminated}
    chosen: dict[str, Any] = {}
    for who, mode in wanted.items():
        found = [i for i, name in living.items() if who in (i, name)]
        if not found:
            raise ValueError(f"metadata: there is no instance {who!r}")
        if mode not in MODES:
            raise ValueError(f"metadata: unknown mode {mode!r}; there are: {', '.join(MODES)}")
        chosen[found[0]] = mode
    for instance_id, mode in chosen.items():
        metadata.switch(plane.topology, instance_id, mode)
    for instance_id, mode in chosen.items():
        if plane.instances.power(instance_id) == "on":
            metadata.wait_switched(plane.topology, instance_id)
        plane.journal.record("metadata_switched", instance_id=instance_id, mode=mode)


def show_metadata(plane: Plane) -> dict[str, str]:
    with plane.state.lock:
        living: Sequence[str] = [i for i, r in plane.state.instances.items() if not r.terminated]
    return {i: metadata.switched(plane.topology, i) for i in living}


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {error.code}"


CONTROLS: Mapping[str, ControlFunction] = {
    "api_faults": control_api_faults,
    "delays": control_delays,
    "metadata": control_metadata,
}
SHOWN: Mapping[str, Shown] = {
    "api_faults": lambda plane: plane.api_faults.show(now_s=now_ns() / NS_PER_S),
    "delays": lambda plane: plane.delays.held(),
    "metadata": show_metadata,
}
