"""Who heard nothing, from when to when, as the ops of a history tell it."""

from __future__ import annotations

from typing import Any

import pytest

from harness.clients.rtp.silence import Floor, Silence, calls_from_ops, noise_floor
from harness.history import Op

S = 1_000_000_000
MS = 1_000_000


def op(f: str, at_ns: int, process: str = "media", **value: Any) -> Op:
    return Op(time_ns=at_ns, process=process, f=f, type="ok", value=value)


def gap(from_ns: int, to_ns: int, *, side: str = "caller", **more: Any) -> Op:
    value = {"call": "c1", "side": side, "from_ns": from_ns, "to_ns": to_ns, "lost": 3, "ssrc_changed": False}
    return op("media_gap", to_ns, **(value | {"held": False} | more))


def leg(at_ns: int, *, first_ns: int | None = 1 * S, last_ns: int | None, side: str = "caller") -> Op:
    return op("media_leg", at_ns, call="c1", side=side, opened_ns=S // 2, first_ns=first_ns, last_ns=last_ns)


def second(at_ns: int, since_ms: float | None, *, side: str = "caller", **pauses: int) -> Op:
    return op("media_second", at_ns, legs={f"c1/{side}": [5, 5, 0, 20.0, since_ms, 0.1]}, pauses_ms=pauses, late_ms=0.1)


CALLER = ("c1", "caller")
DARK = Silence(from_ns=10 * S, to_ns=14 * S, lost=3)


@pytest.mark.parametrize(
    ("case", "ops", "until_ns", "silences"),
    [
        ("never silent", [leg(60 * S, last_ns=60 * S - 10 * MS)], None, []),
        ("silent once", [gap(10 * S, 14 * S), leg(60 * S, last_ns=60 * S)], None, [DARK]),
        ("never came back", [leg(60 * S, last_ns=10 * S)], None, [Silence(from_ns=10 * S, to_ns=None)]),
        (
            "came back and decayed",
            [gap(10 * S, 14 * S), leg(60 * S, last_ns=30 * S)],
            None,
            [DARK, Silence(from_ns=30 * S, to_ns=None)],
        ),
        (
            "never heard anything",
            [leg(60 * S, first_ns=None, last_ns=None)],
            None,
            [Silence(from_ns=S // 2, to_ns=None)],
        ),
        (
            "helped: the silence had not ended by then",
            [gap(10 * S, 40 * S), leg(60 * S, last_ns=60 * S)],
            30 * S,
            [Silence(from_ns=10 * S, to_ns=None)],
        ),
        ("what began later is not told", [gap(40 * S, 44 * S), leg(60 * S, last_ns=60 * S)], 30 * S, []),
        ("what ended before is", [gap(10 * S, 14 * S), leg(60 * S, last_ns=60 * S)], 30 * S, [DARK]),
        (
            "first heard with help",
            [leg(60 * S, first_ns=40 * S, last_ns=60 * S)],
            30 * S,
            [Silence(from_ns=S // 2, to_ns=None)],
        ),
        ("hung up long after", [leg(60 * S, last_ns=59 * S)], 30 * S, []),
        (
            "the engine was killed in a silence",
            [second(10 * S, 4.0), second(11 * S, 1004.0)],
            None,
            [Silence(from_ns=11 * S - 1004 * MS, to_ns=None)],
        ),
        ("the engine was killed while all was well", [second(10 * S, 4.0)], None, []),
        (
            "the engine was killed before anything was heard",
            [second(10 * S, None), second(12 * S, None)],
            None,
            [Silence(from_ns=10 * S, to_ns=None)],
        ),
        (
            "the engine was killed just after a silence",
            [second(12 * S, 2000.0), gap(10 * S, 12 * S + 5 * MS)],
            None,
            [Silence(from_ns=10 * S, to_ns=12 * S + 5 * MS, lost=3)],
        ),
        (
            "on hold",
            [gap(10 * S, 14 * S, held=True), leg(60 * S, last_ns=60 * S)],
            None,
            [Silence(from_ns=10 * S, to_ns=14 * S, lost=3, held=True)],
        ),
    ],
)
def test_silences(case: str, ops: list[Op], until_ns: int | None, silences: list[Silence]) -> None:
    for order in (ops, ops[::-1]):
        assert calls_from_ops(order, until_ns=until_ns) == {CALLER: silences}


def test_each_direction_has_its_own() -> None:
    ops = [gap(10 * S, 14 * S, side="callee"), leg(60 * S, last_ns=60 * S), leg(61 * S, side="callee", last_ns=61 * S)]
    assert calls_from_ops(ops) == {CALLER: [], ("c1", "callee"): [DARK]}


def test_a_call_that_opened_later_is_not_there_yet() -> None:
    assert calls_from_ops([leg(60 * S, last_ns=60 * S)], until_ns=S // 4) == {}


def test_the_noise_floor_is_that_of_whole_seconds_in_between() -> None:
    ops = [
        op("media_second", 9 * S, legs={}, pauses_ms={"500": 9}, late_ms=0),
        op("media_second", 9 * S + 5, process="other", legs={}, pauses_ms={"700": 1}, late_ms=0),
        op("media_second", 10 * S, legs={}, pauses_ms={"300": 9}, late_ms=0),
        op("media_second", 11 * S, legs={}, pauses_ms={"19": 500, "20": 499, "40": 1}, late_ms=0),
        op("media_second", 11 * S + 5, process="other", legs={}, pauses_ms={"300": 1}, late_ms=0),
        op("media_second", 12 * S, legs={}, pauses_ms={"300": 9}, late_ms=0),
    ]
    floor = noise_floor(ops, from_ns=10 * S, to_ns=11 * S + 1)
    assert floor == Floor(n=1000, p50_ms=20.0, p99_ms=21.0, p999_ms=21.0, max_ms=41.0)
    assert noise_floor(ops, from_ns=20 * S, to_ns=30 * S) is None


def test_a_pause_beyond_the_last_bucket_is_told_as_long_as_it_was() -> None:
    ops = [
        op("media_second", 10 * S, legs={}, pauses_ms={}, longest_ms=0.0, late_ms=0),
        op("media_second", 11 * S, legs={}, pauses_ms={"20": 50, "999": 1}, longest_ms=4321.5, late_ms=0),
        op("media_second", 12 * S, legs={}, pauses_ms={"20": 50}, longest_ms=20.25, late_ms=0),
    ]
    assert noise_floor(ops, from_ns=10 * S, to_ns=12 * S) == Floor(
        n=101, p50_ms=21.0, p99_ms=21.0, p999_ms=4321.5, max_ms=4321.5
    )
