"""The media relay stands still: its port is there, and no audio comes out of it."""

import pytest

from harness.checkers.outage import outage
from harness.clients.probes import new_calls, registrations, sip_options
from harness.faults.process import hang
from harness.scenario import RunScenario, Scenario, at

MEDIA_HANG = Scenario(
    name="media-hang",
    summary="the PBX's media relay is stopped (SIGSTOP) on the active node",
    probes=[sip_options(period_s=0.05), registrations(period_s=0.2), new_calls(period_s=0.1)],
    timeline=[at(1, hang("active", "media"), hold_s=15)],
    checkers=[outage()],
)


@pytest.mark.regression
@pytest.mark.integration
def test_media_hang(run_scenario: RunScenario) -> None:
    run_scenario(MEDIA_HANG).assert_passed()
