"""The first scenario, whole, where the region is not the usual one: other books, an AWS that takes its time."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.catalogue import scenario
from harness.command import wait_for
from harness.region.cleanup import leftovers
from harness.session import Request, resolve, run_once
from harness.topology import Topology
from tests.integration.data_plane import localstack_image

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

CRASH = "active-node-crash"


def test_a_run_on_localstack_has_the_same_verdict(tmp_path: Path) -> None:
    localstack_image()
    request = Request(scenarios=[CRASH], policy="tuned", cloud="localstack", cell="lst-run", slot=7, out=tmp_path)
    outcome = run_once(resolve(request), scenario(CRASH), say=lambda *_: None)
    assert (outcome.results["verdict"], outcome.results["cloud"]) == ("pass", "localstack"), outcome.results["checks"]
    wait_for("nothing left", lambda: not leftovers(Topology(cell="lst-run", slot=7)), timeout_s=5)


def test_a_run_with_the_seconds_of_aws_passes_within_its_raised_limit_and_says_that_they_are_assumed(
    tmp_path: Path,
) -> None:
    request = Request(scenarios=[CRASH], policy="tuned", timing="aws", seed=7, cell="aws-run", slot=7, out=tmp_path)
    resolved = resolve(request)
    outcome = run_once(resolved, scenario(CRASH), say=lambda *_: None)
    results = outcome.results
    assert results["verdict"] == "pass", results["checks"]
    assert results["system"] == "stand-in@local/aws (assumed)"
    own = resolved.policy.limits.outage_limit_s
    assert own is not None
    assert results["outage"]["limit_s"] == pytest.approx(own + resolved.timing.allowance_s)
    assert results["phases"]["detach"] + results["phases"]["attach"] + results["phases"]["fence"] > 1
    wait_for("nothing left", lambda: not leftovers(Topology(cell="aws-run", slot=7)), timeout_s=5)
