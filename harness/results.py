"""What a run concludes: intervals, outages, verdicts. Plain frozen data; every report is a function of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Verdict = Literal["pass", "fail", "unknown"]

PHASES = ("detect", "decide", "fence", "stop", "detach", "attach", "mount", "start", "address", "answer")
"""The phases of a failover by name, in the order in which they usually happen."""

CLOCKS = ("options", "register", "new_call", "media")
"""The clocks that measure an outage, the most demanding last."""

TransportName = Literal["udp", "tcp", "tls", "wss"]
TRANSPORTS: tuple[TransportName, ...] = get_args(TransportName)


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A measured duration in seconds. Probes sample, so what was measured is an interval, never a point."""

    lower_s: float
    upper_s: float

    def __post_init__(self) -> None:
        if not 0 <= self.lower_s <= self.upper_s:
            raise ValueError(f"not an interval: {self.lower_s}-{self.upper_s} s")

    @property
    def width_s(self) -> float:
        return self.upper_s - self.lower_s

    def __contains__(self, truth_s: float) -> bool:
        return self.lower_s <= truth_s <= self.upper_s


@dataclass(frozen=True, kw_only=True)
class Outage:
    """One outage as one clock saw it. `start_ns` is when the last good answer before it was *asked for*;
    `end_ns` is None when it never ended within the run, and then `duration.upper_s` is only how long it was watched.
    `began_before`: it was there from the first probe on, `start_ns` is that probe's and nobody knows the real start."""

    clock: str
    start_ns: int
    end_ns: int | None
    duration: Interval
    flapping: int = 0
    late: int = 0
    evidence: tuple[int, ...] = ()
    began_before: bool = False


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """What one checker says. `unknown` never rounds to pass; `why` is one line; `evidence` are op indexes."""

    name: str
    verdict: Verdict
    why: str
    metrics: dict[str, Any] = field(default_factory=dict)
    evidence: tuple[int, ...] = ()


def clock_id(clock: str, transport: TransportName) -> str:
    """The `f` of the ops of one clock on one transport: `options` on UDP, `options_tls` on TLS."""
    return clock if transport == "udp" else f"{clock}_{transport}"


def clock_ids(clock: str) -> dict[TransportName, str]:
    """The ids of one clock, by transport."""
    return {transport: clock_id(clock, transport) for transport in TRANSPORTS}


def split_clock(name: str) -> tuple[str, TransportName]:
    """The clock and the transport of an id: `new_call_tls` is ("new_call", "tls")."""
    clock, _, last = name.rpartition("_")
    transport = next((t for t in TRANSPORTS if t == last), None)
    return (clock, transport) if clock and transport else (name, "udp")


ALL_CLOCK_IDS = tuple(name for clock in CLOCKS for name in clock_ids(clock).values())
"""Every clock on every transport, the most demanding last."""


def slowest(outages: Mapping[str, Sequence[Outage]]) -> Outage | None:
    """The headline: the longest outage of the slowest clock; one that never ended is longer than any that did."""
    seen = [outage for one_clock in outages.values() for outage in one_clock]
    return max(seen, key=lambda o: (o.end_ns is None, o.duration.upper_s), default=None)


def overall(checks: Sequence[CheckResult]) -> Verdict:
    """fail if any check failed, else unknown if any is unknown or there is none, else pass."""
    verdicts = {check.verdict for check in checks}
    if "fail" in verdicts:
        return "fail"
    return "pass" if verdicts == {"pass"} else "unknown"
