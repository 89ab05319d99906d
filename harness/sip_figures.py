"""The SIP performance figures of RFC 6076, from the attempts of the REGISTER and new-call clocks.

Computed for three spans: before the first fault, during the outage (to the end of the last one any clock saw), and
after it. An attempt belongs to the span in which it was sent; attempts are counted, not INVITEs: a challenge (401, 407)
is not an end (RFC 6076 section 3.1). Delays are in seconds, as median and 95th percentile; ratios are 0-1; a figure
without a single attempt behind it is null.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

from harness import history
from harness.checkers.types import Evidence
from harness.history import Op, Pair
from harness.results import clock_ids

Span = Literal["before", "during", "after"]

BUSY = (480, 486, 600, 603)
"""Answers that say that the called party could not or would not, not that the network failed (SEER, section 4.7)."""

INEFFECTIVE = (408, 500, 503, 504)
"""Answers that say that the network failed (ISA, section 4.8); no answer at all counts with them."""

REDIRECTED = range(300, 400)


def figures(evidence: Evidence) -> dict[str, Any] | None:
    """The figures per span, or None when neither clock ran or the steady state was never reached."""
    calls = _pairs(evidence, "new_call")
    registers = _pairs(evidence, "register")
    if evidence.steady_ns is None or not (calls or registers):
        return None
    names = {f"{name}_bye" for name in clock_ids("new_call").values()}
    ends = [op for op in evidence.ops if op.f in names and op.time_ns >= evidence.steady_ns]
    return {
        span: {
            **_registration([p for p in registers if _span_of(p.invoke.time_ns, evidence) == span]),
            **sessions(
                [p for p in calls if _span_of(p.invoke.time_ns, evidence) == span],
                [op for op in ends if _span_of(op.time_ns, evidence) == span],
            ),
        }
        for span in get_args(Span)
    }


def _pairs(evidence: Evidence, clock: str) -> list[Pair]:
    found = [pair for name in clock_ids(clock).values() for pair in history.pairs(evidence.ops, name)]
    return [pair for pair in found if pair.invoke.time_ns >= (evidence.steady_ns or 0)]


def _span_of(time_ns: int, evidence: Evidence) -> Span:
    if time_ns < evidence.first_fault_ns:
        return "before"
    outages = [outage for found in evidence.outages.values() for outage in found]
    over_ns = max((evidence.end_ns if o.end_ns is None else o.end_ns for o in outages), default=evidence.first_fault_ns)
    return "during" if time_ns < over_ns else "after"


def _registration(pairs: Sequence[Pair]) -> dict[str, Any]:
    good = [p for p in pairs if p.end is not None and p.end.type == "ok"]
    return {
        "registrations": len(pairs),
        "rrd_s": _delay([(p.end.time_ns - p.invoke.time_ns) / 1e9 for p in good if p.end]),
        "ira_ratio": _ratio(len(pairs) - len(good), len(pairs)),
    }


def sessions(pairs: Sequence[Pair], byes: Sequence[Op]) -> dict[str, Any]:
    """The figures of some attempts of the new-call clock and of the BYEs that ended their calls."""
    values = [p.end.value for p in pairs if p.end is not None]
    codes = [value.get("code") for value in values]
    asked = len(pairs) - sum(code in REDIRECTED for code in codes if code)
    good = sum(code is not None and 200 <= code < 300 for code in codes)
    ended = [op.value for op in byes if op.value.get("code") and 200 <= op.value["code"] < 300]
    failed = sum(code in INEFFECTIVE for code in codes) + sum(code is None for code in codes) + len(pairs) - len(values)
    return {
        "sessions": len(pairs),
        "srd_s": _delay([value["srd_ms"] / 1e3 for value in values if "srd_ms" in value]),
        "sdd_s": _delay([value["sdd_ms"] / 1e3 for value in ended]),
        "sdt_s": _delay([value["sdt_ms"] / 1e3 for value in ended]),
        "ser_ratio": _ratio(good, asked),
        "seer_ratio": _ratio(good + sum(code in BUSY for code in codes), asked),
        "isa_ratio": _ratio(failed, len(pairs)),
        "scr_ratio": _ratio(len(ended), len(pairs)),
    }


def _ratio(part: int, whole: int) -> float | None:
    return round(min(part, whole) / whole, 4) if whole else None


def _delay(seconds: Iterable[float]) -> dict[str, float] | None:
    """Median and 95th percentile by nearest rank, and how many there were."""
    ordered = sorted(seconds)
    if not ordered:
        return None
    rank = {q: ordered[math.ceil(q * len(ordered)) - 1] for q in (0.5, 0.95)}
    return {"p50": round(rank[0.5], 4), "p95": round(rank[0.95], 4), "n": len(ordered)}
