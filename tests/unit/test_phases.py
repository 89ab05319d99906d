"""Every instant of an outage belongs to one span on the critical path, and only facts make spans."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.checkers.types import Evidence, FaultRecord
from harness.phases import Span, breakdown, critical_path
from harness.results import PHASES, Interval, Outage
from tests.unit import synthetic
from tests.unit.synthetic import action, alert, at, call, clean


def span(phase: str, start: float, end: float) -> Span:
    return Span(phase=phase, start_ns=at(start), end_ns=at(end), source="test")


def path(spans: list[Span], start: float, end: float) -> dict[str, float]:
    result = critical_path(spans, start_ns=at(start), end_ns=at(end))
    shown = {phase: s for phase, s in result.seconds.items() if s}
    return shown | ({"unexplained": result.unexplained_s} if result.unexplained_s else {})


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        pytest.param([], {"unexplained": 10.0}, id="no facts"),
        pytest.param([span("detect", 0, 4), span("start", 4, 10)], {"detect": 4.0, "start": 6.0}, id="in a row"),
        pytest.param(
            [span("detect", 0, 4), span("start", 5, 9)], {"detect": 4, "start": 4, "unexplained": 2}, id="gaps"
        ),
        pytest.param(
            [span("mount", 0, 2), span("address", 2, 5), span("start", 2, 10)],
            {"mount": 2, "start": 8},
            id="in parallel: the one that ends last was waited for",
        ),
        pytest.param([span("detect", -5, 4), span("start", 4, 20)], {"detect": 4.0, "start": 6.0}, id="clipped"),
        pytest.param([span("detect", -9, -1), span("answer", 11, 12)], {"unexplained": 10.0}, id="outside"),
        pytest.param([span("fence", 5, 5)], {"unexplained": 10.0}, id="a span of no length"),
        pytest.param(
            [span("start", 2, 10), span("start", 2, 10), span("detect", 0, 2)], {"detect": 2, "start": 8}, id="twice"
        ),
    ],
)
def test_critical_path(spans: list[Span], expected: dict[str, float]) -> None:
    assert path(spans, 0, 10) == pytest.approx(expected)


@given(
    spans=st.lists(st.tuples(st.sampled_from(PHASES), st.integers(-50, 150), st.integers(0, 80)), max_size=12),
    length=st.integers(1, 100),
)
def test_the_parts_always_add_up_to_the_outage(spans: list[tuple[str, int, int]], length: int) -> None:
    known = [span(phase, start / 10, (start + width) / 10) for phase, start, width in spans]
    result = critical_path(known, start_ns=at(0), end_ns=at(length / 10))
    assert sum(result.seconds.values()) + result.unexplained_s == pytest.approx(length / 10)
    assert all(s >= 0 for s in (*result.seconds.values(), result.unexplained_s))


@given(spans=st.lists(st.tuples(st.integers(-50, 150), st.integers(0, 80)), max_size=12), length=st.integers(1, 100))
def test_what_no_span_covers_is_unexplained_and_nothing_else(spans: list[tuple[int, int]], length: int) -> None:
    known = [span("start", start / 10, (start + width) / 10) for start, width in spans]
    bare = sum(not any(s <= tick < s + w for s, w in spans) for tick in range(length)) / 10
    assert critical_path(known, start_ns=at(0), end_ns=at(length / 10)).unexplained_s == pytest.approx(bare)


def outage(start: float = 4.9, end: float | None = 11.7) -> Outage:
    upper = (end if end is not None else 40) - start
    return Outage(
        clock="options",
        start_ns=at(start),
        end_ns=None if end is None else at(end),
        duration=Interval(lower_s=0, upper_s=upper),
    )


def told(evidence: Evidence, of: Outage | None = None) -> dict[str, float]:
    result = breakdown(evidence, of or outage())
    assert result is not None
    shown = {phase: s for phase, s in result.seconds.items() if s}
    return shown | ({"unexplained": result.unexplained_s} if result.unexplained_s else {})


CLEAN = {
    "detect": 2.3,
    "decide": 1.1 + 0.1 + 0.02 + 0.05,
    "fence": 0.7,
    "detach": 0.6,
    "attach": 0.3,
    "mount": 0.18,
    "start": 1.25,
    "answer": 0.2,
}


def test_a_failover_with_the_address_beside_the_pbx() -> None:
    assert told(clean()) == pytest.approx(CLEAN)


def with_alerts(rows: list[dict[str, Any]], **changes: Any) -> Evidence:
    return replace(clean(), alerts=rows, **changes)


def lost_to_fenced() -> list[dict[str, Any]]:
    return [a for a in synthetic.alerts() if a["kind"] != "resource" and a["time_ns"] < at(10)]


def test_a_failover_with_the_address_last() -> None:
    rows = [
        *lost_to_fenced(),
        action(9.1, 10.0, "start", "volume"),
        action(10.0, 10.2, "start", "filesystem"),
        action(10.2, 10.9, "start", "pbx"),
        action(10.9, 11.5, "start", "address"),
    ]
    expected = {**CLEAN, "decide": 1.2, "mount": 0.2, "start": 0.7, "address": 0.6}
    assert told(with_alerts(rows)) == pytest.approx(expected)


def test_the_address_that_comes_last_of_two_in_parallel_is_on_the_path() -> None:
    rows = [a for a in synthetic.alerts() if a["rsc"] not in ("pbx", "address")]
    rows += [action(10.25, 10.6, "start", "pbx"), action(10.26, 11.5, "start", "address")]
    seconds = told(with_alerts(rows))
    assert seconds["address"] == pytest.approx(1.24)
    assert not {"start", "unexplained"} & seconds.keys()


def test_other_names_of_resources_are_told_by_their_roles() -> None:
    names = {"volume": "ebs", "filesystem": "datapath_fs", "pbx": "portsip", "address": "eip"}
    rows = [{**a, "rsc": names.get(a["rsc"], a["rsc"])} for a in synthetic.alerts()]
    roles = {name: role for role, name in names.items()}
    assert told(with_alerts(rows, roles=roles)) == pytest.approx(CLEAN)
    assert "start" not in told(with_alerts(rows, roles={}))


def test_without_roles_a_resource_is_what_its_name_says() -> None:
    assert told(replace(clean(), roles={})) == pytest.approx(CLEAN)


def test_the_fencing_device_is_no_part_of_the_pbx() -> None:
    rows = [*synthetic.alerts(), action(10.9, 11.65, "start", "fencing", node="pbx-3")]
    assert told(with_alerts(rows)) == pytest.approx(CLEAN)


def test_an_answer_before_the_agent_returned_belongs_to_the_start() -> None:
    rows = [a for a in synthetic.alerts() if a["rsc"] != "pbx"] + [action(10.25, 12.5, "start", "pbx")]
    expected = {**CLEAN, "start": 1.45}
    del expected["answer"]
    assert told(with_alerts(rows)) == pytest.approx(expected)


def test_without_fencing_the_loss_is_followed_by_the_starts() -> None:
    rows = [a for a in synthetic.alerts() if not a["kind"].startswith("fenc")]
    quiet = {"before": synthetic.cluster("pbx-1"), "after": synthetic.cluster("pbx-2")}
    expected = {**CLEAN, "decide": 1.9 + 0.02 + 0.05}
    del expected["fence"]
    assert told(with_alerts(rows, cluster=quiet)) == pytest.approx(expected)


def test_a_fencing_that_nobody_saw_leaves_its_time_unexplained() -> None:
    unseen = [a for a in synthetic.alerts() if not a["kind"].startswith("fenc")]
    assert told(with_alerts(unseen))["unexplained"] == pytest.approx(1.9)
    half = [a for a in synthetic.alerts() if a["kind"] != "fence_requested"]
    assert told(with_alerts(half))["unexplained"] == pytest.approx(1.8)


def test_a_fencing_that_failed_first_is_fencing_until_it_succeeds() -> None:
    failed = alert(8.6, "fencing", "pbx-1", task="off", desc="Operation off of pbx-1: Error", rc=1)
    again = alert(8.7, "fence_requested", "pbx-1", task="off")
    assert told(with_alerts([*synthetic.alerts(), failed, again])) == pytest.approx(CLEAN)


def test_a_start_that_failed_and_was_repeated_is_start() -> None:
    rows = [a for a in synthetic.alerts() if a["rsc"] != "pbx"]
    rows += [action(10.25, 10.7, "start", "pbx", rc=1), action(10.8, 10.9, "stop", "pbx")]
    rows += [action(11.0, 11.5, "start", "pbx", node="pbx-3")]
    seconds = told(with_alerts(rows))
    assert seconds["start"] == pytest.approx(0.95)
    assert seconds["stop"] == pytest.approx(0.1)
    assert "unexplained" not in seconds


def test_a_pbx_that_fails_its_monitor_is_stopped_and_started_in_place() -> None:
    rows = [
        action(5.9, 6.0, "monitor", "pbx", node="pbx-1", rc=7),
        action(6.1, 6.3, "stop", "pbx", node="pbx-1"),
        action(6.35, 7.35, "start", "pbx", node="pbx-1"),
    ]
    evidence = with_alerts(rows, cluster={}, cloud_calls=())
    expected = {"detect": 1.1, "decide": 0.15, "stop": 0.2, "start": 1.0, "answer": 0.15}
    assert told(evidence, outage(4.9, 7.5)) == pytest.approx(expected)


def test_a_long_silence_between_two_resources_is_not_explained() -> None:
    rows = [a for a in synthetic.alerts() if a["rsc"] not in ("pbx", "address")]
    rows += [action(12.8, 13.0, "start", "pbx"), action(12.8, 12.9, "start", "address")]
    assert told(with_alerts(rows), outage(4.9, 13.1))["unexplained"] == pytest.approx(2.6)


def test_what_the_cluster_takes_longer_than_it_ever_does_to_decide_is_not_explained() -> None:
    rows = [a for a in synthetic.alerts() if a["kind"] != "resource" and not a["kind"].startswith("fenc")]
    lost_at = (max(a["time_ns"] for a in rows if a["kind"] == "node" and a["desc"] == "lost") - at(0)) / 1e9
    late = [action(lost_at + 9.0, lost_at + 9.5, "start", "pbx")]
    quiet = {"before": synthetic.cluster("pbx-1"), "after": synthetic.cluster("pbx-2")}
    seconds = told(with_alerts([*rows, *late], cluster=quiet, cloud_calls=()), outage(4.9, lost_at + 9.6))
    assert seconds["decide"] < 3.6
    assert seconds["unexplained"] > 5.0


def test_an_answer_long_after_the_last_start_is_not_explained() -> None:
    last = (
        max(a["time_ns"] for a in synthetic.alerts() if a["kind"] == "resource" and a["task"] == "start") - at(0)
    ) / 1e9
    seconds = told(clean(), outage(4.9, last + 8.0))
    assert seconds["answer"] == pytest.approx(3.0)
    assert seconds["unexplained"] == pytest.approx(5.0)


def test_a_second_node_lost_on_the_way_counts_from_its_own_fault() -> None:
    faults = [
        FaultRecord(name="a", target="pbx-1", asked_ns=at(5), landed_ns=at(5.02), healed_ns=None),
        FaultRecord(name="b", target="pbx-3", asked_ns=at(10.3), landed_ns=at(10.4), healed_ns=None),
    ]
    rows = [a for a in synthetic.alerts() if a["rsc"] not in ("pbx", "address")]
    rows += [alert(12.4, "node", "pbx-3", desc="lost"), action(12.5, 13.0, "start", "pbx")]
    seconds = told(with_alerts(rows, faults=faults, cloud_calls=()), outage(4.9, 13.1))
    assert seconds["detect"] == pytest.approx(2.3 + 2.0)
    assert seconds["unexplained"] == pytest.approx(0.2)  # from the mounted file system to the second fault


def test_the_same_node_lost_in_an_earlier_outage_is_another_story() -> None:
    early = [{**a, "time_ns": a["time_ns"] - at(0) + at(-100)} for a in synthetic.alerts()]
    assert told(with_alerts([*early, *synthetic.alerts()])) == pytest.approx(CLEAN)


def test_the_outage_of_another_clock_that_began_later_has_the_same_causes() -> None:
    seconds = told(clean(), outage(8.0, 12.3))
    assert seconds["decide"] == pytest.approx(0.3 + 0.17)
    assert seconds["answer"] == pytest.approx(0.8)
    assert "unexplained" not in seconds


def test_a_detach_is_told_from_an_attach_by_the_calls_of_the_node() -> None:
    foreign = [call(9.4, "DetachVolume", "harness"), call(9.7, "AttachVolume", "harness")]
    refused = [call(9.4, "DetachVolume", error="IncorrectState"), call(9.7, "AttachVolume")]
    for calls in (foreign, refused):
        seconds = told(replace(clean(), cloud_calls=calls))
        assert "detach" not in seconds
        assert seconds["attach"] == pytest.approx(0.9)


def test_an_outage_without_any_act_of_the_cluster_is_unexplained() -> None:
    result = breakdown(with_alerts([], cluster={}, cloud_calls=()), outage())
    assert result is not None
    assert result.unexplained_s == pytest.approx(6.8)
    assert not result.explained
    assert result.spans == ()


def test_an_outage_that_never_ended_has_no_path() -> None:
    assert breakdown(clean(), outage(end=None)) is None


@pytest.mark.parametrize(
    ("unexplained_s", "total_s", "fine"),
    [(0.3, 2.0, True), (0.31, 2.0, False), (0.5, 10.0, True), (0.51, 10.0, False)],
)
def test_the_bound_is_a_third_of_a_second_or_five_percent(unexplained_s: float, total_s: float, fine: bool) -> None:
    known = [span("start", 0, total_s - unexplained_s)]
    assert critical_path(known, start_ns=at(0), end_ns=at(total_s)).explained is fine


def test_a_span_does_not_end_before_it_starts() -> None:
    with pytest.raises(ValueError, match="detect ends before it starts"):
        span("detect", 2, 1)
