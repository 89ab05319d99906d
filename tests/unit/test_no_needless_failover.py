"""A run in which the service stayed where it was passes; whatever stopped, moved or went unanswered is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from harness.checkers.no_needless_failover import NoNeedlessFailover, no_needless_failover
from harness.checkers.types import Evidence
from harness.history import Op
from tests.unit import synthetic
from tests.unit.synthetic import action, at, clean, evidence_of, ownership, probe_ops

NEVER = (100.0, 100.0)


def quiet(*, down: tuple[float, float] = NEVER, owner: str = "pbx-1", then: str = "pbx-1") -> Evidence:
    """Nothing happens for the whole run, but what a test asks for: clocks that are down, another owner from 20 s on."""
    owners: list[Op] = []
    for n in range(round((synthetic.END_S + 6.0) * 5)):
        seconds = -6.0 + n / 5
        name = owner if seconds < 20 else then
        owners.append(ownership(seconds, [name], [name], name, list(synthetic.NODES)))
    ops = [*probe_ops("options", latency_s=0.004, down=down), *owners]
    return evidence_of(ops, alerts=[action(-15.0, -14.0, "start", "pbx", node="pbx-1")])


def stopped(seconds: float, *, node: str = "pbx-1", resource: str = "pbx") -> Evidence:
    return replace(quiet(), alerts=[action(seconds - 0.2, seconds, "stop", resource, node=node)])


def test_who_stayed_and_answered_passes() -> None:
    result = no_needless_failover().check(quiet())
    assert (result.verdict, result.why) == (
        "pass", "pbx-1 kept volume, PBX and address in 240 samples and always answered",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("evidence", "why"),
    [
        (clean, "pbx-1 did not keep volume, PBX and address, 5."),
        (lambda: quiet(then="pbx-3"), "pbx-1 did not keep volume, PBX and address, 20.0 s after"),
        (lambda: stopped(12.0), "pbx was stopped on pbx-1, 12.0 s after the steady state, although it served"),
        (lambda: quiet(down=(10.0, 13.0)), "pbx-1 kept everything, but options went unanswered"),
    ],
    ids=["a failover", "a move", "a stop that nobody else saw", "silence"],
)
def test_it_finds(evidence: Callable[[], Evidence], why: str) -> None:
    result = NoNeedlessFailover().check(evidence())
    assert result.verdict == "fail"
    assert why in result.why


def test_a_standby_that_is_shot_is_no_peace() -> None:
    evidence = replace(quiet(), alerts=[synthetic.alert(9.0, "fencing", "pbx-3", task="off")])
    assert NoNeedlessFailover().check(evidence).why == "pbx-3 was fenced although no fault hit it"


def test_owners_that_nobody_watched_to_the_end_are_unknown() -> None:
    ops = [op for op in quiet().ops if op.f != "ownership" or op.time_ns < at(1.0)]
    assert NoNeedlessFailover().check(replace(quiet(), ops=ops)).verdict == "unknown"


@pytest.mark.parametrize(
    "evidence",
    [stopped(-3.0), stopped(12.0, node="pbx-2"), stopped(12.0, resource="fence-pbx-1")],
    ids=["before the run", "on another node", "of a fence device"],
)
def test_a_stop_that_is_not_the_services_is_none(evidence: Evidence) -> None:
    assert NoNeedlessFailover().check(evidence).verdict == "pass"


@pytest.mark.parametrize(
    ("evidence", "why"),
    [
        (lambda: replace(quiet(), steady_ns=None), "nobody watched"),
        (lambda: replace(quiet(), ops=[op for op in quiet().ops if op.f != "ownership"]), "nobody watched"),
        (lambda: replace(quiet(), unread=("pbx-1 alerts.jsonl: not there",)), "is not known: pbx-1 alerts.jsonl"),
        (lambda: evidence_of([ownership(1.0, [], [], "pbx-1", ["pbx-1"])]), "no node owned everything"),
    ],
)
def test_what_nobody_saw_is_unknown(evidence: Callable[[], Evidence], why: str) -> None:
    result = NoNeedlessFailover().check(evidence())
    assert result.verdict == "unknown"
    assert why in result.why


def test_the_evidence_are_the_samples_that_decide() -> None:
    result = NoNeedlessFailover().check(quiet(then="pbx-3"))
    ops = {op.index: op for op in quiet(then="pbx-3").ops}
    assert result.evidence and all(ops[i].time_ns >= at(20.0) for i in result.evidence)
