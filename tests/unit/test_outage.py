"""The interval of an outage, against blackouts whose true length is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from harness.checkers.outage import IN_A_ROW, MAX_SLIP_MS, find_outages, outage, p999
from harness.checkers.types import Evidence
from harness.history import Op, Pair
from harness.results import Outage

MS = 1_000_000
PERIOD_MS = 50
DEADLINE_MS = 500
START_NS = 1_000_000 * MS


def pair(n: int, kind: str, *, at_ms: float | None = None, took_ms: float = 1.0, send_ms: float = 0.0) -> Pair:
    sent_ns = START_NS + round((n * PERIOD_MS if at_ms is None else at_ms) * MS)
    invoke = Op(
        time_ns=sent_ns, process="p", f="options", type="invoke", value={"n": n, "send_ms": send_ms}, index=2 * n
    )
    if kind == "-":
        return Pair(invoke=invoke, end=None)
    took_ms = DEADLINE_MS if kind == "x" else took_ms
    end_type: Literal["ok", "fail", "info"] = "ok" if kind == "." else "info" if kind == "x" else "fail"
    ended_ns = sent_ns + round(took_ms * MS)
    end = Op(time_ns=ended_ns, process="p", f="options", type=end_type, value={"n": n}, index=2 * n + 1)
    return Pair(invoke=invoke, end=end)


def row(text: str) -> list[Pair]:
    """`.` answered in 1 ms, `x` nothing in time, `r` refused after 1 ms, `-` nobody waited for the end."""
    return [pair(n, kind) for n, kind in enumerate(text)]


def find(pairs: Sequence[Pair], late: Sequence[Op] = ()) -> list[Outage]:
    return find_outages(pairs, clock="options", deadline_s=DEADLINE_MS / 1000, period_s=PERIOD_MS / 1000, late=late)


UP = "." * 30


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (UP, 0),
        (UP + "xx" + UP, 0),
        (UP + "xxx" + UP, 1),
        (UP + "rxr" + UP, 1),
        (UP + "xx.xx.xx" + UP, 0),
        (UP + "xxx.x..xx" + UP, 1),
        (UP + "xxx...xxx" + UP, 2),
        (UP + "xxxx", 1),
        (UP + "xx", 0),
        ("xxx" + UP, 1),
        (UP + "------", 0),
        ("", 0),
    ],
)
def test_down_begins_and_ends_with_three_in_a_row(text: str, count: int) -> None:
    assert len(find(row(text))) == count


def test_both_bounds_are_the_defined_ones() -> None:
    found = find(row(UP + "xxxxx" + UP))
    assert len(found) == 1
    assert found[0].start_ns == START_NS + 29 * PERIOD_MS * MS
    assert found[0].end_ns == START_NS + (35 * PERIOD_MS + 1) * MS
    assert found[0].duration.upper_s == pytest.approx(0.301)
    assert found[0].duration.lower_s == pytest.approx(0.2 - 0.001)
    assert found[0].evidence == (58, 59, 60, 61, 68, 69, 70, 71)


def test_answers_inside_are_flapping_and_count_as_outage() -> None:
    found = find(row(UP + "xxx.x..xx" + UP))
    assert found[0].flapping == 3
    assert found[0].duration.upper_s == pytest.approx(0.501)


def test_an_outage_that_never_ends_is_watched_to_the_last_end() -> None:
    found = find(row(UP + "xxxxx.."))
    assert found[0].end_ns is None
    assert found[0].duration.upper_s == pytest.approx(5 * 0.05 + 0.5)


def test_an_outage_from_the_first_probe_on_says_so() -> None:
    found = find(row("xxxxx" + UP))
    assert found[0].began_before
    assert found[0].start_ns == START_NS


def test_without_a_baseline_the_deadline_is_the_normal_latency() -> None:
    found = find(row("." * 10 + "x" * 20 + UP))
    assert found[0].duration.lower_s == pytest.approx(19 * 0.05 - 0.5)


def test_an_ok_after_the_deadline_is_not_ok() -> None:
    slow = [pair(n, ".", took_ms=600) if 30 <= n < 35 else pair(n, ".") for n in range(60)]
    assert len(find(slow)) == 1


def test_late_answers_are_counted_within_their_outage() -> None:
    late = [
        Op(time_ns=0, process="p", f="options_late", type="info", value={"n": n, "latency_ms": 700}) for n in (2, 31)
    ]
    assert find(row(UP + "xxxx" + UP), late)[0].late == 1


def test_the_normal_latency_of_a_second_outage_knows_the_first_pause() -> None:
    slow_after = [
        pair(n, "x" if n in (30, 31, 32, 60, 61, 62, 63) else ".", took_ms=1 if n < 36 else 9) for n in range(90)
    ]
    first, second = find(slow_after)
    assert first.duration.lower_s == pytest.approx(0.1 - 0.001)
    assert second.duration.lower_s == pytest.approx(0.15 - 0.009)


def test_an_answer_that_overtakes_another_ends_the_outage() -> None:
    slow_first = row(UP + "xxxxx" + UP)
    slow_first[35] = pair(35, ".", took_ms=400)
    found = find(slow_first)[0]
    assert found.end_ns == START_NS + (36 * PERIOD_MS + 1) * MS
    assert found.evidence[-2:] == (72, 73)


def test_an_answer_that_waited_through_an_outage_is_not_normal() -> None:
    waited = row(UP + "xxx" + UP + "xxxx" + UP)
    waited[29] = pair(29, ".", took_ms=250)
    waited[33] = pair(33, ".", took_ms=250)
    first, second = find(waited)
    assert first.duration.lower_s == pytest.approx(0.1 - 0.001)
    assert second.duration.lower_s == pytest.approx(0.15 - 0.001)


def test_a_send_that_was_interrupted_counts_from_its_end() -> None:
    probes = row(UP + "xxxxx" + UP)
    probes[30] = pair(30, "x", send_ms=20)
    assert find(probes)[0].duration.lower_s == pytest.approx(0.2 - 0.02 - 0.001)


@pytest.mark.parametrize(("count", "rank"), [(1, 1), (20, 20), (999, 999), (1000, 999), (2000, 1998)])
def test_p999_is_the_nearest_rank(count: int, rank: int) -> None:
    assert p999(list(range(count, 0, -1))) == rank


# --- planted blackouts -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class World:
    """Probes through one point that drops, from `begin_ms` for `length_ms`, what `drops` says. Times in ms."""

    begin_ms: float
    length_ms: float
    drops: Literal["requests", "replies", "both", "nothing, but holds requests"] = "both"
    forth_ms: Sequence[float] = ()
    back_ms: Sequence[float] = ()
    slip_ms: Sequence[float] = ()
    stamp_ms: Sequence[float] = ()
    lost: frozenset[int] = field(default_factory=frozenset)
    slow: frozenset[int] = field(default_factory=frozenset)

    @property
    def end_ms(self) -> float:
        return self.begin_ms + self.length_ms

    @property
    def count(self) -> int:
        return math.ceil(self.end_ms / PERIOD_MS) + DEADLINE_MS // PERIOD_MS + 30

    def gone(self, at_ms: float) -> bool:
        return self.begin_ms <= at_ms < self.end_ms

    def at(self, values: Sequence[float], n: int, default: float) -> float:
        return values[n % len(values)] if values else default

    def sent_ms(self, n: int) -> float:
        return n * PERIOD_MS + self.at(self.slip_ms, n, 0.0)

    def latency_ms(self, n: int) -> float | None:
        """None: no answer ever."""
        forth, back = self.at(self.forth_ms, n, 0.5), self.at(self.back_ms, n, 0.5)
        if n == 0:
            forth, back = max([forth, *self.forth_ms]), max([back, *self.back_ms])
        reaches = self.sent_ms(n) + forth
        if n in self.lost:
            return None
        if self.drops.startswith("nothing"):
            held = self.end_ms - reaches if self.gone(reaches) else 0.0
            return forth + held + back
        if self.drops != "replies" and self.gone(reaches):
            return None
        if self.drops != "requests" and self.gone(reaches + back / 2):
            return None
        return forth + back + (600 if n in self.slow else 0)

    def pairs(self) -> list[Pair]:
        made = []
        for n in range(self.count):
            latency = self.latency_ms(n)
            early = self.at(self.stamp_ms, n, 0.0)
            kind = "." if latency is not None and latency + early <= DEADLINE_MS else "x"
            took = (latency or 0.0) + early
            made.append(pair(n, kind, at_ms=self.sent_ms(n) - early, took_ms=took, send_ms=early))
        return made

    def bad(self) -> list[int]:
        """Probes that failed for a reason of their own."""
        return sorted(self.lost | self.slow)


lengths = st.floats(min_value=200, max_value=5000)
begins = st.floats(min_value=2000, max_value=2100)
jitter = st.lists(st.floats(min_value=0.05, max_value=8), min_size=1, max_size=40)
worlds = st.builds(
    World,
    begin_ms=begins,
    length_ms=lengths,
    drops=st.sampled_from(("requests", "replies", "both")),
    forth_ms=jitter,
    back_ms=jitter,
)

edge_worlds = st.builds(
    World,
    begin_ms=st.floats(min_value=0, max_value=8).map(lambda late: 40 * PERIOD_MS + late),
    length_ms=st.builds(
        lambda n, short: n * PERIOD_MS - short,
        st.integers(min_value=5, max_value=99),
        st.floats(min_value=0, max_value=5),
    ),
    drops=st.sampled_from(("replies", "both")),
    forth_ms=st.just((0.05, 0.2)),
    back_ms=st.lists(st.floats(min_value=0.05, max_value=16), min_size=1, max_size=40),
)
"""A reply lost at the very beginning, a request at the very end: f sent to l sent is longer than the blackout."""


def around(found: Sequence[Outage], world: World) -> Outage:
    """The outage that the blackout is in."""
    begin_ns, end_ns = START_NS + round(world.begin_ms * MS), START_NS + round(world.end_ms * MS)
    hits = [o for o in found if o.start_ns <= begin_ns and (o.end_ns is None or o.end_ns >= end_ns)]
    assert len(hits) == 1, found
    return hits[0]


@given(worlds | edge_worlds)
@settings(max_examples=250, deadline=None)
def test_the_truth_is_inside_and_the_width_is_two_periods_and_latency(world: World) -> None:
    seen = around(find(world.pairs()), world)
    assert world.length_ms / 1000 in seen.duration
    latency_ms = max(world.forth_ms) + max(world.back_ms)
    assert seen.duration.width_s <= (2 * PERIOD_MS + 2 * latency_ms) / 1000 + 1e-6
    assert seen.flapping == 0


@given(worlds, st.lists(st.floats(min_value=0, max_value=24), min_size=1, max_size=40), jitter)
@settings(max_examples=120, deadline=None)
def test_sends_that_slip_or_are_interrupted_widen_but_never_miss(
    world: World, slips: list[float], stamps: list[float]
) -> None:
    slipping = replace(world, slip_ms=[slip + 8 for slip in slips], stamp_ms=stamps)
    assume(world.length_ms >= 250)
    seen = around(find(slipping.pairs()), slipping)
    assert world.length_ms / 1000 in seen.duration


@given(worlds, st.sets(st.integers(min_value=0, max_value=170), max_size=12), st.booleans())
@settings(max_examples=150, deadline=None)
def test_single_losses_and_late_answers_never_make_the_bounds_lie(world: World, places: set[int], slow: bool) -> None:
    singles = frozenset(n for n in places if n - 1 not in places and n - 2 not in places)
    noisy = replace(world, slow=singles) if slow else replace(world, lost=singles)
    seen = around(find(noisy.pairs()), noisy)
    assert seen.duration.upper_s >= world.length_ms / 1000
    first, last = (noisy.sent_ms(n) for n in (_first_of(seen, noisy), _last_of(seen, noisy)))
    hull_ms = max(noisy.end_ms, last) - min(noisy.begin_ms, first)
    assert seen.duration.lower_s <= hull_ms / 1000 + 1e-6
    near = [n for n in noisy.bad() if _near(n, noisy)]
    if not near:
        assert world.length_ms / 1000 in seen.duration


def _near(n: int, world: World) -> bool:
    """Too near an edge to be told from the outage: no k good answers between them."""
    edge_ms = (IN_A_ROW + 2) * PERIOD_MS
    return world.begin_ms - edge_ms <= world.sent_ms(n) <= world.end_ms + edge_ms


def _first_of(seen: Outage, world: World) -> int:
    return (seen.start_ns - START_NS) // MS // PERIOD_MS + 1


def _last_of(seen: Outage, world: World) -> int:
    assert seen.end_ns is not None
    return math.ceil((seen.end_ns - START_NS) / MS / PERIOD_MS) - 1


@given(
    st.builds(
        World,
        begin_ms=begins,
        length_ms=st.floats(min_value=DEADLINE_MS + 4 * PERIOD_MS, max_value=5000),
        drops=st.just("nothing, but holds requests"),
        forth_ms=jitter,
        back_ms=jitter,
    )
)
@settings(max_examples=60, deadline=None)
def test_a_pause_that_answers_everything_afterwards_is_an_outage_too(world: World) -> None:
    seen = around(find(world.pairs()), world)
    assert world.length_ms / 1000 in seen.duration


# --- the verdict -------------------------------------------------------------------------------------------------


def evidence(
    text: str, *, limit_s: float | None = None, steady_n: int = 10, slips: dict[int, float] | None = None
) -> Evidence:
    probes = row(text)
    ops = []
    for n, probe in enumerate(probes):
        slip = (slips or {}).get(n, 0.5)
        value = probe.invoke.value | {"slip_ms": slip} | ({"slipped": True} if slip > PERIOD_MS / 2 else {})
        ops.append(replace(probe.invoke, value=value))
        ops += [probe.end] if probe.end else []
    return Evidence(
        ops=ops,
        clocks=["options"],
        faults=[],
        steady_ns=START_NS + steady_n * PERIOD_MS * MS,
        end_ns=ops[-1].time_ns,
        outages={"options": find(probes)},
        limits={"outage_limit_s": limit_s},
    )


DOWN = UP + "x" * 20 + UP  # 0.95-1.05 s


@pytest.mark.parametrize(
    ("text", "limit_s", "verdict", "says"),
    [
        (UP, 1.0, "pass", "no outage"),
        (DOWN, 1.2, "pass", "limit 1.2 s"),
        (DOWN, 0.9, "fail", "limit 0.9 s"),
        (DOWN, 1.0, "unknown", "lies inside"),
        (DOWN, None, "pass", "no limit"),
        (UP + "x" * 60, 1.0, "fail", "never ended"),
        (UP + "x" * 60, 60.0, "unknown", "not long enough"),
        (UP + "x" * 60, None, "fail", "never ended"),
        ("x" * 20 + UP, 0.1, "pass", "no outage"),
        ("x" * 40 + UP, 0.1, "fail", "limit 0.1 s"),
    ],
)
def test_verdict(text: str, limit_s: float | None, verdict: str, says: str) -> None:
    result = outage().check(evidence(text, limit_s=limit_s, steady_n=25 if text.startswith("x") else 10))
    assert (result.verdict, says in result.why) == (verdict, True), result.why
    assert result.metrics["limit_s"] == limit_s


def test_an_own_limit_goes_before_the_policys() -> None:
    assert outage(limit_s=2).check(evidence(DOWN, limit_s=0.1)).verdict == "pass"


def test_a_clock_that_was_down_from_the_start_passes_nothing() -> None:
    result = outage(limit_s=60).check(evidence("x" * 40 + UP, steady_n=10))
    assert result.verdict == "unknown"
    assert "nobody saw" in result.why


def test_a_host_that_sends_late_measures_nothing() -> None:
    many = dict.fromkeys(range(0, 80, 8), 30.0)
    result = outage(limit_s=60).check(evidence(DOWN, slips=many))
    assert result.verdict == "unknown"
    assert "half a period" in result.why


def test_one_very_late_send_matters_only_while_down() -> None:
    long = "." * 500 + "x" * 20 + "." * 500
    assert outage(limit_s=60).check(evidence(long, slips={510: MAX_SLIP_MS + 1})).verdict == "unknown"
    assert outage(limit_s=60).check(evidence(long, slips={100: MAX_SLIP_MS + 1})).verdict == "pass"


def test_no_clock_is_no_pass() -> None:
    nothing = replace(evidence(UP), clocks=[], outages={})
    assert outage(limit_s=1).check(nothing).verdict == "unknown"


@pytest.mark.parametrize("limit_s", [0, -1])
def test_a_limit_that_nothing_can_keep_is_refused(limit_s: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        outage(limit_s=limit_s)


@pytest.mark.parametrize("steady_ns", [None, 0])
def test_no_outage_without_a_good_answer_is_not_measured(steady_ns: int | None) -> None:
    nothing = Evidence(ops=(), clocks=("options",), faults=(), steady_ns=steady_ns, end_ns=10)
    result = outage(limit_s=10).check(nothing)
    assert result.verdict == "unknown"
    assert "nothing was measured on options" in result.why
