"""From evidence to results: runs the checkers, picks the headline, builds the document all reports are made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from harness import fates, in_flight, ledger, noise, registrations, sip_figures
from harness.checkers.types import Checker, Evidence, FaultRecord
from harness.phases import Breakdown, breakdown
from harness.results import CLOCKS, CheckResult, Outage, clock_ids, overall, slowest, split_clock

SCHEMA_VERSION = 1

NOT_MEASURED = {
    "options": "the OPTIONS clock",
    "register": "the REGISTER clock",
    "new_call": "the new-call clock",
    "media": "media of held calls",
    "calls": "fate of held calls",
    "ledger": "acknowledged data",
}


def judge(evidence: Evidence, checkers: Sequence[Checker], *, meta: dict[str, Any]) -> dict[str, Any]:
    """results.json as data, the shape of every version `SCHEMA_VERSION`. `meta` is scenario.json: what was asked for.

    Times are in seconds, those that end in `_at_s` since the steady state. What was not measured is null and named in
    `not_run`. `outage` is the headline: the slowest clock's longest outage, null when no clock saw one.
    """
    checks = [_checked(checker, evidence) for checker in checkers]
    clocks = {clock: _family_row(evidence, clock) for clock in CLOCKS}
    calls = fates.summary(evidence.fates, not_up=len(evidence.calls_not_up))
    head = slowest(evidence.outages)
    data = ledger.figures(evidence)
    measured = {**clocks, "calls": calls, "ledger": data}
    return {
        "schema_version": SCHEMA_VERSION,
        "scenario": meta["scenario"],
        "policy": meta["policy"],
        "policy_sha256": meta.get("policy_sha256"),
        "cloud": meta["cloud"],
        "timing": meta["timing"],
        "seed": meta["seed"],
        "started_at": meta["started_at"],
        "system": meta["system"],
        "verdict": overall(checks),
        "error": None,
        "outage": _outage_row(head, limit_s=_limit_s(checks)) if head else None,
        "outages": clocks,
        "phases": _phase_rows(_path(evidence, head)),
        "checks": [asdict(check) for check in checks],
        "calls": calls,
        "registrations": registrations.figures(evidence.ops, fault_ns=evidence.first_fault_ns),
        "in_flight": in_flight.figures(
            evidence.ops,
            fault_ns=evidence.first_fault_ns,
            landed_ns=evidence.first_landed_ns,
            back_ns=evidence.back_ns,
        ),
        "sip": sip_figures.figures(evidence),
        "data": data,
        "noise": noise.floor(evidence),
        "faults": [_fault_row(f, evidence) for f in evidence.faults],
        "not_run": [*(what for key, what in NOT_MEASURED.items() if measured.get(key) is None), *meta.get("unmet", ())],
        "deviations": meta.get("deviations", []),
        "environment": meta.get("environment"),
    }


def _checked(checker: Checker, evidence: Evidence) -> CheckResult:
    """A checker that breaks decides nothing: unknown, with its own error as the reason."""
    try:
        return checker.check(evidence)
    except Exception as error:
        why = f"the checker itself failed: {type(error).__name__}: {error}"
        return CheckResult(name=checker.name, verdict="unknown", why=why)


def _path(evidence: Evidence, head: Outage | None) -> Breakdown | None:
    """The critical path; none where the facts are no facts (the checker of the phases says what is wrong)."""
    try:
        return breakdown(evidence, head) if head else None
    except (ValueError, KeyError, TypeError):
        return None


def _limit_s(checks: Sequence[CheckResult]) -> float | None:
    """The strictest limit that a check held the outage against."""
    limits = [check.metrics["limit_s"] for check in checks if check.metrics.get("limit_s") is not None]
    return float(min(limits)) if limits else None


def _outage_row(outage: Outage, *, limit_s: float | None) -> dict[str, Any]:
    clock, transport = split_clock(outage.clock)
    return {
        "clock": clock,
        "transport": None if clock == "media" else transport,
        "lower_s": round(outage.duration.lower_s, 3),
        "upper_s": round(outage.duration.upper_s, 3),
        "ended": outage.end_ns is not None,
        "limit_s": limit_s,
    }


def _family_row(evidence: Evidence, clock: str) -> dict[str, Any] | None:
    """One clock over all transports: the row of the slowest, with all of them under `transports`."""
    if clock == "media":
        return _media_row(evidence)
    rows = {transport: _clock_row(evidence, name) for transport, name in clock_ids(clock).items()}
    measured = {transport: row for transport, row in rows.items() if row is not None}
    if not measured:
        return None
    slow = max(measured, key=lambda t: (not measured[t]["ended"], measured[t]["upper_s"]))
    return {**measured[slow], "transport": slow, "transports": measured}


def _media_row(evidence: Evidence) -> dict[str, Any] | None:
    """The media clock: null when no call was held."""
    if not evidence.fates:
        return None
    found, fates = evidence.outages.get("media", ()), evidence.fates
    back = sum(fate.band != "never" for fate in fates)
    row = {"outages": len(found), "flapping": 0, "late": 0, "came_back": back, "of": len(fates)}
    return {**_bounds(evidence, slowest({"media": found})), **row}


def _clock_row(evidence: Evidence, clock: str) -> dict[str, Any] | None:
    """One clock: null when it was not measured, its longest outage otherwise (zero when there was none).

    A clock that never had a good answer and no outage either measured nothing: the run ended before it could.
    """
    outages = evidence.outages.get(clock, ())
    if clock not in evidence.clocks or not (outages or any(op.type == "ok" for op in evidence.of(clock))):
        return None
    return {
        **_bounds(evidence, slowest({clock: outages})),
        "outages": len(outages),
        "flapping": sum(o.flapping for o in outages),
        "late": sum(o.late for o in outages),
    }


def _bounds(evidence: Evidence, worst: Outage | None) -> dict[str, Any]:
    return {
        "lower_s": round(worst.duration.lower_s, 3) if worst else 0.0,
        "upper_s": round(worst.duration.upper_s, 3) if worst else 0.0,
        "ended": worst.end_ns is not None if worst else True,
        "starts_at_s": _since_steady(evidence, worst.start_ns) if worst else None,
    }


def _phase_rows(path: Breakdown | None) -> dict[str, float] | None:
    if path is None:
        return None
    return {**path.seconds, "unexplained": path.unexplained_s}


def _fault_row(fault: FaultRecord, evidence: Evidence) -> dict[str, Any]:
    return {
        "name": fault.name,
        "target": fault.target,
        "landed_at_s": _since_steady(evidence, fault.landed_ns),
        "healed_at_s": _since_steady(evidence, fault.healed_ns),
        "observed_by": fault.observed_by,
        "error": fault.error or fault.heal_error,
    }


def _since_steady(evidence: Evidence, time_ns: int | None) -> float | None:
    if time_ns is None or evidence.steady_ns is None:
        return None
    return round((time_ns - evidence.steady_ns) / 1e9, 3)
