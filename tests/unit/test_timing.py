"""Timing profiles: what a file may say, what is drawn from it, and what it is called in a headline."""

from __future__ import annotations

from pathlib import Path
from random import Random
from statistics import median

import pytest

from harness import catalogue
from harness.errors import UsageError
from harness.region.timing import BESIDE, FAILOVER, INSTANT, OPERATIONS, Delay, Delays, Timing, read_timing

SHIPPED = sorted(path.stem for path in catalogue.TIMINGS.glob("*.toml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_what_is_shipped_can_be_read_and_is_called_by_its_file(name: str) -> None:
    timing = read_timing(catalogue.timing_path(name))
    assert timing.name == name
    assert all(delay.draw(Random(0)) >= 0 for delay in timing.delay.values())


def test_the_aws_profile_covers_every_operation_and_says_that_it_is_assumed() -> None:
    aws = read_timing(catalogue.timing_path("aws"))
    assert set(aws.delay) == set(OPERATIONS)
    assert aws.label == "aws (assumed)"
    assert aws.allowance_s == pytest.approx(sum(aws.delay[name].p95_s or 0 for name in FAILOVER))


def test_instant_adds_nothing_and_is_what_its_file_says() -> None:
    assert read_timing(catalogue.timing_path("instant")) == INSTANT
    assert {Delays().draw(name) for name in OPERATIONS} == {0.0}
    assert (INSTANT.label, INSTANT.allowance_s, INSTANT.assumed) == ("instant", 0.0, ())


def test_a_log_normal_has_the_median_and_the_percentile_it_was_given() -> None:
    delay, random = Delay(median_s=2, p95_s=6, max_s=60, source="a source"), Random(1)
    drawn = sorted(delay.draw(random) for _ in range(20_000))
    assert median(drawn) == pytest.approx(2, rel=0.03)
    assert drawn[19_000] == pytest.approx(6, rel=0.05)
    assert max(Delay(median_s=2, p95_s=6, max_s=3, source="x").draw(random) for _ in range(1000)) == 3


def test_draws_are_seeded_per_operation() -> None:
    aws = read_timing(catalogue.timing_path("aws"))
    one, same, other = (Delays(timing=aws, seed=seed) for seed in (1, 1, 2))
    drawn = [one.draw("attach") for _ in range(5)]
    same.draw("detach")
    assert [same.draw("attach") for _ in range(5)] == drawn
    assert [other.draw("attach") for _ in range(5)] != drawn


def test_a_held_delay_wins_until_it_is_let_go() -> None:
    delays = Delays()
    delays.hold({"address": 3.0})
    assert (delays.draw("address"), delays.draw("attach")) == (3.0, 0.0)
    delays.hold({})
    assert delays.draw("address") == 0.0
    with pytest.raises(ValueError, match="unknown delay 'adress'"):
        delays.hold({"adress": 1})


def test_only_thirty_real_samples_end_an_assumption() -> None:
    few, enough = Delay(source="measured", samples_s=(1.0,) * 29), Delay(source="measured", samples_s=(1.0,) * 30)
    assert (few.assumed, few.told) == (True, "assumed (measured)")
    assert (enough.assumed, enough.told) == (False, "measured")


@pytest.mark.parametrize("source", ["assumed", "Assumed ", "a blog", "eu-central-1, 2026-11, n=400"])
def test_a_delay_without_samples_is_assumed_however_its_source_is_spelled(source: str) -> None:
    delay = Delay(median_s=1, source=source)
    assert delay.assumed and delay.told.startswith("assumed")
    assert Timing(name="mine", delay={"attach": delay}).label == "mine (assumed)"


@pytest.mark.parametrize("absent", [*FAILOVER, "api", "consistency", "start", "reboot", "recover", "status_checks"])
def test_a_headline_says_assumed_while_anything_that_matters_is(absent: str) -> None:
    measured = {name: Delay(source="measured", samples_s=(1.0,) * 30) for name in OPERATIONS}
    assert Timing(name="mine", delay=measured).label == "mine"
    some = Timing(name="mine", delay={name: delay for name, delay in measured.items() if name != absent})
    assert (some.assumed, some.label) == ((absent,), "mine (assumed)")


def test_what_no_run_waits_for_need_not_be_measured() -> None:
    measured = {name: Delay(source="measured", samples_s=(1.0,) * 30) for name in OPERATIONS if name not in BESIDE}
    timing = Timing(name="mine", delay=measured)
    assert (timing.assumed, timing.label) == (BESIDE, "mine")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = ", "not TOML"),
        ('name = "x"\n[delay.atach]\nsource = "assumed"\n', "unknown delay 'atach'"),
        ('name = "x"\n[delay.attach]\nmedian_s = -1\nsource = "assumed"\n', "delay.attach.median_s"),
        ('name = "x"\n[delay.attach]\nmedian_s = 1\n', "delay.attach.source"),
        ('name = "x"\n[delay.attach]\nmedian_s = 2\np95_s = 1\nsource = "a"\n', "p95_s is smaller"),
        ('name = "A B"\n', "name"),
    ],
)
def test_a_file_that_is_no_profile_is_told_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "t.toml").write_text(text)
    with pytest.raises(UsageError, match=words) as caught:
        read_timing(tmp_path / "t.toml")
    assert "\n" not in str(caught.value)
