"""How much load the system carries before callers notice: the knee of a ramp, and whether the PBX or the host was it.

Pure. A ramp is a row of levels, each with what the clocks measured while the load was offered; the knee is the highest
level below the first one that broke a limit. A level during which the host itself was too busy to measure (the
metronome ticked late, sends slipped) ends the ramp, too, and then the knee is only a lower bound: the host was the
limit, not the PBX. The unit is the ramp: n of them give a median and a spread, fewer than three give no figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isinf
from statistics import median
from typing import Any, Literal

LimitedBy = Literal["pbx", "host", "nothing"]

MIN_RAMPS = 3


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What callers accept: session establishment ratio, session request delay (p95), media loss and longest gap; over
    a failover the outage of the slowest clock, too, and the share of held calls that come back."""

    ser_ratio: float = 0.99
    srd_p95_s: float = 0.5
    media_loss_ratio: float = 0.01
    media_gap_s: float = 0.3
    outage_s: float = 30.0
    recovered_ratio: float = 0.95

    def __post_init__(self) -> None:
        ratios = (self.ser_ratio, self.recovered_ratio)
        if not (all(0 < ratio <= 1 for ratio in ratios) and 0 < self.media_loss_ratio < 1):
            raise ValueError(
                "ser_ratio and recovered_ratio are above 0 and at most 1, media_loss_ratio between 0 and 1"
            )
        if not (self.srd_p95_s > 0 and self.media_gap_s > 0 and self.outage_s > 0):
            raise ValueError("srd_p95_s, media_gap_s and outage_s are above 0 s")


@dataclass(frozen=True, kw_only=True)
class Level:
    """One level of a ramp. None: not measured there. `host` says why the host was too busy to measure, if it was;
    `not_taken` what of the load the PBX did not take. `outage_s` is infinite when it never ended. What follows breaks
    nothing and is told beside: attempts at a call, how busy the host's processors were, its latest tick, the
    greatest share of a second in which something waited for a processor (PSI)."""

    load: float
    ser_ratio: float | None = None
    srd_p95_s: float | None = None
    media_loss_ratio: float | None = None
    media_gap_s: float | None = None
    outage_s: float | None = None
    recovered_ratio: float | None = None
    not_taken: str | None = None
    host: str | None = None
    attempts: int | None = None
    cpu_ratio: float | None = None
    tick_late_ms: float | None = None
    psi_ratio: float | None = None


@dataclass(frozen=True, kw_only=True)
class Knee:
    """Where one ramp ended: `load` is the highest level that held, None when the first one already broke."""

    load: float | None
    limited_by: LimitedBy
    why: str


def broken(level: Level, limits: Limits) -> list[str]:
    """The limits that a level breaks, in words. What was not measured breaks nothing, but a level at which no call of
    the clock was made does: nobody was looking."""
    found = []
    if level.not_taken is not None:
        found.append(level.not_taken)
    elif level.ser_ratio is None:
        found.append("nothing was measured: no call of the clock")
    if level.ser_ratio is not None and level.ser_ratio < limits.ser_ratio:
        found.append(f"SER {level.ser_ratio:.1%} < {limits.ser_ratio:.1%}")
    if level.srd_p95_s is not None and level.srd_p95_s > limits.srd_p95_s:
        found.append(f"SRD p95 {level.srd_p95_s:.2f} s > {limits.srd_p95_s:g} s")
    if level.media_loss_ratio is not None and level.media_loss_ratio > limits.media_loss_ratio:
        found.append(f"media loss {level.media_loss_ratio:.1%} > {limits.media_loss_ratio:.1%}")
    if level.media_gap_s is not None and level.media_gap_s > limits.media_gap_s:
        found.append(f"media gap {level.media_gap_s:.2f} s > {limits.media_gap_s:g} s")
    if level.outage_s is not None and level.outage_s > limits.outage_s:
        found.append(
            "the outage never ended"
            if isinf(level.outage_s)
            else f"outage {level.outage_s:.1f} s > {limits.outage_s:g} s"
        )
    if level.recovered_ratio is not None and level.recovered_ratio < limits.recovered_ratio:
        found.append(f"recovered calls {level.recovered_ratio:.1%} < {limits.recovered_ratio:.1%}")
    return found


def next_load(loads: Sequence[float], tried: Sequence[Level], limits: Limits) -> float | None:
    """The level to try next where each costs a failover: the highest first, then halving; None when it is known which
    of `loads` (rising) is the highest that holds."""
    held = {level.load: level.host is None and not broken(level, limits) for level in tried}
    low = max((n for n, load in enumerate(loads) if held.get(load) is True), default=-1)
    high = min((n for n, load in enumerate(loads) if held.get(load) is False), default=len(loads))
    if high - low <= 1:
        return None
    return loads[-1] if not tried else loads[(low + high) // 2]


def knee(levels: Sequence[Level], limits: Limits) -> Knee:
    """The knee of one ramp, its levels in the order in which they were offered, each above the one before."""
    if any(b.load <= a.load for a, b in pairwise(levels)):
        raise ValueError("the levels of a ramp rise")
    held: float | None = None
    for level in levels:
        wrong = broken(level, limits)
        if level.host is not None:
            return Knee(load=held, limited_by="host", why=f"at {level.load:g}: {level.host}")
        if wrong:
            return Knee(load=held, limited_by="pbx", why=f"at {level.load:g}: {', '.join(wrong)}")
        held = level.load
    return Knee(load=held, limited_by="nothing", why="the ramp ended before anything broke")


def pooled(knees: Sequence[Knee]) -> dict[str, Any]:
    """Several ramps as one figure: median and spread of the knees; `at_least` where one of them was not the PBX's."""
    loads = sorted(k.load for k in knees if k.load is not None)
    limited = [k.limited_by for k in knees]
    enough = len(knees) >= MIN_RAMPS and len(loads) == len(knees)
    return {
        "n": len(knees),
        "knee": median(loads) if enough else None,
        "min": loads[0] if loads else None,
        "max": loads[-1] if loads else None,
        "at_least": any(by != "pbx" for by in limited),
        "limited_by": {by: limited.count(by) for by in ("pbx", "host", "nothing") if by in limited},
        "why": [k.why for k in knees],
    }
