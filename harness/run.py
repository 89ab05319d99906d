"""The one run loop on a cell that is up: warm up, injure, recover, collect, check, save.

Whatever happens - a failure, Ctrl-C, `pbx-chaos abort`, a host that gives up - the way out is the same: heal, stop the
probes, collect what can be collected, judge what was seen. Who brought the cell up takes it down (harness/session.py).
"""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from harness import collect, evidence
from harness.catalogue import always_on
from harness.cell.cell import Cell
from harness.checkers.settled import nodes_hit, owners_of, unsettled
from harness.clock import NS_PER_S, WallOffset, now_ns
from harness.command import TimedOut, wait_for
from harness.errors import Aborted, HarnessError, InfrastructureError, Interrupted
from harness.interrupts import Gate
from harness.judge import judge
from harness.live import Clock, Follower, Narrator
from harness.nemesis import UndoJournal, plan_rows
from harness.observers import Observers
from harness.region import background
from harness.region.process import dead_parts
from harness.report import summary
from harness.rundir import RunDir
from harness.scenario import Scenario

STEADY_TIMEOUT_S = 45.0
"""How long the probes may take to be fine for a whole warm-up."""

STEADY_SLACK_S = 0.5
"""The last good answer is always a little old: so much less than asked for counts as fine for long enough."""

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
    _held: dict[str, Clock] = field(default_factory=dict)
    _nemesis: subprocess.Popen[bytes] | None = None
    _asked_ns: int = 0
    _wall_ns: dict[str, int] = field(default_factory=dict)
    _unrest: list[str] = field(default_factory=lambda: ["cluster not asked yet"])
    _targets: list[str] = field(default_factory=list)
    _struck_ns: int = 0
    _owners: set[str] = field(default_factory=set)

    def execute(self) -> Outcome:
        """Play the scenario; always returns, with everything that was observed saved and judged."""
        error: HarnessError | None = None
        self._clocks = {
            probe.name: Clock(name=probe.name) for probe in self.scenario.probes if probe.timing is not None
        }
        self._held = {probe.name: Clock(name=probe.name) for probe in self.scenario.probes if probe.timing is None}
        self._follower = Follower(self.run_dir.parts)
        self._narrator = Narrator(clocks={**self._clocks, **self._held})
        self._journal = UndoJournal(self.run_dir.journal)
        observers = Observers(cell=self.cell, probes=self.scenario.probes, run_dir=self.run_dir)
        try:
            try:
                observers.start()
                self._warm_up(observers)
                self._injure()
                self._recover(observers)
            finally:
                self.gate.close()  # here and not below: a signal on the way out still ends in the handler below
        except (Exception, Interrupted) as stopped:
            error = told(stopped, self.run_dir)
        self._heal()
        self.end_ns = now_ns()
        blind = observers.stop() + dead_parts(self.cell.topology)
        if blind and error is None:
            error = InfrastructureError("; ".join(blind))
        self._collect()
        results = conclude(self.run_dir, self.scenario, meta=self.meta, error=error)
        if self._targets:
            self._forget_failures()
        return Outcome(run_dir=self.run_dir, results=results, error=error)

    def _warm_up(self, observers: Observers) -> None:
        needed_s = self.scenario.warmup_s
        wait_for(
            f"a steady state ({needed_s:g} s of good answers on every clock, the cluster at rest)",
            lambda: self._is_steady(observers, [*self._clocks.values(), *self._held.values()], for_s=needed_s),
            timeout_s=STEADY_TIMEOUT_S + needed_s,
            every_s=0.1,
            last_seen=self._describe,
        )
        state = collect.cluster_state(self.cell, self.run_dir, "before")
        self.steady_ns = now_ns()
        self._wall_ns["steady"] = WallOffset.measure().offset_ns
        self._stages()
        self._narrator.steady = True
        clocks = ", ".join(self._clocks)
        self.say(0.0, "steady", f"{state['active']} active; fine for {needed_s:g} s: {clocks}")

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
                env=background.environment(self.cell.topology.cell),
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
        """Wait until every clock has been fine again for a warm-up and the cluster is at rest; bounded, not judged.

        So are registered clients. Held calls are not waited for: they are watched for as long as their kind wants. Only
        time after the last injury counts, however fine a clock that did not notice it had been before.
        """
        for_s = max(self.scenario.warmup_s, self.scenario.watch_s)
        watched = {**self._clocks, **self._held}
        awaited = [watched[probe.name] for probe in self.scenario.probes if probe.returns]
        try:
            wait_for(
                "recovery",
                lambda: self._is_steady(observers, awaited, for_s=for_s),
                timeout_s=self.scenario.recover_s + self.scenario.watch_s,
                every_s=0.1,
            )
        except TimedOut:
            self.say(self._at(now_ns()), "late", f"not recovered: {self._describe()}")
        else:
            self.say(self._at(now_ns()), "settled", "every clock fine, all nodes back, cluster at rest")

    def _is_steady(self, observers: Observers, clocks: Sequence[Clock], *, for_s: float) -> bool:
        """These clocks fine for so long, and the cluster at rest, which is asked at most once a second."""
        self._tell()
        observers.check_alive()
        now = now_ns()
        if any(clock.fine_for_s(now) < for_s - STEADY_SLACK_S for clock in clocks):
            return False
        if (now - self._struck_ns) / NS_PER_S < for_s - STEADY_SLACK_S:
            return False
        if now - self._asked_ns > NS_PER_S:
            self._asked_ns = now
            self._unrest = self._unsettled()
        return not self._unrest

    def _unsettled(self) -> list[str]:
        try:
            state = collect.as_plain(self.cell.cluster())
        except InfrastructureError as error:
            return [str(error)]
        nodes = [node.name for node in self.cell.nodes]
        return unsettled(state, nodes, hit=nodes_hit(self._targets, nodes, owners=self._owners))

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
        offset = WallOffset.measure()
        self._wall_ns["end"] = offset.offset_ns
        steps: list[tuple[str, Callable[[], object]]] = [
            ("stages", self._stages),
            ("last words", self._tell),
            ("region files", lambda: collect.region_files(self.cell, self.run_dir)),
            ("node logs", lambda: self._node_logs(offset)),
            ("cluster state", lambda: collect.cluster_state(self.cell, self.run_dir, "after")),
            ("data of the PBX", lambda: collect.data(self.cell, self.run_dir)),
            ("left behind", lambda: self.run_dir.write_json("left-behind.json", self._left_behind())),
        ]
        for what, step in steps:
            try:
                step()
            except Exception as error:
                self.say(None, "collect", f"no {what}: {error}")

    def _forget_failures(self) -> None:
        """What failed for the faults of this run is no news for the next one on the same cell; it is in the records."""
        try:
            self.cell.forget_failures()
        except HarnessError as error:
            self.say(None, "cell", f"its failures could not be forgotten: {error}")

    def _node_logs(self, offset: WallOffset) -> None:
        unread = collect.node_logs(self.cell, self.run_dir, offset)
        self.run_dir.write_json("unread.json", unread)
        for what in unread:
            self.say(None, "collect", f"no {what}")

    def _left_behind(self) -> list[str]:
        return [f"{fault.name} is not healed" for _, fault in self._journal.open_injuries()] + self.cell.left_behind()

    def _stages(self) -> None:
        stages = {"steady_ns": self.steady_ns, "end_ns": self.end_ns, "wall_offset_ns": self._wall_ns}
        self.run_dir.write_json("stages.json", stages)

    def _tell(self) -> None:
        for op in self._follower.new():
            if op.f == "fault" and op.type == "ok":
                self._targets.append(str(op.value["target"]))
                self._struck_ns = int(op.value["landed_ns"])
            self._owners |= owners_of([op])
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
        return "; ".join(
            [*(clock.describe() for clock in (*self._clocks.values(), *self._held.values())), *self._unrest]
        )


def told(error: Exception | Interrupted, run_dir: RunDir) -> HarnessError:
    """The error as one line for a person; one that is not ours leaves its traceback in the logs of the run."""
    if isinstance(error, Interrupted):
        return Aborted(str(error))
    if isinstance(error, HarnessError):
        return error
    with suppress(HarnessError):
        run_dir.write_text("logs/harness-traceback.txt", "".join(traceback.format_exception(error)))
    return InfrastructureError(f"{type(error).__name__}: {error} (see logs/harness-traceback.txt of the run)")


def conclude(
    run_dir: RunDir, scenario: Scenario, *, meta: dict[str, Any], error: HarnessError | None = None
) -> dict[str, Any]:
    """Judge what a run folder holds, however far the run got, and write results.json and summary.md.

    A run that was stopped decides nothing: unknown, with the reason.
    """
    results = judge(evidence.load(run_dir), [*scenario.checkers, *always_on()], meta=meta)
    if error is not None:
        results = {**results, "verdict": "unknown", "error": str(error)}
    if isinstance(error, Aborted):
        results["checks"] = [_stopped(check) for check in results["checks"]]
    run_dir.write_json("results.json", results)
    run_dir.write_text("summary.md", summary.markdown(results, run_dir=run_dir.path))
    return results


def _stopped(check: dict[str, Any]) -> dict[str, Any]:
    """A check of a run that was stopped on purpose: what it could not see to its end is nobody's failure."""
    if check["verdict"] == "pass":
        return check
    return {**check, "verdict": "unknown", "why": f"the run was stopped; by then: {check['why']}"}
