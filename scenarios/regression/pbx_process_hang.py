"""The PBX's process stands still and keeps its sockets: only a monitor that asks it something can tell."""

import pytest

from harness.checkers.outage import outage
from harness.clients.probes import new_calls, registrations, sip_options
from harness.faults.process import hang
from harness.scenario import RunScenario, Scenario, at

PBX_PROCESS_HANG = Scenario(
    name="pbx-process-hang",
    summary="the PBX's process is stopped (SIGSTOP) on the active node",
    probes=[sip_options(period_s=0.05), registrations(period_s=0.2), new_calls(period_s=0.1)],
    timeline=[at(1, hang("active"), hold_s=15)],
    checkers=[outage()],
)


@pytest.mark.regression
@pytest.mark.integration
def test_pbx_process_hang(run_scenario: RunScenario) -> None:
    run_scenario(PBX_PROCESS_HANG).assert_passed()
