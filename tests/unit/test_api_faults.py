"""Faults of the API: which calls a rule is for, when it strikes, and that the next gateway goes on with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.region.api_faults import ApiFaults, Rule
from harness.region.calls import Call


def call(action: str = "AttachVolume", service: str = "ec2") -> Call:
    return Call(service=service, action=action, params={}, access_key_id="", source="", request_id="r")


def struck(faults: ApiFaults, moments: list[float], who: str = "pbx-1") -> list[bool]:
    return [faults.decide(call(), who, moment) is not None for moment in moments]


def one(**given: Any) -> ApiFaults:
    faults = ApiFaults()
    faults.set([Rule(**{"id": "r", "kind": "throttle", **given})], now_s=100)
    return faults


@pytest.mark.parametrize(
    ("rule", "service", "action", "who", "meant"),
    [
        ({}, "ec2", "AttachVolume", "pbx-1", True),
        ({}, "ssm", "SendCommand", "pbx-1", True),
        ({}, "ec2", "AttachVolume", "harness", False),
        ({"callers": ("harness",)}, "ec2", "AttachVolume", "harness", True),
        ({"callers": ("harness", "*")}, "ec2", "AttachVolume", "harness", True),
        ({"callers": ("pbx-2", "pbx-3")}, "ec2", "AttachVolume", "pbx-1", False),
        ({"callers": ("pbx-*",)}, "ec2", "AttachVolume", "pbx-1", True),
        ({"actions": ("Describe*", "Attach*")}, "ec2", "AttachVolume", "pbx-1", True),
        ({"actions": ("Describe*",)}, "ec2", "AttachVolume", "pbx-1", False),
        ({"services": ("ssm",)}, "ec2", "AttachVolume", "pbx-1", False),
    ],
)
def test_which_calls(rule: dict[str, Any], service: str, action: str, who: str, meant: bool) -> None:
    assert (one(**rule).decide(call(action, service), who, 100) is not None) == meant


@pytest.mark.parametrize(
    ("rule", "moments", "expected"),
    [
        ({}, [100, 1000], [True, True]),
        ({"count": 2}, [100, 101, 102], [True, True, False]),
        ({"from_s": 2}, [100, 101.9, 102], [False, False, True]),
        ({"from_s": 2, "until_s": 3}, [101, 102, 102.9, 103], [False, True, True, False]),
        ({"until_s": 5, "count": 1}, [104, 104.5], [True, False]),
        ({"probability": 1.0}, [100], [True]),
    ],
)
def test_when(rule: dict[str, Any], moments: list[float], expected: list[bool]) -> None:
    assert struck(one(**rule), moments) == expected


def test_a_probability_is_seeded_and_about_right() -> None:
    moments = [100.0] * 1000
    first = struck(one(probability=0.3, seed=7), moments)
    assert first == struck(one(probability=0.3, seed=7), moments)
    assert first != struck(one(probability=0.3, seed=8), moments)
    assert 250 < sum(first) < 350


def test_the_first_rule_that_strikes_has_the_call() -> None:
    faults = ApiFaults()
    faults.set([Rule(id="a", kind="reset", count=1), Rule(id="b", kind="throttle")], now_s=0)
    found = [faults.decide(call(), "pbx-1", 1) for _ in range(2)]
    assert [f.label for f in found if f] == ["a/reset", "b/throttle"]


def test_a_rule_is_removed_alone_and_tells_what_it_struck() -> None:
    faults = ApiFaults()
    faults.set([Rule(id="a", kind="reset", actions=("Nothing",)), Rule(id="b", kind="throttle")], now_s=0)
    struck(faults, [1, 2, 3])
    assert faults.clear(["b", "unknown"]) == {"b": 3}
    assert [row["id"] for row in faults.show(now_s=4)] == ["a"]


def test_rules_and_counters_outlive_the_gateway(tmp_path: Path) -> None:
    path = tmp_path / "api-faults.json"
    faults = ApiFaults.read(path)
    faults.set([Rule(id="a", kind="latency", latency_s=2, count=2, until_s=60)], now_s=100)
    assert struck(faults, [101]) == [True]
    assert struck(ApiFaults.read(path), [102, 103]) == [True, False]
    assert ApiFaults.read(path).show(now_s=110)[0]["age_s"] == 10


@pytest.mark.parametrize(
    ("kind", "code", "protocol", "expected"),
    [
        ("throttle", None, "ec2", ("RequestLimitExceeded", 503)),
        ("throttle", None, "json", ("ThrottlingException", 400)),
        ("throttle", None, "query", ("Throttling", 400)),
        ("server_error", None, "ec2", ("InternalError", 500)),
        ("server_error", "Unavailable", "ec2", ("Unavailable", 503)),
        ("expired_credentials", None, "ec2", ("RequestExpired", 400)),
        ("expired_credentials", "AuthFailure", "ec2", ("AuthFailure", 401)),
        ("expired_credentials", None, "json", ("ExpiredTokenException", 400)),
        ("expired_credentials", None, "query", ("ExpiredToken", 403)),
    ],
)
def test_the_error_is_the_services_own(kind: str, code: str | None, protocol: str, expected: tuple[str, int]) -> None:
    fault = one(kind=kind, code=code).decide(call(), "pbx-1", 100)
    error = fault.error(protocol) if fault else None
    assert error is not None and (error.code, error.status) == expected


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"id": "a"}, "needs 'kind'"),
        ({"id": "a", "kind": "throttle", "often": 1}, "no 'often'"),
        ({"id": "", "kind": "throttle"}, "id has 1 to 128"),
        ({"id": "a", "kind": "burn"}, "unknown kind 'burn'"),
        ({"id": "a", "kind": "throttle", "count": 0}, "count must be at least 1"),
        ({"id": "a", "kind": "throttle", "count": "3"}, "count must be a number"),
        ({"id": "a", "kind": "throttle", "probability": 1.5}, "probability"),
        ({"id": "a", "kind": "throttle", "from_s": 3, "until_s": 2}, "window"),
        ({"id": "a", "kind": "latency"}, "latency_s"),
        ({"id": "a", "kind": "throttle", "latency_s": 1}, "latency_s"),
        ({"id": "a", "kind": "throttle", "actions": "Attach*"}, "actions must be a list"),
        ({"id": "a", "kind": "reset", "code": "Unavailable"}, "no code"),
        ("a", "a rule is a mapping"),
    ],
)
def test_a_rule_that_is_none_is_refused(row: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Rule.of(row)
