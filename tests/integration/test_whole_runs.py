"""The first scenario, whole, where the region is not the usual one: other books, an AWS that takes its time."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from harness.catalogue import scenario
from harness.cell.cell import Cell
from harness.checkers.outage import outage
from harness.command import wait_for
from harness.faults.node import power_off
from harness.region import background
from harness.region.books import Books, place_file
from harness.region.cleanup import leftovers
from harness.region.process import region_state, start_gateway, wait_for_gateway
from harness.scenario import RunScenario, Scenario, at
from harness.session import Request, resolve, run_once
from harness.topology import Topology
from tests.integration.data_plane import localstack_image

pytestmark = [pytest.mark.integration, pytest.mark.alone, pytest.mark.timeout(300)]

CRASH = "active-node-crash"


def short() -> Scenario:
    """The scenario with its node off for no longer than a failover takes here."""
    return replace(scenario(CRASH), timeline=[at(2, power_off("active"), hold_s=12)])


def test_a_run_on_localstack_has_the_same_verdict(tmp_path: Path) -> None:
    localstack_image()
    request = Request(scenarios=[CRASH], policy="tuned", cloud="localstack", cell="lst-run", slot=7, out=tmp_path)
    outcome = run_once(resolve(request), short(), say=lambda *_: None)
    assert (outcome.results["verdict"], outcome.results["cloud"]) == ("pass", "localstack"), outcome.results["checks"]
    wait_for("nothing left", lambda: not leftovers(Topology(cell="lst-run", slot=7)), timeout_s=5)


def test_a_run_with_the_seconds_of_aws_passes_within_its_raised_limit_and_says_that_they_are_assumed(
    tmp_path: Path,
) -> None:
    """With our address agent: what a Describe call said before the start makes stock awseip's first monitor fail, and a
    cluster with a failed action is not at rest."""
    own_agents = "tuned-own-agents"
    request = Request(scenarios=[CRASH], policy=own_agents, timing="aws", seed=7, cell="aws-run", slot=7, out=tmp_path)
    resolved = resolve(request)
    outcome = run_once(resolved, short(), say=lambda *_: None)
    results = outcome.results
    assert results["verdict"] == "pass", results["checks"]
    assert results["system"] == "stand-in@local/aws (assumed)"
    own = resolved.policy.limits.outage_limit_s
    assert own is not None
    assert results["outage"]["limit_s"] == pytest.approx(own + resolved.timing.allowance_s)
    assert results["phases"]["detach"] + results["phases"]["attach"] + results["phases"]["fence"] > 1
    wait_for("nothing left", lambda: not leftovers(Topology(cell="aws-run", slot=7)), timeout_s=5)


@pytest.mark.soak
def test_a_gateway_that_dies_in_the_middle_of_a_failover_and_comes_back_agrees_with_its_books(
    cell: Cell, run_scenario: RunScenario
) -> None:
    """Killed when the survivor has just asked for the volume, back 2 s later: the cluster gets over it, and all views
    are one."""
    dead = threading.Thread(target=_kill_gateway_at_the_next_detach, args=(cell.topology,), daemon=True)
    dead.start()
    patient = replace(scenario(CRASH), name="gateway-dies-in-failover", checkers=[outage(limit_s=60)])
    run_scenario(patient).assert_passed()
    dead.join(timeout=10)
    assert not dead.is_alive()
    state = region_state(cell.topology)
    active = cell.node(str(cell.cluster().active))
    assert state["addresses"] == {cell.public_ip: active.private_ip}
    assert state["volumes"][cell.volume_id]["attached_to"] == active.instance_id
    books = Books.read(place_file(cell.topology))
    assert books is not None
    assert cell.cloud.address_owner(cell.allocation_id) == active.instance_id
    volume = next(books.call("DescribeVolumes", {"VolumeId.1": cell.volume_id}).items("volumeSet"))
    assert [row.findtext("instanceId") for row in volume.findall("attachmentSet/item")] == [active.instance_id]


def _kill_gateway_at_the_next_detach(topology: Topology) -> None:
    calls = topology.state_dir / "cloud-calls.jsonl"
    before = calls.read_text().count('"DetachVolume"')
    wait_for("a detach", lambda: calls.read_text().count('"DetachVolume"') > before, timeout_s=120, every_s=0.01)
    (pid,) = [pid for pid, command in background.marked(topology.cell).items() if "harness.region.gateway" in command]
    os.kill(pid, signal.SIGKILL)
    time.sleep(2)
    wait_for_gateway(topology, start_gateway(topology))
