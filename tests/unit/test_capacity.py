"""The knee of a ramp, and whose limit it was."""

from __future__ import annotations

from typing import Any

import pytest

from harness.capacity import Knee, Level, Limits, broken, knee, pooled

LIMITS = Limits()


def level(load: float, **measured: Any) -> Level:
    return Level(load=load, **{"ser_ratio": 1.0, "srd_p95_s": 0.02, **measured})


def test_the_knee_is_the_last_level_before_the_first_that_broke() -> None:
    ramp = [level(10), level(20), level(40, ser_ratio=0.9), level(80)]
    assert knee(ramp, LIMITS) == Knee(load=20, limited_by="pbx", why="at 40: SER 90.0% < 99.0%")


@pytest.mark.parametrize(
    ("measured", "words"),
    [
        ({"srd_p95_s": 0.6}, "SRD p95 0.60 s > 0.5 s"),
        ({"media_loss_ratio": 0.02}, "media loss 2.0% > 1.0%"),
        ({"media_gap_s": 0.4}, "media gap 0.40 s > 0.3 s"),
        ({"ser_ratio": None, "srd_p95_s": None}, "nothing was measured: no call of the clock"),
        ({"ser_ratio": None}, "nothing was measured: no call of the clock"),
    ],
)
def test_each_limit_breaks_a_level(measured: dict[str, Any], words: str) -> None:
    assert broken(level(10, **measured), LIMITS) == [words]


def test_a_level_at_its_limits_holds() -> None:
    at = level(10, ser_ratio=0.99, srd_p95_s=0.5, media_loss_ratio=0.01, media_gap_s=0.3)
    assert broken(at, LIMITS) == []


def test_a_busy_host_is_not_the_pbx() -> None:
    found = knee([level(10), level(20, ser_ratio=0.5, host="sends were late")], LIMITS)
    assert found == Knee(load=10, limited_by="host", why="at 20: sends were late")


def test_a_ramp_that_never_broke_is_only_a_lower_bound() -> None:
    assert knee([level(10), level(20)], LIMITS).limited_by == "nothing"
    assert knee([level(10, ser_ratio=0.5)], LIMITS).load is None


def test_levels_that_do_not_rise_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="rise"):
        knee([level(20), level(10)], LIMITS)


def test_fewer_than_three_ramps_are_no_figure() -> None:
    found = [Knee(load=load, limited_by="pbx", why="") for load in (20, 40, 30)]
    assert (pooled(found)["knee"], pooled(found)["at_least"]) == (30, False)
    assert pooled(found[:2])["knee"] is None
    assert pooled([*found, Knee(load=40, limited_by="host", why="")])["at_least"]
    assert pooled([*found, Knee(load=None, limited_by="pbx", why="")])["knee"] is None
