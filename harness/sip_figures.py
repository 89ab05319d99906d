"""The SIP performance figures of RFC 6076, from the attempts of the REGISTER and new-call clocks.

Computed for three spans: before the first fault was asked for (it struck somewhere between that and when it was seen to
have landed), during the outage (to the end of the last one any clock saw), and after it. An attempt belongs, with the
BYE that ended its call, to the span in which it was sent; attempts are counted, not INVITEs: a challenge (401, 407) is
not an end (RFC 6076 section 3.1). Delays are in seconds, as median and 95th percentile; ratios are 0-1; a figure
without a single attempt behind it is null. An attempt that this host had no port for says nothing of the system: it is
in no figure but `host_failures`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

from harness import history
from harness.checkers.types import Evidence
from harness.history import Op, Pair
from harness.quantiles import nearest_rank
from harness.results import clock_ids

Span = Literal["before", "during", "after"]

BUSY = (480, 486, 600, 603)
"""Answers that say that the called party could not or would not, not that the network failed (SEER, section 4.7)."""

INEFFECTIVE = (408, 500, 503, 504)
"""Answers that say that the network failed (ISA, section 4.8); no answer at all counts with them."""

REDIRECTED = range(300, 400)

Attempt = tuple[str, str, int]
"""One call of the new-call clock: the clock's id, the process and its number."""


def figures(evidence: Evidence) -> dict[str, Any] | None:
    """The figures per span, or None when neither clock ran or the steady state was never reached."""
    calls = _pairs(evidence, "new_call")
    registers = _pairs(evidence, "register")
    if evidence.steady_ns is None or not (calls or registers):
        return None
    ends = byes(evidence.ops)
    return {
        span: {
            **_registration([p for p in registers if _span_of(p.invoke.time_ns, evidence) == span]),
            **sessions([p for p in calls if _span_of(p.invoke.time_ns, evidence) == span], ends),
        }
        for span in get_args(Span)
    }


def byes(ops: Iterable[Op]) -> dict[Attempt, Op]:
    """The answered BYEs of the new-call clock, by the attempt whose call they ended."""
    names = {f"{name}_bye": name for name in clock_ids("new_call").values()}
    return {(names[op.f], op.process, op.value["n"]): op for op in ops if op.f in names}


def never_left(op: Op) -> bool:
    """Whether this is the end of an attempt that was not sent because this host had no port left for it."""
    return op.value.get("reached") == "no port"


def _pairs(evidence: Evidence, clock: str) -> list[Pair]:
    found = [pair for name in clock_ids(clock).values() for pair in history.pairs(evidence.ops, name)]
    return [pair for pair in found if pair.invoke.time_ns >= (evidence.steady_ns or 0)]


def _span_of(time_ns: int, evidence: Evidence) -> Span:
    asked = [fault.asked_ns for fault in evidence.faults if fault.landed_ns is not None and fault.asked_ns is not None]
    if time_ns < min(asked, default=evidence.first_fault_ns):
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


def sessions(pairs: Sequence[Pair], byes: Mapping[Attempt, Op]) -> dict[str, Any]:
    """The figures of some attempts of the new-call clock; `byes` are those of the whole run.

    `srd_s` is that of calls that were answered, `srd_failed_s` the time to the first ringing or refusal of those that
    were not (sections 4.3.1 and 4.3.2).
    """
    sent = [p for p in pairs if p.end is None or not never_left(p.end)]
    values = [p.end.value for p in sent if p.end is not None]
    codes = [value.get("code") for value in values]
    asked = len(sent) - sum(code in REDIRECTED for code in codes if code)
    good = [value for value in values if _is_success(value)]
    other = [value for value in values if not _is_success(value) and value.get("code") not in REDIRECTED]
    ends = [byes[key].value for p in sent if (key := (p.invoke.f, p.invoke.process, p.invoke.value["n"])) in byes]
    ended = [value for value in ends if _is_success(value)]
    failed = sum(code in INEFFECTIVE for code in codes) + sum(code is None for code in codes) + len(sent) - len(values)
    return {
        "sessions": len(sent),
        "host_failures": len(pairs) - len(sent),
        "srd_s": _delay([value["srd_ms"] / 1e3 for value in good if "srd_ms" in value]),
        "srd_failed_s": _delay([value["srd_ms"] / 1e3 for value in other if "srd_ms" in value]),
        "sdd_s": _delay([value["sdd_ms"] / 1e3 for value in ended]),
        "sdt_s": _delay([value["sdt_ms"] / 1e3 for value in ended]),
        "ser_ratio": _ratio(len(good), asked),
        "seer_ratio": _ratio(len(good) + sum(code in BUSY for code in codes), asked),
        "isa_ratio": _ratio(failed, len(sent)),
        "scr_ratio": _ratio(len(ended), len(sent)),
    }


def _is_success(value: Mapping[str, Any]) -> bool:
    return 200 <= (value.get("code") or 0) < 300


def _ratio(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _delay(seconds: Iterable[float]) -> dict[str, float] | None:
    """Median and 95th percentile by nearest rank, and how many there were."""
    ordered = sorted(seconds)
    if not ordered:
        return None
    p50, p95 = (round(nearest_rank(ordered, part), 4) for part in (0.5, 0.95))
    return {"p50": p50, "p95": p95, "n": len(ordered)}
