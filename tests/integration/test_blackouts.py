"""Planted blackouts of known length: the truth lies inside every interval that the clocks measured."""

from __future__ import annotations

import math
import random
from pathlib import Path
from statistics import median

import pytest

from harness import history
from harness.cell.cell import Cell
from harness.checkers.outage import find_outages
from harness.clients.probes import ProbeSpec, new_calls, sip_options
from harness.clients.processes import start
from harness.clock import NS_PER_S, now_ns
from harness.command import wait_for
from harness.region.router import container_pid
from harness.results import Outage
from tests.integration.blackouts import TICK_S, Blackout, Blackouts
from tests.integration.places import Place

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

BASELINE_S = 6.0
"""Good answers before the first blackout: 20 calls and more."""

GAP_S = 2.2
"""Between two blackouts: the clocks must see each of them end, and calls that wait for their deadline too."""

SLIP_S = 0.005
"""How late a send may be: the probe's own promise (p99)."""

OPTIONS = sip_options()
CALLS = new_calls()


@pytest.fixture
def place(cell: Cell) -> Place:
    """The session's cell: blackouts strike its Elastic IP in the router, Pacemaker and the PBX notice nothing."""
    return Place(
        public_ip=cell.public_ip,
        client_pid=cell.client_pid(1),
        router_pid=container_pid(cell.topology.router_name),
        topology=cell.topology,
        profile=cell.profile,
    )


def plant(place: Place, lengths_s: list[float], out: Path) -> tuple[list[Blackout], dict[str, list[Outage]]]:
    """Run both clocks against a place, plant blackouts one after the other, and return what each clock saw.

    `place` is whatever has a public address, a client's and a router's namespace.
    """
    probes = [start(spec, cell=place, netns_pid=place.client_pid, out_dir=out) for spec in (OPTIONS, CALLS)]
    planted = []
    try:
        with Blackouts(netns_pid=place.router_pid, address=place.public_ip).ready() as blackouts:
            _pass(BASELINE_S)
            for length_s in lengths_s:
                planted.append(blackouts.plant(length_s))
                _pass(length_s + GAP_S)
            for probe in probes:
                probe.check_alive()
    finally:
        for probe in probes:
            probe.stop(timeout_s=10)
    return planted, {spec.clock: _seen(spec, out) for spec in (OPTIONS, CALLS)}


def check(planted: list[Blackout], seen: list[Outage], spec: ProbeSpec) -> list[str]:
    """What is wrong with what one clock saw of the blackouts; empty when every truth is inside a narrow interval."""
    wrong = []
    outlived_s = spec.deadline_s if spec.clock == "new_call" else 0.1  # a PBX that repeats an INVITE saves some calls
    visible = [b for b in planted if b.length_s >= 4 * spec.period_s + outlived_s]
    for blackout in visible:
        hits = [o for o in seen if _overlap(o, blackout)]
        if len(hits) != 1:
            wrong.append(f"{blackout.length_s:.3f} s was seen as {len(hits)} outages")
            continue
        found = hits[0].duration
        if not found.lower_s - TICK_S <= blackout.length_s <= found.upper_s + TICK_S:
            wrong.append(f"{blackout.length_s:.3f} s is not in {found.lower_s:.3f}-{found.upper_s:.3f} s")
    if len(seen) > len(planted):
        wrong.append(f"{len(seen)} outages were seen, {len(planted)} planted")
    return wrong


def too_wide(seen: list[Outage], spec: ProbeSpec, latency_s: float) -> list[str]:
    """Intervals wider than two periods plus the latency of the two answers they hang on and the slips of two sends."""
    bound_s = 2 * spec.period_s + 2 * latency_s + 2 * SLIP_S
    return [f"{o.duration.width_s:.3f} s > {bound_s:.3f} s" for o in seen if o.duration.width_s > bound_s]


@pytest.mark.parametrize(
    "count", [pytest.param(8, id="eight"), pytest.param(100, id="hundred", marks=pytest.mark.soak)]
)
def test_the_truth_is_inside_every_interval(place: Place, tmp_path: Path, count: int) -> None:
    seed = random.randrange(1 << 16)
    draw = random.Random(seed)
    longest_s = 5.0 if count > 10 else 2.5
    lengths_s = [0.2, *(math.exp(draw.uniform(math.log(0.2), math.log(longest_s))) for _ in range(count - 1))]
    planted, seen = plant(place, lengths_s, tmp_path / "history.d")
    for spec in (OPTIONS, CALLS):
        assert check(planted, seen[spec.clock], spec) == [], f"seed {seed}, {spec.clock}"
        latency_s = _usual_latency_s(spec, tmp_path / "history.d")
        widths = sorted(outage.duration.width_s for outage in seen[spec.clock])
        print(
            f"{spec.clock}: {len(widths)} intervals, width median {median(widths):.3f} s, widest {widths[-1]:.3f} s, "
            f"latency {latency_s:.3f} s"
        )
    options = seen["options"]
    assert len(options) == count, f"seed {seed}: a blackout was missed"
    assert too_wide(options, OPTIONS, _usual_latency_s(OPTIONS, tmp_path / "history.d")) == [], f"seed {seed}"


def _usual_latency_s(spec: ProbeSpec, out: Path) -> float:
    """The longest that a good answer took which no blackout held up."""
    ops = history.read(out / f"{spec.clock}.jsonl")
    good = [p.latency_ns for p in history.pairs(ops, spec.clock) if p.end and p.latency_ns and p.end.type == "ok"]
    return max(latency / NS_PER_S for latency in good if latency < 0.3 * spec.deadline_s * NS_PER_S)


def _overlap(outage: Outage, blackout: Blackout) -> bool:
    end_ns = blackout.began_after_ns + round(blackout.length_s * NS_PER_S)
    return outage.start_ns < end_ns and (outage.end_ns is None or outage.end_ns > blackout.began_before_ns)


def _seen(spec: ProbeSpec, out: Path) -> list[Outage]:
    ops = history.read(out / f"{spec.clock}.jsonl")
    return find_outages(
        history.pairs(ops, spec.clock), clock=spec.clock, deadline_s=spec.deadline_s, period_s=spec.period_s
    )


def _pass(seconds: float) -> None:
    until_ns = now_ns() + round(seconds * NS_PER_S)
    wait_for("time to pass", lambda: now_ns() >= until_ns, timeout_s=seconds + 5)
