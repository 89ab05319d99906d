"""What is known while a run goes on: new ops once, clocks that are fine, and the lines a person reads."""

from __future__ import annotations

from pathlib import Path

from harness.history import Op, Writer
from harness.live import Clock, Follower, Narrator
from tests.unit import synthetic
from tests.unit.synthetic import at, op, ownership


def ok(seconds: float, clock: str = "options") -> Op:
    return op(seconds, clock, "ok", {"n": 1})


def bad(seconds: float, clock: str = "options") -> Op:
    return op(seconds, clock, "info", {"n": 1}, error="nothing came back")


class TestFollower:
    def test_gives_every_op_once_in_order(self, tmp_path: Path) -> None:
        a, b = Writer(tmp_path / "a.jsonl"), Writer(tmp_path / "b.jsonl")
        follower = Follower(tmp_path)
        b.write(ok(1, "b"))
        a.write(ok(2, "a"))
        assert [o.f for o in follower.new()] == ["b", "a"]
        assert follower.new() == []
        a.write(bad(3))
        (new,) = follower.new()
        assert new == bad(3)

    def test_waits_for_the_rest_of_a_half_written_line(self, tmp_path: Path) -> None:
        follower = Follower(tmp_path)
        line = ok(1).to_json() + "\n"
        path = tmp_path / "a.jsonl"
        path.write_text(line[:20])
        assert follower.new() == []
        path.write_text(line)
        assert follower.new() == [ok(1)]

    def test_an_empty_folder_has_no_ops(self, tmp_path: Path) -> None:
        assert Follower(tmp_path).new() == []


class TestClock:
    def test_is_fine_since_the_first_good_answer_in_a_row(self) -> None:
        clock = Clock(name="options")
        assert clock.fine_for_s(at(9)) == 0
        for o in (bad(1), ok(2), ok(3), ok(4)):
            clock.feed(o)
        assert clock.fine_for_s(at(4.5)) == 2.0
        clock.feed(bad(5))
        assert clock.fine_for_s(at(5)) == 0

    def test_an_invocation_changes_nothing(self) -> None:
        clock = Clock(name="options")
        clock.feed(ok(1))
        clock.feed(op(2, "options", "invoke", {"n": 2}))
        assert clock.fine_for_s(at(3)) == 0.0
        assert clock.ok_since_ns == at(1)

    def test_a_probe_that_hangs_is_not_fine(self) -> None:
        clock = Clock(name="options")
        for seconds in range(10):
            clock.feed(ok(seconds))
        assert clock.fine_for_s(at(13)) == 9.0
        assert clock.fine_for_s(at(14.5)) == 0.0

    def test_describes_what_was_last_seen(self) -> None:
        clock = Clock(name="options")
        assert clock.describe() == "options: no good answer yet (nothing came back)"
        clock.feed(ok(1))
        assert clock.describe() == "options: fine"
        clock.feed(bad(2))
        assert clock.describe() == "options: 1 bad answers in a row (nothing came back)"


def lines(ops: list[Op], *, steady: bool = True) -> list[tuple[str, str]]:
    narrator = Narrator(clocks={"options": Clock(name="options"), "new_call": Clock(name="new_call")}, steady=steady)
    return [(kind, text) for o in ops for _, kind, text in narrator.tell(o)]


class TestNarrator:
    def test_tells_down_once_and_up_once(self) -> None:
        ops = [ok(1), bad(2), bad(3), bad(4), bad(5), ok(6), ok(7)]
        assert lines(ops) == [("down", "OPTIONS unanswered"), ("up", "OPTIONS ok again")]

    def test_two_lost_answers_are_no_news(self) -> None:
        assert lines([ok(1), bad(2), bad(3), ok(4)]) == []

    def test_tells_who_owns_what_only_when_it_changes(self) -> None:
        everyone = list(synthetic.NODES)
        ops = [
            ownership(1, ["pbx-1"], ["pbx-1"], "pbx-1", everyone),
            ownership(2, [], [], "pbx-1", everyone),
            ownership(3, ["pbx-2"], [], "pbx-1", everyone),
            ownership(4, ["pbx-2"], ["pbx-2"], "pbx-2", everyone),
            ownership(5, ["pbx-2"], ["pbx-2"], "pbx-2", everyone),
        ]
        assert lines(ops) == [("owner", "volume on pbx-2"), ("owner", "PBX on pbx-2"), ("owner", "address on pbx-2")]

    def test_tells_faults_and_heals_with_the_time_they_landed(self) -> None:
        narrator = Narrator(clocks={})
        told = [line for o in synthetic.nemesis_ops() for line in narrator.tell(o)]
        assert told == [
            (at(5.02), "FAULT", "power off active (pbx-1), region journal: links cut"),
            (at(36.0), "heal", "power off pbx-1 healed"),
        ]
        failed = op(5, "fault", "fail", {"n": 0, "name": "power off dc"}, error="no node is dc")
        assert list(narrator.tell(failed)) == [(at(5), "FAULT", "power off dc did not land: no node is dc")]

    def test_before_the_steady_state_it_only_watches(self) -> None:
        assert lines([bad(1), bad(2), bad(3), ok(4)], steady=False) == []
