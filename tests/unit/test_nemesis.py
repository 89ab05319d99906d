"""The nemesis plays its plan on time, writes down what it is about to do, and heals on every way out."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness import history
from harness.errors import InfrastructureError
from harness.evidence import fault_records
from harness.faults.address import address_moved, address_taken
from harness.faults.disk import volume_hangs, volume_slow
from harness.faults.node import power_off
from harness.faults.types import Landed
from harness.history import Op, Writer
from harness.nemesis import Nemesis, UndoJournal, _holds, main, plan_rows
from harness.scenario import at


@dataclass
class World:
    """The cell of these tests: a clock that moves when somebody waits, and what was done when."""

    now_s: float = 100.0
    done: list[tuple[float, str]] = field(default_factory=list)
    journal: UndoJournal | None = None
    seen_in_journal: list[str] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    on_pause: Callable[[World], None] | None = None
    nodes: tuple[Any, ...] = (SimpleNamespace(name="pbx-1", instance_id="i-1"),)
    started: list[str] = field(default_factory=list)

    @property
    def cloud(self) -> Any:
        return self

    def ensure_started(self, instance_id: str, *, timeout_s: float) -> None:
        self.started.append(instance_id)

    def time_ns(self) -> int:
        return round(self.now_s * 1e9)

    def pause(self, seconds: float) -> None:
        self.now_s += seconds
        if self.on_pause:
            self.on_pause(self)

    def note(self, what: str) -> None:
        self.done.append((round(self.now_s - 100.0, 3), what))


@dataclass(frozen=True, kw_only=True)
class Fake:
    """A fault that only says what it does. `World.broken` holds what shall fail: "inject a", "heal a", "unmet a"."""

    target: str
    takes_s: float = 0.0

    @property
    def name(self) -> str:
        return f"fake {self.target}"

    def resolved(self, cell: Any) -> Fake:
        if "resolve" in cell.broken:
            raise InfrastructureError("no node is active right now")
        return replace(self, target=self.target.removeprefix("the "))

    def unmet(self, cell: Any) -> str | None:
        return "no such thing here" if f"unmet {self.target}" in cell.broken else None

    @contextmanager
    def inject(self, cell: Any) -> Iterator[Landed]:
        cell.seen_in_journal.append(cell.journal.path.read_text().splitlines()[-1])
        cell.now_s += self.takes_s
        if f"inject {self.target}" in cell.broken:
            raise OSError("did not land")
        cell.note(f"inject {self.target}")
        try:
            yield Landed(target=self.target, at_ns=cell.time_ns(), observed_by="the test")
        finally:
            self.heal(cell)

    def heal(self, cell: Any) -> None:
        if f"heal {self.target}" in cell.broken:
            raise OSError("can't be healed")
        cell.note(f"heal {self.target}")


def fake(target: str, **more: Any) -> Any:
    return Fake(target=target, **more)


@dataclass
class Stage:
    nemesis: Nemesis
    world: World
    journal: UndoJournal
    out: Path

    def play(self) -> None:
        self.nemesis.play(steady_ns=self.world.time_ns())

    @property
    def ops(self) -> list[Op]:
        return list(history.read(self.out))

    def told(self) -> list[tuple[str, str, int]]:
        return [(op.f, op.type, op.value["n"]) for op in self.ops]


@pytest.fixture
def stage(tmp_path: Path) -> Callable[..., Stage]:
    def make(*steps: Any, **world: Any) -> Stage:
        journal = UndoJournal(tmp_path / "undo.jsonl")
        place = World(journal=journal, **world)
        nemesis = Nemesis(
            cell=cast(Any, place),
            plan=json.loads(json.dumps(plan_rows(steps))),
            journal=journal,
            writer=Writer(tmp_path / "nemesis.jsonl"),
            time_ns=place.time_ns,
            pause=place.pause,
        )
        return Stage(nemesis=nemesis, world=place, journal=journal, out=tmp_path / "nemesis.jsonl")

    return make


def test_injures_and_heals_on_time(stage: Callable[..., Stage]) -> None:
    it = stage(at(5, fake("the a"), hold_s=30))
    it.play()
    assert it.world.done == [(5.0, "inject a"), (35.0, "heal a")]
    assert it.told() == [("fault", "invoke", 0), ("fault", "ok", 0), ("heal", "invoke", 0), ("heal", "ok", 0)]
    (record,) = fault_records(it.ops)
    assert (record.target, record.landed_ns, record.observed_by) == ("a", 105_000_000_000, "the test")
    assert record.healed_ns == 135_000_000_000


def test_steps_may_overlap_and_holding_counts_from_the_landing(stage: Callable[..., Stage]) -> None:
    it = stage(at(1, fake("a", takes_s=0.5), hold_s=10), at(2, fake("b"), hold_s=3), at(20, fake("a"), hold_s=1))
    it.play()
    assert it.world.done == [
        (1.5, "inject a"),
        (2.0, "inject b"),
        (5.0, "heal b"),
        (11.5, "heal a"),
        (20.0, "inject a"),
        (21.0, "heal a"),
    ]


def test_is_in_the_journal_before_it_happens(stage: Callable[..., Stage]) -> None:
    it = stage(at(1, fake("the a"), hold_s=1))
    it.play()
    (row,) = [json.loads(line) for line in it.world.seen_in_journal]
    assert (row["state"], row["fields"]["target"]) == ("planned", "a")
    states = [json.loads(line)["state"] for line in it.journal.path.read_text().splitlines()]
    assert states == ["planned", "landed", "healed"]


def test_told_to_stop_it_heals_what_it_holds_newest_first(stage: Callable[..., Stage]) -> None:
    it = stage(at(1, fake("a"), hold_s=50), at(2, fake("b"), hold_s=50), at(40, fake("c"), hold_s=50))
    it.world.on_pause = lambda world: it.nemesis.stop.set() if world.now_s >= 110 else None
    it.play()
    assert it.world.done == [(1.0, "inject a"), (2.0, "inject b"), (10.0, "heal b"), (10.0, "heal a")]
    assert it.journal.open_injuries() == []


def test_heals_when_its_parent_is_gone(stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch) -> None:
    it = stage(at(1, fake("a"), hold_s=50))
    parent = os.getppid()
    monkeypatch.setattr(os, "getppid", lambda: parent if it.world.now_s < 110 else 1)
    it.play()
    assert it.world.done == [(1.0, "inject a"), (10.0, "heal a")]


def test_heals_when_something_breaks_in_between(stage: Callable[..., Stage]) -> None:
    it = stage(at(1, fake("a"), hold_s=50), at(30, fake("b"), hold_s=1))

    def break_down(world: World) -> None:
        if world.now_s >= 110:
            raise KeyboardInterrupt

    it.world.on_pause = break_down
    with pytest.raises(KeyboardInterrupt):
        it.play()
    assert it.world.done[-1] == (10.0, "heal a")


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        ({"resolve"}, "no node is active right now"),
        ({"unmet a"}, "can't run here: no such thing here"),
    ],
)
def test_what_can_not_run_is_recorded_and_touches_nothing(
    stage: Callable[..., Stage], broken: set[str], error: str
) -> None:
    it = stage(at(1, fake("a"), hold_s=5), broken=broken)
    it.play()
    assert it.world.done == []
    assert [(op.f, op.type, op.error) for op in it.ops] == [("fault", "invoke", None), ("fault", "fail", error)]
    assert not it.journal.path.exists()


def test_an_injury_that_does_not_land_is_healed_at_once(stage: Callable[..., Stage]) -> None:
    it = stage(at(1, fake("a"), hold_s=5), at(3, fake("b"), hold_s=1), broken={"inject a"})
    it.play()
    assert it.world.done == [(1.0, "heal a"), (3.0, "inject b"), (4.0, "heal b")]
    assert it.journal.open_injuries() == []
    failed, landed = fault_records(it.ops)
    assert (failed.landed_ns, failed.error) == (None, "OSError: did not land")
    assert landed.landed_ns is not None


def test_a_heal_that_fails_stops_no_other_and_stays_open(stage: Callable[..., Stage]) -> None:
    it = stage(at(1, fake("a"), hold_s=5), at(2, fake("b"), hold_s=2), broken={"heal b"})
    it.play()
    assert (6.0, "heal a") in it.world.done
    assert ("heal", "fail", 1) in it.told()
    assert [(n, fault.name) for n, fault in it.journal.open_injuries()] == [(1, "fake b")]


def test_one_node_is_not_hit_by_two_faults_at_once(stage: Callable[..., Stage]) -> None:
    it = stage(at(1, fake("a"), hold_s=10), at(5, fake("the a"), hold_s=1))
    it.play()
    assert it.world.done == [(1.0, "inject a"), (11.0, "heal a")]
    assert "a is still held by 'fake a'" in str([op.error for op in it.ops if op.type == "fail"])


def test_heals_although_nothing_can_be_written_any_more(
    stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    it = stage(at(1, fake("a"), hold_s=5), at(2, fake("b"), hold_s=30))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def fill(world: World) -> None:
        if world.now_s >= 103:
            monkeypatch.setattr(Writer, "write", full)
            monkeypatch.setattr(UndoJournal, "note", full)

    it.world.on_pause = fill
    it.play()
    assert it.world.done[-2:] == [(6.0, "heal a"), (32.0, "heal b")]


@dataclass(frozen=True, kw_only=True)
class Terminated(Fake):
    """Whoever ends the process does it while this injury is landing."""

    @contextmanager
    def inject(self, cell: Any) -> Iterator[Landed]:
        signal.raise_signal(signal.SIGTERM)
        with super().inject(cell) as landed:
            yield landed


@pytest.fixture
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_handlers")
def test_in_the_end_nodes_that_are_off_are_started_unless_nothing_was_injured(stage: Callable[..., Stage]) -> None:
    it = stage(at(1, fake("a"), hold_s=2))
    it.play()
    assert it.world.started == ["i-1"]
    it = stage(at(1, fake("a"), hold_s=2), broken={"inject a"})
    it.play()
    assert it.world.started == []


def test_one_volume_is_not_injured_by_two_faults_at_once() -> None:
    assert _holds(volume_hangs()) & _holds(volume_slow(latency_ms=1))
    assert _holds(address_moved("pbx-1")) & _holds(address_taken())
    assert not _holds(volume_hangs()) & _holds(power_off("pbx-1"))


def test_the_process_heals_on_sigterm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = UndoJournal(tmp_path / "undo.jsonl")
    world = World(journal=journal)
    monkeypatch.setitem(sys.modules, "harness.cell.cell", cast(Any, SimpleNamespace(load=lambda name: world)))
    plan = tmp_path / "plan.json"
    step: Any = Terminated(target="a")
    plan.write_text(json.dumps(plan_rows([at(0, step, hold_s=600)])))
    out = tmp_path / "nemesis.jsonl"
    argv = ["nemesis", "--cell", "c", "--plan", str(plan), "--journal", str(journal.path), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", [*argv, "--steady-ns", "0"])
    assert main() == 0
    assert [what for _, what in world.done] == ["inject a", "heal a"]
    assert [op.type for op in history.read(out)] == ["invoke", "ok", "invoke", "ok"]


class TestUndoJournal:
    def test_what_is_open_is_healed_by_another_process(self, tmp_path: Path) -> None:
        mine = UndoJournal(tmp_path / "undo.jsonl")
        for number, name in enumerate("abc"):
            mine.note(number, "planned", fake(name))
        mine.note(1, "healed", fake("b"))
        world = World()
        assert UndoJournal(mine.path).heal_all(cast(Any, world)) == ["fake c", "fake a"]
        assert [what for _, what in world.done] == ["heal c", "heal a"]
        assert mine.open_injuries() == []

    def test_one_that_can_not_be_healed_stops_no_other(self, tmp_path: Path) -> None:
        journal = UndoJournal(tmp_path / "undo.jsonl")
        for number, name in enumerate("ab"):
            journal.note(number, "landed", fake(name))
        world = World(broken={"heal b"})
        with pytest.raises(InfrastructureError, match="can't be healed"):
            journal.heal_all(cast(Any, world))
        assert [what for _, what in world.done] == ["heal a"]
        assert [n for n, _ in journal.open_injuries()] == [1]

    def test_a_fault_nobody_knows_any_more_is_named(self, tmp_path: Path) -> None:
        journal = UndoJournal(tmp_path / "undo.jsonl")
        journal.note(0, "planned", fake("a"))
        journal.path.write_text(journal.path.read_text().replace(":Fake", ":Forgotten"))
        with pytest.raises(InfrastructureError, match="Forgotten"):
            journal.heal_all(cast(Any, World()))

    def test_a_torn_line_spoils_neither_what_was_before_nor_what_comes(self, tmp_path: Path) -> None:
        journal = UndoJournal(tmp_path / "undo.jsonl")
        journal.note(0, "planned", fake("a"))
        with journal.path.open("a") as file:
            file.write('{"n":1,"state":"pla')
        assert [n for n, _ in journal.open_injuries()] == [0]
        journal.note(2, "planned", fake("c"))
        assert [n for n, _ in journal.open_injuries()] == [2, 0]

    def test_without_a_file_nothing_is_open(self, tmp_path: Path) -> None:
        assert UndoJournal(tmp_path / "none").heal_all(cast(Any, SimpleNamespace())) == []

    def test_a_real_fault_survives_the_way_through_the_journal(self, tmp_path: Path) -> None:
        journal = UndoJournal(tmp_path / "undo.jsonl")
        journal.note(0, "planned", power_off("pbx-1"))
        assert journal.open_injuries() == [(0, power_off("pbx-1"))]
