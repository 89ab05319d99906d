"""The active node alone does not reach the EC2 API; it serves, and has to go on."""

import pytest

from harness.checkers.no_needless_failover import no_needless_failover
from harness.clients.probes import new_calls, registrations, sip_options
from harness.faults.network import partition
from harness.scenario import RunScenario, Scenario, at

ACTIVE_CUT_OFF_FROM_API = Scenario(
    name="active-cut-off-from-api",
    summary="the active node is cut off from the EC2 API alone",
    probes=[sip_options(period_s=0.05), registrations(period_s=0.2), new_calls(period_s=0.1)],
    timeline=[at(1, partition("active", "api"), hold_s=20)],
    checkers=[no_needless_failover()],
)


@pytest.mark.regression
@pytest.mark.integration
def test_active_cut_off_from_api(run_scenario: RunScenario) -> None:
    run_scenario(ACTIVE_CUT_OFF_FROM_API).assert_passed()
