"""Corosync dies on the active node: it is out of the cluster and still runs everything."""

import pytest

from harness.checkers.outage import outage
from harness.clients.probes import new_calls, registrations, sip_options
from harness.faults.process import crash
from harness.scenario import RunScenario, Scenario, at

COROSYNC_CRASH = Scenario(
    name="corosync-crash",
    summary="corosync is killed on the active node",
    probes=[sip_options(period_s=0.05), registrations(period_s=0.2), new_calls(period_s=0.1)],
    timeline=[at(1, crash("active", "corosync"), hold_s=8)],
    checkers=[outage()],
)


@pytest.mark.regression
@pytest.mark.integration
def test_corosync_crash(run_scenario: RunScenario) -> None:
    run_scenario(COROSYNC_CRASH).assert_passed()
