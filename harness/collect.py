"""Brings the evidence home: node logs, alerts, CIB, cluster state, EC2 calls, each kept as soon as it is read."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from json import dumps, loads
from typing import TYPE_CHECKING, Any

from harness.clock import WallOffset
from harness.errors import HarnessError
from harness.rundir import RunDir

if TYPE_CHECKING:
    from harness.cell.cell import Cell
    from harness.cell.cluster import ClusterState

NODE_LOGS = "/var/log/pbx-node"
_FENCE_ASKED = re.compile(r"Requesting (?:peer )?fencing \((?P<action>\w+)\) targeting (?P<target>\S+)")


def cluster_state(cell: Cell, run_dir: RunDir, moment: str) -> dict[str, Any]:
    """What the cluster says of itself now, kept as cluster-<moment>.json and cib-<moment>.xml."""
    state = plain(cell.cluster())
    run_dir.write_json(f"cluster-{moment}.json", state)
    run_dir.write_text(f"cib-{moment}.xml", cell.cib())
    return state


def plain(state: ClusterState) -> dict[str, Any]:
    """A cluster state as JSON-ready data, with the active node spelled out."""
    return {**asdict(state), "active": state.active}


def region_files(cell: Cell, run_dir: RunDir) -> None:
    """The EC2 call log and the journal of the data plane."""
    for name in ("cloud-calls.jsonl", "region-events.jsonl"):
        source = cell.topology.state_dir / name
        if source.exists():
            shutil.copyfile(source, run_dir.path / name)
    for source in cell.topology.state_dir.glob("*.log"):
        shutil.copyfile(source, run_dir.path / "logs" / f"region-{source.name}")


def node_logs(cell: Cell, run_dir: RunDir, offset: WallOffset) -> list[str]:
    """Every node's evidence folder into logs/, and all alerts into alerts.jsonl. Returns what could not be read."""
    missing: list[str] = []
    alerts: list[dict[str, Any]] = []
    for node in cell.nodes:
        for name in ("corosync.log", "pacemaker.log", "alerts.jsonl", "boot.log"):
            try:
                data = node.fetch(f"{NODE_LOGS}/{name}")
            except HarnessError as error:
                missing.append(f"{node.name} {name}: {error}")
                continue
            (run_dir.path / "logs" / f"{node.name}-{name}").write_bytes(data)
            text = data.decode(errors="replace")
            if name == "alerts.jsonl":
                alerts.extend(parse_alerts(text.splitlines(), offset))
            elif name == "pacemaker.log":
                alerts.extend(fence_requests(text.splitlines(), node.name, offset))
    lines = [dumps(alert) for alert in sorted(alerts, key=lambda a: a["time_ns"])]
    run_dir.write_text("alerts.jsonl", "".join(line + "\n" for line in lines))
    return missing


def parse_alerts(lines: Iterable[str], offset: WallOffset) -> list[dict[str, Any]]:
    """Pacemaker's alerts with times on the run's clock. Node and fencing alerts come once per node; all are kept."""
    rows = []
    for line in lines:
        try:
            raw = loads(line)
        except ValueError:
            continue
        rows.append(
            {
                "time_ns": offset.monotonic_ns(float(raw["time_s"])),
                "reporter": raw["reporter"],
                "kind": raw["kind"],
                "node": raw["node"],
                "task": raw["task"],
                "rsc": raw["rsc"],
                "desc": raw["desc"],
                "rc": _int(raw["rc"]),
                "exec_ms": _int(raw["exec_ms"]) or 0,
            }
        )
    return rows


def fence_requests(lines: Iterable[str], reporter: str, offset: WallOffset) -> list[dict[str, Any]]:
    """When a node's fencer was asked to fence whom, out of pacemaker.log: no alert tells the beginning."""
    rows = []
    for line in lines:
        asked = _FENCE_ASKED.search(line)
        stamp = log_time_s(line) if asked else None
        if asked and stamp is not None:
            rows.append(
                {
                    "time_ns": offset.monotonic_ns(stamp),
                    "reporter": reporter,
                    "kind": "fence_requested",
                    "node": asked["target"],
                    "task": asked["action"],
                    "rsc": "",
                    "desc": "requested",
                    "rc": 0,
                    "exec_ms": 0,
                }
            )
    return rows


def log_time_s(line: str) -> float | None:
    """The stamp of a pacemaker.log line (`Nov 24 17:09:02.123 host …`, UTC, no year) in seconds since the epoch."""
    match = re.match(r"(\w{3} +\d+ \d\d:\d\d:\d\d(?:\.\d+)?)", line)
    if not match:
        return None
    text = match.group(1) if "." in match.group(1) else match.group(1) + ".0"
    stamp = datetime.strptime(f"{datetime.now(UTC).year} {text}", "%Y %b %d %H:%M:%S.%f")
    return stamp.replace(tzinfo=UTC).timestamp()


def _int(text: Any) -> int | None:
    try:
        return int(text)
    except (TypeError, ValueError):
        return None
