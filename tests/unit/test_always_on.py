"""Every checker that is always on finds the defects planted here, and passes the clean run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from harness.catalogue import always_on
from harness.checkers.host_pressure import HostPressure
from harness.checkers.ledger import Ledger
from harness.checkers.not_vacuous import NotVacuous
from harness.checkers.nothing_left import NothingLeft
from harness.checkers.phases_explained import PhasesExplained
from harness.checkers.settled import Settled, nodes_hit
from harness.checkers.single_owner import SingleOwner
from harness.checkers.types import Checker, Evidence
from harness.history import Op
from tests.unit import synthetic
from tests.unit.synthetic import alert, at, clean, cluster, evidence_of, spoiled

ALL: list[Checker] = [
    SingleOwner(),
    Settled(),
    NotVacuous(),
    NothingLeft(),
    HostPressure(),
    PhasesExplained(),
    Ledger(),
]


def test_the_checkers_that_are_always_on_are_these() -> None:
    assert sorted(c.name for c in always_on()) == sorted(c.name for c in ALL)


@pytest.mark.parametrize("checker", ALL, ids=lambda c: c.name)
def test_the_clean_run_passes(checker: Checker) -> None:
    result = checker.check(clean())
    assert (result.verdict, result.name) == ("pass", checker.name), result.why


@pytest.mark.parametrize("checker", ALL, ids=lambda c: c.name)
def test_a_run_that_observed_nothing_is_unknown(checker: Checker) -> None:
    nothing = Evidence(ops=(), clocks=(), faults=(), steady_ns=None, end_ns=0, expected_faults=1)
    assert checker.check(nothing).verdict == "unknown"


def between(start: float, end: float, o: Op) -> bool:
    return at(start) <= o.time_ns < at(end)


def owners(start: float, end: float, **value: Any) -> Evidence:
    """The clean run, with other owners seen between `start` and `end`."""

    def change(o: Op) -> Op:
        hit = o.f == "ownership" and between(start, end, o)
        return replace(o, value={**o.value, **value}) if hit else o

    return spoiled(change)


def dropped(f: str, start: float, end: float) -> Evidence:
    return spoiled(lambda o: None if o.f == f and between(start, end, o) else o)


def unanswered(f: str, start: float, end: float) -> Evidence:
    def change(o: Op) -> Op:
        return replace(o, type="info") if o.f == f and o.type == "ok" and between(start, end, o) else o

    return spoiled(change)


def blinded(start: float, end: float) -> Evidence:
    """The observer was there but could not look."""
    return spoiled(lambda o: replace(o, type="info") if o.f == "ownership" and between(start, end, o) else o)


OWNER_DEFECTS: dict[str, tuple[Callable[[], Evidence], str, str]] = {
    "two mounters once": (
        lambda: owners(12.0, 12.2, mounted=["pbx-1", "pbx-2"], powered=list(synthetic.NODES)),
        "fail",
        "pbx-1 and pbx-2 mounted the volume at the same time, in 1 samples",
    ),
    "two PBXs": (
        lambda: owners(12.0, 13.0, pbx=["pbx-2", "pbx-3"]),
        "fail",
        "pbx-2 and pbx-3 ran the PBX at the same time, in 5 samples",
    ),
    "two mounters although nobody could say who has power": (
        lambda: owners(12.0, 12.2, mounted=["pbx-1", "pbx-2"], powered=None),
        "fail",
        "pbx-1 and pbx-2 mounted",
    ),
    "address left behind": (lambda: owners(11.5, 99, address="pbx-1"), "fail", "the address is pbx-1's"),
    "address of nobody": (lambda: owners(11.5, 99, address=None), "fail", "the address is nobody's"),
    "volume mounted by nobody": (lambda: owners(40, 99, mounted=[]), "fail", "the volume is mounted by nobody"),
    "PBX elsewhere than the volume": (lambda: owners(40, 99, pbx=["pbx-3"]), "fail", "the PBX runs on pbx-3"),
    "observer gone in the middle": (lambda: dropped("ownership", 7, 9.5), "unknown", "nobody looked for 2.8 s"),
    "observer blind": (lambda: blinded(7, 9.5), "unknown", "nobody looked for 2.8 s"),
    "observer gone at the end": (lambda: dropped("ownership", 20, 99), "unknown", "nobody looked for 28.2 s"),
    "two mounters and a blind observer": (
        lambda: replace(owners(12.0, 12.2, pbx=["pbx-1", "pbx-2"], powered=None), end_ns=at(60)),
        "fail",
        "ran the PBX",
    ),
}


@pytest.mark.parametrize("defect", OWNER_DEFECTS)
def test_single_owner_finds(defect: str) -> None:
    make, verdict, why = OWNER_DEFECTS[defect]
    result = SingleOwner().check(make())
    assert result.verdict == verdict, result.why
    assert why in result.why


def test_single_owner_points_at_the_samples_that_decide() -> None:
    evidence = owners(12.0, 12.4, pbx=["pbx-2", "pbx-3"])
    result = SingleOwner().check(evidence)
    assert [evidence.ops[i].value["pbx"] for i in result.evidence] == [["pbx-2", "pbx-3"]] * 2


def test_a_container_without_power_is_no_owner() -> None:
    assert SingleOwner().check(owners(5.0, 10.0, mounted=["pbx-1"], pbx=["pbx-1"], powered=["pbx-2"])).verdict == "pass"


def test_an_address_that_arrives_before_the_volume_is_a_finding() -> None:
    result = SingleOwner().check(owners(9.0, 9.8, address="pbx-2"))
    assert result.verdict == "pass"
    assert "finding: the address was on a node without the volume in 4 samples" in result.why
    assert result.metrics["address_without_volume_samples"] == 4


def cluster_after(**changes: Any) -> Callable[[], Evidence]:
    state = {**cluster("pbx-2", fenced=["pbx-1"]), **changes}
    return lambda: replace(clean(), cluster={"before": cluster("pbx-1"), "after": state})


def fenced_again(*, after_s: float) -> Evidence:
    """The injured node is healed, becomes a member again, and is fenced once more `after_s` later."""
    healed_ns = max(f.healed_ns for f in clean().faults if f.healed_ns is not None)
    back = {**synthetic.alert(0, "node", "pbx-1", desc="member"), "time_ns": healed_ns + 1_000_000_000}
    again = {**synthetic.alert(0, "fence_requested", "pbx-1"), "time_ns": back["time_ns"] + round(after_s * 1e9)}
    return replace(clean(), alerts=[*clean().alerts, back, again])


FENCED_TWICE = cluster("pbx-2", fenced=["pbx-1", "pbx-3"])["fencing"]
PENDING = [{"target": "pbx-1", "action": "off", "status": "pending", "completed": None}]
SETTLED_DEFECTS: dict[str, tuple[Callable[[], Evidence], str, str]] = {
    "node missing": (cluster_after(online=["pbx-2", "pbx-3"]), "fail", "not online: pbx-1"),
    "node unclean": (cluster_after(unclean=["pbx-1"]), "fail", "unclean: pbx-1"),
    "resources spread": (cluster_after(active=None), "fail", "not all started on one node"),
    "resource stopped": (
        cluster_after(resources=[{"id": "pbx", "role": "Stopped", "node": None}]),
        "fail",
        "not started: pbx",
    ),
    "failed action": (cluster_after(failed_actions=["pbx_start_0 on pbx-3"]), "fail", "failed: pbx_start_0 on pbx-3"),
    "unexplained fencing": (cluster_after(fencing=FENCED_TWICE), "fail", "fenced although no fault hit it: pbx-3"),
    "no quorum": (cluster_after(quorum=False), "fail", "no quorum"),
    "resource blocked": (
        cluster_after(resources=[{"id": "pbx", "role": "Started", "node": "pbx-2", "blocked": True}]),
        "fail",
        "blocked: pbx",
    ),
    "fencing pending": (cluster_after(fencing=PENDING), "fail", "fencing still pending: pbx-1"),
    "nobody asked afterwards": (
        lambda: replace(clean(), cluster={"before": cluster("pbx-1"), "after": None}),
        "unknown",
        "no cluster state from after the fault",
    ),
    "nobody asked before": (
        lambda: replace(clean(), cluster={"after": cluster("pbx-1")}),
        "unknown",
        "no cluster state from before the fault",
    ),
    "not at rest before": (
        lambda: replace(clean(), cluster={"before": cluster(None), "after": cluster("pbx-2")}),
        "unknown",
        "not at rest before: the resources are not all started on one node",
    ),
    "nodes not known": (lambda: replace(clean(), expected_nodes=()), "unknown", "not known which nodes"),
    "fenced again after it was healed and back": (
        lambda: fenced_again(after_s=1.0),
        "fail",
        "fenced again after it had been healed and was back: pbx-1",
    ),
    "fencing of a node whose fault did not land": (
        lambda: replace(clean(), faults=[replace(f, landed_ns=None, target=None) for f in clean().faults]),
        "fail",
        "fenced although no fault hit it: pbx-1",
    ),
}


@pytest.mark.parametrize("defect", SETTLED_DEFECTS)
def test_settled_finds(defect: str) -> None:
    make, verdict, why = SETTLED_DEFECTS[defect]
    result = Settled().check(make())
    assert result.verdict == verdict, result.why
    assert why in result.why


def test_what_failed_where_a_fault_hit_and_runs_again_is_told_and_no_failure() -> None:
    hit = cluster_after(failed_actions=["pbx_monitor_1000 on pbx-1: not running"])()
    result = Settled().check(hit)
    assert (result.verdict, result.metrics["failed_and_recovered"]) == (
        "pass", ["pbx_monitor_1000 on pbx-1: not running"],
    )  # fmt: skip


@pytest.mark.parametrize("action", ["pbx_start_0 on pbx-1: error", "filesystem_stop_0 on pbx-1: busy"])
def test_a_start_or_stop_that_failed_is_a_failure_wherever_it_was(action: str) -> None:
    """That node can't take over any more."""
    assert Settled().check(cluster_after(failed_actions=[action])()).verdict == "fail"


@pytest.mark.parametrize(
    ("targets", "found"),
    [
        ([], set()),
        (["pbx-1"], {"pbx-1"}),
        (["pbx-1", "pbx-2, pbx-3"], {"pbx-1", "pbx-2", "pbx-3"}),
        (["vol-1"], {"pbx-1", "pbx-2"}),
        (["*"], {"pbx-1", "pbx-2"}),
        (["harness"], set()),
    ],
)
def test_a_fault_that_is_aimed_at_no_node_hits_the_owners(targets: list[str], found: set[str]) -> None:
    assert nodes_hit(targets, ["pbx-1", "pbx-2", "pbx-3"], owners={"pbx-1", "pbx-2"}) == found


def test_a_standby_that_is_fenced_for_a_fault_of_the_api_is_unexplained() -> None:
    faults = [replace(fault, target="*") for fault in clean().faults]
    evidence = replace(cluster_after(fencing=FENCED_TWICE)(), faults=faults)
    assert "fenced although no fault hit it: pbx-3" in Settled().check(evidence).why


def test_a_fencing_from_before_the_run_needs_no_explanation() -> None:
    old = {"target": "pbx-3", "action": "off", "status": "success", "completed": "00:00:01"}
    before = {**cluster("pbx-1"), "fencing": [old]}
    after = {**cluster("pbx-2", fenced=["pbx-1"])}
    after["fencing"] = [old, *after["fencing"]]
    assert Settled().check(replace(clean(), cluster={"before": before, "after": after})).verdict == "pass"


def fault_failed(o: Op) -> Op | None:
    if o.f == "heal":
        return None
    if o.f == "fault" and o.type == "ok":
        return replace(o, type="fail", value={"n": 0, "name": "power off active"}, error="TimedOut: still running")
    return o


VACUOUS_DEFECTS: dict[str, tuple[Callable[[], Evidence], str]] = {
    "fault did not land": (
        lambda: spoiled(fault_failed),
        "not power off active (TimedOut: still running)",
    ),
    "fault never played": (lambda: spoiled(lambda o: None if o.process == "nemesis" else o), "0 of 1 faults landed"),
    "nemesis died": (
        lambda: spoiled(lambda o: None if o.f == "heal" or (o.f == "fault" and o.type == "ok") else o),
        "not power off active (never answered)",
    ),
    "clock dead from the start": (
        lambda: evidence_of([*synthetic.probe_ops("new_call", latency_s=0.3, down=(-99, 99))]),
        "the new_call clock had no good answer before the first fault",
    ),
    "clock good only afterwards": (
        lambda: unanswered("options", -9, 9),
        "the options clock had no good answer before the first fault",
    ),
    "clock silent at the end": (
        lambda: dropped("options", 20, 99),
        "the options clock asked nothing in the last 28.1 s",
    ),
    "no probe": (lambda: replace(clean(), clocks=()), "no probe ran"),
    "never steady": (lambda: replace(clean(), steady_ns=None), "the steady state was never reached"),
}


@pytest.mark.parametrize("defect", VACUOUS_DEFECTS)
def test_not_vacuous_finds(defect: str) -> None:
    make, why = VACUOUS_DEFECTS[defect]
    result = NotVacuous().check(make())
    assert result.verdict == "unknown"
    assert why in result.why


def heal_failed(o: Op) -> Op:
    return replace(o, type="fail", error="TimedOut: not running") if o.f == "heal" and o.type == "ok" else o


LEFT_DEFECTS: dict[str, tuple[Callable[[], Evidence], str, str]] = {
    "not healed": (lambda: spoiled(lambda o: None if o.f == "heal" else o), "fail", "not healed: power off active"),
    "heal failed": (lambda: spoiled(heal_failed), "fail", "not healed: power off active (TimedOut: not running)"),
    "trace found": (lambda: replace(clean(), left_behind=["a rule"]), "fail", "left behind: a rule"),
    "nobody looked": (lambda: replace(clean(), left_behind=None), "unknown", "nobody looked for traces"),
}


@pytest.mark.parametrize("defect", LEFT_DEFECTS)
def test_nothing_left_finds(defect: str) -> None:
    make, verdict, why = LEFT_DEFECTS[defect]
    result = NothingLeft().check(make())
    assert (result.verdict, why in result.why) == (verdict, True), result.why


def test_a_fault_that_never_landed_has_nothing_to_heal() -> None:
    assert NothingLeft().check(spoiled(fault_failed)).verdict == "pass"


def late(seconds: list[int], ms: float) -> Evidence:
    def change(o: Op) -> Op:
        hit = o.f == "metronome" and any(o.time_ns == at(s) for s in seconds)
        return replace(o, value={**o.value, "max_late_ms": ms}) if hit else o

    return spoiled(change)


def with_alert(row: dict[str, Any]) -> Evidence:
    return replace(clean(), alerts=[*synthetic.alerts(), row])


def stalled(seconds: float, node: str) -> dict[str, Any]:
    return alert(seconds, "not_scheduled", node, reporter=node, exec_ms=1200)


PRESSURE_DEFECTS: dict[str, tuple[Callable[[], Evidence], str]] = {
    "one tick far too late": (lambda: late([8], 251.0), "a tick came 251 ms late (bound 250)"),
    "many ticks late": (lambda: late([8, 9, 10], 51.0), "over 50 ms late in 3 of 49 seconds"),
    "no metronome": (lambda: spoiled(lambda o: None if o.f == "metronome" else o), "no metronome ran"),
    "metronome died": (lambda: dropped("metronome", 10, 99), "the metronome was silent for 39.0 s"),
    "metronome froze": (lambda: dropped("metronome", 10, 14), "the metronome was silent for 5.0 s"),
    "a node's log not read": (lambda: replace(clean(), unread=["pbx-1: gone"]), "what corosync said: pbx-1: gone"),
    "corosync stalled": (
        lambda: with_alert(stalled(9.0, "pbx-2")),
        "corosync on pbx-2 was not scheduled for 1200 ms",
    ),
}


@pytest.mark.parametrize("defect", PRESSURE_DEFECTS)
def test_host_pressure_finds(defect: str) -> None:
    make, why = PRESSURE_DEFECTS[defect]
    result = HostPressure().check(make())
    assert result.verdict == "unknown"
    assert why in result.why


@pytest.mark.parametrize(
    "harmless",
    [
        pytest.param(lambda: late([-5], 900.0), id="before the steady state"),
        pytest.param(lambda: late([8, 9], 240.0), id="two late seconds of 49"),
        pytest.param(lambda: with_alert(stalled(5.5, "pbx-1")), id="corosync of the node that was hit"),
        pytest.param(lambda: with_alert(stalled(-3.0, "pbx-2")), id="corosync while the cell came up"),
    ],
)
def test_host_pressure_lets_pass(harmless: Callable[[], Evidence]) -> None:
    assert HostPressure().check(harmless()).verdict == "pass"


def without_alerts(*kinds: str) -> Callable[[], Evidence]:
    return lambda: replace(clean(), alerts=[a for a in synthetic.alerts() if a["kind"] not in kinds])


PHASES_DEFECTS: dict[str, tuple[Callable[[], Evidence], str]] = {
    "no alerts": (lambda: replace(clean(), alerts=()), "not one fact about this outage was found"),
    "node never lost": (without_alerts("node"), "unexplained (bound"),
    "fencing not seen": (without_alerts("fencing", "fence_requested"), "1.90 s of 8.30 s"),
    "beginning of the fencing not seen": (without_alerts("fence_requested"), "1.80 s of 8.30 s"),
    "the wall clock was set": (lambda: replace(clean(), wall_drift_s=2.5), "the wall clock moved by 2.500 s"),
    "outage never ended": (
        lambda: unanswered("options", 5, 99),
        "never ended",
    ),
    "no clock": (lambda: replace(clean(), clocks=(), outages={}), "no clock ran"),
}


@pytest.mark.parametrize("defect", PHASES_DEFECTS)
def test_phases_explained_finds(defect: str) -> None:
    make, why = PHASES_DEFECTS[defect]
    result = PhasesExplained().check(make())
    assert result.verdict == "unknown", result.why
    assert why in result.why


def test_a_run_without_an_outage_has_nothing_to_explain() -> None:
    quiet = [
        *synthetic.probe_ops("options", latency_s=0.004, down=(99, 99)),
        *synthetic.probe_ops("new_call", latency_s=0.3, down=(99, 99)),
    ]
    assert PhasesExplained().check(evidence_of(quiet)).verdict == "pass"
