"""The volume answers no request and fails none: the disk that hangs instead of dying."""

import pytest

from harness.checkers.outage import outage
from harness.clients.probes import new_calls, registrations, sip_options
from harness.faults.disk import volume_hangs
from harness.scenario import RunScenario, Scenario, at

VOLUME_HANGS = Scenario(
    name="volume-hangs",
    summary="the data volume hangs",
    probes=[sip_options(period_s=0.05), registrations(period_s=0.2), new_calls(period_s=0.1)],
    timeline=[at(1, volume_hangs(), hold_s=20)],
    checkers=[outage()],
)


@pytest.mark.regression
@pytest.mark.integration
def test_volume_hangs(run_scenario: RunScenario) -> None:
    run_scenario(VOLUME_HANGS).assert_passed()
