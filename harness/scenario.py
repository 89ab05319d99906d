"""An experiment as frozen data: which probes watch, which faults strike when, which checks and limits judge.

A scenario says nothing about containers or AWS; the same object runs on both. Arguments are validated here, where the
object is built, so that a mistake shows before anything is started.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from harness.checkers.types import Checker
from harness.faults.types import Fault

if TYPE_CHECKING:
    from harness.clients.probes import Spec

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One fault of a timeline: injected `at_s` seconds after the steady state was seen, healed `hold_s` later."""

    at_s: float
    fault: Fault
    hold_s: float

    def __post_init__(self) -> None:
        if not self.at_s >= 0:
            raise ValueError(f"a fault can't strike before the steady state: at_s={self.at_s}")
        if not self.hold_s > 0:
            raise ValueError(f"a fault is held for a while: hold_s={self.hold_s}")


def at(at_s: float, fault: Fault, *, hold_s: float) -> Step:
    """`at(5, power_off("active"), hold_s=30)` reads as: 5 s in, power off the active node, for 30 s."""
    return Step(at_s=at_s, fault=fault, hold_s=hold_s)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A named experiment.

    `warmup_s` is how long every probe must have been fine before the first fault (and after recovery, before the run
    ends); `recover_s` bounds the wait for the system to come back after the last heal.
    """

    name: str
    summary: str = ""
    probes: Sequence[Spec]
    timeline: Sequence[Step]
    checkers: Sequence[Checker] = field(default=())
    warmup_s: float = 5.0
    recover_s: float = 90.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"a scenario's name is lower-case words joined by '-': {self.name!r}")
        if not self.probes:
            raise ValueError(f"{self.name}: without a probe nothing is measured")
        if not (self.warmup_s > 0 and self.recover_s > 0):
            raise ValueError(f"{self.name}: warmup_s and recover_s must be above 0")
        names = [probe.name for probe in self.probes]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{self.name}: two probes for the same: {', '.join(twice)}")
        if all(probe.timing is None for probe in self.probes):
            raise ValueError(f"{self.name}: without a clock (OPTIONS, REGISTER, new calls) no outage is measured")
        for attribute in ("probes", "timeline", "checkers"):
            object.__setattr__(self, attribute, tuple(getattr(self, attribute)))

    @property
    def watch_s(self) -> float:
        """How long the slowest client wants to be watched after everything is well again."""
        return max(probe.watch_s for probe in self.probes)

    @property
    def last_heal_s(self) -> float:
        """When the last fault is healed, in seconds after the steady state; 0 without faults (a control run)."""
        return max((step.at_s + step.hold_s for step in self.timeline), default=0.0)


class Judged(Protocol):
    """What a scenario's pytest test gets back."""

    def assert_passed(self) -> None:
        """Fail the test with the first broken check, its evidence, and the command that reproduces it."""


class RunScenario(Protocol):
    """The `run_scenario` fixture (fixtures/plugin.py): runs a scenario on the session's cell."""

    def __call__(self, scenario: Scenario, /) -> Judged: ...
