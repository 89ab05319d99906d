"""The one run loop on a cell that is up: warm up, injure, recover, collect, check, save.

Whatever happens - a failure, Ctrl-C, `pbx-chaos abort`, a host that gives up - the way out is the same: heal, stop the
probes, collect what can be collected, judge what was seen. Who brought the cell up takes it down (harness/session.py).
"""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from harness import collect, evidence
from harness.catalogue import always_on
from harness.cell.cell import Cell
from harness.checkers.settled import unsettled
from harness.clock import NS_PER_S, WallOffset, now_ns
from harness.command import wait_for
from harness.errors import HarnessError, InfrastructureError
from harness.interrupts import Gate
from harness.judge import judge
from harness.live import Clock, Follower, Narrator
from harness.nemesis import UndoJournal, plan_rows
from harness.observers import Observers, background_env
from harness.rundir import RunDir
from harness.scenario import Scenario

STEADY_TIMEOUT_S = 45.0
"""How long the probes may take to be fine for a whole warm-up."""

Say = Callable[[float | None, str, str], None]
"""Called with seconds since the steady state (None before it), a kind, and a line for a person."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run came to. `error` is set when it was stopped before its end."""

    run_dir: RunDir
    results: dict[str, Any]
    error: HarnessError | None


@dataclass(kw_only=True)
class Run:
    """One run on a cell that is up, and it stays up. `meta` is scenario.json: what was asked for."""

    scenario: Scenario
    cell: Cell
    run_dir: RunDir
    meta: dict[str, Any]
    say: Say
    gate: Gate
    steady_ns: int | None = None
    end_ns: int | None = None
    _clocks: dict[str, Clock] = field(default_factory=dict)
    _nemesis: subprocess.Popen[bytes] | None = None

    def execute(self) -> Outcome:
        """Play the scenario; always returns, with everything that was observed saved and judged."""
        error: HarnessError | None = None
        self._clocks = {probe.clock: Clock(name=probe.clock) for probe in self.scenario.probes}
        self._follower = Follower(self.run_dir.parts)
        self._narrator = Narrator(clocks=self._clocks)
        self._journal = UndoJournal(self.run_dir.journal)
        observers = Observers(cell=self.cell, probes=self.scenario.probes, run_dir=self.run_dir)
        try:
            collect.cluster_state(self.cell, self.run_dir, "before")
            observers.start()
            self._warm_up(observers)
            self._injure()
            self._recover(observers)
        except HarnessError as stopped:
            error = stopped
        except Exception as bug:
            self.run_dir.write_text("logs/harness-traceback.txt", traceback.format_exc())
            error = InfrastructureError(f"{type(bug).__name__}: {bug} (see logs/harness-traceback.txt of the run)")
        self.gate.close()
        self._heal()
        self.end_ns = now_ns()
        self._stages()
        observers.stop()
        self._tell()
        self._collect()
        return Outcome(run_dir=self.run_dir, results=self._judge(error), error=error)

    def _warm_up(self, observers: Observers) -> None:
        needed_s = self.scenario.warmup_s

        def steady() -> bool:
            self._tell()
            observers.check_alive()
            now = now_ns()
            return all(clock.fine_for_s(now) >= needed_s * 0.9 for clock in self._clocks.values())

        wait_for(
            f"a steady state ({needed_s:g} s of good answers on every clock)",
            steady,
            timeout_s=STEADY_TIMEOUT_S + needed_s,
            every_s=0.1,
            last_seen=self._describe,
        )
        self.steady_ns = now_ns()
        self._stages()
        self._narrator.steady = True
        active = self.cell.cluster().active
        self.say(0.0, "steady", f"{active} active; every clock fine for {needed_s:g} s: {', '.join(self._clocks)}")

    def _injure(self) -> None:
        """Play the timeline in the nemesis process and follow it to its last heal."""
        rows = plan_rows(self.scenario.timeline)
        if not rows:
            self._follow(self.scenario.warmup_s)
            return
        self.run_dir.write_json("plan.json", rows)
        argv = [sys.executable, "-m", "harness.nemesis", "--cell", self.cell.topology.cell]
        argv += ["--plan", str(self.run_dir.path / "plan.json"), "--journal", str(self.run_dir.journal)]
        argv += ["--out", str(self.run_dir.parts / "nemesis.jsonl"), "--steady-ns", str(self.steady_ns)]
        argv += ["--parent-pid", str(os.getpid())]
        with (self.run_dir.path / "logs" / "nemesis.log").open("wb") as log:
            self._nemesis = subprocess.Popen(
                argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
                env=background_env(self.cell.topology.cell),
            )  # fmt: skip
        nemesis = self._nemesis
        bound_s = self.scenario.last_heal_s + self.scenario.recover_s

        def done() -> bool:
            self._tell()
            return nemesis.poll() is not None

        wait_for("the end of the fault timeline", done, timeout_s=bound_s, every_s=0.1, last_seen=self._describe)
        if nemesis.returncode != 0:
            raise InfrastructureError(f"the nemesis died with {nemesis.returncode}: see logs/nemesis.log of the run")

    def _recover(self, observers: Observers) -> None:
        """Wait until every clock has been fine again for a warm-up and the cluster is at rest; bounded, not judged."""
        names = [node.name for node in self.cell.nodes]
        asked = 0
        wrong: list[str] = ["not looked yet"]

        def recovered() -> bool:
            nonlocal asked, wrong
            self._tell()
            observers.check_alive()
            now = now_ns()
            if any(clock.fine_for_s(now) < self.scenario.warmup_s * 0.9 for clock in self._clocks.values()):
                return False
            if now - asked > NS_PER_S:
                asked = now
                wrong = unsettled(collect.as_plain(self.cell.cluster()), names)
            return not wrong

        try:
            wait_for("recovery", recovered, timeout_s=self.scenario.recover_s, every_s=0.1)
        except InfrastructureError:
            self.say(self._at(now_ns()), "late", f"not recovered: {self._describe()}; {'; '.join(wrong)}")
        else:
            self.say(self._at(now_ns()), "settled", "every clock fine, all nodes back, cluster at rest")

    def _heal(self) -> None:
        """Stop the nemesis, which heals what it holds, then heal whatever the journal still shows open."""
        if self._nemesis is not None and self._nemesis.poll() is None:
            self._nemesis.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._nemesis.wait(timeout=120)
            if self._nemesis.poll() is None:
                self._nemesis.kill()
        try:
            self._journal.heal_all(self.cell)
        except Exception as error:
            self.say(None, "heal", str(error))

    def _collect(self) -> None:
        steps: list[tuple[str, Callable[[], object]]] = [
            ("region files", lambda: collect.region_files(self.cell, self.run_dir)),
            ("node logs", lambda: collect.node_logs(self.cell, self.run_dir, WallOffset.measure())),
            ("cluster state", lambda: collect.cluster_state(self.cell, self.run_dir, "after")),
            ("left behind", lambda: self.run_dir.write_json("left-behind.json", self._left_behind())),
        ]
        for what, step in steps:
            try:
                step()
            except Exception as error:
                self.say(None, "collect", f"no {what}: {error}")

    def _left_behind(self) -> list[str]:
        return [f"{fault.name} is not healed" for _, fault in self._journal.open_injuries()] + self.cell.left_behind()

    def _judge(self, error: HarnessError | None) -> dict[str, Any]:
        seen = evidence.load(self.run_dir)
        results = judge(seen, [*self.scenario.checkers, *always_on()], meta=self.meta)
        if error is not None:
            results = {**results, "verdict": "unknown", "error": str(error)}
        self.run_dir.write_json("results.json", results)
        return results

    def _stages(self) -> None:
        self.run_dir.write_json("stages.json", {"steady_ns": self.steady_ns, "end_ns": self.end_ns})

    def _tell(self) -> None:
        for op in self._follower.new():
            for time_ns, kind, text in self._narrator.tell(op):
                if self.steady_ns is not None or kind == "FAULT":
                    self.say(self._at(time_ns), kind, text)

    def _follow(self, seconds: float) -> None:
        end = now_ns() + round(seconds * NS_PER_S)

        def over() -> bool:
            self._tell()
            return now_ns() >= end

        wait_for("the end of the control run", over, timeout_s=seconds + 5, every_s=0.1)

    def _at(self, time_ns: int) -> float | None:
        return None if self.steady_ns is None else (time_ns - self.steady_ns) / 1e9

    def _describe(self) -> str:
        return "; ".join(clock.describe() for clock in self._clocks.values())
