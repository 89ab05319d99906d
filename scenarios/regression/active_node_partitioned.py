"""The active node is cut off from its peers and still reaches clients and the API: two could believe they are it."""

import pytest

from harness.checkers.outage import outage
from harness.clients.probes import new_calls, registrations, sip_options
from harness.faults.network import partition
from harness.scenario import RunScenario, Scenario, at

ACTIVE_NODE_PARTITIONED = Scenario(
    name="active-node-partitioned",
    summary="the active node is cut off from the other nodes alone",
    probes=[sip_options(period_s=0.05), registrations(period_s=0.2), new_calls(period_s=0.1)],
    timeline=[at(1, partition("active"), hold_s=10)],
    checkers=[outage()],
)


@pytest.mark.regression
@pytest.mark.integration
def test_active_node_partitioned(run_scenario: RunScenario) -> None:
    run_scenario(ACTIVE_NODE_PARTITIONED).assert_passed()
