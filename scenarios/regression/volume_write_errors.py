"""Every write and flush of the volume fails while reads go on."""

import pytest

from harness.checkers.outage import outage
from harness.clients.probes import new_calls, registrations, sip_options
from harness.faults.disk import volume_errors
from harness.scenario import RunScenario, Scenario, at

VOLUME_WRITE_ERRORS = Scenario(
    name="volume-write-errors",
    summary="writes to the data volume fail with EIO",
    probes=[sip_options(period_s=0.05), registrations(period_s=0.2), new_calls(period_s=0.1)],
    timeline=[at(1, volume_errors(write=1, flush=1), hold_s=10)],
    checkers=[outage()],
)


@pytest.mark.regression
@pytest.mark.integration
def test_volume_write_errors(run_scenario: RunScenario) -> None:
    run_scenario(VOLUME_WRITE_ERRORS).assert_passed()
