"""The active node loses its power while EC2 throttles every second call of the survivors."""

import pytest

from harness.checkers.outage import outage
from harness.clients.probes import new_calls, registrations, sip_options
from harness.faults.cloud_api import api_fault
from harness.faults.node import power_off
from harness.scenario import RunScenario, Scenario, at

API_THROTTLED_DURING_FAILOVER = Scenario(
    name="api-throttled-during-failover",
    summary="the active node loses its power while the EC2 API throttles half of all calls",
    probes=[sip_options(period_s=0.05), registrations(period_s=0.2), new_calls(period_s=0.1)],
    timeline=[
        at(1, api_fault("throttle", probability=0.5, seed=1), hold_s=20),
        at(2, power_off("active"), hold_s=15),
    ],
    checkers=[outage(limit_s=30)],
)


@pytest.mark.regression
@pytest.mark.integration
def test_api_throttled_during_failover(run_scenario: RunScenario) -> None:
    run_scenario(API_THROTTLED_DURING_FAILOVER).assert_passed()
