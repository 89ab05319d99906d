"""The PBX's process dies on a healthy node; the cluster's monitor finds out and starts it again where it was."""

import pytest

from harness.checkers.outage import outage
from harness.clients.probes import new_calls, registrations, sip_options
from harness.faults.process import crash
from harness.scenario import RunScenario, Scenario, at

PBX_PROCESS_CRASH = Scenario(
    name="pbx-process-crash",
    summary="the PBX's process is killed on the active node",
    probes=[sip_options(period_s=0.05), registrations(period_s=0.2), new_calls(period_s=0.1)],
    timeline=[at(1, crash("active"), hold_s=5)],
    checkers=[outage()],
)


@pytest.mark.regression
@pytest.mark.integration
def test_pbx_process_crash(run_scenario: RunScenario) -> None:
    run_scenario(PBX_PROCESS_CRASH).assert_passed()
