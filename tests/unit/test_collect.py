"""Facts out of the nodes' logs, on the run's clock."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.cell.profile import Data, Kind
from harness.clock import WallOffset
from harness.collect import data, fence_requests, log_time_s, node_logs, not_scheduled, parse_alerts
from harness.errors import InfrastructureError
from harness.ledger import read_back
from harness.rundir import RunDir

NOW = datetime(2026, 11, 25, 1, 30, tzinfo=UTC)
NO_OFFSET = WallOffset(offset_ns=0, error_ns=1)

ALERT = (
    '{"time_s":1795569661.212069,"reporter":"pbx-2","kind":"resource","node":"pbx-2","task":"start","rsc":"address",'
    '"desc":"ok","rc":"0","exec_ms":"15","interval_ms":"0"}'
)
NODE_ALERT = (
    '{"time_s":1795569657.976069,"reporter":"pbx-1","kind":"node","node":"pbx-3","task":"","rsc":"","desc":"lost",'
    '"rc":"","exec_ms":"","interval_ms":""}'
)
FENCE = (
    "Nov 25 01:21:05.123 pbx-3 pacemaker-fenced    [93] (initiate_remote_stonith_op) \tnotice: "
    "Requesting peer fencing (off) targeting pbx-1 | id=1a2b3c4d state=querying base_timeout=60"
)
STALLED = (
    "Nov 25 01:21:05.500 [37] pbx-1 corosync warning [MAIN  ] Corosync main process was not scheduled (@1795569665500) "
    "for 1234.5678 ms (threshold is 800.0000 ms). Consider token timeout increase."
)


def stamp(hour: int, minute: int, second: float, *, year: int = 2026, month: int = 11, day: int = 25) -> float:
    return datetime(year, month, day, hour, minute, tzinfo=UTC).timestamp() + second


@pytest.mark.parametrize(
    ("line", "now", "expected"),
    [
        ("Nov 25 01:21:05.123 pbx-1 x", NOW, stamp(1, 21, 5.123)),
        ("Nov 25 01:21:05 pbx-1 x", NOW, stamp(1, 21, 5)),
        ("Nov  5 01:21:05.5 x", NOW, stamp(1, 21, 5.5, day=5)),
        ("Dec 31 23:59:59.9 x", datetime(2027, 1, 1, tzinfo=UTC), stamp(23, 59, 59.9, month=12, day=31)),
        ("no stamp at all", NOW, None),
        ("Foo 25 01:21:05 x", NOW, None),
    ],
)
def test_log_time(line: str, now: datetime, expected: float | None) -> None:
    assert log_time_s(line, now=now) == (None if expected is None else pytest.approx(expected, abs=1e-4))


def test_alerts_come_with_the_run_s_time_and_numbers() -> None:
    offset = WallOffset(offset_ns=1_795_569_000_000_000_000, error_ns=1)
    resource, node = parse_alerts([ALERT, NODE_ALERT, '{"time_s":179556'], offset)
    assert abs(resource["time_ns"] - 661_212_069_000) < 1000
    assert (resource["rc"], resource["exec_ms"], resource["rsc"]) == (0, 15, "address")
    assert (node["kind"], node["desc"], node["rc"], node["exec_ms"]) == ("node", "lost", None, 0)


def test_a_fencing_asked_for_is_read_from_the_fencer_s_log() -> None:
    other = "Nov 25 01:21:05.123 pbx-3 pacemaker-controld [95] notice: Requesting fencing (off) of node pbx-1 | x"
    (row,) = fence_requests([other, FENCE], "pbx-3", NO_OFFSET)
    assert (row["kind"], row["node"], row["task"], row["reporter"]) == ("fence_requested", "pbx-1", "off", "pbx-3")


@pytest.mark.parametrize("line", [STALLED, STALLED.replace(" (@1795569665500)", "")])
def test_corosync_s_complaint_is_read_with_and_without_its_stamp(line: str) -> None:
    (row,) = not_scheduled(["Nov 25 01:21:05.1 [37] pbx-1 corosync notice x", line], "pbx-1", NO_OFFSET)
    assert (row["kind"], row["reporter"], row["exec_ms"]) == ("not_scheduled", "pbx-1", 1235)


class Node:
    def __init__(self, name: str, files: dict[str, str] | None) -> None:
        self.name = name
        self.files = files

    def run(self, argv: list[str], *, timeout_s: float) -> Any:
        if self.files is None:
            raise InfrastructureError("its power is off")
        return SimpleNamespace(stdout="\n".join(self.files))

    def fetch(self, path: str) -> bytes:
        assert self.files is not None
        return self.files[path.rpartition("/")[2]].encode()


def test_every_log_is_kept_and_what_is_missing_is_said(tmp_path: Path) -> None:
    full = {"alerts.jsonl": ALERT + "\n", "corosync.log": STALLED, "pacemaker.log": FENCE, "kamailio.log": "x"}
    nodes = [Node("pbx-1", full), Node("pbx-2", None), Node("pbx-3", {"alerts.jsonl": ""})]
    run = RunDir.create(tmp_path, scenario="s", seed=1)
    cell: Any = SimpleNamespace(nodes=nodes)
    missing = node_logs(cell, run, NO_OFFSET)
    assert missing == [
        "pbx-2: its power is off",
        "pbx-3 corosync.log: not there",
        "pbx-3 pacemaker.log: not there",
    ]
    assert {p.name for p in (run.path / "logs").iterdir()} == {
        *(f"pbx-1-{name}" for name in full),
        "pbx-3-alerts.jsonl",
    }
    facts = [json.loads(line) for line in (run.path / "alerts.jsonl").read_text().splitlines()]
    assert {f["kind"] for f in facts} == {"resource", "fence_requested", "not_scheduled"}
    assert facts == sorted(facts, key=lambda f: f["time_ns"])


class Reading:
    """A cell whose active node answers the profile's read commands from a table."""

    public_ip = "203.0.113.1"

    def __init__(self, active: str | None, answers: dict[str, Any]) -> None:
        declared = Data(database=Kind(read="read-database"), logs=Kind(read="read-logs", durable_after_s=0.5))
        self.profile = SimpleNamespace(data=declared, command=lambda name, **where: [name, where["node"]])
        self.cluster = lambda: SimpleNamespace(active=active)
        self.node = lambda name: SimpleNamespace(name=name, private_ip="198.18.6.11", run=self.run)
        self.answers = answers

    def run(self, argv: list[str], *, timeout_s: float) -> Any:
        answer = self.answers[argv[0]]
        if isinstance(answer, Exception):
            raise answer
        assert argv[1] == "pbx-2"
        return SimpleNamespace(stdout=answer)


def test_declared_data_is_read_back_on_the_active_node(tmp_path: Path) -> None:
    run_dir = RunDir(path=tmp_path)
    answers = {"read-database": '{"registration": "1000"}\n{"call": "x"}\n', "read-logs": InfrastructureError("gone")}
    data(Reading("pbx-2", answers), run_dir)  # type: ignore[arg-type]
    head, *rows = run_dir.read_rows("data.jsonl")
    assert (head["declared"], head["node"]) == ({"database": 0.0, "logs": 0.5}, "pbx-2")
    assert rows == [
        {"kind": "database", "registration": "1000"},
        {"kind": "database", "call": "x"},
        {"kind": "logs", "error": "gone"},
    ]
    back = read_back([head, *rows])
    assert back is not None and back.unreadable == {"logs": "gone"}


@pytest.mark.parametrize(
    ("active", "answers", "said"),
    [
        (None, {}, "active nowhere"),
        ("pbx-2", {"read-database": "no JSON", "read-logs": "[1]\n"}, ""),
    ],
)
def test_what_can_not_be_read_says_why(tmp_path: Path, active: str | None, answers: dict[str, Any], said: str) -> None:
    run_dir = RunDir(path=tmp_path)
    data(Reading(active, answers), run_dir)  # type: ignore[arg-type]
    _, *rows = run_dir.read_rows("data.jsonl")
    assert [row["kind"] for row in rows] == ["database", "logs"]
    assert all(said in row["error"] for row in rows)
