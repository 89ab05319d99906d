"""An operator puts the active node into standby: the service moves in good order."""

import pytest

from harness.checkers.outage import outage
from harness.clients.probes import new_calls, registrations, sip_options
from harness.faults.operator import standby
from harness.scenario import RunScenario, Scenario, at

PLANNED_SWITCHOVER = Scenario(
    name="planned-switchover",
    summary="the active node is put into standby",
    probes=[sip_options(period_s=0.05), registrations(period_s=0.2), new_calls(period_s=0.1)],
    timeline=[at(1, standby("active"), hold_s=10)],
    checkers=[outage()],
)


@pytest.mark.regression
@pytest.mark.integration
def test_planned_switchover(run_scenario: RunScenario) -> None:
    run_scenario(PLANNED_SWITCHOVER).assert_passed()
