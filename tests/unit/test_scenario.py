"""A scenario that makes no sense can't be built; a mistake shows before anything is started."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from harness.faults.node import power_off
from harness.nemesis import plan_rows
from harness.scenario import Scenario, at

OPTIONS: Any = SimpleNamespace(name="options", timing={"period_s": 0.1}, watch_s=0.0)
CALLS: Any = SimpleNamespace(name="new_call", timing={"period_s": 0.1}, watch_s=0.0)


def test_lists_become_tuples_and_the_last_heal_is_known() -> None:
    steps = [at(5, power_off("active"), hold_s=30), at(10, power_off("standby"), hold_s=1)]
    scenario = Scenario(name="active-node-crash", probes=[OPTIONS, CALLS], timeline=steps)
    assert scenario.probes == (OPTIONS, CALLS)
    assert scenario.last_heal_s == 35
    assert Scenario(name="control", probes=[OPTIONS], timeline=[]).last_heal_s == 0.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "Active Crash"}, "lower-case words"),
        ({"probes": []}, "nothing is measured"),
        ({"probes": [OPTIONS, OPTIONS]}, "two probes for the same: options"),
        ({"warmup_s": 0}, "must be above 0"),
        ({"recover_s": float("nan")}, "must be above 0"),
    ],
)
def test_a_scenario_is_checked_where_it_is_built(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Scenario(**{"name": "x", "probes": [OPTIONS], "timeline": [], **change})


@pytest.mark.parametrize(("at_s", "hold_s"), [(-1, 5), (5, 0), (float("nan"), 5), (5, float("nan"))])
def test_a_step_is_checked_where_it_is_built(at_s: float, hold_s: float) -> None:
    with pytest.raises(ValueError, match="fault"):
        at(at_s, power_off("active"), hold_s=hold_s)


def test_a_timeline_as_data() -> None:
    assert plan_rows([at(5, power_off("active"), hold_s=30)]) == [
        {"at_s": 5, "hold_s": 30, "fault": "harness.faults.node:PowerOff", "fields": {"target": "active"}}
    ]
