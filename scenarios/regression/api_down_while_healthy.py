"""The EC2 API answers nobody for a while, and the PBX is healthy: nothing may stop."""

import pytest

from harness.checkers.no_needless_failover import no_needless_failover
from harness.clients.probes import new_calls, registrations, sip_options
from harness.faults.cloud_api import api_fault
from harness.scenario import RunScenario, Scenario, at

API_DOWN_WHILE_HEALTHY = Scenario(
    name="api-down-while-healthy",
    summary="the EC2 API is down while the PBX is healthy",
    probes=[sip_options(period_s=0.05), registrations(period_s=0.2), new_calls(period_s=0.1)],
    timeline=[at(1, api_fault("server_error"), hold_s=20)],
    checkers=[no_needless_failover()],
)


@pytest.mark.regression
@pytest.mark.integration
def test_api_down_while_healthy(run_scenario: RunScenario) -> None:
    run_scenario(API_DOWN_WHILE_HEALTHY).assert_passed()
