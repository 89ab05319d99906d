"""The active node loses its power; the cluster fences it and brings the PBX up on another one."""

import pytest

from harness.checkers.outage import outage
from harness.clients.probes import new_calls, registrations, sip_options
from harness.faults.node import power_off
from harness.scenario import RunScenario, Scenario, at

ACTIVE_NODE_CRASH = Scenario(
    name="active-node-crash",
    summary="the active node loses its power",
    probes=[sip_options(period_s=0.05), registrations(period_s=0.2), new_calls(period_s=0.1)],
    timeline=[at(5, power_off("active"), hold_s=20)],
    checkers=[outage()],
)


@pytest.mark.smoke
@pytest.mark.regression
@pytest.mark.integration
def test_active_node_crash(run_scenario: RunScenario) -> None:
    run_scenario(ACTIVE_NODE_CRASH).assert_passed()
