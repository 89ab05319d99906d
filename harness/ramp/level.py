"""From what was observed while a load was offered to one `Level`. Pure: ops or results in, figures out.

The load's own statistics (SIPp's) are no evidence of what callers get: they only say whether the load was there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from math import inf
from typing import Any

from harness import history, sip_figures
from harness.capacity import Level
from harness.checkers.host_pressure import ALWAYS_ON
from harness.checkers.types import Evidence
from harness.history import Op

BUSY_RATIO = 0.97
"""A host whose processors are this busy was the limit, whatever else is seen: phones and PBX share them."""

SLIPPED_RATIO = 0.05
PLACED_RATIO = 0.9
"""A load of which less than this was placed is not the load that the level says."""


def level_of(
    ops: Sequence[Op], *, load: float, from_ns: int, to_ns: int, cpu_ratio: float | None, not_taken: str | None = None
) -> Level:
    """What the clocks saw from `from_ns` to `to_ns`, the time in which the load was there.

    `not_taken`: why it never was; then only the host is judged, over the time in which it was tried.
    """
    now = [op for op in ops if from_ns <= op.time_ns < to_ns]
    level = _host(Level(load=load, not_taken=not_taken, cpu_ratio=cpu_ratio), ops, now, from_ns=from_ns, to_ns=to_ns)
    if not_taken is not None:
        return level
    level = _placed(level, now)
    asked = [pair for pair in history.pairs(ops, "new_call") if from_ns <= pair.invoke.time_ns < to_ns]
    calls = sip_figures.sessions(asked, sip_figures.byes(ops))
    loss, gap_s = media(now)
    return replace(
        level,
        ser_ratio=calls["ser_ratio"],
        srd_p95_s=calls["srd_s"] and calls["srd_s"]["p95"],
        attempts=calls["sessions"],
        media_loss_ratio=loss,
        media_gap_s=gap_s,
    )


def level_of_run(results: Mapping[str, Any], *, load: float) -> Level:
    """What a run with a failover under load came to: SER and SRD are those after the outage."""
    after = ((results["sip"] or {}).get("after")) or {}
    outage = results["outage"]
    checks = {check["name"]: check for check in results["checks"]}
    pressure, vacuous = checks.get("host_pressure"), checks.get("not_vacuous")
    doubts = [_words(pressure["why"])] if pressure and pressure["verdict"] != "pass" else []
    if vacuous and vacuous["verdict"] != "pass":
        doubts.append(f"no failover was measured: {vacuous['why']}")
    ratios = checks["call_recovery"]["metrics"].get("ratios") if "call_recovery" in checks else None
    return Level(
        load=load,
        ser_ratio=after.get("ser_ratio"),
        srd_p95_s=(after.get("srd_s") or {}).get("p95"),
        attempts=after.get("sessions"),
        outage_s=None if outage is None else outage["upper_s"] if outage["ended"] else inf,
        recovered_ratio=min(ratios.values()) if ratios else None,
        host="; ".join(doubts) or None,
        **_told(pressure["metrics"] if pressure else {}),
    )


def media(ops: Iterable[Op]) -> tuple[float | None, float | None]:
    """Share of packets lost, and the longest pause in seconds, over all directions of held calls; None without any."""
    rows: dict[str, list[list[Any]]] = {}
    for op in ops:
        if op.f == "media_second":
            for leg, row in op.value["legs"].items():
                rows.setdefault(f"{op.process}/{leg}", []).append(row)
    spans = [(before, after) for seconds in rows.values() for before, after in pairwise(seconds)]
    if not spans:
        return None, None
    lost = sum(max(0, after[2] - before[2]) for before, after in spans)
    right = sum(after[1] - before[1] for before, after in spans)
    longest_ms = max(max(after[3], after[4] or 0.0) for _, after in spans)
    return round(lost / (lost + right), 5) if lost + right else 1.0, round(longest_ms / 1e3, 3)


def _host(level: Level, ops: Sequence[Op], now: Sequence[Op], *, from_ns: int, to_ns: int) -> Level:
    """The same level with what the host was like."""
    pressure = ALWAYS_ON.check(Evidence(ops=ops, clocks=(), faults=(), steady_ns=from_ns, end_ns=to_ns))
    sends = [op for op in now if op.f == "new_call" and op.type == "invoke"]
    slipped = sum(bool(op.value.get("slipped")) + op.value.get("skipped", 0) for op in sends)
    slipped += sum(op.f == "new_call" and sip_figures.never_left(op) for op in now)
    doubts = [] if pressure.verdict == "pass" else [_words(pressure.why)]
    if slipped > SLIPPED_RATIO * (len(sends) or 1):
        doubts.append(f"{slipped} of {len(sends)} calls of the clock were sent late or not at all")
    if level.cpu_ratio is not None and level.cpu_ratio >= BUSY_RATIO:
        doubts.append(f"its processors were {level.cpu_ratio:.0%} busy")
    return replace(level, host="; ".join(doubts) or None, **_told(pressure.metrics))


def _placed(level: Level, now: Sequence[Op]) -> Level:
    """The same level, unless SIPp did not place what was asked for: because calls pile up, or by itself."""
    seconds = [op.value for op in now if op.f == "load" and "target_cps" in op.value]
    if not seconds:
        if not any(op.f == "load" for op in now):
            return level  # no SIPp in this ramp
        return replace(level, host="nobody saw what SIPp placed")
    placed = sum(row.get("cps", 0.0) for row in seconds) / len(seconds)
    if placed >= PLACED_RATIO * level.load:
        return level
    if max(row.get("current", 0) for row in seconds) > level.load:
        return replace(level, not_taken=f"only {placed:.0f} calls/s: those before did not get through")
    why = f"SIPp placed only {placed:.0f} calls/s"
    return replace(level, host=f"{level.host}; {why}" if level.host else why)


def _told(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What the check of the host measured, as fields of a level."""
    return {"tick_late_ms": metrics.get("max_late_ms"), "psi_ratio": metrics.get("psi_cpu_some_max_ratio")}


def _words(why: str) -> str:
    return why.removeprefix("the host was too busy to measure: ")
