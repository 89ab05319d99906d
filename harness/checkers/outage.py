"""How long a clock was down, as an interval, and whether that is within a limit.

`find_outages` is pure: pairs of one clock in, outages out. Down begins with `IN_A_ROW` answers in a row that were not
ok, up with as many that were. With a the last ok before, f the first and l the last not-ok, and b the ok of the
sustained run after it whose answer came first:

    upper = b answered - a sent       the service surely answered when a was sent, and again when b came back
    lower = l sent - f sent - normal  f can have failed only at what struck within a normal latency of its sending
                                      (a lost reply), and l only at what was still there when it was sent

Hence for a service that was gone from A to B, and normal latencies: a sent <= A, f sent >= A - normal, l sent <= B <= b
answered, and the truth B - A lies inside. The width is the two periods a-f and l-b plus two latencies. *Normal* is the
p99.9 of the good answers that no outage held up. Single lost packets that touch the outage belong to it;
nothing sent from outside can tell them apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Any

from harness.checkers.limits import check_limit_s
from harness.checkers.types import Evidence
from harness.clock import NS_PER_S
from harness.history import Op, Pair
from harness.quantiles import nearest_rank
from harness.results import CheckResult, Interval, Outage, Verdict

IN_A_ROW = 3
"""k: answers of one kind in a row that make a state."""

BASELINE = 20
"""Good answers needed before their p99.9 is taken for the normal latency; with fewer it is the probe's deadline."""

MAX_SLIPPED_RATIO = 0.01
"""Share of the sends that may be late by more than half a period before the host, not the system, was measured."""

MAX_SLIP_MS = 250.0
"""How late a single send may be while a clock is down; half of SIP's T1, as for the metronome."""


@dataclass(frozen=True, kw_only=True)
class OutageLimit:
    """The longest outage of the slowest clock is within `limit_s`; None asks the policy for its limit.

    Pass needs the upper bound within the limit, fail the lower bound above it (or an outage that outlived the run and
    the limit); a limit inside the interval is unknown. So is everything that a busy host measured.
    """

    name: str = "outage"
    limit_s: float | None = None

    def __post_init__(self) -> None:
        if self.limit_s is not None:
            check_limit_s(self.limit_s)

    def check(self, evidence: Evidence) -> CheckResult:
        limit_s = self.limit_s if self.limit_s is not None else evidence.limits.get("outage_limit_s")
        since_ns = evidence.steady_ns or 0
        seen = [outage for found in evidence.outages.values() for outage in found]
        outages = [outage for outage in seen if outage.end_ns is None or outage.end_ns > since_ns]
        slips = {clock: slips_of(evidence.of(clock), outages) for clock in evidence.clocks}
        verdict, why, decisive = _verdict(evidence.clocks, outages, limit_s)
        if verdict == "pass" and (unmeasured := _unmeasured(evidence)):
            verdict, why = "unknown", f"nothing was measured on {', '.join(unmeasured)}"
        doubts = [f"{clock}: {doubt}" for clock, slip in slips.items() for doubt in slip.doubts]
        if doubts and verdict != "unknown":
            verdict, why = "unknown", f"the host sent too late to measure ({'; '.join(doubts)}); it would be: {why}"
        metrics: dict[str, Any] = {
            "limit_s": limit_s,
            "outages": {clock: sum(o.clock == clock for o in outages) for clock in evidence.outages},
            "slipped_ratio": {clock: round(slip.ratio, 5) for clock, slip in slips.items()},
            "max_slip_ms": {clock: round(slip.max_ms, 3) for clock, slip in slips.items()},
        }
        return CheckResult(
            name=self.name, verdict=verdict, why=why, metrics=metrics, evidence=decisive.evidence if decisive else ()
        )


def outage(limit_s: float | None = None) -> OutageLimit:
    """The outage of every clock stays within `limit_s` seconds; without one, within the policy's own limit."""
    return OutageLimit(limit_s=limit_s)


def find_outages(
    pairs: Iterable[Pair], *, clock: str, deadline_s: float, period_s: float, late: Iterable[Op] = ()
) -> list[Outage]:
    """Every outage of one clock, in order. `late` are its answers that came after the deadline (`f` = "<clock>_late").

    An outage that never ended has `end_ns` None and the time it was watched as its upper bound; one that was there
    from the first probe on has `began_before` set, and its bounds count from that probe. Invocations at the very end
    that nobody waited for (the probe was killed) are not judged.
    """
    if deadline_s <= 0 or period_s <= 0:
        raise ValueError(f"deadline and period are above 0 s, not {deadline_s} and {period_s}")
    probes = _judged(pairs)
    good = [_is_ok(pair, deadline_s) for pair in probes]
    late_n = {(op.process, op.value["n"]) for op in late}
    normal: list[int] = []
    found: list[Outage] = []
    at = 0
    while (first := _run_of(False, good, at)) is not None:
        since_ns = found[-1].end_ns or 0 if found else 0
        normal += _normal(probes[at:first], good[at:first], since_ns=since_ns, until_ns=probes[first].invoke.time_ns)
        back = _run_of(True, good, first)
        span = _Span(probes=probes, good=good, first=first, back=back)
        slack_ns = round(deadline_s * NS_PER_S) if len(normal) < BASELINE else p999(normal)
        found.append(_outage(span, clock=clock, slack_ns=slack_ns, late_n=late_n))
        if back is None:
            break
        at = back
    return found


def _normal(probes: Sequence[Pair], good: Sequence[bool], *, since_ns: int, until_ns: int) -> list[int]:
    """Latencies of the good answers between two outages; what waited through one of them is not normal."""
    between = (p for p, ok in zip(probes, good, strict=True) if ok and p.invoke.time_ns >= since_ns)
    return [_latency_ns(p) for p in between if _end_ns(p) <= until_ns]


def p999(latencies_ns: Sequence[int]) -> int:
    """The 99.9th percentile by nearest rank: the largest of fewer than a thousand."""
    return nearest_rank(sorted(latencies_ns), 0.999)


@dataclass(frozen=True, kw_only=True)
class Slips:
    """How punctual the sends of one clock were."""

    ratio: float
    max_ms: float
    max_down_ms: float

    @property
    def doubts(self) -> list[str]:
        found = []
        if self.ratio > MAX_SLIPPED_RATIO:
            found.append(f"{self.ratio:.1%} of the sends were late by over half a period")
        if self.max_down_ms > MAX_SLIP_MS:
            found.append(f"a send was {self.max_down_ms:.0f} ms late during an outage")
        return found


def slips_of(ops: Iterable[Op], outages: Iterable[Outage]) -> Slips:
    """Judge the invocations of one clock; those that were never sent (`skipped`) count as slipped."""
    spans = [(o.start_ns, o.end_ns) for o in outages]
    sends = slipped = 0
    worst = worst_down = 0.0
    for op in ops:
        if op.type != "invoke":
            continue
        slip_ms, skipped = float(op.value.get("slip_ms", 0.0)), int(op.value.get("skipped", 0))
        sends += 1 + skipped
        slipped += skipped + bool(op.value.get("slipped", False))
        worst = max(worst, slip_ms)
        due_ns = op.time_ns - round(slip_ms * 1e6)
        if any(op.time_ns >= start and (end is None or due_ns <= end) for start, end in spans):
            worst_down = max(worst_down, slip_ms)
    return Slips(ratio=slipped / sends if sends else 0.0, max_ms=worst, max_down_ms=worst_down)


@dataclass(frozen=True, kw_only=True)
class _Span:
    """One down state: `first` is its first probe, `back` the first ok of the run that ended it (None: never)."""

    probes: Sequence[Pair]
    good: Sequence[bool]
    first: int
    back: int | None

    @property
    def last(self) -> int:
        """The last probe that was not ok."""
        stop = len(self.good) if self.back is None else self.back
        return max(i for i in range(self.first, stop) if not self.good[i])

    @property
    def answering(self) -> int | None:
        """Of the run that ended it, the probe whose answer came first: a call may overtake the one before."""
        if self.back is None:
            return None
        in_flight_ns = _end_ns(self.probes[self.back])
        racing = [self.back]
        for i in range(self.back + 1, len(self.probes)):
            if self.probes[i].invoke.time_ns > in_flight_ns:
                break
            racing += [i] if self.good[i] else []
        return min(racing, key=lambda i: _end_ns(self.probes[i]))

    @property
    def back_ns(self) -> int | None:
        return None if self.answering is None else _end_ns(self.probes[self.answering])

    @property
    def deciding(self) -> list[Pair]:
        """The probes whose times are the bounds: a, f, l, b."""
        chosen = [self.first - 1, self.first, self.last, self.answering]
        return [self.probes[i] for i in chosen if i is not None and i >= 0]


def _outage(span: _Span, *, clock: str, slack_ns: int, late_n: Set[tuple[str, Any]]) -> Outage:
    first, last = span.probes[span.first], span.probes[span.last]
    began_before = span.first == 0
    start_ns = first.invoke.time_ns if began_before else span.probes[span.first - 1].invoke.time_ns
    end_ns = span.back_ns
    seen_ns = max(_end_ns(pair) for pair in span.probes) if end_ns is None else end_ns
    lower_ns = last.invoke.time_ns - _sent_ns(first) - slack_ns
    upper_ns = max(seen_ns - start_ns, 0)
    return Outage(
        clock=clock,
        start_ns=start_ns,
        end_ns=end_ns,
        duration=Interval(lower_s=min(max(lower_ns, 0), upper_ns) / NS_PER_S, upper_s=upper_ns / NS_PER_S),
        flapping=sum(span.good[span.first : span.last]),
        late=sum((p.invoke.process, p.invoke.value["n"]) in late_n for p in span.probes[span.first : span.last + 1]),
        evidence=tuple(op.index for pair in span.deciding for op in (pair.invoke, pair.end) if op and op.index >= 0),
        began_before=began_before,
    )


def _verdict(
    clocks: Sequence[str], outages: Sequence[Outage], limit_s: float | None
) -> tuple[Verdict, str, Outage | None]:
    if not clocks:
        return "unknown", "no clock ran", None
    if not outages:
        return "pass", f"no outage on {', '.join(clocks)}", None
    worst = max(outages, key=lambda o: (o.end_ns is None, o.duration.upper_s))
    bounds = f"{worst.duration.lower_s:.3f}-{worst.duration.upper_s:.3f} s ({worst.clock})"
    if worst.end_ns is None:
        told = f"outage never ended, watched for {worst.duration.upper_s:.3f} s ({worst.clock})"
        if limit_s is None or worst.duration.lower_s > limit_s:
            return "fail", told, worst
        return "unknown", f"{told}: not long enough for the limit of {limit_s:g} s", worst
    over = max(outages, key=lambda o: o.duration.lower_s)
    if limit_s is not None and over.duration.lower_s > limit_s:
        bounds = f"{over.duration.lower_s:.3f}-{over.duration.upper_s:.3f} s ({over.clock})"
        return "fail", f"outage {bounds}, limit {limit_s:g} s", over
    unseen = next((o for o in outages if o.began_before), None)
    if unseen is not None:
        return "unknown", f"{unseen.clock} was down from its first probe on: nobody saw that outage begin", unseen
    if limit_s is None:
        return "pass", f"outage {bounds}, it ended; no limit was set", worst
    if worst.duration.upper_s > limit_s:
        return "unknown", f"outage {bounds}: the limit of {limit_s:g} s lies inside the interval", worst
    return "pass", f"outage {bounds}, limit {limit_s:g} s", worst


def _unmeasured(evidence: Evidence) -> list[str]:
    """Clocks without a good answer; all of them when the steady state was never reached."""
    if evidence.steady_ns is None:
        return list(evidence.clocks)
    return [clock for clock in evidence.clocks if not any(op.type == "ok" for op in evidence.of(clock))]


def _judged(pairs: Iterable[Pair]) -> list[Pair]:
    """In order of sending, without the invocations at the end that have no end of their own."""
    probes = sorted(pairs, key=lambda pair: pair.invoke.time_ns)
    while probes and probes[-1].end is None:
        probes.pop()
    return probes


def _is_ok(pair: Pair, deadline_s: float) -> bool:
    return pair.end is not None and pair.end.type == "ok" and _latency_ns(pair) <= round(deadline_s * NS_PER_S)


def _latency_ns(pair: Pair) -> int:
    assert pair.end is not None
    return pair.end.time_ns - pair.invoke.time_ns


def _end_ns(pair: Pair) -> int:
    return pair.invoke.time_ns if pair.end is None else pair.end.time_ns


def _sent_ns(pair: Pair) -> int:
    """When a send had surely happened: the stamp is taken before it, and a busy host can pause in between."""
    return pair.invoke.time_ns + math.ceil(float(pair.invoke.value.get("send_ms", 0.0)) * 1e6)


def _run_of(value: bool, good: Sequence[bool], start: int) -> int | None:
    """Where the first run of `IN_A_ROW` times `value` begins, from `start` on."""
    row = 0
    for i in range(start, len(good)):
        row = row + 1 if good[i] is value else 0
        if row == IN_A_ROW:
            return i - IN_A_ROW + 1
    return None
