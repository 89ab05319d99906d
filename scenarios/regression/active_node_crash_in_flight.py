"""The active node loses its power while calls ring, are taken back, held and transferred: what becomes of each?"""

import pytest

from harness.checkers.in_flight import in_flight as ended
from harness.checkers.outage import outage
from harness.clients.probes import in_flight, registrations, sip_options
from harness.faults.node import power_off
from harness.scenario import RunScenario, Scenario, at

ACTIVE_NODE_CRASH_IN_FLIGHT = Scenario(
    name="active-node-crash-in-flight",
    summary="the active node loses its power while transactions of every kind are under way",
    probes=[
        sip_options(period_s=0.1),
        registrations(period_s=0.5),
        in_flight(kind="ip_phone"),
        in_flight(kind="desktop"),
    ],
    timeline=[at(2, power_off("active"), hold_s=12)],
    checkers=[outage(), ended(max_orphans=None)],  # told: the stand-in keeps no transactions for the next node
)


@pytest.mark.smoke
@pytest.mark.regression
@pytest.mark.integration
def test_active_node_crash_in_flight(run_scenario: RunScenario) -> None:
    run_scenario(ACTIVE_NODE_CRASH_IN_FLIGHT).assert_passed()
