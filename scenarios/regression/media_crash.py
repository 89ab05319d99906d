"""The media relay dies; signalling goes on, and calls would be set up without audio."""

import pytest

from harness.checkers.outage import outage
from harness.clients.probes import new_calls, registrations, sip_options
from harness.faults.process import crash
from harness.scenario import RunScenario, Scenario, at

MEDIA_CRASH = Scenario(
    name="media-crash",
    summary="the PBX's media relay is killed on the active node",
    probes=[sip_options(period_s=0.05), registrations(period_s=0.2), new_calls(period_s=0.1)],
    timeline=[at(1, crash("active", "media"), hold_s=5)],
    checkers=[outage()],
)


@pytest.mark.regression
@pytest.mark.integration
def test_media_crash(run_scenario: RunScenario) -> None:
    run_scenario(MEDIA_CRASH).assert_passed()
