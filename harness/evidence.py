"""Reads a run folder back into `Evidence`, so that checkers can be run again on an old history."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from harness import history
from harness.checkers.outage import find_outages
from harness.checkers.types import Evidence, FaultRecord
from harness.clients.rtp.silence import calls_from_ops
from harness.fates import held_calls, media_outage
from harness.history import Op
from harness.results import ALL_CLOCK_IDS, Outage
from harness.rundir import RunDir
from harness.sip_figures import never_left


def load(run_dir: RunDir) -> Evidence:
    """Everything the run observed. Files it never got to write are missing evidence, not an error."""
    meta: dict[str, Any] = run_dir.read_json("scenario.json") or {}
    stages: dict[str, Any] = run_dir.read_json("stages.json") or {}
    ops = merged(run_dir)
    timings: dict[str, dict[str, float]] = meta.get("clocks", {})
    clocks = [clock for clock in ALL_CLOCK_IDS if clock in timings]
    steady_ns = stages.get("steady_ns")
    evidence = Evidence(
        ops=ops,
        clocks=clocks,
        faults=fault_records(ops, run_dir.read_rows(run_dir.journal.name)),
        steady_ns=steady_ns,
        end_ns=stages.get("end_ns") or (ops[-1].time_ns if ops else 0),
        outages={clock: outages_of(ops, clock, timings[clock], since_ns=steady_ns or 0) for clock in clocks},
        cluster={moment: run_dir.read_json(f"cluster-{moment}.json") for moment in ("before", "after")},
        cloud_calls=run_dir.read_rows("cloud-calls.jsonl"),
        region_events=run_dir.read_rows("region-events.jsonl"),
        alerts=run_dir.read_rows("alerts.jsonl"),
        left_behind=run_dir.read_json("left-behind.json"),
        expected_nodes=tuple(meta.get("nodes", ())),
        expected_faults=len(meta.get("timeline", ())),
        roles=meta.get("roles", {}),
        limits=meta.get("limits", {}),
        periods_s={clock: timings[clock]["period_s"] for clock in clocks},
        wall_drift_s=_drift_s(stages.get("wall_offset_ns") or {}),
        unread=tuple(run_dir.read_json("unread.json") or ()),
        calls=tuple(held_calls(ops, calls_from_ops(ops))),
        claimed_kinds=tuple(meta.get("claimed_kinds", ())),
        data=run_dir.read_rows("data.jsonl"),
    )
    return with_media_clock(evidence)


def with_media_clock(evidence: Evidence) -> Evidence:
    """The same with what held calls say of the outage; as it was where none was held."""
    if not evidence.calls:
        return evidence
    fates = evidence.fates
    found = media_outage(fates, evidence.calls, fault_ns=evidence.first_fault_ns, end_ns=evidence.end_ns)
    return replace(evidence, outages={**evidence.outages, "media": [found] if found else []})


def _drift_s(offsets_ns: dict[str, int]) -> float:
    """By how much the wall clock moved against the run's between the readings that were taken."""
    return (max(offsets_ns.values()) - min(offsets_ns.values())) / 1e9 if offsets_ns else 0.0


def merged(run_dir: RunDir) -> list[Op]:
    """The ops of the run; merged from the parts while they are there, which is always the newer truth."""
    parts = sorted(run_dir.parts.glob("*.jsonl"))
    if parts:
        return history.merge(parts, run_dir.history)
    return list(history.read(run_dir.history)) if run_dir.history.exists() else []


def outages_of(ops: Sequence[Op], clock: str, timing: dict[str, float], *, since_ns: int = 0) -> list[Outage]:
    """The outages one clock saw that lasted into the time after `since_ns`; `timing` has its period_s, deadline_s."""
    pairs = history.pairs(ops, clock)
    found = find_outages(
        [pair for pair in pairs if pair.end is None or not never_left(pair.end)],
        clock=clock,
        deadline_s=timing["deadline_s"],
        period_s=timing["period_s"],
        late=[op for op in ops if op.f == f"{clock}_late"],
    )
    return [outage for outage in found if outage.end_ns is None or outage.end_ns > since_ns]


def fault_records(ops: Iterable[Op], journal: Iterable[dict[str, Any]] = ()) -> list[FaultRecord]:
    """What happened to each injury: the nemesis's ops, and the undo journal where another process healed for it."""
    asked: dict[int, Op] = {}
    ended: dict[int, Op] = {}
    heals: dict[int, Op] = {}
    for op in ops:
        if op.f == "fault":
            (asked if op.type == "invoke" else ended)[int(op.value["n"])] = op
        elif op.f == "heal" and op.type != "invoke":
            heals[int(op.value["n"])] = op
    healed_by_others = {int(row["n"]): int(row["time_ns"]) for row in journal if row["state"] == "healed"}
    return [_record(op, ended.get(n), heals.get(n), healed_by_others.get(n)) for n, op in sorted(asked.items())]


def _record(asked: Op, end: Op | None, heal: Op | None, healed_by_others_ns: int | None) -> FaultRecord:
    landed = end.value if end is not None and end.type == "ok" else {}
    healed_ns = heal.time_ns if heal is not None and heal.type == "ok" else healed_by_others_ns
    return FaultRecord(
        name=asked.value["name"],
        target=landed.get("target"),
        asked_ns=asked.time_ns,
        landed_ns=landed.get("landed_ns"),
        healed_ns=healed_ns,
        observed_by=landed.get("observed_by"),
        error=end.error if end is not None else "never answered",
        heal_error=heal.error if heal is not None and healed_ns is None else None,
    )
