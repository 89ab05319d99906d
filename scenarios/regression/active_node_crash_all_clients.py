"""The active node loses its power under every kind of client: what becomes of the calls they hold?"""

import pytest

from harness.checkers.call_recovery import call_recovery
from harness.checkers.outage import outage
from harness.clients.probes import held_calls, new_calls, prompt_heard, registered, registrations, sip_options
from harness.faults.node import power_off
from harness.scenario import RunScenario, Scenario, at

ACTIVE_NODE_CRASH_ALL_CLIENTS = Scenario(
    name="active-node-crash-all-clients",
    summary="the active node loses its power while every kind of client holds calls and stays registered",
    probes=[
        sip_options(period_s=0.1),
        sip_options(period_s=0.5, transport="tcp"),
        sip_options(period_s=0.5, transport="tls"),
        sip_options(period_s=0.5, transport="wss"),
        registrations(period_s=0.5),
        registrations(period_s=1, transport="tls"),
        registrations(period_s=1, transport="wss"),
        new_calls(period_s=0.2),
        new_calls(period_s=1, transport="tls"),
        prompt_heard(),
        held_calls(kind="ip_phone", count=8),
        held_calls(kind="desktop", count=4),
        held_calls(kind="mobile", count=4),
        held_calls(kind="baresip", count=2),
        held_calls(kind="webrtc", count=2),
        registered(kind="ip_phone", count=100),
        registered(kind="desktop", count=60),
        registered(kind="mobile", count=40),
    ],
    timeline=[at(5, power_off("active"), hold_s=20)],
    checkers=[outage(), call_recovery(min_ratio=0.95)],
)


@pytest.mark.smoke
@pytest.mark.regression
@pytest.mark.integration
def test_active_node_crash_all_clients(run_scenario: RunScenario) -> None:
    run_scenario(ACTIVE_NODE_CRASH_ALL_CLIENTS).assert_passed()
