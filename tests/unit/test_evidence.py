"""A run folder reads back as the evidence it was written from, however much of it is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.evidence import fault_records, load
from harness.rundir import RunDir
from tests.unit import synthetic
from tests.unit.synthetic import at, clean, op


def test_the_folder_and_the_evidence_are_the_same_run(tmp_path: Path) -> None:
    read = load(synthetic.write(tmp_path / "run"))
    made = clean()
    assert read.outages == made.outages
    assert read.faults == made.faults
    assert (read.clocks, read.limits, read.roles) == (["options", "new_call"], made.limits, made.roles)
    assert len(read.ops) == len(made.ops)
    assert (read.steady_ns, read.end_ns, read.expected_faults) == (made.steady_ns, made.end_ns, 1)
    assert list(read.alerts) == list(made.alerts)


def test_it_can_be_read_again_without_the_parts(tmp_path: Path) -> None:
    run = synthetic.write(tmp_path / "run")
    first = load(run)
    for part in run.parts.iterdir():
        part.unlink()
    assert load(run).ops == first.ops


def test_a_run_that_was_killed_at_once_is_poor_evidence_not_an_error(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, scenario="s", seed=1)
    evidence = load(run)
    assert (evidence.ops, evidence.clocks, evidence.steady_ns, evidence.left_behind) == ([], [], None, None)


def test_torn_lines_of_a_killed_run_cost_only_themselves(tmp_path: Path) -> None:
    run = synthetic.write(tmp_path / "run")
    for name in ("alerts.jsonl", "cloud-calls.jsonl"):
        with (run.path / name).open("a") as file:
            file.write('{"time_ns": 12')
    with (run.parts / "options.jsonl").open("a") as file:
        file.write('{"time_ns": 12')
    (run.path / "stages.json").unlink()
    evidence = load(run)
    assert (len(evidence.alerts), len(evidence.ops)) == (len(synthetic.alerts()), len(clean().ops))
    assert evidence.end_ns == evidence.ops[-1].time_ns


def test_what_could_not_be_read_and_a_clock_that_was_set_are_evidence_too(tmp_path: Path) -> None:
    run = synthetic.write(tmp_path / "run")
    assert (load(run).unread, load(run).wall_drift_s, load(run).periods_s["options"]) == ((), 0.0, 0.1)
    run.write_json("unread.json", ["pbx-1: gone"])
    run.write_json("stages.json", {"steady_ns": 1, "end_ns": 2, "wall_offset_ns": {"steady": 5, "end": 1_000_000_005}})
    assert (load(run).unread, load(run).wall_drift_s) == (("pbx-1: gone",), 1.0)


def test_a_fault_healed_by_another_process_is_healed() -> None:
    ops = [o for o in synthetic.nemesis_ops() if o.f == "fault"]
    journal = [{"n": 0, "state": state, "time_ns": at(t)} for state, t in (("landed", 5.1), ("healed", 40))]
    assert fault_records(ops)[0].healed_ns is None
    assert fault_records(ops, journal)[0].healed_ns == at(40)


def test_a_heal_that_failed_says_why() -> None:
    ops = [o for o in synthetic.nemesis_ops() if o.f == "fault"]
    ops.append(op(36.0, "heal", "fail", {"n": 0, "name": "x"}, error="not running"))
    (record,) = fault_records(ops)
    assert (record.healed_ns, record.heal_error) == (None, "not running")


@pytest.mark.parametrize("value", [True, None])
def test_left_behind_is_empty_only_when_somebody_looked(tmp_path: Path, value: bool | None) -> None:
    run = synthetic.write(tmp_path / "run")
    if value is None:
        (run.path / "left-behind.json").unlink()
    assert load(run).left_behind == (json.loads("[]") if value else None)
