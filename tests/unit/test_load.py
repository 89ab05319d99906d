"""SIPp's statistics and scenarios; SIPp itself is in tests/integration/test_load.py."""

from __future__ import annotations

import argparse
from xml.etree import ElementTree

import pytest

from harness.clients.load import (
    Load,
    Statistics,
    callee_argv,
    caller_argv,
    extensions,
    figures,
    injection,
    scenario,
    wall_s,
)

HEADER = (
    "StartTime;CurrentTime;TargetRate;CallRate(P);CallRate(C);TotalCallCreated;CurrentCall;SuccessfulCall(P);"
    "SuccessfulCall(C);FailedCall(P);FailedCall(C);Retransmissions(P);Retransmissions(C);\n"
)
LINES = (
    "2026-11-25\t09:00:00.000000\t1795597200.000000;2026-11-25\t09:00:01.004000\t1795597201.004000;"
    "5;4.98008;4.98008;5;5;0;0;0;0;0;0;\n"
    "2026-11-25\t09:00:00.000000\t1795597200.000000;2026-11-25\t09:00:02.004000\t1795597202.004000;"
    "5;5;4.99;10;8;2;2;0;0;3;3;\n"
)
LOAD = Load(
    to=("203.0.113.1", 5060), domain="pbx.test", callers=("1100", "1101"), callee="1150", password="s3cret",
    rate_cps=2.5, hold_s=10, limit=50, audio=False,
)  # fmt: skip


def test_statistics_are_read_as_they_grow() -> None:
    text = HEADER + LINES
    for size in (1, 10, len(text)):
        statistics = Statistics()
        rows = [row for at in range(0, len(text), size) for row in statistics.feed(text[at : at + size])]
        assert [wall_s(row) for row in rows] == [1795597201.004, 1795597202.004]
    assert figures(rows[1]) == {
        "target_cps": 5, "cps": 5, "current": 8, "created": 10, "ok": 2, "ok_total": 2, "failed": 0, "failed_total": 0,
        "retransmissions": 3, "retransmissions_total": 3,
    }  # fmt: skip


def test_a_line_that_is_not_finished_is_waited_for() -> None:
    statistics = Statistics()
    assert statistics.feed(HEADER + LINES[:50]) == []
    assert len(statistics.feed(LINES[50:])) == 2


def test_a_column_that_this_sipp_lacks_is_left_out() -> None:
    assert figures({"CurrentCall": "3", "CallRate(P)": "n/a"}) == {"current": 3}


@pytest.mark.parametrize("audio", [False, True])
def test_scenarios_are_filled_in_and_well_formed(audio: bool) -> None:
    play = '<nop><action><exec rtp_stream="/etc/load/tone.ulaw,-1,0"/></action></nop>' if audio else ""
    caller = scenario("caller", domain="pbx.test", hold_ms="5000", media_port="[media_port]", play=play)
    callee = scenario("callee", user="1150")
    for text in (caller, callee):
        assert ElementTree.fromstring(text).tag == "scenario"
    assert b"sip:[service]@pbx.test" in caller
    assert b'timeout="5000"' in caller


@pytest.mark.parametrize("name", ["caller", "callee"])
def test_both_sides_answer_what_a_pbx_that_recovers_calls_may_send(name: str) -> None:
    values = {"domain": "d", "hold_ms": "1", "media_port": "1", "play": "", "user": "1"}
    root = ElementTree.fromstring(scenario(name, **values))
    optional = {recv.get("request") for recv in root.iter("recv") if recv.get("optional") == "true"}
    assert {"INVITE", "UPDATE", "OPTIONS"} <= optional


def test_a_placeholder_that_is_left_is_refused() -> None:
    with pytest.raises(ValueError, match="HOLD_MS"):
        scenario("caller", domain="pbx.test", media_port="1", play="")


def test_the_password_is_in_a_file_only() -> None:
    argv = caller_argv(LOAD, local_ip="198.18.17.11") + callee_argv(
        LOAD, local_ip="198.18.17.11", port=40000, media_port=40002
    )
    assert "s3cret" not in " ".join(argv)
    assert "s3cret" not in repr(LOAD)
    assert injection(LOAD.callers, LOAD.password).decode().splitlines() == [
        "SEQUENTIAL",
        "1100;[authentication username=1100 password=s3cret]",
        "1101;[authentication username=1101 password=s3cret]",
    ]


def test_extensions_are_a_range_or_one() -> None:
    assert extensions("1100-1102") == ("1100", "1101", "1102")
    assert extensions("1100") == ("1100",)
    with pytest.raises(argparse.ArgumentTypeError):
        extensions("x-y")
