"""Two thousand registered clients and nothing else: when are they back after the active node lost its power?"""

import pytest

from harness.checkers.outage import outage
from harness.checkers.registrations import registrations_back
from harness.clients.probes import registered, registrations, sip_options
from harness.faults.node import power_off
from harness.scenario import RunScenario, Scenario, at

REGISTRATION_STORM = Scenario(
    name="registration-storm",
    summary="the active node loses its power under two thousand registered clients",
    probes=[
        sip_options(period_s=0.1),
        registrations(period_s=0.5),
        registered(kind="desktop", count=1500),
        registered(kind="mobile", count=300),
        registered(kind="ip_phone", count=200),
    ],
    timeline=[at(2, power_off("active"), hold_s=12)],
    checkers=[outage(), registrations_back(min_ratio=0.99, within_s=60)],
)


@pytest.mark.smoke
@pytest.mark.regression
@pytest.mark.integration
def test_registration_storm(run_scenario: RunScenario) -> None:
    run_scenario(REGISTRATION_STORM).assert_passed()
