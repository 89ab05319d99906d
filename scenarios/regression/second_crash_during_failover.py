"""While the first failover runs, the node that leads it (the DC) loses its power, too: one node is left, no quorum."""

import pytest

from harness.checkers.outage import outage
from harness.clients.probes import new_calls, registrations, sip_options
from harness.faults.node import power_off
from harness.scenario import RunScenario, Scenario, at

SECOND_CRASH_DURING_FAILOVER = Scenario(
    name="second-crash-during-failover",
    summary="the active node loses its power, and 3 s later the DC of those that are left",
    probes=[sip_options(period_s=0.05), registrations(period_s=0.2), new_calls(period_s=0.1)],
    timeline=[at(1, power_off("active"), hold_s=6), at(4, power_off("dc"), hold_s=6)],
    checkers=[outage(limit_s=60)],
)


@pytest.mark.regression
@pytest.mark.integration
def test_second_crash_during_failover(run_scenario: RunScenario) -> None:
    run_scenario(SECOND_CRASH_DURING_FAILOVER).assert_passed()
