"""The ledger: a clean run passes, one thing lost of each kind is found, and what nobody could know stays unknown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from harness.checkers.ledger import ALWAYS_ON
from harness.checkers.types import Evidence
from harness.ledger import acknowledged, figures
from harness.results import CheckResult
from tests.unit.synthetic import END_S, at, clean, clean_ops, data, evidence_of, op

Row = dict[str, Any]


def check(**changes: Any) -> CheckResult:
    return ALWAYS_ON.check(replace(clean(), **changes))


def without(gone: Callable[[Row], bool]) -> list[Row]:
    return [row for row in data() if not gone(row)]


def test_a_clean_run_passes_and_counts_what_was_acknowledged() -> None:
    result = check()
    assert (result.verdict, result.why) == ("pass", "9 acknowledged, 0 lost")
    assert figures(clean()) == {
        "registration": {"acknowledged": 2, "found": 2, "lost": 0, "unknown": 0},
        "call_record": {"acknowledged": 3, "found": 3, "lost": 0, "unknown": 0},
        "log": {"acknowledged": 3, "found": 3, "lost": 0, "unknown": 0},
        "recording": {"acknowledged": 1, "found": 1, "lost": 0, "unknown": 0},
    }


@pytest.mark.parametrize(
    ("kind", "gone"),
    [
        ("registration 1000", lambda row: row.get("registration") == "1000"),
        ("call_record call-16", lambda row: row["kind"] == "database" and row.get("call") == "call-16"),
        ("log call-16", lambda row: row.get("log") == "call-16" and row["event"] == "ended"),
        ("recording call-10", lambda row: row.get("recording") == "a"),
    ],
)
def test_one_thing_lost_of_each_kind_fails_with_its_op(kind: str, gone: Callable[[Row], bool]) -> None:
    result = check(data=without(lambda row: "declared" not in row and gone(row)))
    assert result.verdict == "fail"
    assert result.why == f"9 acknowledged, 1 lost: {kind}"
    assert result.metrics[kind.split()[0]]["lost"] == 1
    assert len(result.evidence) == 1


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"kind": "logs", "torn": "EVENT 17"}, "half a line in the call log: 'EVENT 17'"),
        ({"kind": "recordings", "recording": "c", "call": "x", "state": "finished", "intact": False}, "recording c"),
        ({"kind": "prompts", "prompt": "901", "intact": False}, "prompt 901 is damaged"),
    ],
)
def test_what_is_there_and_not_whole_fails(row: Row, said: str) -> None:
    result = check(data=[*data(), row])
    assert result.verdict == "fail"
    assert said in result.why


def test_a_recording_that_the_fault_cut_must_be_there_and_need_not_be_whole() -> None:
    up = {"call": "ip_phone-0", "call_id": "call-17", "recorded": True}
    held = op(-3.0, "call", "ok", up, process="phones")
    logged = [{"kind": "logs", "log": "call-17", "event": "started"}]
    evidence = evidence_of([*clean_ops(), held])
    assert ALWAYS_ON.check(replace(evidence, data=[*data(), *logged])).verdict == "pass"
    result = ALWAYS_ON.check(replace(evidence, data=[*without(lambda row: row.get("recording") == "b"), *logged]))
    assert result.why == "11 acknowledged, 1 lost: recording call-17"


def test_what_phones_tell_is_acknowledged_too() -> None:
    call = {"call": "ip_phone-0", "kind": "ip_phone", "transport": "udp", "caller": "1000", "callee": "1001"}

    def event(seconds: float, side: str, what: str, **more: Any) -> Any:
        return op(seconds, "call_event", "ok", {"call": "ip_phone-0", "side": side, "event": what, **more})

    ops = [
        event(-9.0, "caller", "registered"),
        event(-9.0, "callee", "registered"),
        op(-8.0, "call", "invoke", call),
        op(-7.0, "call", "ok", {"call": "ip_phone-0", "call_id": "x"}),
        event(40.0, "caller", "bye_sent", code=200),
    ]
    client = {"client": "2000", "kind": "mobile", "transport": "tls", "event": "registered"}
    found = acknowledged(evidence_of([*ops, op(-5.0, "client", "ok", client)]).ops)
    assert [(ack.kind, ack.id, ack.detail) for ack in found] == [
        ("registration", "1000", {}),
        ("registration", "1001", {}),
        ("registration", "2000", {}),
        ("log", "x", {"event": "started"}),
        ("call_record", "x", {}),
        ("log", "x", {"event": "ended"}),
    ]
    assert [ack.until_ns for ack in found[:3]] == [at(3591.0), at(3591.0), at(295.0)]


def test_a_bye_that_was_refused_or_never_answered_is_no_acknowledgement() -> None:
    refused = [
        op(1.0, "new_call_bye", "ok", {"n": 1, "call_id": "x", "code": 481}),
        op(1.0, "call_event", "ok", {"call": "c", "side": "caller", "event": "bye_sent", "code": None}),
    ]
    assert acknowledged(refused) == []


def registered(seconds: float, expires_s: float) -> Evidence:
    """The clean run in which 1000 registers once more, and nothing of it is found in the end."""
    value = {"kind": "registration", "id": "1000", "expires_s": expires_s}
    evidence = evidence_of([*clean_ops(), op(seconds, "ack", "ok", value)])
    return replace(evidence, data=without(lambda row: row.get("registration") == "1000"))


@pytest.mark.parametrize(
    ("seconds", "expires_s", "verdict"),
    [
        (30.0, 120, "fail"),
        (30.0, 10, "pass"),  # it has expired
        (30.0, 0, "pass"),  # it was taken back
        (4.99, 120, "fail"),  # durable when it was answered
    ],
)
def test_the_last_registration_counts_until_it_expires(seconds: float, expires_s: float, verdict: str) -> None:
    assert ALWAYS_ON.check(registered(seconds, expires_s)).verdict == verdict


@pytest.mark.parametrize(
    ("seconds", "verdict"),
    [(4.2, "fail"), (4.8, "pass"), (5.01, "pass"), (5.3, "fail"), (END_S, "fail"), (END_S + 0.8, "pass")],
)
def test_nothing_is_promised_within_the_declared_bound(seconds: float, verdict: str) -> None:
    line = op(seconds, "ack", "ok", {"kind": "log", "id": "x"})
    result = ALWAYS_ON.check(evidence_of([*clean_ops(), line]))
    assert result.verdict == verdict
    assert result.metrics["log"]["unknown"] == (1 if verdict == "pass" else 0)


def test_what_could_not_be_read_back_is_unknown() -> None:
    rows = [*without(lambda row: row.get("kind") == "database"), {"kind": "database", "error": "no answer"}]
    result = check(data=rows)
    assert (result.verdict, result.why) == ("unknown", "database could not be read back: no answer")
    assert result.metrics["registration"] == {"acknowledged": 2, "found": 0, "lost": 0, "unknown": 2}


def test_a_loss_counts_more_than_what_could_not_be_read() -> None:
    rows = without(lambda row: row.get("kind") in ("logs", "recordings"))
    assert check(data=[*rows, {"kind": "logs", "error": "no answer"}]).verdict == "fail"


@pytest.mark.parametrize(
    ("rows", "said"),
    [([], "was not read back"), ([{"declared": {}, "node": "pbx-2", "read_ns": 1}], "does not declare")],
)
def test_nothing_read_or_declared_is_unknown(rows: list[Row], said: str) -> None:
    result = check(data=rows)
    assert result.verdict == "unknown"
    assert said in result.why


def test_what_is_not_declared_is_named() -> None:
    rows = data()
    del rows[0]["declared"]["prompts"], rows[0]["declared"]["recordings"]
    result = check(data=rows)
    assert result.verdict == "pass"
    assert result.why == (
        "9 acknowledged, 0 lost; of 1 nothing is promised: undeclared, or younger than the declared bound; "
        "not declared by the profile: recordings, prompts"
    )
