"""Clients that came back in time pass; too few, too late, or nobody there is found."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.checkers.registrations import registrations_back
from harness.checkers.types import Evidence
from harness.history import Op
from tests.unit.synthetic import at, evidence_of, nemesis_ops, op, ownership_ops

LOST_S, FAULT_S = 8.0, 5.02


def event(seconds: float, client: int, name: str) -> Op:
    value = {"client": str(client), "kind": "desktop", "transport": "tls", "event": name}
    return op(seconds, "client", "ok", value, process="clients_desktop")


def storm(
    *, back: int, of: int = 100, back_s: float = 12.0, unmoved: int = 10, end_s: float = 120.0, counted_s: float = 120.0
) -> Evidence:
    """`of` clients lose their flow, `back` of them are registered again; `unmoved` others notice nothing; they are
    counted once a second for `counted_s`."""
    ops = [event(0.0, n, "registered") for n in range(of + unmoved)]
    ops += [event(LOST_S, n, "flow_down") for n in range(of)]
    ops += [event(back_s, n, "registered") for n in range(back)]
    ops += [op(float(s), "clients_desktop", "ok", {"up": of}, process="clients_desktop") for s in range(int(counted_s))]
    return evidence_of([*ops, *nemesis_ops()], end_ns=at(end_s))


def test_enough_in_time_pass() -> None:
    result = registrations_back(min_ratio=0.99, within_s=30).check(storm(back=99))
    assert result.verdict == "pass"
    assert result.why == "99 of 100 clients that lost their way were registered again within 30 s"
    assert result.metrics == {
        "registered": 110,
        "lost": 100,
        "back_in_time": 99,
        "within_s": 30,
        "unaware": 0,
        "ratio": 0.99,
    }


@pytest.mark.parametrize(
    "evidence",
    [
        lambda: storm(back=98),
        lambda: storm(back=0),
        lambda: storm(back=100, back_s=FAULT_S + 30.5),
    ],
    ids=["one too few", "nobody", "all, too late"],
)
def test_it_finds(evidence: Callable[[], Evidence]) -> None:
    assert registrations_back(min_ratio=0.99, within_s=30).check(evidence()).verdict == "fail"


def test_a_run_that_ended_before_the_limit_decides_nothing_but_what_it_saw() -> None:
    assert registrations_back(within_s=30).check(storm(back=50, end_s=20)).verdict == "unknown"
    assert registrations_back(within_s=30).check(storm(back=100, end_s=20)).verdict == "pass"


def test_nobody_registered_is_unknown_and_nobody_lost_is_fine() -> None:
    assert registrations_back().check(evidence_of(nemesis_ops())).verdict == "unknown"
    assert registrations_back().check(storm(back=0, of=0)).verdict == "pass"


@pytest.mark.parametrize(("of", "back"), [(0, 0), (100, 50), (100, 100)])
def test_counting_that_stopped_decides_nothing(of: int, back: int) -> None:
    result = registrations_back(within_s=60).check(storm(of=of, back=back, counted_s=15))
    assert (result.verdict, result.why) == (
        "unknown",
        "nobody counted the registered clients of kind desktop to the end",
    )


@pytest.mark.parametrize("wrong", [{"min_ratio": 0}, {"min_ratio": 1.1}, {"within_s": 0}])
def test_a_limit_that_is_none_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"min_ratio is|a limit is"):
        registrations_back(**wrong)


def test_who_does_not_know_that_its_connection_is_dead_has_lost_its_way() -> None:
    """The clean run's owners: the address moves from pbx-1 to pbx-2."""
    evidence = storm(back=100, unmoved=10)
    moved = evidence_of([*evidence.ops, *ownership_ops()], end_ns=evidence.end_ns)
    result = registrations_back(min_ratio=0.99, within_s=30).check(moved)
    assert (result.verdict, result.metrics["lost"], result.metrics["unaware"]) == ("fail", 110, 10)
