"""A node that runs nothing loses its power: nobody may notice."""

import pytest

from harness.checkers.no_needless_failover import no_needless_failover
from harness.clients.probes import new_calls, registrations, sip_options
from harness.faults.node import power_off
from harness.scenario import RunScenario, Scenario, at

STANDBY_NODE_CRASH = Scenario(
    name="standby-node-crash",
    summary="a standby node loses its power",
    probes=[sip_options(period_s=0.05), registrations(period_s=0.2), new_calls(period_s=0.1)],
    timeline=[at(1, power_off("standby"), hold_s=8)],
    checkers=[no_needless_failover()],
)


@pytest.mark.regression
@pytest.mark.integration
def test_standby_node_crash(run_scenario: RunScenario) -> None:
    run_scenario(STANDBY_NODE_CRASH).assert_passed()
