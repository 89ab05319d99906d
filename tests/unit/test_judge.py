"""results.json: its shape, the headline, and verdicts that never round up."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from harness import evidence
from harness.catalogue import always_on
from harness.checkers.outage import outage
from harness.checkers.types import Checker, Evidence
from harness.judge import judge
from harness.results import PHASES, CheckResult, Interval, Outage, Verdict, overall, slowest
from tests.unit import synthetic
from tests.unit.synthetic import clean, evidence_of, probe_ops

KEYS = {
    *("schema_version", "scenario", "policy", "policy_sha256", "cloud", "timing", "seed", "started_at", "system"),
    *("verdict", "error", "outage", "outages", "phases", "checks", "calls", "registrations", "sip", "data", "faults"),
    *("not_run", "deviations", "environment", "noise", "in_flight"),
}


def judged(seen: Evidence, *checkers: Checker) -> dict[str, Any]:
    return judge(seen, [*checkers, *always_on()], meta=synthetic.meta())


def test_the_shape_of_results_json() -> None:
    results = json.loads(json.dumps(judged(clean(), outage())))
    assert results.keys() == KEYS
    assert results["outage"].keys() == {"clock", "transport", "lower_s", "upper_s", "ended", "limit_s"}
    assert results["outages"].keys() == {"options", "register", "new_call", "media"}
    row = {"lower_s", "upper_s", "ended", "starts_at_s", "outages", "flapping", "late"}
    assert results["outages"]["options"].keys() == row | {"transport", "transports"}
    assert results["outages"]["options"]["transports"]["udp"].keys() == row
    assert (results["outages"]["register"], results["outages"]["media"]) == (None, None)
    assert results["phases"].keys() == {*PHASES, "unexplained"}
    assert results["checks"][0].keys() == {"name", "verdict", "why", "metrics", "evidence"}
    assert results["faults"][0].keys() == {"name", "target", "landed_at_s", "healed_at_s", "observed_by", "error"}


def test_the_clean_run_passes_with_the_slowest_clock_as_headline() -> None:
    results = judged(clean(), outage())
    assert results["verdict"] == "pass", [c for c in results["checks"] if c["verdict"] != "pass"]
    assert results["outage"]["clock"] == "new_call"
    assert results["outage"]["limit_s"] == 15.0
    assert results["outage"]["lower_s"] <= 6.5 <= results["outage"]["upper_s"]
    assert results["outages"]["options"]["lower_s"] <= 6.55 <= results["outages"]["options"]["upper_s"]
    assert results["faults"][0]["landed_at_s"] == 5.02
    assert results["faults"][0]["healed_at_s"] == 36.0
    assert results["not_run"] == [
        "the REGISTER clock",
        "media of held calls",
        "fate of held calls",
    ]
    assert results["data"]["call_record"] == {"acknowledged": 3, "found": 3, "lost": 0, "unknown": 0}


def test_the_phases_add_up_to_the_headline() -> None:
    results = judged(clean())
    assert sum(results["phases"].values()) == pytest.approx(results["outage"]["upper_s"], abs=0.01)


def test_a_run_folder_is_judged_like_the_run(tmp_path: Path) -> None:
    again = judge(evidence.load(synthetic.write(tmp_path / "run")), [outage(), *always_on()], meta=synthetic.meta())
    assert again == judged(clean(), outage())


def test_no_outage_is_null_and_the_clocks_say_zero() -> None:
    quiet = [o for clock in synthetic.TIMINGS for o in probe_ops(clock, latency_s=0.01, down=(99, 99))]
    results = judged(evidence_of(quiet))
    assert (results["outage"], results["phases"]) == (None, None)
    assert results["outages"]["options"]["transports"]["udp"] | {"late": 0} == {
        **{"lower_s": 0.0, "upper_s": 0.0, "ended": True, "starts_at_s": None, "outages": 0, "flapping": 0, "late": 0}
    }


def test_what_was_not_measured_is_not_run() -> None:
    nothing = Evidence(ops=(), clocks=(), faults=(), steady_ns=None, end_ns=0)
    results = judged(nothing)
    assert results["verdict"] == "unknown"
    assert set(results["outages"].values()) == {None}
    assert {"the OPTIONS clock", "the new-call clock"} <= set(results["not_run"])


def test_a_clock_that_never_got_an_answer_is_not_a_clock_without_an_outage() -> None:
    silent = [o for o in synthetic.clean_ops() if o.f != "options"]
    results = judged(evidence_of(silent))
    assert results["outages"]["options"] is None
    assert "the OPTIONS clock" in results["not_run"]


@dataclass(frozen=True, kw_only=True)
class Broken:
    name: str = "broken"

    def check(self, evidence: Evidence) -> CheckResult:
        raise KeyError("x")


def test_a_checker_that_breaks_is_unknown_with_its_own_error() -> None:
    results = judged(clean(), Broken())
    assert results["checks"][0]["verdict"] == "unknown"
    assert "the checker itself failed: KeyError" in results["checks"][0]["why"]
    assert results["verdict"] == "unknown"


def test_facts_that_are_no_facts_cost_the_phases_only() -> None:
    results = judged(replace(clean(), alerts=[{"time_ns": synthetic.at(7)}]))
    assert results["phases"] is None
    assert results["outage"]["clock"] == "new_call"
    assert {c["name"]: c["verdict"] for c in results["checks"]}["phases_explained"] == "unknown"


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["pass", "pass"], "pass"),
        (["pass", "unknown"], "unknown"),
        (["unknown", "fail", "pass"], "fail"),
        ([], "unknown"),
    ],
)
def test_overall(verdicts: list[Verdict], expected: Verdict) -> None:
    assert overall([CheckResult(name="x", verdict=v, why="") for v in verdicts]) == expected


def an_outage(clock: str, upper_s: float, *, ended: bool = True) -> Outage:
    end_ns = 1 if ended else None
    return Outage(clock=clock, start_ns=0, end_ns=end_ns, duration=Interval(lower_s=0, upper_s=upper_s))


def test_slowest_is_the_longest_and_never_ended_is_longer_than_any() -> None:
    short, long, never = an_outage("options", 1), an_outage("new_call", 9), an_outage("options", 2, ended=False)
    assert slowest({"options": [short], "new_call": [long]}) is long
    assert slowest({"options": [short, never], "new_call": [long]}) is never
    assert slowest({"options": []}) is None


@pytest.mark.parametrize(("lower", "upper"), [(2.0, 1.0), (-1.0, 1.0)])
def test_an_interval_is_one(lower: float, upper: float) -> None:
    with pytest.raises(ValueError, match="not an interval"):
        Interval(lower_s=lower, upper_s=upper)


def test_an_interval_knows_what_is_in_it() -> None:
    interval = Interval(lower_s=1.0, upper_s=1.5)
    assert (1.5 in interval, 1.51 in interval, interval.width_s) == (True, False, 0.5)
