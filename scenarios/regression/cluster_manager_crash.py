"""Pacemaker's main process dies on the active node."""

import pytest

from harness.checkers.outage import outage
from harness.clients.probes import new_calls, registrations, sip_options
from harness.faults.process import crash
from harness.scenario import RunScenario, Scenario, at

CLUSTER_MANAGER_CRASH = Scenario(
    name="cluster-manager-crash",
    summary="pacemakerd is killed on the active node",
    probes=[sip_options(period_s=0.05), registrations(period_s=0.2), new_calls(period_s=0.1)],
    timeline=[at(1, crash("active", "pacemakerd"), hold_s=8)],
    checkers=[outage()],
)


@pytest.mark.regression
@pytest.mark.integration
def test_cluster_manager_crash(run_scenario: RunScenario) -> None:
    run_scenario(CLUSTER_MANAGER_CRASH).assert_passed()
