"""The PBX's database dies under it; a monitor that only looks at processes would see nothing."""

import pytest

from harness.checkers.outage import outage
from harness.clients.probes import new_calls, registrations, sip_options
from harness.faults.process import crash
from harness.scenario import RunScenario, Scenario, at

DATABASE_CRASH = Scenario(
    name="database-crash",
    summary="the PBX's database is killed on the active node",
    probes=[sip_options(period_s=0.05), registrations(period_s=0.2), new_calls(period_s=0.1)],
    timeline=[at(1, crash("active", "database"), hold_s=5)],
    checkers=[outage()],
)


@pytest.mark.regression
@pytest.mark.integration
def test_database_crash(run_scenario: RunScenario) -> None:
    run_scenario(DATABASE_CRASH).assert_passed()
