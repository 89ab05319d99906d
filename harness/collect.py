"""Brings the evidence home: node logs, alerts, CIB, cluster state, EC2 calls, each kept as soon as it is read.

alerts.jsonl holds facts of all nodes on the run's clock, ordered by time, by kind: Pacemaker's own alerts (`node`,
`fencing`, `resource`), what only its log tells (`fence_requested`), and corosync's complaints (`not_scheduled`).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from json import dumps, loads
from typing import Any

from harness.cell import cell as cells
from harness.cell.cell import Cell
from harness.cell.cluster import ClusterState
from harness.clock import WallOffset, now_ns
from harness.errors import HarnessError
from harness.rundir import RunDir

NODE_LOGS = "/var/log/pbx-node"
READ_TIMEOUT_S = 20
EXPECTED_LOGS = ("alerts.jsonl", "corosync.log", "pacemaker.log")
_FENCE_ASKED = re.compile(r"Requesting peer fencing \((?P<action>\w+)\) (?:targeting|of) (?P<target>\S+)")
_NOT_SCHEDULED = re.compile(r"not scheduled (?:\(@\d+\) )?for (?P<ms>[0-9.]+) ms")
_STAMP = re.compile(r"(\w{3} +\d+ \d\d:\d\d:\d\d)(\.\d{1,6})?")


def as_plain(state: ClusterState) -> dict[str, Any]:
    """A cluster state as JSON-ready data."""
    return {**asdict(state), "active": state.active}


def cluster_state(cell: Cell, run_dir: RunDir, moment: str) -> dict[str, Any]:
    """What the cluster says of itself now, kept as cluster-<moment>.json and cib-<moment>.xml."""
    state = as_plain(cell.cluster())
    run_dir.write_json(f"cluster-{moment}.json", state)
    run_dir.write_text(f"cib-{moment}.xml", cell.cib())
    return state


def region_files(cell: Cell, run_dir: RunDir) -> None:
    """The EC2 call log and the journal of the data plane."""
    for name in ("cloud-calls.jsonl", "region-events.jsonl"):
        source = cell.topology.state_dir / name
        if source.exists():
            shutil.copyfile(source, run_dir.path / name)
    for source in cell.topology.state_dir.glob("*.log"):
        shutil.copyfile(source, run_dir.path / "logs" / f"region-{source.name}")


def data(cell: Cell, run_dir: RunDir) -> None:
    """What the PBX kept: each kind of data that its profile declares, read back on the active node into data.jsonl.

    The first row says what is declared ({kind: durable_after_s}), where and when it was read, and how far the wall
    clock was from the run's; then a row per thing that was found, with its kind, or one with the `error` of a kind that
    could not be read.
    """
    declared = cell.profile.data.declared
    head: dict[str, Any] = {"declared": {kind: own.durable_after_s for kind, own in declared.items()}}
    rows: list[dict[str, Any]] = []
    active = None
    try:
        active = cell.cluster().active
    except HarnessError as error:
        rows = [{"kind": kind, "error": str(error)} for kind in declared]
    else:
        for kind, own in declared.items():
            rows += _read_back(cell, active, kind, own.read)
    head |= {"node": active, "read_ns": now_ns(), "wall_offset_ns": WallOffset.measure().offset_ns}
    run_dir.write_text("data.jsonl", "".join(dumps(row) + "\n" for row in (head, *rows)))


def _read_back(cell: Cell, active: str | None, kind: str, command: str) -> list[dict[str, Any]]:
    if active is None:
        return [{"kind": kind, "error": "the PBX is active nowhere"}]
    try:
        node = cell.node(active)
        argv = cell.profile.command(
            command, node=node.name, private_ip=node.private_ip, public_ip=cell.public_ip
        )  # fmt: skip
        lines = node.run(argv, timeout_s=READ_TIMEOUT_S).stdout.splitlines()
        return [{"kind": kind, **loads(line)} for line in lines]
    except (HarnessError, ValueError, TypeError) as error:
        return [{"kind": kind, "error": str(error)}]


def what_is_there(cell_name: str, run_dir: RunDir) -> None:
    """The same of a cell that did not come up, as far as it can be read: why it did not is in there."""
    with suppress(HarnessError):
        cell = cells.load(cell_name)
        region_files(cell, run_dir)
        node_logs(cell, run_dir, WallOffset.measure())
        cluster_state(cell, run_dir, "at-failure")


def node_logs(cell: Cell, run_dir: RunDir, offset: WallOffset) -> list[str]:
    """Every node's evidence folder into logs/, and all facts in it into alerts.jsonl. Returns what was not readable."""
    missing: list[str] = []
    facts: list[dict[str, Any]] = []
    for node in cell.nodes:
        try:
            found = node.run(["ls", "-1", NODE_LOGS], timeout_s=10).stdout.split()
        except HarnessError as error:
            missing.append(f"{node.name}: {error}")
            continue
        missing += [f"{node.name} {name}: not there" for name in EXPECTED_LOGS if name not in found]
        for name in found:
            try:
                data = node.fetch(f"{NODE_LOGS}/{name}")
            except HarnessError as error:
                missing.append(f"{node.name} {name}: {error}")
                continue
            (run_dir.path / "logs" / f"{node.name}-{name}").write_bytes(data)
            facts += facts_of(name, data.decode(errors="replace").splitlines(), node.name, offset)
    facts.sort(key=lambda fact: fact["time_ns"])
    run_dir.write_text("alerts.jsonl", "".join(dumps(fact) + "\n" for fact in facts))
    return missing


def facts_of(name: str, lines: list[str], reporter: str, offset: WallOffset) -> list[dict[str, Any]]:
    """The facts in one file of a node's evidence folder."""
    if name == "alerts.jsonl":
        return parse_alerts(lines, offset)
    if name == "pacemaker.log":
        return fence_requests(lines, reporter, offset)
    if name == "corosync.log":
        return not_scheduled(lines, reporter, offset)
    return []


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
    return [
        _fact(time_ns, reporter, kind="fence_requested", node=asked["target"], task=asked["action"], desc="requested")
        for time_ns, asked in _matches(lines, _FENCE_ASKED, offset)
    ]


def not_scheduled(lines: Iterable[str], reporter: str, offset: WallOffset) -> list[dict[str, Any]]:
    """Corosync's "main process was not scheduled for … ms" (corosync 3, totemsrp): the host stalled it that long."""
    return [
        _fact(time_ns, reporter, kind="not_scheduled", node=reporter, exec_ms=round(float(said["ms"])))
        for time_ns, said in _matches(lines, _NOT_SCHEDULED, offset)
    ]


def _matches(lines: Iterable[str], pattern: re.Pattern[str], offset: WallOffset) -> list[tuple[int, re.Match[str]]]:
    found = []
    for line in lines:
        match = pattern.search(line)
        stamp_s = log_time_s(line) if match else None
        if match and stamp_s is not None:
            found.append((offset.monotonic_ns(stamp_s), match))
    return found


def _fact(
    time_ns: int, reporter: str, *, kind: str, node: str, task: str = "", desc: str = "", exec_ms: int = 0
) -> dict[str, Any]:
    row = {"time_ns": time_ns, "reporter": reporter, "kind": kind, "node": node, "task": task, "rsc": "", "desc": desc}
    return {**row, "rc": 0, "exec_ms": exec_ms}


def log_time_s(line: str, *, now: datetime | None = None) -> float | None:
    """The stamp a log line of Pacemaker or corosync begins with (`Nov 24 17:09:02.123`, UTC), in seconds since the
    epoch. It has no year: the latest one is meant that does not lie in the future."""
    match = _STAMP.match(line)
    if not match:
        return None
    today = now or datetime.now(UTC)
    for year in (today.year + 1, today.year, today.year - 1):
        text = f"{year} {match[1]}{match[2] or '.0'}"
        try:
            stamp = datetime.strptime(text, "%Y %b %d %H:%M:%S.%f").replace(tzinfo=UTC)
        except ValueError:
            continue
        if (stamp - today).days < 1:
            return stamp.timestamp()
    return None


def _int(text: Any) -> int | None:
    try:
        return int(text)
    except (TypeError, ValueError):
        return None
