"""A capacity run without a cell: what is planned, what a level is by its history, and what is told of it."""

from __future__ import annotations

from dataclasses import asdict
from math import inf
from pathlib import Path
from typing import Any

import pytest

from harness.capacity import Knee, Level, Limits, broken, next_load, pooled
from harness.clients.companions import BackgroundCalls, HeldCalls, RegisteredClients
from harness.errors import UsageError
from harness.history import Op
from harness.ramp.drive import Ramp, level_row
from harness.ramp.level import level_of, level_of_run, media
from harness.ramp.offer import failover_scenario
from harness.ramp.plan import LEVELS, Plan, clocks_of, load_of, plan, read_limits
from harness.report import capacity as report

S = 1_000_000_000
ASKED = {"ramp": "all", "during": "both", "n": 3, "measure_s": 10.0, "limits": "", "levels": ""}
LIMITS = Limits()


def op(at_s: float, f: str, kind: str = "ok", process: str = "p", **value: Any) -> Op:
    return Op(time_ns=round(at_s * S), process=process, f=f, type=kind, value=value)  # type: ignore[arg-type]


def call(n: int, at_s: float, *, code: int = 200, srd_ms: float = 20.0, **sent: Any) -> list[Op]:
    kind = "ok" if code == 200 else "fail"
    asked = op(at_s, "new_call", "invoke", n=n, slip_ms=0.1, **sent)
    return [asked, op(at_s + 0.05, "new_call", kind, n=n, code=code, srd_ms=srd_ms)]


def no_port(*numbers: int) -> list[Op]:
    ends = [op(2.0, "new_call", "fail", n=n, reached="no port") for n in numbers]
    return [*(op(2.0, "new_call", "invoke", n=n) for n in numbers), *ends]


def ticks(*late_ms: float) -> list[Op]:
    return [op(n + 0.5, "metronome", max_late_ms=late, psi_cpu_some_ratio=0.1) for n, late in enumerate(late_ms)]


def second(at_s: float, *, right: int, lost: int = 0, pause_ms: float = 21.0, since_ms: float = 5.0) -> Op:
    return op(at_s, "media_second", legs={"c-0/caller": [right, right, lost, pause_ms, since_ms, 0.1]}, pauses_ms={})


def levels_of(ops: list[Op], **more: Any) -> Level:
    given: dict[str, Any] = {"load": 50, "from_ns": 0, "to_ns": 4 * S, "cpu_ratio": 0.4}
    return level_of(ops, **(given | more))


CALLS = [one for n in range(40) for one in call(n, n * 0.1)]
QUIET = ticks(1, 1, 1, 1)


def test_a_plan_says_how_long_it_takes_before_it_starts() -> None:
    whole = plan(**ASKED)
    assert (whole.ramps, whole.during, whole.n) == (
        ("calls_per_s", "calls", "registrations"),
        ("normal", "failover"),
        3,
    )
    one = plan(**{**ASKED, "ramp": "calls", "during": "normal", "n": 1, "levels": "10,20"})
    assert one.levels["calls"] == (10, 20)
    assert 20 < one.at_most_s < 120 < whole.at_most_s < 7200
    assert report.minutes(61) == "2 minutes"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"ramp": "cals"}, "--ramp: no 'cals'"),
        ({"during": "peace"}, "--during: no 'peace'"),
        ({"levels": "10,20"}, "--levels: name one --ramp"),
        ({"ramp": "calls", "levels": "20,10"}, "levels of calls rise"),
        ({"ramp": "calls", "levels": "20,401"}, "at most 400"),
        ({"ramp": "calls", "levels": "20.5"}, "whole numbers"),
        ({"ramp": "calls_per_s", "levels": "x"}, "--levels: not a number: 'x'"),
        ({"ramp": "calls_per_s", "levels": "nan"}, "not a number"),
        ({"measure_s": 0.5}, "1-600 s"),
        ({"limits": "ser=1"}, "--limits: no limit 'ser'; there are ser_ratio"),
        ({"limits": "ser_ratio=2"}, "--limits: ser_ratio"),
        ({"limits": "ser_ratio="}, "--limits: ser_ratio: not a number"),
        ({"limits": "missing.toml"}, "--limits missing.toml"),
    ],
)
def test_what_is_wrong_with_a_plan_is_said_at_once(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        plan(**(ASKED | asked))


def test_limits_come_as_pairs_or_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "limits.toml"
    file.write_text("srd_p95_s = 1\n")
    assert read_limits("srd_p95_s=1,ser_ratio=0.9") == Limits(srd_p95_s=1, ser_ratio=0.9)
    assert read_limits(str(file)) == Limits(srd_p95_s=1)
    file.write_text('srd_p95_s = "1"\n')
    with pytest.raises(UsageError, match="is a number"):
        read_limits(str(file))


def test_a_load_is_shared_by_the_kinds_of_client_that_have_extensions_for_it() -> None:
    assert load_of("calls_per_s", 50) == [BackgroundCalls(rate_cps=50, hold_s=1.0)]
    assert load_of("calls", 250) == [HeldCalls(kind="ip_phone", count=200), HeldCalls(kind="desktop", count=50)]
    assert load_of("registrations", 1500) == [
        RegisteredClients(kind="desktop", count=1300),
        RegisteredClients(kind="mobile", count=200),
    ]
    for ramp, loads in LEVELS.items():
        for load in loads:
            names = [spec.name for spec in (*clocks_of(ramp), *load_of(ramp, load))]
            assert len(names) == len(set(names))
            assert failover_scenario(ramp, load, LIMITS).timeline


def test_a_level_is_what_the_clocks_saw_while_the_load_was_there() -> None:
    heard = [second(n, right=50 * n, lost=0) for n in range(4)]
    level = levels_of([*QUIET, *CALLS, *heard, *call(98, 4.5, code=503), *call(99, -1, code=503)])
    assert (level.ser_ratio, level.srd_p95_s, level.attempts) == (1.0, 0.02, 40)
    assert (level.media_loss_ratio, level.media_gap_s, level.host) == (0.0, 0.021, None)
    assert (level.cpu_ratio, level.psi_ratio, level.tick_late_ms) == (0.4, 0.1, 1.0)
    assert levels_of([*QUIET, *CALLS, *no_port(40, 41)]).attempts == 40
    hungry = levels_of([*QUIET, *CALLS, *no_port(*range(40, 44))])
    assert hungry.ser_ratio == 1.0 and hungry.host == "4 of 44 calls of the clock were sent late or not at all"
    refused = [one for n in range(40) for one in call(n, n * 0.1, code=503 if n < 4 else 200)]
    assert levels_of([*QUIET, *refused]).ser_ratio == 0.9


def test_lost_packets_and_audio_that_does_not_come_back_are_seen() -> None:
    assert media([second(0, right=0), second(1, right=40, lost=10)]) == (0.2, 0.021)
    assert media([second(0, right=50), second(1, right=50, since_ms=1000), second(2, right=50, since_ms=2000)]) == (
        1.0,
        2.0,
    )
    assert media(CALLS) == (None, None)


@pytest.mark.parametrize(
    ("ops", "more", "words"),
    [
        ([*ticks(1, 300, 1, 1), *CALLS], {}, "a tick came 300 ms late"),
        ([*CALLS], {}, "no metronome"),
        ([*QUIET, *CALLS], {"cpu_ratio": 0.99}, "processors were 99% busy"),
        ([*QUIET, *(o for n in range(9) for o in call(n, n * 0.4, slipped=n > 5))], {}, "3 of 9 calls of the clock"),
        ([*QUIET, *CALLS, op(1, "load", target_cps=50, cps=30, current=30)], {}, "SIPp placed only 30"),
    ],
)
def test_a_host_too_busy_to_measure_is_named(ops: list[Op], more: dict[str, Any], words: str) -> None:
    level = levels_of(ops, **more)
    assert level.host is not None
    assert words in level.host


def test_calls_that_pile_up_are_the_pbx_and_not_the_load() -> None:
    level = levels_of([*QUIET, *CALLS, op(1, "load", target_cps=50, cps=30, current=100)])
    assert (level.host, level.not_taken) == (None, "only 30 calls/s: those before did not get through")
    assert broken(level, LIMITS) == ["only 30 calls/s: those before did not get through"]


def test_a_load_that_never_was_there_measures_nothing_and_breaks() -> None:
    level = levels_of([*QUIET, *CALLS], not_taken="3 of 50 calls: 503")
    assert (level.ser_ratio, broken(level, LIMITS)) == (None, ["3 of 50 calls: 503"])


def results(**more: Any) -> dict[str, Any]:
    checks = [
        {"name": "host_pressure", "verdict": "pass", "why": "", "metrics": {"max_late_ms": 3.0}},
        {"name": "call_recovery", "verdict": "pass", "why": "", "metrics": {"ratios": {"ip_phone": 0.9, "desktop": 1}}},
    ]
    after = {"ser_ratio": 1.0, "srd_s": {"p50": 0.01, "p95": 0.02, "n": 9}, "sessions": 9}
    return {"sip": {"after": after}, "outage": {"upper_s": 7.0, "ended": True}, "checks": checks} | more


def test_a_failover_under_load_is_a_level_too() -> None:
    level = level_of_run(results(), load=50)
    assert (level.outage_s, level.ser_ratio, level.srd_p95_s, level.recovered_ratio) == (7.0, 1.0, 0.02, 0.9)
    assert broken(level, LIMITS) == ["recovered calls 90.0% < 95.0%"]
    never = level_of_run(results(outage={"upper_s": 60.0, "ended": False}, sip=None), load=50)
    assert (never.outage_s, broken(never, LIMITS)[1]) == (inf, "the outage never ended")
    assert level_row(never, [])["outage_s"] == "never ended"
    busy = {"name": "host_pressure", "verdict": "unknown", "why": "the host was too busy to measure: x", "metrics": {}}
    assert level_of_run(results(checks=[busy]), load=50).host == "x"


@pytest.mark.parametrize(("holds", "tried"), [(0, [40, 20, 10]), (10, [40, 20, 10]), (20, [40, 20, 30]), (40, [40])])
def test_each_failover_halves_what_is_not_known(holds: float, tried: list[float]) -> None:
    levels: list[Level] = []
    while (load := next_load([10, 20, 30, 40], levels, LIMITS)) is not None:
        levels.append(Level(load=load, ser_ratio=1.0 if load <= holds else 0.5))
    assert [level.load for level in levels] == tried
    found = Ramp(ramp="calls", during="failover", n=1, levels=levels).knee(LIMITS).load
    assert found == (holds or None)


def figure(knees: list[Knee], levels: list[Level]) -> dict[str, Any]:
    head = {"ramp": "calls", "during": "normal", "unit": "concurrent calls with audio"}
    return {
        **head, **pooled(knees), "levels": [{"n": 1, **level_row(level, broken(level, LIMITS))} for level in levels],
    }  # fmt: skip


def test_the_report_says_the_knee_whose_limit_it_was_and_what_it_is_worth() -> None:
    pbx = [Knee(load=load, limited_by="pbx", why="w") for load in (50, 100, 100)]
    assert report.knee_line(figure(pbx, [])) == (
        "concurrent calls with audio, normal: knee 100 (50–100)   n=3, limited by pbx 3x"
    )
    host = [*pbx[:2], Knee(load=100, limited_by="host", why="w")]
    assert "host limit: knee ≥ 100" in report.knee_line(figure(host, []))
    assert "no figure: n < 3; seen 50–100" in report.knee_line(figure(pbx[:2], []))
    never = [*pbx[:2], Knee(load=None, limited_by="pbx", why="w")]
    assert "the lowest level did not hold in every ramp" in report.knee_line(figure(never, []))


def test_the_summary_has_a_row_for_each_level_and_none_that_looks_measured_when_it_was_not() -> None:
    levels = [
        Level(load=50, ser_ratio=1.0, srd_p95_s=0.02, attempts=100, cpu_ratio=0.5, tick_late_ms=2),
        Level(load=100, ser_ratio=0.5, srd_p95_s=0.9, attempts=100),
        Level(load=200, host="its processors were 99% busy"),
    ]
    document = {
        "system": "stand-in@local/instant", "policy": "tuned", "started_at": "now", "stopped": "stopped by SIGINT",
        "limits": asdict(LIMITS), "measure_s": 10.0, "figures": [figure([], levels)],
    }  # fmt: skip
    text = report.markdown(document)
    rows = [row for row in text.splitlines() if row.startswith("| 1 |")]
    assert "100.0% of 100 | 0.020 s | not measured" in rows[0]
    assert "held" in rows[0]
    assert "BROKEN: SER 50.0% < 99.0%, SRD p95 0.90 s > 0.5 s" in rows[1]
    assert "HOST: its processors were 99% busy" in rows[2]
    assert "Stopped before its end: stopped by SIGINT" in text
    assert "no ramp ended" in text
    assert report.ending(document, run_dir="x")[0].startswith("stopped")


def test_a_plan_of_one_ramp_only_is_as_long_as_that() -> None:
    assert Plan(ramps=("calls",), during=("normal",), n=1).at_most_s < Plan(n=1).at_most_s
