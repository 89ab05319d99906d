"""Drives a capacity run: brings a cell up or takes the standing one, ramps as planned, saves after every level.

Repetitions go round: one ramp of each load in each state, then the next, so that a run that is stopped has as much of
everything as there was time for. Ctrl-C, or whatever ends it, leaves capacity.json and summary.md with what was
measured by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from math import isinf
from typing import Any

from harness import doctor, environment, session
from harness.capacity import Knee, Level, Limits, broken, knee, next_load, pooled
from harness.cell.cell import Cell
from harness.errors import Aborted, HarnessError, Interrupted, UsageError
from harness.interrupts import interrupts
from harness.lock import cell_lock
from harness.ramp import offer
from harness.ramp.plan import UNITS, During, Plan, RampName, clocks_of, load_of
from harness.report import capacity as report
from harness.run import Say
from harness.rundir import RunDir
from harness.session import Resolved

SCHEMA_VERSION = 1


@dataclass(kw_only=True)
class Ramp:
    """One ramp: its levels in the order in which they were tried; `ended` once it is known where its knee is."""

    ramp: RampName
    during: During
    n: int
    levels: list[Level] = field(default_factory=list)
    ended: bool = False

    def knee(self, limits: Limits) -> Knee:
        return knee(sorted(self.levels, key=lambda level: level.load), limits)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What came of it. `error` is set when it was stopped before its end."""

    run_dir: RunDir
    document: dict[str, Any]
    error: HarnessError | None


def measure(plan: Plan, resolved: Resolved, *, say: Say) -> Measured:
    """All that was planned, on a cell of its own or the standing one; what can't run here is a `UsageError` at once."""
    doctor.require(resolved.request.out)
    why = _unmet(plan, resolved)
    if why:
        raise UsageError(f"capacity can't run with PBX {resolved.profile.name}: {why}")
    what = report.planned(ramps=plan.ramps, during=plan.during, n=plan.n)
    say(None, "plan", f"{what}; at most about {report.minutes(plan.at_most_s)}")
    started = datetime.now(UTC)
    with interrupts() as gate, cell_lock(resolved.request.cell, doing="capacity") as held:
        standing = session.standing_cell(resolved, died=held.died)
        run_dir = RunDir.create(resolved.request.out, scenario="capacity", seed=resolved.request.seed, started=started)
        held.works_in(run_dir.path)
        work = Work(plan=plan, resolved=resolved, run_dir=run_dir, say=say, started=started)
        error: HarnessError | None = None
        try:
            cell = standing or session.bring_up(
                resolved, progress=lambda line: say(None, "cell", line), gate=gate, run_dir=run_dir
            )
            work.on(cell)
        except Interrupted as stopped:
            error = Aborted(str(stopped))
        except HarnessError as failed:
            error = failed
        finally:
            gate.close()
            if standing is None:
                for thing in session.take_down(resolved.topology):
                    say(None, "cell", f"left behind: {thing}")
        return Measured(run_dir=run_dir, document=work.save(error), error=error)


@dataclass(kw_only=True)
class Work:
    """What is done of a plan, on a cell that the caller holds; saved as it grows."""

    plan: Plan
    resolved: Resolved
    run_dir: RunDir
    say: Say
    started: datetime
    ramps: list[Ramp] = field(default_factory=list)

    def on(self, cell: Cell) -> None:
        """Everything that is planned; what ends it is raised, and what was measured by then is in `ramps`."""
        for n in range(1, self.plan.n + 1):
            for name in self.plan.ramps:
                loads = list(self.plan.levels[name])
                if "normal" in self.plan.during:
                    found = self._normal(cell, self._new(name, "normal", n), loads)
                    loads = [load for load in loads if found.load is not None and load <= found.load]
                if "failover" in self.plan.during and loads:
                    self._failover(cell, self._new(name, "failover", n), loads)

    def save(self, error: HarnessError | None = None) -> dict[str, Any]:
        """capacity.json and summary.md, as far as things are."""
        document = {
            "schema_version": SCHEMA_VERSION,
            "system": self.resolved.system,
            "policy": self.resolved.policy.name,
            "started_at": self.started.isoformat(timespec="milliseconds"),
            "stopped": None if error is None else str(error),
            "limits": asdict(self.plan.limits),
            "measure_s": self.plan.measure_s,
            "figures": [
                row for name in self.plan.ramps for during in self.plan.during if (row := self._row(name, during))
            ],
            "environment": environment.describe(),
        }
        self.run_dir.write_json("capacity.json", document)
        self.run_dir.write_text("summary.md", report.markdown(document))
        return document

    def _normal(self, cell: Cell, ramp: Ramp, loads: Sequence[float]) -> Knee:
        """Every level in turn until one breaks."""
        for load in loads:
            folder = self.run_dir.path / "levels" / f"{ramp.ramp}-{ramp.n}-{load:g}"
            offer.at_rest(cell)
            level = offer.in_normal(cell, ramp.ramp, load, folder=folder, measure_s=self.plan.measure_s)
            self._took(ramp, level)
            if ramp.knee(self.plan.limits).limited_by != "nothing":
                break
        return self._ended(ramp)

    def _failover(self, cell: Cell, ramp: Ramp, loads: Sequence[float]) -> Knee:
        """By halves, from the highest down: each level costs a failover."""
        limits = self.plan.limits
        while (load := next_load(loads, ramp.levels, limits)) is not None:
            folder = self.run_dir.path / "runs"
            offer.at_rest(cell)
            level = offer.in_failover(
                cell, self.resolved, ramp.ramp, load, folder=folder, limits=limits, say=lambda *_: None
            )
            self._took(ramp, level)
        return self._ended(ramp)

    def _new(self, name: RampName, during: During, n: int) -> Ramp:
        self.ramps.append(Ramp(ramp=name, during=during, n=n))
        return self.ramps[-1]

    def _took(self, ramp: Ramp, level: Level) -> None:
        ramp.levels.append(level)
        wrong = broken(level, self.plan.limits)
        self.say(None, report.label(ramp.during), report.level_line(ramp.ramp, ramp.n, level_row(level, wrong)))
        self.save()

    def _ended(self, ramp: Ramp) -> Knee:
        ramp.ended = True
        self.save()
        return ramp.knee(self.plan.limits)

    def _row(self, name: RampName, during: During) -> dict[str, Any] | None:
        """One figure: the knees of its ramps that ended, and every level; None before the first."""
        ramps = [ramp for ramp in self.ramps if (ramp.ramp, ramp.during) == (name, during)]
        limits = self.plan.limits
        knees = [ramp.knee(limits) for ramp in ramps if ramp.ended]
        levels = [{"n": ramp.n, **level_row(level, broken(level, limits))} for ramp in ramps for level in ramp.levels]
        if not levels:
            return None
        head = {"ramp": name, "during": during, "unit": UNITS[name]}
        return {**head, **pooled(knees), "knees": [asdict(one) for one in knees], "levels": levels}


def level_row(level: Level, wrong: Sequence[str]) -> dict[str, Any]:
    """A level as data; an outage that never ended is a string, JSON has no infinity."""
    row = asdict(level)
    if level.outage_s is not None and isinf(level.outage_s):
        row["outage_s"] = "never ended"
    return {**row, "broken": list(wrong)}


def _unmet(plan: Plan, resolved: Resolved) -> str | None:
    """Why a load of the plan can't be offered to this PBX, on this host."""
    for name in plan.ramps:
        for spec in (*clocks_of(name), *load_of(name, plan.levels[name][-1])):
            why = spec.unmet(resolved.profile)
            if why is not None:
                return f"{spec.name}: {why}"
    return None
