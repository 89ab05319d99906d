"""The active node stands still for ten seconds and goes on as if nothing had been: the stale primary."""

import pytest

from harness.checkers.outage import outage
from harness.clients.probes import new_calls, registrations, sip_options
from harness.faults.node import freeze
from harness.scenario import RunScenario, Scenario, at

ACTIVE_NODE_FROZEN = Scenario(
    name="active-node-frozen",
    summary="the active node freezes and goes on later, when another one has long taken over",
    probes=[sip_options(period_s=0.05), registrations(period_s=0.2), new_calls(period_s=0.1)],
    timeline=[at(1, freeze("active"), hold_s=10)],
    checkers=[outage()],
)


@pytest.mark.regression
@pytest.mark.integration
def test_active_node_frozen(run_scenario: RunScenario) -> None:
    run_scenario(ACTIVE_NODE_FROZEN).assert_passed()
