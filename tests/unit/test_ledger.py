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
    assert (result.verdict, result.why) == ("pass", "9 acknowledged, 0 lost; nothing was acknowledged: prompts")
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
    ops = [o for o in clean_ops() if not o.value.get("recorded")]
    result = ALWAYS_ON.check(replace(evidence_of(ops), data=rows))
    assert result.verdict == "pass"
    assert result.why == "6 acknowledged, 0 lost; not declared by the profile: recordings, prompts"


def test_a_kind_of_which_nothing_can_be_said_is_unknown() -> None:
    rows = data()
    del rows[0]["declared"]["recordings"]
    result = check(data=rows)
    said = "nothing can be said of any recording (1 acknowledged): recordings not declared by the profile"
    assert (result.verdict, result.why) == ("unknown", said)


@pytest.mark.parametrize("rows", [data(), [data()[0], {"kind": "prompts", "prompt": "900", "intact": True}]])
def test_a_run_in_which_nothing_was_acknowledged_is_unknown(rows: list[Row]) -> None:
    result = ALWAYS_ON.check(evidence_of([], data=rows))
    assert (result.verdict, result.why) == ("unknown", "nothing was acknowledged")


def test_a_declared_prompt_that_is_not_there_is_lost() -> None:
    result = check(data=without(lambda row: row.get("kind") == "prompts"))
    assert (result.verdict, result.why) == ("fail", "9 acknowledged, 0 lost: no prompt is there")


def listened(*calls: tuple[float, Any], rows: list[Row] | None = None) -> CheckResult:
    """The clean run with somebody who listens to the prompt; it was recognised before the fault at 5 s."""
    ops = [op(seconds, "prompt", kind, {"n": 1}) for seconds, kind in [(-2.0, "ok"), *calls]]
    ack = op(-2.0, "ack", "ok", {"kind": "prompt", "id": "900"}, process="prompt")
    return ALWAYS_ON.check(evidence_of([*clean_ops(), *ops, ack], data=data() if rows is None else rows))


@pytest.mark.parametrize(
    ("calls", "verdict", "why"),
    [
        ([(7.0, "info"), (14.0, "fail"), (20.0, "ok")], "pass", "10 acknowledged, 0 lost"),
        ([(14.0, "ok"), (20.0, "fail"), (23.0, "info")], "fail", "10 acknowledged, 1 lost: prompt 900"),
        (
            [(4.0, "ok"), (14.0, "info")],
            "unknown",
            "nothing can be said of any prompt (1 acknowledged): not promised yet",
        ),
    ],
)
def test_a_prompt_is_recognised_again_after_the_fault(calls: list[Any], verdict: str, why: str) -> None:
    result = listened(*calls)
    assert (result.verdict, result.why[: len(why)]) == (verdict, why)


def test_a_prompt_that_was_recognised_and_has_no_row_is_lost() -> None:
    other = [{"kind": "prompts", "prompt": "901", "intact": True}]
    result = listened((20.0, "ok"), rows=[*without(lambda row: row.get("kind") == "prompts"), *other])
    assert (result.verdict, result.why) == ("fail", "10 acknowledged, 1 lost: prompt 900")


@pytest.mark.parametrize(("size", "verdict"), [(0, "fail"), (24, "fail"), (25, "pass")])
def test_a_recording_in_progress_with_nothing_in_it_is_lost(size: int, verdict: str) -> None:
    up = op(-3.0, "call", "ok", {"call": "ip_phone-0", "call_id": "call-18", "recorded": True}, process="phones")
    rows = [{"kind": "logs", "log": "call-18", "event": "started"}]
    rows += [{"kind": "recordings", "recording": "d", "call": "call-18", "state": "running", "bytes": size}]
    assert ALWAYS_ON.check(evidence_of([*clean_ops(), up], data=[*data(), *rows])).verdict == verdict


OFFSET_NS = 1_700_000_000 * 10**9
OWN, OTHER = "sip:1000@198.18.7.9:40001;transport=tls", "sip:1000@198.18.7.9:40000;transport=tls"


def bound(contact: str | None, expires_s: float | None, told: dict[str, Any]) -> str:
    """The verdict on a run in which 1000 registers at 30 s for 600 s, and this row of it is found."""
    value = {"client": "1000", "kind": "desktop", "transport": "tls", "event": "registered", "took_ms": 20.0}
    value |= {"expires_s": 600, "contact": OWN} | told
    row: Row = {"kind": "database", "registration": "1000"} | ({"contact": contact} if contact else {})
    if expires_s is not None:
        row["expires_at"] = (at(expires_s) + OFFSET_NS) / 1e9
    head, *rows = without(lambda row: row.get("registration") == "1000")
    evidence = evidence_of([*clean_ops(), op(30.0, "client", "ok", value)])
    return ALWAYS_ON.check(replace(evidence, data=[head | {"wall_offset_ns": OFFSET_NS}, row, *rows])).verdict


@pytest.mark.parametrize(
    ("contact", "expires_s", "told", "verdict"),
    [
        (OWN, 630.0, {}, "pass"),
        (OWN, 627.5, {}, "pass"),  # whole seconds
        (OWN, 615.0, {}, "fail"),  # the refresh is lost
        (OWN, 615.0, {"took_ms": 13_000.0}, "pass"),  # accepted long before its answer came
        (OTHER, 630.0, {}, "fail"),  # the update is lost
        (OTHER, None, {}, "fail"),
        (OTHER, 645.0, {}, "pass"),  # a later one, whose answer never came
        ("<" + OWN.partition(";")[0] + ";alias=1~2>", 630.0, {}, "pass"),
        (None, 630.0, {}, "pass"),  # nothing can be said of it
        (None, 615.0, {}, "fail"),
        (None, None, {}, "pass"),
        (OTHER, 630.0, {"contact": None}, "pass"),  # rewritten by the PBX: not what the client asked for
    ],
)
def test_the_binding_is_the_one_that_was_acknowledged_last(
    contact: str | None, expires_s: float | None, told: dict[str, Any], verdict: str
) -> None:
    assert bound(contact, expires_s, told) == verdict


def test_the_register_clock_acknowledges_its_registration() -> None:
    value = {"n": 1, "code": 200, "latency_ms": 4.0, "user": "1997", "expires_s": 3600, "contact": "sip:1997@x:5070"}
    ack = acknowledged([op(1.0, "register_tls", "ok", value)])[0]
    assert (ack.kind, ack.id, ack.until_ns) == ("registration", "1997", at(3601.0))
    assert ack.detail == {"contact": "sip:1997@x:5070", "took_ms": 4.0}


def test_a_real_client_s_call_is_acknowledged_and_its_next_call_is_another() -> None:
    call = {"call": "webrtc-0", "kind": "webrtc", "transport": "wss", "caller": "1000", "callee": "1001"}

    def event(seconds: float, what: str, **more: Any) -> Any:
        return op(seconds, "call_event", "ok", {"call": "webrtc-0", "side": "callee", "event": what, **more})

    ops = [
        op(-8.0, "call", "invoke", call),
        op(-7.0, "call", "ok", {"call": "webrtc-0", "call_id": "x"}),
        event(-6.0, "registered", expires_s=3600),
        event(40.0, "bye_sent", code=481),
        event(45.0, "new_call_helped", helped=True),
        event(46.0, "bye_sent", code=200),
    ]
    found = acknowledged(ops)
    assert [(ack.kind, ack.detail.get("event")) for ack in found] == [("registration", None), ("log", "started")]
    assert found[0].until_ns == at(3594.0)
    ended = acknowledged([*ops[:3], event(40.0, "bye_sent", code=200)])
    assert [ack.kind for ack in ended] == ["registration", "log", "call_record", "log"]
