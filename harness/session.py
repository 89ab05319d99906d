"""From a request to a run and back to a clean host: finds or brings up the cell, runs, reports, takes it down.

A cell that `pbx-chaos up` left standing is used as it is and stays; any other is brought up for the run and taken down
after it, whatever happened in between. Ruins of an earlier, killed run under the same name are removed first.
"""

from __future__ import annotations

import errno
import hashlib
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from harness import catalogue, collect, doctor, engine, environment, images
from harness.cell import cell as cells
from harness.cell.cell import Cell
from harness.cell.facts import CONTAINER_DEVIATIONS
from harness.cell.policy import Policy, load_policy
from harness.cell.profile import Profile, load_profile
from harness.checkers.settled import unsettled
from harness.collect import as_plain
from harness.errors import Aborted, HarnessError, InfrastructureError, Interrupted, UsageError
from harness.interrupts import Gate, interrupts
from harness.live import words_of
from harness.lock import cell_lock
from harness.nemesis import plan_rows
from harness.region import localstack
from harness.region.books import Books, place_file
from harness.region.cleanup import cleanup, leftovers
from harness.region.timing import INSTANT, Timing, read_delays, read_timing, timing_file
from harness.run import Outcome, Run, Say, conclude, told
from harness.rundir import RunDir
from harness.scenario import Scenario
from harness.topology import Topology

CLOUDS = ("moto", "localstack")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a user asked for, by name; `resolve` says at once what is wrong with it."""

    scenarios: Sequence[str] = ()
    policy: str = "default"
    pbx: str = "stand-in"
    cloud: str = "moto"
    timing: str = "instant"
    cell: str = "pbx"
    slot: int = 0
    seed: int = 0
    out: Path = Path("reports/runs")
    keep_on_failure: bool = False

    def again(self, scenario: str) -> str:
        """The command line that runs one of the scenarios, as it was named, under the same request."""
        argv = ["pbx-chaos", "run", scenario, "--policy", self.policy, "--seed", str(self.seed)]
        for name in ("pbx", "cloud", "timing", "cell", "slot", "out"):
            value = getattr(self, name)
            if value != getattr(Request, name):
                argv += [f"--{name}", str(value)]
        return shlex.join(argv)


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """The same request with every name looked up."""

    request: Request
    scenarios: tuple[Scenario, ...]
    policy: Policy
    profile: Profile
    topology: Topology
    timing: Timing

    @property
    def system(self) -> str:
        return f"{self.profile.name}@local/{self.timing.label}"


def resolve(request: Request) -> Resolved:
    """Look every name up; `UsageError` for the first one that is wrong, before anything is started."""
    if str(request.out) == ".":
        raise UsageError("--out: name a folder for the runs")
    if request.cloud not in CLOUDS:
        raise UsageError(f"--cloud {request.cloud}: this version knows {', '.join(CLOUDS)}")
    try:
        topology = Topology(cell=request.cell, slot=request.slot)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return Resolved(
        request=request,
        scenarios=tuple(catalogue.scenario(name) for name in request.scenarios),
        policy=load_policy(str(catalogue.policy_path(request.policy))),
        profile=load_profile(str(catalogue.profile_path(request.pbx))),
        topology=topology,
        timing=read_timing(catalogue.timing_path(request.timing)),
    )


def bring_up(resolved: Resolved, *, progress: Callable[[str], None], gate: Gate, run_dir: RunDir | None = None) -> Cell:
    """A fresh cell; on a failure, or Ctrl-C, nothing of it is left but what its nodes said, in `run_dir`.

    The caller holds the cell's lock.
    """
    doctor.require(resolved.request.out)
    client = engine.connect()
    wanted = resolved.request.cloud == "localstack"
    found = localstack.running(resolved.topology) if wanted else None
    if found is not None:
        progress(f"the books are kept by the LocalStack at {found.url}, account {found.account}")
    built = images.ensure(client, say=progress, localstack=wanted and found is None)
    ruins = leftovers(resolved.topology)
    if ruins:
        progress(f"removing what an earlier run left: {len(ruins)} things")
        cleanup(resolved.topology)
    try:
        return cells.up(
            resolved.topology,
            policy=resolved.policy,
            profile=resolved.profile,
            images=built,
            timing=resolved.timing,
            seed=resolved.request.seed,
            found=found,
            progress=progress,
        )
    except BaseException as error:
        gate.close()
        if run_dir is not None and isinstance(error, HarnessError):
            collect.what_is_there(resolved.topology.cell, run_dir)
        for thing in take_down(resolved.topology):
            progress(f"left behind: {thing}")
        raise


def stand(cell: Cell) -> None:
    """Mark a cell as one that stays until `pbx-chaos down`."""
    _standing_mark(cell.topology).touch()


def standing_cell(resolved: Resolved, *, died: dict[str, Any] | None) -> Cell | None:
    """The cell that `up` left standing, or None; one of another kind than asked for is a usage error.

    `died` is the note of a harness that was killed while it used the cell: then nobody knows what state it is in, and
    it counts as ruins.
    """
    if died or not _standing_mark(resolved.topology).exists():
        return None
    try:
        cell = cells.load(resolved.topology.cell)
    except HarnessError:
        return None
    if cell.policy.name == resolved.policy.name and cell.policy != resolved.policy:
        raise UsageError(
            f"cell {resolved.topology.cell!r} is up with policy {cell.policy.name} as it was before it was changed: "
            f"take it down with `pbx-chaos down`, what is measured on it would be told of the new one"
        )
    if cell.policy.name != resolved.policy.name or cell.profile.name != resolved.profile.name:
        raise UsageError(
            f"cell {resolved.topology.cell!r} is up with policy {cell.policy.name} and PBX {cell.profile.name}: "
            f"use these (--policy, --pbx), take it down with `pbx-chaos down`, or name another one "
            f"with --cell NAME --slot N"
        )
    if resolved.request.slot not in (Request.slot, cell.topology.slot):
        raise UsageError(f"cell {resolved.topology.cell!r} is up in slot {cell.topology.slot}: leave --slot out")
    books = Books.read(place_file(resolved.topology))
    if books is not None and books.kind != resolved.request.cloud:
        raise UsageError(
            f"cell {resolved.topology.cell!r} is up on {books.kind}, not {resolved.request.cloud}: "
            f"use --cloud {books.kind}, or take it down with `pbx-chaos down`"
        )
    timing = read_delays(timing_file(resolved.topology)).timing
    if timing != resolved.timing:
        raise UsageError(
            f"cell {resolved.topology.cell!r} is up with timing {timing.name}, not as {resolved.timing.name} is now: "
            f"use --timing {timing.name}, or take it down with `pbx-chaos down`"
        )
    return cell


def run_once(resolved: Resolved, scenario: Scenario, *, say: Say) -> Outcome:
    """One run of one scenario on a cell of its own, or on the standing one; the outcome is saved and summarised.

    What goes wrong before there is a run folder is raised; from then on it is the outcome's `error`.
    """
    started = datetime.now(UTC)
    request = resolved.request
    scenario, unmet = runnable(scenario, resolved.profile)
    with interrupts() as gate, cell_lock(request.cell, doing=f"run {scenario.name}") as held:
        cell = standing = standing_cell(resolved, died=held.died)
        if standing is None:
            doctor.require(request.out)
        run_dir = _create_run_dir(request, scenario, started)
        held.works_in(run_dir.path)
        meta = _meta(resolved, scenario, started, unmet)
        run_dir.write_json("scenario.json", meta)
        run_dir.write_json("environment.json", meta["environment"])
        try:
            if cell is None:
                began = time.monotonic()
                cell = bring_up(resolved, progress=lambda line: say(None, "cell", line), gate=gate, run_dir=run_dir)
                ready_s = time.monotonic() - began
                say(None, "cell", f"{len(cell.nodes)} nodes, {_fidelity(resolved)}   ready {ready_s:.1f} s")
                meta = {**meta, "ready_s": round(ready_s, 3)}
            else:
                say(None, "cell", f"{len(cell.nodes)} nodes, {_fidelity(resolved)}   already up")
            meta = {**meta, "nodes": [node.name for node in cell.nodes]}
            run_dir.write_json("scenario.json", meta)
            run = Run(scenario=scenario, cell=cell, run_dir=run_dir, meta=meta, say=say, gate=gate)
            outcome = run.execute()
        except (Exception, Interrupted) as error:
            gate.close()
            stopped = told(error, run_dir)
            results = conclude(run_dir, scenario, meta=meta, error=stopped)
            outcome = Outcome(run_dir=run_dir, results=results, error=stopped)
        finally:
            try:
                gate.close()
            finally:  # a signal may come right before the gate closes, and before `cell` has its value
                if standing is None:
                    _give_back(resolved, cell, run_dir, say=say)
                else:
                    _warn_of_unrest(standing, say=say)
    if gate.seen and outcome.error is None:
        return replace(outcome, error=Aborted(f"stopped by {gate.seen} after the run; its results are kept"))
    return outcome


def _warn_of_unrest(cell: Cell, *, say: Say) -> None:
    """Say so when a standing cell is left not at rest: the cluster may still fence for a run that was stopped."""
    try:
        wrong = unsettled(as_plain(cell.cluster()), [node.name for node in cell.nodes])
    except HarnessError as error:
        wrong = [str(error)]
    if wrong:
        say(None, "cell", f"left standing, not at rest: {'; '.join(wrong)} (pbx-chaos status, or down)")


def _give_back(resolved: Resolved, cell: Cell | None, run_dir: RunDir, *, say: Say) -> None:
    """Take down the cell that a run brought up, or leave it standing where that was asked for."""
    if cell is not None and _keep(resolved.request, run_dir):
        stand(cell)
        say(None, "cell", f"left standing: pbx-chaos status|shell|down --cell {resolved.request.cell}")
        return
    for thing in take_down(resolved.topology):
        say(None, "cell", f"left behind: {thing}")


def run_on(cell: Cell, resolved: Resolved, scenario: Scenario, *, say: Say) -> Outcome:
    """One run on a cell the caller holds (the pytest plugin's); the caller also has its lock."""
    started = datetime.now(UTC)
    scenario, unmet = runnable(scenario, resolved.profile)
    run_dir = _create_run_dir(resolved.request, scenario, started)
    meta = {**_meta(resolved, scenario, started, unmet), "nodes": [node.name for node in cell.nodes]}
    run_dir.write_json("scenario.json", meta)
    run_dir.write_json("environment.json", meta["environment"])
    with interrupts() as gate:
        return Run(scenario=scenario, cell=cell, run_dir=run_dir, meta=meta, say=say, gate=gate).execute()


def _standing_mark(topology: Topology) -> Path:
    return topology.state_dir / "standing"


def take_down(topology: Topology) -> list[str]:
    """Remove a cell and everything that belongs to it; returns what could not be removed, in words."""
    return not_removed(cells.down(topology))


def not_removed(things: Sequence[str]) -> list[str]:
    """Which of the things that a clean-up names it could not remove."""
    return [thing for thing in things if "could NOT" in thing]


def _keep(request: Request, run_dir: RunDir) -> bool:
    if not request.keep_on_failure:
        return False
    results = run_dir.read_json("results.json") or {}
    return results.get("verdict") != "pass"


def _create_run_dir(request: Request, scenario: Scenario, started: datetime) -> RunDir:
    try:
        return RunDir.create(request.out, scenario=scenario.name, seed=request.seed, started=started)
    except OSError as error:
        kind = InfrastructureError if error.errno == errno.ENOSPC else UsageError
        raise kind(f"--out {request.out}: can't write there: {error.strerror}") from error


def _digest(policy: Policy) -> str:
    """Of everything the policy says, so that two policies of one name are told apart."""
    return hashlib.sha256(TypeAdapter(Policy).dump_json(policy)).hexdigest()


def _limits(resolved: Resolved) -> dict[str, float | None]:
    """The policy's own limit, and on top of it what the timing profile says that AWS takes for a failover."""
    own = resolved.policy.limits.outage_limit_s
    return {"outage_limit_s": None if own is None else round(own + resolved.timing.allowance_s, 3)}


def _fidelity(resolved: Resolved) -> str:
    caveat = " (not AWS seconds)" if resolved.timing == INSTANT else ""
    return f"{resolved.system}{caveat}"


def runnable(scenario: Scenario, profile: Profile) -> tuple[Scenario, list[str]]:
    """The scenario without the clients that can't run here, and those in words; `UsageError` when no clock is left."""
    why = {probe.name: probe.unmet(profile) for probe in scenario.probes}
    rest = [probe for probe in scenario.probes if why[probe.name] is None]
    told = [f"{words_of(name)} ({reason})" for name, reason in why.items() if reason is not None]
    if not any(probe.timing is not None for probe in rest):
        raise UsageError(f"{scenario.name} can't run with PBX {profile.name}: {'; '.join(told)}")
    return (scenario if not told else replace(scenario, probes=rest)), told


def _meta(resolved: Resolved, scenario: Scenario, started: datetime, unmet: Sequence[str]) -> dict[str, Any]:
    """scenario.json: what was asked for, enough to judge the history again later. `unmet`: clients that can't run."""
    request = resolved.request
    return {
        "scenario": scenario.name,
        "summary": scenario.summary,
        "policy": resolved.policy.name,
        "policy_sha256": _digest(resolved.policy),
        "pbx": resolved.profile.name,
        "cloud": request.cloud,
        "timing": resolved.timing.name,
        "timing_assumed": list(resolved.timing.assumed),
        "seed": request.seed,
        "started_at": started.isoformat(timespec="milliseconds"),
        "system": resolved.system,
        "clocks": {p.name: p.timing for p in scenario.probes if p.timing is not None},
        "unmet": unmet,
        "claimed_kinds": list(resolved.profile.recovers.kinds),
        "timeline": plan_rows(scenario.timeline),
        "limits": _limits(resolved),
        "deviations": list(CONTAINER_DEVIATIONS),
        "roles": {resource.id: resource.role for resource in resolved.policy.resource},
        "environment": environment.describe(),
    }
