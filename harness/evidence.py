"""Reads a run folder back into `Evidence`, so that checkers can be run again on an old history."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from harness import history
from harness.checkers.outage import find_outages
from harness.checkers.types import Evidence, FaultRecord
from harness.history import Op
from harness.results import Outage
from harness.rundir import RunDir

CLOCKS = ("options", "register", "new_call", "media")
"""The clocks of design and results, by the `f` of their ops."""


def load(run_dir: RunDir) -> Evidence:
    """Everything the run observed. Files it never got to write are missing evidence, not an error."""
    meta: dict[str, Any] = run_dir.read_json("scenario.json") or {}
    stages: dict[str, Any] = run_dir.read_json("stages.json") or {}
    ops = merged(run_dir)
    clocks = [clock for clock in CLOCKS if clock in meta.get("clocks", {})]
    return Evidence(
        ops=ops,
        clocks=clocks,
        faults=fault_records(ops),
        steady_ns=stages.get("steady_ns"),
        end_ns=stages.get("end_ns") or (ops[-1].time_ns if ops else 0),
        outages={clock: outages_of(ops, clock, meta["clocks"][clock]) for clock in clocks},
        cluster={moment: run_dir.read_json(f"cluster-{moment}.json") for moment in ("before", "after")},
        cloud_calls=run_dir.read_rows("cloud-calls.jsonl"),
        region_events=run_dir.read_rows("region-events.jsonl"),
        alerts=run_dir.read_rows("alerts.jsonl"),
        node_logs={path.name: path.read_text(errors="replace") for path in _corosync_logs(run_dir.path)},
        left_behind=run_dir.read_json("left-behind.json"),
        expected_nodes=tuple(meta.get("nodes", ())),
        expected_faults=len(meta.get("timeline", ())),
    )


def merged(run_dir: RunDir) -> list[Op]:
    """The ops of the run; merged from the parts while they are there, which is always the newer truth."""
    parts = sorted(run_dir.parts.glob("*.jsonl"))
    return history.merge(parts, run_dir.history) if parts else list(history.read(run_dir.history))


def outages_of(ops: Sequence[Op], clock: str, timing: dict[str, float]) -> list[Outage]:
    """The outages one clock saw; `timing` has its period_s and deadline_s."""
    return find_outages(
        history.pairs(ops, clock), clock=clock, deadline_s=timing["deadline_s"], period_s=timing["period_s"]
    )


def fault_records(ops: Iterable[Op]) -> list[FaultRecord]:
    """What the nemesis did, injury by injury, from its ops."""
    asked: dict[int, Op] = {}
    ended: dict[int, Op] = {}
    healed: dict[int, int] = {}
    for op in ops:
        number = op.value.get("n")
        if op.f == "fault" and op.type == "invoke":
            asked[number] = op
        elif op.f == "fault":
            ended[number] = op
        elif op.f == "heal" and op.type == "ok":
            healed[number] = op.time_ns
    records = []
    for number, op in sorted(asked.items()):
        end = ended.get(number)
        landed = end if end is not None and end.type == "ok" else None
        records.append(
            FaultRecord(
                name=op.value["name"],
                target=landed.value["target"] if landed else None,
                asked_ns=op.time_ns,
                landed_ns=landed.value["landed_ns"] if landed else None,
                healed_ns=healed.get(number),
                observed_by=landed.value["observed_by"] if landed else None,
                error=end.error if end is not None else "never answered",
            )
        )
    return records


def _corosync_logs(path: Path) -> list[Path]:
    return sorted((path / "logs").glob("*corosync*"))
