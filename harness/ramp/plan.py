"""What a capacity run is to do, as frozen data: which loads rise, in which steps, how often, and how long that takes.

Pure. Each ramp has its own load; what measures is the same in all of them: a new call every 0.1 s and a few held calls.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Literal, TypeVar, get_args

from harness.capacity import Limits
from harness.clients.companions import MAX_CPS
from harness.clients.extensions import MAX_HELD
from harness.clients.probes import Spec, background_calls, held_calls, new_calls, registered
from harness.errors import UsageError

T = TypeVar("T", bound=str)
RampName = Literal["calls_per_s", "calls", "registrations"]
During = Literal["normal", "failover"]

RAMPS: tuple[RampName, ...] = get_args(RampName)
DURINGS: tuple[During, ...] = get_args(During)

UNITS: Mapping[RampName, str] = {
    "calls_per_s": "calls/s",
    "calls": "concurrent calls with audio",
    "registrations": "registered clients",
}

LEVELS: Mapping[RampName, tuple[float, ...]] = {
    "calls_per_s": (25, 50, 100, 150, 200, 300, 400),
    "calls": (25, 50, 100, 150, 200, 300, 400),
    "registrations": (250, 500, 1000, 2000, 3500, 5000),
}
HOLD_S = 1.0
"""How long each call of the calls/s ramp is up: long enough to be one, short enough that they do not add up."""

CALL_KINDS = ("ip_phone", "desktop")
CLIENT_KINDS = ("desktop", "mobile", "webrtc", "ip_phone")
"""Whose calls and registrations a ramp adds, in turn when the extensions of one kind are used up. Desktops first: over
TLS they notice a failover, and come back all at once."""

CLIENTS_OF_A_KIND = 1300
"""A PBX with the stand-in's extensions has so many for the registered clients of each kind."""

MOST: Mapping[RampName, float] = {
    "calls_per_s": MAX_CPS,
    "calls": MAX_HELD * len(CALL_KINDS),
    "registrations": CLIENTS_OF_A_KIND * len(CLIENT_KINDS),
}

BESIDE = 5
"""Held calls beside a load that has no audio of its own."""

UP_S: Mapping[RampName, float] = {"calls_per_s": 6.0, "calls": 12.0, "registrations": 14.0}
"""About how long it takes to put a level's load up and to take it away again."""

BROKEN_S = 60.0
"""How much longer the level may take whose load the PBX does not take."""

FAILOVER_S = 55.0
"""About how long a level during a failover takes on a cell with the tuned policy."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`n` ramps of each load, in each state of the system; `measure_s` is how long a level is measured."""

    ramps: Sequence[RampName] = RAMPS
    during: Sequence[During] = DURINGS
    n: int = 3
    measure_s: float = 10.0
    limits: Limits = field(default_factory=Limits)
    levels: Mapping[RampName, Sequence[float]] = field(default_factory=lambda: LEVELS)

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n is at least 1, not {self.n}")
        if not 1 <= self.measure_s <= 600:
            raise ValueError(f"a level is measured for 1-600 s, not {self.measure_s:g}")
        for ramp in self.ramps:
            loads = self.levels[ramp]
            if not loads or any(b <= a for a, b in pairwise(loads)) or loads[0] <= 0 or loads[-1] > MOST[ramp]:
                raise ValueError(f"levels of {ramp} rise from above 0 to at most {MOST[ramp]:g}")
            if ramp != "calls_per_s" and any(load % 1 for load in loads):
                raise ValueError(f"levels of {ramp} are whole numbers")

    @property
    def at_most_s(self) -> float:
        """About how long it takes when nothing breaks before the last level, in seconds."""
        total = 0.0
        for ramp in self.ramps:
            count = len(self.levels[ramp])
            if "normal" in self.during:
                total += count * (UP_S[ramp] + self.measure_s) + BROKEN_S
            if "failover" in self.during:
                total += (1 + math.ceil(math.log2(count + 1))) * FAILOVER_S
        return total * self.n


def load_of(ramp: RampName, load: float) -> list[Spec]:
    """The clients that are the load of one level."""
    if ramp == "calls_per_s":
        return [background_calls(rate_cps=load, hold_s=HOLD_S)]
    if ramp == "calls":
        return [held_calls(count=count, kind=kind) for kind, count in _shared(load, CALL_KINDS, MAX_HELD)]
    return [registered(count=count, kind=kind) for kind, count in _shared(load, CLIENT_KINDS, CLIENTS_OF_A_KIND)]


def clocks_of(ramp: RampName) -> list[Spec]:
    """What measures beside the load: new calls, and held calls where the load is none."""
    held: list[Spec] = [] if ramp == "calls" else [held_calls(count=BESIDE)]
    return [new_calls(period_s=0.1), *held]


def _shared(load: float, kinds: Sequence[str], most: int) -> list[tuple[str, int]]:
    rest, shares = int(load), []
    for kind in kinds:
        if rest > 0:
            shares.append((kind, min(rest, most)))
            rest -= most
    return shares


def plan(*, ramp: str, during: str, n: int, measure_s: float, limits: str, levels: str) -> Plan:
    """A plan as it is asked for on the command line; `UsageError` for the first thing that is wrong with it."""
    ramps = _chosen("--ramp", ramp, RAMPS, every="all")
    states = _chosen("--during", during, DURINGS, every="both")
    own = dict(LEVELS)
    if levels:
        if len(ramps) != 1:
            raise UsageError("--levels: name one --ramp, each has levels of its own")
        own[ramps[0]] = tuple(_number("--levels", text) for text in levels.split(","))
    try:
        return Plan(ramps=ramps, during=states, n=n, measure_s=measure_s, limits=read_limits(limits), levels=own)
    except ValueError as error:
        raise UsageError(f"capacity: {error}") from None


def read_limits(text: str) -> Limits:
    """`ser_ratio=0.98,srd_p95_s=1`, or a TOML file with the same names; what is left out keeps its default."""
    if text.endswith(".toml"):
        try:
            given = tomllib.loads(Path(text).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise UsageError(f"--limits {text}: {error}") from None
    else:
        given = dict(_pair(part) for part in text.split(",") if part)
    known = [one.name for one in fields(Limits)]
    for name, value in given.items():
        if name not in known:
            raise UsageError(f"--limits: no limit {name!r}; there are {', '.join(known)}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UsageError(f"--limits: {name} is a number, not {value!r}")
    try:
        return Limits(**given)
    except ValueError as error:
        raise UsageError(f"--limits: {error}") from None


def _pair(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    return name.strip(), _number(f"--limits: {name.strip()}", value)


def _number(what: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{what}: not a number: {text!r}")
    return value


def _chosen(option: str, text: str, known: tuple[T, ...], *, every: str) -> tuple[T, ...]:
    """The names joined by commas, in their own order; `every` is all of them."""
    names = text.split(",")
    for name in names:
        if name != every and name not in known:
            raise UsageError(f"{option}: no {name!r}; there are {', '.join(known)}, {every}")
    return known if every in names else tuple(one for one in known if one in names)
