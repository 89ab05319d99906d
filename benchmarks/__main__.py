"""`make bench`: the figures this project promises, medians of several runs, each beside its floor from the same run.

Writes reports/bench/latest.json: a list of {name, value, unit, n, target, peer, peer_value, ratio, samples} and the
environment. Exit code 0 when every target was met, 1 otherwise, 2 when something could not be measured.

`python -m benchmarks [--runs 5] [--floor 3] [--cell NAME --slot N]`
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from docker.errors import DockerException

from benchmarks import clients, floor, media, region, schedule
from benchmarks.figures import Figure, figure
from harness import environment, session
from harness.errors import HarnessError
from harness.session import Request

OUT = Path("reports/bench/latest.json")
RUNS = Path("reports/bench/runs")
SCENARIO = "active-node-crash"
STOCK, OWN, DEFAULT = "tuned", "tuned-own-agents", "default"


@dataclass(frozen=True, kw_only=True)
class Series:
    """What several runs of one policy gave."""

    ready_s: list[float]
    outage_s: list[float]
    unexplained_excess_s: list[float]
    total_s: list[float]
    verdicts: list[str]


def runs(policy: str, count: int, *, cell: str, slot: int) -> Series:
    """Run the scenario `count` times, each on a cell of its own."""
    series = Series(ready_s=[], outage_s=[], unexplained_excess_s=[], total_s=[], verdicts=[])
    resolved = session.resolve(Request(scenarios=[SCENARIO], policy=policy, cell=cell, slot=slot, out=RUNS))
    for number in range(1, count + 1):
        began = time.monotonic()
        outcome = session.run_once(resolved, resolved.scenarios[0], say=lambda *_: None)
        if outcome.error is not None:
            raise outcome.error
        results = outcome.results
        series.total_s.append(time.monotonic() - began)
        series.verdicts.append(results["verdict"])
        if results["outage"] is None or results["phases"] is None:
            raise HarnessError(f"{policy}, run {number}: no outage that ended was measured: {outcome.run_dir.path}")
        upper = results["outage"]["upper_s"]
        series.outage_s.append(upper)
        series.ready_s.append((outcome.run_dir.read_json("scenario.json") or {})["ready_s"])
        series.unexplained_excess_s.append(results["phases"]["unexplained"] - max(0.3, 0.05 * upper))
        print(f"  {policy} {number}/{count}: {results['verdict']}, outage ≤ {upper:.2f} s", file=sys.stderr, flush=True)
    return series


def figures(*, count: int, floors: int, cell: str, slot: int) -> list[Figure]:
    """Measure everything; about a minute per run."""
    bare = {row["name"]: row["value"] for row in floor.measure(policy=STOCK, slot=slot, repeat=floors)}
    form, ready, move = (bare[f"floor_{STOCK}_{what}_s"] for what in ("form", "ready", "failover"))
    stock = runs(STOCK, count, cell=cell, slot=slot)
    own = runs(OWN, count, cell=cell, slot=slot)
    default = runs(DEFAULT, min(count, 3), cell=cell, slot=slot)
    all_runs = (stock, own, default)
    excess = [value for one in all_runs for value in one.unexplained_excess_s]
    verdicts = [verdict for one in all_runs for verdict in one.verdicts]
    failed = float(len(verdicts) - verdicts.count("pass"))
    bare_form = {"peer": "bare corosync+pacemaker: all online, a DC", "peer_value": form}
    bare_ready = {"peer": "bare corosync+pacemaker: dummies started", "peer_value": ready}
    bare_move = {"peer": "failover of dummy resources", "peer_value": move}
    return [
        figure("cell_ready_s", stock.ready_s, target=20.0, **bare_ready),
        figure("cell_ready_own_agents_s", own.ready_s, target=20.0, **bare_ready),
        figure("cell_ready_ratio", [s / ready for s in stock.ready_s], unit="ratio", target=2.5, **bare_ready),
        figure("cell_ready_to_formation_ratio", [s / form for s in stock.ready_s], unit="ratio", **bare_form),
        figure("outage_stock_agents_s", stock.outage_s, target=10.0, **bare_move),
        figure("outage_own_agents_s", own.outage_s, target=7.0, **bare_move),
        figure("outage_default_policy_s", default.outage_s, target=60.0),
        figure("run_total_s", stock.total_s, target=90.0),
        Figure(
            name="unexplained_over_bound_s", value=round(max(excess), 3), unit="s", n=len(excess), target=0.0,
            samples=[round(value, 3) for value in excess],
        ),
        Figure(name="runs_not_passed", value=failed, unit="runs", n=len(verdicts), target=0.0),
    ]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--floor", type=int, default=3)
    parser.add_argument("--cell", default="pbx-bench")
    parser.add_argument("--slot", type=int, default=13)
    args = parser.parse_args()
    try:
        measured = figures(count=args.runs, floors=args.floor, cell=args.cell, slot=args.slot)
        measured += region.figures(cell=args.cell, slot=args.slot)
        measured += schedule.figures(runs=3, seconds=8.0, cell=args.cell, slot=args.slot)
        measured += media.figures(runs=3)
        measured += clients.figures(runs=3, clients=5000, transport="tls")
    except (HarnessError, DockerException) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    OUT.parent.mkdir(parents=True, exist_ok=True)
    document = {"environment": environment.describe(), "figures": [one.row() for one in measured]}
    OUT.write_text(json.dumps(document, indent=1) + "\n")
    print("\n".join(one.line() for one in measured))
    return 0 if all(one.met for one in measured) else 1


if __name__ == "__main__":
    sys.exit(main())
