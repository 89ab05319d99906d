"""Offers one load to a cell that is up, and takes it away again: a level in normal operation, or a whole failover run.

In normal operation only what is needed runs beside the load: the clocks, and a metronome for the host. A failover is a
run like any other (harness/run.py), with the load among its probes: nemesis, ownership, capture, evidence, verdict.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from harness import collect, history, session
from harness.capacity import Level, Limits
from harness.cell.cell import Cell
from harness.checkers.call_recovery import call_recovery
from harness.checkers.settled import unsettled
from harness.clients import processes
from harness.clients.probes import Spec
from harness.clients.processes import ProbeProcess
from harness.clock import now_ns
from harness.command import TimedOut, wait_for
from harness.errors import Aborted, InfrastructureError
from harness.faults.node import power_off
from harness.history import Op
from harness.ramp.level import level_of, level_of_run
from harness.ramp.plan import RampName, clocks_of, load_of
from harness.region import background
from harness.run import Say
from harness.scenario import Scenario, at
from harness.session import Resolved

UP_TIMEOUT_S = 60.0
"""How long a level's load may take to be there; a PBX that can't take it in that time does not take it."""

REST_S = 60.0
SETTLE_S = 2.0
QUIET_S = 1.0
"""How long nothing is offered before the load comes: the clocks are there first."""


def at_rest(cell: Cell) -> None:
    """Wait until the cluster has got over the level before; `TimedOut` when it does not.

    What failed is forgotten first, as an operator would have it: a PBX that broke under its load is back by then.
    """
    unrest = ["not asked yet"]

    def settled() -> bool:
        unrest[:] = unsettled(collect.as_plain(cell.cluster()), [node.name for node in cell.nodes])
        return not unrest

    cell.forget_failures()
    wait_for("a cluster at rest", settled, timeout_s=REST_S, every_s=0.5, last_seen=lambda: "; ".join(unrest))


def in_normal(cell: Cell, ramp: RampName, load: float, *, folder: Path, measure_s: float) -> Level:
    """One level while nothing is wrong; what was observed stays in `folder`."""
    parts = folder / "history.d"
    parts.mkdir(parents=True)
    running: list[ProbeProcess] = []
    metronome = _metronome(cell, folder)
    not_taken: str | None = None
    began_ns, busy = now_ns(), _busy()
    try:
        running += [_start(spec, cell, parts) for spec in clocks_of(ramp)]
        time.sleep(QUIET_S)
        specs = load_of(ramp, load)
        running += [_start(spec, cell, parts) for spec in specs]
        try:
            _wait_up([*clocks_of(ramp)[1:], *specs], running, parts)
        except InfrastructureError as error:
            not_taken = str(error)
        else:
            time.sleep(SETTLE_S)
            began_ns, busy = now_ns(), _busy()
            time.sleep(measure_s)
        to_ns, busy_after = now_ns(), _busy()
    finally:
        metronome.send_signal(signal.SIGTERM)
        blind = processes.stop_all(running)
        with suppress(subprocess.TimeoutExpired):
            metronome.wait(timeout=3)
    if blind and not_taken is None:
        not_taken = blind[0]
    ops = sorted((op for part in parts.glob("*.jsonl") for op in history.read(part)), key=lambda op: op.time_ns)
    return level_of(
        ops, load=load, from_ns=began_ns, to_ns=to_ns, cpu_ratio=_ratio(busy, busy_after), not_taken=not_taken
    )


def in_failover(
    cell: Cell, resolved: Resolved, ramp: RampName, load: float, *, folder: Path, limits: Limits, say: Say
) -> Level:
    """One level over the loss of the active node; the run's folder is in `folder`. `Aborted` when it was stopped."""
    resolved = replace(resolved, request=replace(resolved.request, out=folder))
    outcome = session.run_on(cell, resolved, failover_scenario(ramp, load, limits), say=say)
    if isinstance(outcome.error, Aborted):
        raise outcome.error
    if isinstance(outcome.error, TimedOut):
        return replace(level_of_run(outcome.results, load=load), not_taken=str(outcome.error))
    if outcome.error is not None:
        raise outcome.error
    return level_of_run(outcome.results, load=load)


def failover_scenario(ramp: RampName, load: float, limits: Limits) -> Scenario:
    """The active node loses its power under this load."""
    return Scenario(
        name=f"capacity-{ramp.replace('_', '-')}-{load:g}".replace(".", "-"),
        summary=f"the active node loses its power under a load of {load:g} ({ramp})",
        probes=[*clocks_of(ramp), *load_of(ramp, load)],
        timeline=[at(1, power_off("active"), hold_s=15)],
        checkers=[call_recovery(min_ratio=limits.recovered_ratio)],
        warmup_s=4.0,
    )


def _start(spec: Spec, cell: Cell, parts: Path) -> ProbeProcess:
    return processes.start(spec, cell=cell, netns_pid=cell.client_pid(1), out_dir=parts)


def _wait_up(specs: Sequence[Spec], running: Sequence[ProbeProcess], parts: Path) -> None:
    """Until all of the load is there; `InfrastructureError` says what of it is not."""
    said = {spec.name: "nothing yet" for spec in specs}

    def up() -> bool:
        for process in running:
            process.check_alive()
        for spec in specs:
            part = parts / f"{spec.name}.jsonl"
            last = _last(part, spec.name) if part.exists() else None
            if last is not None:
                said[spec.name] = "up" if last.type == "ok" else str(last.error)
        return all(words == "up" for words in said.values())

    wait_for("the load", up, timeout_s=UP_TIMEOUT_S, every_s=0.25, last_seen=lambda: str(said))


def _last(part: Path, f: str) -> Op | None:
    found = None
    for op in history.read(part):
        found = op if op.f == f else found
    return found


def _metronome(cell: Cell, folder: Path) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "harness.metronome", "--out", str(folder / "history.d" / "metronome.jsonl")]
    return subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, start_new_session=True, env=background.environment(cell.topology.cell)
    )


def _busy() -> tuple[int, int]:
    """Ticks of all processors since the boot: busy, and altogether (proc(5): /proc/stat)."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle = ticks[3] + ticks[4]
    return sum(ticks) - idle, sum(ticks)


def _ratio(before: tuple[int, int], after: tuple[int, int]) -> float | None:
    passed = after[1] - before[1]
    return round((after[0] - before[0]) / passed, 3) if passed > 0 else None
