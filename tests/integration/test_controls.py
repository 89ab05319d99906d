"""Defects that the measuring must tell apart, planted in the PBX of the session's cell and taken through a failover.

What a defect does to a call is in results.json: its band, direction, helper and dialog, and the check that fails. All
defects of single calls share one failover, beside a call without any, so that one could not be taken for another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import pytest

from fixtures.plugin import JudgedRun
from harness.cell.boot import wait_answer
from harness.cell.cell import Cell
from harness.cell.node import ContainerNode
from harness.checkers.call_recovery import call_recovery
from harness.checkers.outage import outage
from harness.clients.probes import held_calls, new_calls, registrations, sip_options
from harness.command import wait_for
from harness.faults.node import power_off
from harness.scenario import RunScenario, Scenario, at

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

CRASH = at(0.5, power_off("active"), hold_s=10)
"""Held until the node was surely fenced: one that is back before is fenced once more, and nobody starts it again."""


def callers(n: int) -> str:
    """The extension that makes the nth held call of an ip_phone (harness/clients/phones.py)."""
    return str(1000 + 2 * n)


EACH_CALL_ITS_OWN = {
    "wipe-media": callers(1),
    "wipe-dialogs": callers(2),
    "reinvite": callers(3),
    "bye-everyone": f"2 {callers(4)}",
    "one-way": callers(5),
    "no-registrations": callers(0),
    "lose-data": "",
}


def test_one_failover_in_which_each_call_has_another_defect(cell: Cell, run_scenario: RunScenario) -> None:
    crash = Scenario(
        name="control-calls-and-data",
        probes=[sip_options(), new_calls(period_s=0.2), held_calls(count=6)],
        timeline=[CRASH],
        checkers=[outage(), call_recovery()],
        warmup_s=3,  # a recording has to be finished for 2 s before it must survive
        recover_s=30,
    )
    with planted(cell, EACH_CALL_ITS_OWN):
        results = run(run_scenario, crash)
    fates = {row["call"].removeprefix("ip_phone-"): fate(row) for row in results["calls"]["calls"]}
    assert fates == {
        "0": ("back", "both", "nobody", "alive"),
        "1": ("never", "none", "client", "alive"),
        "2": ("back", "both", "nobody", "481"),
        "3": ("back", "both", "pbx", "alive"),
        "4": ("never", "none", None, "ended by the PBX"),
        "5": ("never", "one-way", None, "alive"),
    }
    one_way = next(row for row in results["calls"]["calls"] if row["call"] == "ip_phone-5")
    assert one_way["gap_to_callee_s"] is None and one_way["gap_to_caller_s"] is not None
    checks = {check["name"]: check for check in results["checks"]}
    assert {name for name, check in checks.items() if check["verdict"] != "pass"} == {"call_recovery", "ledger"}
    assert checks["call_recovery"]["metrics"]["ratios"] == {"ip_phone": round(2 / 6, 4)}
    lost = {kind: row["lost"] for kind, row in results["data"].items()}
    assert lost["registration"] == 1
    assert lost["call_record"] > 5 and lost["log"] > 5 and lost["recording"] >= 1, lost
    assert "prompt 900 is damaged" in checks["ledger"]["why"]


def test_a_proxy_that_answers_with_no_media_behind_it_is_down(cell: Cell, run_scenario: RunScenario) -> None:
    crash = Scenario(
        name="control-no-media",
        probes=[sip_options(), registrations(), new_calls(period_s=0.2), held_calls(count=2)],
        timeline=[CRASH],
        checkers=[outage(limit_s=10), call_recovery()],
        warmup_s=2,
        recover_s=6,
    )
    with planted(cell, {"no-media": ""}):
        results = run(run_scenario, crash)
    outages = results["outages"]
    assert {clock: row["ended"] for clock, row in outages.items()} == {
        "options": True, "register": True, "new_call": False, "media": False,
    }  # fmt: skip
    assert max(outages["options"]["upper_s"], outages["register"]["upper_s"]) < outages["new_call"]["lower_s"]
    assert (results["outage"]["clock"], results["outage"]["ended"]) in (("new_call", False), ("media", False))
    assert [fate(row) for row in results["calls"]["calls"]] == 2 * [("never", "none", None, "alive")]
    verdicts = {check["name"]: check["verdict"] for check in results["checks"]}
    assert verdicts.pop("phases_explained") == "unknown", "where the time went is not known before it has ended"
    assert {name for name, verdict in verdicts.items() if verdict != "pass"} == {"outage", "call_recovery", "ledger"}
    lost = {kind: row["lost"] for kind, row in results["data"].items()}
    assert lost.pop("recording") > 0, "calls were taken that nobody could record"
    assert set(lost.values()) == {0}


def run(run_scenario: RunScenario, scenario: Scenario) -> dict[str, Any]:
    """results.json of a run that fails, as it must."""
    outcome = cast(JudgedRun, run_scenario(scenario)).outcome
    assert outcome.error is None, outcome.error
    assert outcome.results["verdict"] == "fail"
    return outcome.results


def fate(row: Mapping[str, Any]) -> tuple[str, str, str | None, str]:
    """The four parts; whether it came back says enough of the band, how fast is the host's."""
    return "never" if row["band"] == "never" else "back", row["direction"], row["helped_by"], row["dialog"]


@contextmanager
def planted(cell: Cell, variants: Mapping[str, str]) -> Iterator[None]:
    """A PBX with these defects from its next start on; afterwards one without, freshly started, on the same cell."""
    if cell.profile.name != "stand-in":
        pytest.skip(f"{cell.profile.name} has no defects to plant")
    try:
        for name, value in variants.items():
            variant(cell, name, *value.split())
        yield
    finally:
        variant(cell, "--clear")
        (pbx,) = [resource.id for resource in cell.policy.resource if resource.role == "pbx"]
        active_node(cell).run(["crm_resource", "--restart", "--resource", pbx], timeout_s=60)
        wait_answer(cell.client_pid(1), address=cell.public_ip, port=cell.profile.sip.udp_port or 0, timeout_s=30)


def variant(cell: Cell, *arguments: str) -> None:
    """Run the stand-in's `variant` where its volume is (fixtures/pbx/stand-in/README.md)."""
    node = active_node(cell)
    argv = cell.profile.command("variant", node=node.name, private_ip=node.private_ip, public_ip=cell.public_ip)
    node.run([*argv, *arguments], timeout_s=10)


def active_node(cell: Cell) -> ContainerNode:
    return cell.node(wait_for("an active node", lambda: cell.cluster().active, timeout_s=60, every_s=0.5))
