"""Transactions that a failover caught, from planted ops: who is counted, how each ended, what the checker says."""

from __future__ import annotations

from typing import Any

import pytest

from harness.checkers.in_flight import in_flight
from harness.checkers.types import Evidence
from harness.history import Op
from harness.in_flight import caught, figures
from harness.report.terminal import in_flight_lines
from tests.unit.synthetic import at, evidence_of, nemesis_ops, op, probe_ops

FAULT_S, BACK_S, END_S = 5.02, 11.6, 60.0


def made(name: str, begin: float, end: float | None, result: Any = "ok", *, code: int | None = 200) -> list[Op]:
    kind = name.split("-")[0]
    value = {"id": name, "kind": kind, "client": "ip_phone", "transport": "udp"}
    ops = [op(begin, "in_flight", "invoke", value, process="in_flight_ip_phone")]
    if end is not None:
        ops.append(op(end, "in_flight", result, {"id": name, "code": code}, process="in_flight_ip_phone"))
    return ops


def after(call: str, *, reinvite: int | None = 200, bye: int | None = 200) -> Op:
    value = {"call": call, "kind": "hold", "client": "ip_phone", "transport": "udp", "reinvite": reinvite, "bye": bye}
    return op(58.0, "in_flight_after", "ok", value, process="in_flight_ip_phone")


def told(f: str, name: str, seconds: float, **value: Any) -> Op:
    return op(seconds, f, "ok", {"id": name, **value}, process="in_flight_ip_phone")


def orphan(name: str, seconds: float) -> Op:
    value = {"id": name, "believes": "rings for nobody"}
    return op(seconds, "in_flight_orphan", "ok", value, process="in_flight_ip_phone")


def run(*ops: Op, end_s: float = END_S) -> Evidence:
    clock = probe_ops("options", latency_s=0.004, down=(FAULT_S, BACK_S))
    return evidence_of([*clock, *nemesis_ops(), *ops], end_ns=at(end_s))


def moments(evidence: Evidence) -> dict[str, int]:
    landed_ns, back_ns = evidence.first_landed_ns, evidence.back_ns
    return {"fault_ns": evidence.first_fault_ns, "landed_ns": landed_ns, "back_ns": back_ns}


def names(evidence: Evidence) -> list[tuple[str, str]]:
    found = caught(evidence.ops, **moments(evidence))
    return [(one.id, one.when) for one in found]


def test_caught_is_what_straddles_the_fault_or_begins_in_the_outage() -> None:
    evidence = run(
        *made("ringing-1", 3.0, 4.9),
        *made("ringing-2", 4.5, 12.0),
        *made("hold-1", 7.0, 12.5),
        *made("hold-2", 20.0, 20.1),
        *made("cancel-1", 4.0, None),
    )
    assert names(evidence) == [
        ("cancel-1", "at the fault"), ("ringing-2", "at the fault"), ("hold-1", "in the outage"),
    ]  # fmt: skip


def test_while_a_fault_strikes_what_completes_is_not_caught_and_what_fails_is() -> None:
    evidence = run(
        *made("hold-1", 5.005, 5.01), *made("hold-2", 5.005, 5.01, "info", code=None), *made("hold-3", 5.015, 12.5)
    )
    assert (evidence.first_fault_ns, evidence.first_landed_ns) == (at(5.0), at(FAULT_S))
    assert names(evidence) == [("hold-2", "at the fault"), ("hold-3", "at the fault")]


def test_each_end_is_counted_by_its_name() -> None:
    evidence = run(
        *made("hold-1", 6.0, 12.5),
        *made("hold-2", 7.0, 12.0, "fail", code=481),
        *made("hold-3", 8.0, 40.0, "info", code=None),
        *made("hold-4", 9.0, None),
    )
    found = figures(evidence.ops, **moments(evidence))
    assert found is not None
    (row,) = found["by_kind"]
    assert (row["completed"], row["refused"], row["unanswered"], row["unfinished"]) == (1, 1, 1, 1)
    assert (row["codes"], row["longest_s"]) == ({"200": 1, "481": 1}, 6.5)
    assert in_flight_lines({"in_flight": found})[0] == (
        "4: 1 completed, 1 refused, 1 unanswered, 1 unfinished (codes 1x 200, 1x 481), at most 6.5 s"
    )


def test_without_such_a_probe_there_is_nothing_to_tell() -> None:
    assert figures(run().ops, **moments(run())) is None
    assert in_flight_lines({"in_flight": None}) == []


@pytest.mark.parametrize(
    ("ops", "verdict", "why"),
    [
        (
            [*made("hold-1", 4.9, 12.0), after("a"), after("b")], "pass",
            "1 transactions were caught, all came to an end; 0 left an orphan; 2 standing calls work",
        ),
        ([*made("hold-1", 4.9, 37.0, "info", code=None), after("a")], "pass", "all came to an end"),
        ([*made("cancel-1", 4.9, 12.0)], "pass", "0 standing calls"),
        ([*made("hold-1", 4.9, 12.0)], "unknown", "the standing calls were not asked in the end"),
        ([*made("hold-1", 6.0, 12.0), after("a")], "unknown", "no transaction was under way when the fault struck"),
        (
            [*made("hold-1", 4.9, 12.0), after("a"), after("b", reinvite=481)], "fail",
            "1 of 2 standing calls do not work any more: hold (ip_phone): re-INVITE 481, BYE 200",
        ),
        ([*made("hold-1", 4.9, 12.0), after("a", bye=None)], "fail", "re-INVITE 200, BYE unanswered"),
        (made("hold-1", 6.0, 46.0), "fail", "1 of 1 transactions had no end within 34 s: hold (ip_phone)"),
        (made("hold-1", 6.0, None), "fail", "had no end within 34 s"),
        (made("hold-1", 20.0, 20.1), "unknown", "the failover caught no transaction"),
        ([], "unknown", "caught no transaction"),
    ],
    ids=[
        "ended", "timer", "no standing call", "not asked", "none at the fault", "re-INVITE refused", "BYE unanswered",
        "too late", "never", "nothing caught", "no probe",
    ],
)  # fmt: skip
def test_the_checker(ops: list[Op], verdict: str, why: str) -> None:
    result = in_flight().check(run(*ops))
    assert (result.verdict, why in result.why) == (verdict, True), result.why


def test_an_orphan_is_a_failure_unless_so_many_are_expected() -> None:
    evidence = run(*made("cancel-1", 4.9, 12.0), orphan("cancel-1", 14.0), orphan("ringing-9", 14.0))
    result = in_flight().check(evidence)
    assert result.verdict == "fail"
    assert result.why == "1 of 1 left an orphan: cancel (ip_phone), rings for nobody"
    assert [evidence.ops[i].f for i in result.evidence] == ["in_flight", "in_flight", "in_flight_orphan"]
    assert in_flight(max_orphans=1).check(evidence).verdict == "pass"
    assert "1 left an orphan (told, not judged)" in in_flight(max_orphans=None).check(evidence).why


def test_a_dead_standing_call_is_the_evidence() -> None:
    evidence = run(*made("hold-1", 4.9, 12.0), after("a"), after("b", reinvite=None))
    assert [evidence.ops[i].value["call"] for i in in_flight().check(evidence).evidence] == ["b"]


def test_how_long_an_orphan_lasted_and_what_its_bye_got() -> None:
    evidence = run(
        *made("ringing-1", 4.9, 12.0),
        told("in_flight_bye", "ringing-1", 12.1, code=481),
        orphan("ringing-1", 14.0),
        told("in_flight_orphan_over", "ringing-1", 37.0, lasted_s=25.0),
        *made("ringing-2", 4.9, 12.0),
        told("in_flight_bye", "ringing-2", 15.1, code=None),
        orphan("ringing-2", 17.0),
    )
    found = figures(evidence.ops, **moments(evidence))
    assert found is not None
    assert (found["byes"], found["orphans"], found["orphans_left"]) == (
        {"481": 1, "none": 1}, {"rings for nobody": 2}, 1,
    )  # fmt: skip
    assert in_flight_lines({"in_flight": found})[0] == (
        "2: 2 completed (codes 2x 200), at most 7.1 s; then BYE 1x 481, 1x none; "
        "2 orphans: the called end rings for nobody, 1 of them to the end of the run"
    )


def test_the_standing_calls_are_told_in_one_line() -> None:
    evidence = run(*made("hold-1", 4.9, 12.0), after("a"), after("b", reinvite=481, bye=481))
    found = figures(evidence.ops, **moments(evidence))
    assert in_flight_lines({"in_flight": found})[-1] == (
        "afterwards 1 of 2 standing calls could be re-INVITEd and ended; not hold (ip_phone): re-INVITE 481, BYE 481"
    )


def test_a_run_that_ended_too_soon_decides_nothing() -> None:
    assert in_flight().check(run(*made("hold-1", 8.0, None), end_s=20.0)).verdict == "unknown"


@pytest.mark.parametrize("wrong", [{"within_s": 0}, {"max_orphans": -1}])
def test_a_limit_that_is_none_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="within_s is above 0"):
        in_flight(**wrong)
