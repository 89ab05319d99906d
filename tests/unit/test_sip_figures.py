"""RFC 6076 from planted attempts, span by span."""

from __future__ import annotations

from typing import Any

import pytest

from harness.history import Op
from harness.sip_figures import figures
from tests.unit import synthetic
from tests.unit.synthetic import op


def call(n: int, sent: float, code: int | None, *, took: float = 0.2, **value: Any) -> list[Op]:
    kind = "ok" if code == 200 else "info" if code is None else "fail"
    end = {"n": n, **({} if code is None else {"code": code}), **value}
    return [op(sent, "new_call", "invoke", {"n": n}), op(sent + took, "new_call", kind, end)]


def register(n: int, sent: float, code: int | None, *, took: float = 0.01) -> list[Op]:
    kind = "ok" if code == 200 else "info" if code is None else "fail"
    return [op(sent, "register", "invoke", {"n": n}), op(sent + took, "register", kind, {"n": n})]


def of(ops: list[Op]) -> Any:
    return figures(synthetic.evidence_of([*ops, *synthetic.nemesis_ops()], outages={}))


def test_the_delays_are_quantiles_of_what_succeeded() -> None:
    calls = [o for n in range(20) for o in call(n, 1.0, 200, srd_ms=10.0 + n, setup_ms=50.0)]
    bye = op(1.4, "new_call_bye", "ok", {"n": 1, "code": 200, "sdd_ms": 4.0, "sdt_ms": 120.0})
    before = of([*calls, bye])["before"]
    assert before["srd_s"] == {"p50": 0.019, "p95": 0.028, "n": 20}
    assert (before["sdd_s"]["p50"], before["sdt_s"]["p50"]) == (0.004, 0.12)
    assert before["scr_ratio"] == 0.05


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


def test_without_attempts_there_are_no_figures() -> None:
    assert of([]) is None
    found = of(register(1, 1.0, 200))
    assert found["before"]["srd_s"] is None and found["before"]["ser_ratio"] is None
    assert found["after"]["ira_ratio"] is None
