"""RFC 6076 from planted attempts, span by span."""

from __future__ import annotations

from typing import Any

import pytest

from harness.history import Op
from harness.results import Interval, Outage
from harness.sip_figures import figures
from tests.unit import synthetic
from tests.unit.synthetic import at, op


def call(n: int, sent: float, code: int | None, *, took: float = 0.2, **value: Any) -> list[Op]:
    kind = "ok" if code == 200 else "info" if code is None else "fail"
    end = {"n": n, **({} if code is None else {"code": code}), **value}
    return [op(sent, "new_call", "invoke", {"n": n}), op(sent + took, "new_call", kind, end)]


def bye(n: int, answered: float, code: int = 200, *, process: str = "new_call", **delays: float) -> Op:
    delays = {"sdd_ms": 4.0, "sdt_ms": 120.0} | delays
    return op(answered, "new_call_bye", "ok", {"n": n, "code": code, **delays}, process=process)


def register(n: int, sent: float, code: int | None, *, took: float = 0.01) -> list[Op]:
    kind = "ok" if code == 200 else "info" if code is None else "fail"
    return [op(sent, "register", "invoke", {"n": n}), op(sent + took, "register", kind, {"n": n})]


def of(ops: list[Op]) -> Any:
    return figures(synthetic.evidence_of([*ops, *synthetic.nemesis_ops()], outages={}))


def test_the_delays_are_quantiles_of_what_succeeded() -> None:
    calls = [o for n in range(20) for o in call(n, 1.0, 200, srd_ms=10.0 + n, setup_ms=50.0)]
    failed = [*call(20, 1.0, 503, srd_ms=900.0), *call(21, 1.0, None, srd_ms=700.0), *call(22, 1.0, 302, srd_ms=600.0)]
    refused_bye = bye(2, 1.4, 481, sdd_ms=5000.0, sdt_ms=5000.0)
    before = of([*calls, *failed, bye(1, 1.4), refused_bye])["before"]
    assert before["srd_s"] == {"p50": 0.019, "p95": 0.028, "n": 20}
    assert before["srd_failed_s"] == {"p50": 0.7, "p95": 0.9, "n": 2}
    assert (before["sdd_s"], before["sdt_s"]["p50"]) == ({"p50": 0.004, "p95": 0.004, "n": 1}, 0.12)
    assert before["scr_ratio"] == round(1 / 23, 4)


def test_a_bye_is_counted_with_the_attempt_whose_call_it_ended() -> None:
    landed = 5.02
    calls = [*call(1, landed - 0.5, 200), *call(2, landed - 1.5, 200), *call(3, landed + 0.5, None)]
    other = bye(3, landed + 0.4, process="another")
    warm_up = [*call(4, -0.2, 200), bye(4, 0.3)]
    outage = Outage(clock="x", start_ns=at(5), end_ns=at(9), duration=Interval(lower_s=3, upper_s=4))
    ops = [*calls, *warm_up, bye(1, landed + 0.1), bye(2, landed - 1.0), other, *synthetic.nemesis_ops()]
    found = figures(synthetic.evidence_of(ops, outages={"x": [outage]}))
    assert found is not None
    assert (found["before"]["sessions"], found["before"]["scr_ratio"], found["before"]["sdd_s"]["n"]) == (2, 1.0, 2)
    assert (found["during"]["ser_ratio"], found["during"]["scr_ratio"], found["during"]["sdd_s"]) == (0.0, 0.0, None)


def test_an_attempt_that_this_host_had_no_port_for_is_no_failure_of_the_system() -> None:
    lost = [o for n in range(3) for o in call(n, 1.0, None, took=0.0, reached="no port")]
    found = of([*lost, *call(9, 1.0, 200)])["before"]
    assert (found["sessions"], found["host_failures"]) == (1, 3)
    assert (found["ser_ratio"], found["isa_ratio"]) == (1.0, 0.0)
    only = of(lost)["before"]
    assert (only["sessions"], only["host_failures"], only["ser_ratio"], only["isa_ratio"]) == (0, 3, None, None)


@pytest.mark.parametrize(
    ("codes", "ser", "seer", "isa"),
    [
        ([200, 200], 1.0, 1.0, 0.0),
        ([200, 486], 0.5, 1.0, 0.0),
        ([200, 404], 0.5, 0.5, 0.0),
        ([200, 503], 0.5, 0.5, 0.5),
        ([200, None], 0.5, 0.5, 0.5),
        ([200, 302], 1.0, 1.0, 0.0),
        ([302], None, None, 0.0),
    ],
)
def test_ratios_of_sessions(codes: list[int | None], ser: float | None, seer: float | None, isa: float) -> None:
    found = of([o for n, code in enumerate(codes) for o in call(n, 1.0, code)])["before"]
    assert (found["ser_ratio"], found["seer_ratio"], found["isa_ratio"]) == (ser, seer, isa)


def test_registrations() -> None:
    found = of([*register(1, 1.0, 200), *register(2, 2.0, 503), *register(3, 3.0, None), *register(4, 4.0, 200)])
    assert found["before"]["rrd_s"] == {"p50": 0.01, "p95": 0.01, "n": 2}
    assert found["before"]["ira_ratio"] == 0.5


def test_an_attempt_belongs_to_the_span_it_was_sent_in() -> None:
    found = figures(synthetic.clean())
    assert found is not None
    assert found["before"]["sessions"] and found["after"]["sessions"]
    assert (found["before"]["ser_ratio"], found["during"]["isa_ratio"]) == (0.0, 1.0)  # synthetic answers have no code


def test_what_was_sent_while_the_fault_was_striking_is_not_before_it() -> None:
    found = of([*register(1, 4.9, 200), *register(2, 5.01, None)])  # asked for at 5.0, seen to have landed at 5.02
    assert (found["before"]["registrations"], found["before"]["ira_ratio"]) == (1, 0.0)


def test_without_attempts_there_are_no_figures() -> None:
    assert of([]) is None
    found = of(register(1, 1.0, 200))
    assert found["before"]["srd_s"] is None and found["before"]["ser_ratio"] is None
    assert found["after"]["ira_ratio"] is None
