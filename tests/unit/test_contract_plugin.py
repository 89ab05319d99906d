"""The contract never reaches AWS unasked, and says when two backends do not agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSPreparedRequest
from botocore.httpsession import URLLib3Session

from tests.contract import guard, plugin

PAID = {guard.VARIABLE: guard.CONSENT, "AWS_PROFILE": "me", "AWS_REGION": "eu-west-1"}


@pytest.mark.parametrize(
    ("asked", "environment", "why"),
    [
        (False, {}, "not asked for"),
        (False, PAID, "not asked for"),
        (True, {}, "costs money"),
        (True, PAID | {guard.VARIABLE: "yes"}, "costs money"),
        (True, {guard.VARIABLE: guard.CONSENT}, "credentials"),
        (True, {guard.VARIABLE: guard.CONSENT, "AWS_PROFILE": "me"}, "region"),
        (True, PAID, None),
    ],
)
def test_aws_is_reached_only_when_asked_for_and_paid(asked: bool, environment: dict[str, str], why: str | None) -> None:
    refused = guard.refusal(asked=asked, environment=environment)
    assert refused is None if why is None else refused is not None and why in refused


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:4566/", True),
        ("http://localhost:4566", True),
        ("http://198.18.4.1:4566/", True),
        ("http://203.0.113.9/", True),
        ("https://ec2.us-east-1.amazonaws.com/", False),
        ("https://localhost.example.com/", False),
        ("http://169.254.169.254/latest", False),
        ("http://10.0.0.1/", False),
        ("not an address", False),
    ],
)
def test_what_is_a_local_region(url: str, local: bool) -> None:
    assert guard.is_local(url) is local


def test_a_client_of_aws_gets_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []

    def send(_: object, request: AWSPreparedRequest) -> Any:
        sent.append(request.url)

    monkeypatch.setattr(URLLib3Session, "send", guard.guarded(send))
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    client = boto3.client("ec2", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    with pytest.raises(guard.AwsContact, match=r"ec2\.us-east-1\.amazonaws\.com is not a local region"):
        client.describe_addresses()
    assert sent == []


@pytest.mark.parametrize(
    ("nodeid", "backend", "row"),
    [
        ("t.py::test_x[moto]", "moto", "t.py::test_x"),
        ("t.py::test_x[localstack-another]", "localstack", "t.py::test_x[another]"),
        ("t.py::test_x[same-instance-moto]", "moto", "t.py::test_x[same-instance]"),
        ("t.py::test_x", "moto", "t.py::test_x"),
    ],
)
def test_a_row_is_the_same_on_every_backend(nodeid: str, backend: str, row: str) -> None:
    assert plugin.row_of(nodeid, backend) == row


def test_backends_that_do_not_agree_are_named() -> None:
    verdicts = {
        "same": {"moto": "passed", "localstack": "passed"},
        "other": {"moto": "passed", "localstack": "xfailed"},
        "broken": {"moto": "failed", "localstack": "passed"},
        "not run there": {"moto": "passed", "localstack": "skipped"},
        "only one": {"moto": "failed"},
        "aws is not compared": {"moto": "passed", "localstack": "passed", "aws": "failed"},
    }
    assert plugin.differing(verdicts) == ["other", "broken", "not run there"]
    assert plugin.differing(verdicts, everywhere=True) == ["other", "broken", "not run there", "only one"]


def test_a_row_that_one_of_the_books_did_not_run_is_named() -> None:
    verdicts = {"here": {"moto": "passed"}, "both": {"moto": "passed", "localstack": "passed"}}
    lines = plugin.told(verdicts, asked=False, everywhere=True)
    assert lines[0].startswith("rows: 2 on moto, 1 on localstack; real AWS: ")
    assert lines[1:] == ["DIFFERS here: localstack not run, moto passed"]
    assert plugin.told(verdicts, asked=False)[1:] == []


def test_what_two_sessions_found_is_one() -> None:
    one = plugin.Ran(verdicts={"t::x": {"moto": "passed"}}, promised=["t::x"], versions={"moto": "5"})
    two = plugin.Ran(
        verdicts={"t::x": {"localstack": "failed"}, "t::y": {"localstack": "passed"}},
        promised=["t::x", "t::y"],
        versions={"moto": "5", "localstack": "4"},
    )
    assert plugin.merged([one, two]) == {
        "verdicts": {"t::x": {"moto": "passed", "localstack": "failed"}, "t::y": {"localstack": "passed"}},
        "promised": ["t::x", "t::y"],
        "versions": {"moto": "5", "localstack": "4"},
    }


def test_a_session_keeps_the_verdicts_of_what_it_did_not_run(tmp_path: Path) -> None:
    contract, agents = "tests/contract/test_sts.py::test_who", "tests/integration/test_agents.py::test_moves"
    one = plugin.Ran(verdicts={contract: {"moto": "passed"}}, promised=[contract], versions={"moto": "1"})
    two = plugin.Ran(verdicts={f"{agents}[stock]": {"moto": "failed"}}, promised=[agents], versions={"moto": "2"})
    file = tmp_path / "results.json"
    for ran in (one, two, one):
        plugin.keep(file, ran)
        kept = json.loads(file.read_text())
        assert (kept["rows"], kept["versions"]) == ({"sts.who": {"moto": "passed"}}, {"moto": "1"})
    assert kept["agents"]["rows"] == {"agents.moves": {"moto": "failed"}}
    assert kept["agents"]["versions"] == {"moto": "2"}


def test_the_worst_variant_is_a_rows_verdict() -> None:
    verdicts = {
        "tests/contract/test_volumes.py::test_x[a]": {"moto": "passed"},
        "tests/contract/test_volumes.py::test_x[b]": {"moto": "failed", "localstack": "passed"},
        "tests/contract/test_gateway.py::test_log": {"moto": "passed"},
    }
    ran = plugin.Ran(verdicts=verdicts, promised=["tests/contract/test_volumes.py::test_x"], versions={"moto": "5"})
    kept = plugin.results(ran)
    assert kept["rows"] == {"volumes.x": {"moto": "failed", "localstack": "passed"}}
    assert kept["versions"] == {"moto": "5"}
