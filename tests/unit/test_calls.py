"""AWS calls as data: what is read from a request, what is logged, what an answer looks like."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from urllib.parse import urlencode

from harness.region.calls import (
    AwsError,
    Call,
    CallLog,
    Document,
    answer,
    error_answer,
    error_code,
    parse,
    put,
    take_filters,
)

AUTHORIZATION = (
    "AWS4-HMAC-SHA256 Credential=NODEKEY/20260101/us-east-1/ec2/aws4_request, "
    "SignedHeaders=host;x-amz-date, Signature=0123abcd"
)


def call(**params: str) -> Call:
    return parse(
        path="/",
        headers={"Content-Type": "application/x-www-form-urlencoded; charset=utf-8", "Authorization": AUTHORIZATION},
        body=urlencode({"Action": "StopInstances", "Version": "2016-11-15", **params}).encode(),
        source="198.18.4.11",
        request_id="r-1",
    )


def test_a_query_call_is_read() -> None:
    made = call(**{"InstanceId.1": "i-1", "InstanceId.2": "i-2", "InstanceId.10": "i-10", "Force": "true"})
    assert (made.service, made.action, made.access_key_id) == ("ec2", "StopInstances", "NODEKEY")
    assert made.numbered("InstanceId") == ["i-1", "i-2", "i-10"]
    assert made.flag("Force") and not made.flag("DryRun") and made.flag("AllowReassociation", default=True)
    assert "Version" not in made.params


def test_the_json_protocol_yields_its_action() -> None:
    headers = {"X-Amz-Target": "AmazonSSM.SendCommand", "Content-Type": "application/x-amz-json-1.1"}
    made = parse(path="/", headers=headers, body=b"{}", source="", request_id="")
    assert (made.action, made.params, made.access_key_id) == ("SendCommand", {}, "")


def test_neither_signatures_nor_secrets_are_logged(tmp_path: Path) -> None:
    log = CallLog(path=tmp_path / "calls.jsonl")
    made = call(
        UserData="c2VjcmV0", Signature="abc", **{"X-Amz-Security-Token": "t", "MasterPassword": "p", "Size": "8"}
    )
    log.write(made, who="a", time_ns=5, took_ms=1.23456, status=200, error=None)
    row = json.loads((tmp_path / "calls.jsonl").read_text())
    assert row["params"] == {"UserData": "(8 characters)", "Size": "8"}
    assert (row["who"], row["time_ns"], row["took_ms"], row["request_id"]) == ("a", 5, 1.235, "r-1")


def test_answers_are_ec2s_xml() -> None:
    body = answer(call(), {"return": True, "nothing": None, "set": [{"id": "a", "state": {"code": 16}}, {"id": "b"}]})
    root = Document(body).root
    assert root.tag == "StopInstancesResponse"
    assert root.findtext("requestId") == "r-1"
    assert root.findtext("return") == "true" and root.find("nothing") is None
    assert [item.findtext("id") for item in root.findall("set/item")] == ["a", "b"]
    assert root.findtext("set/item/state/code") == "16"


def test_errors_are_ec2s_xml() -> None:
    body = error_answer(call(), AwsError("VolumeInUse", "vol-1 is <taken>"))
    assert error_code(body) == "VolumeInUse"
    assert ET.fromstring(body).findtext("Errors/Error/Message") == "vol-1 is <taken>"
    assert error_code(b'{"__type": "com.amazon#ThrottlingException"}') == "ThrottlingException"
    assert error_code(b"nonsense") is None


def test_a_document_of_the_books_is_changed_in_place() -> None:
    books = (
        b'<DescribeThingsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15"><requestId>x</requestId>'
        b"<thingSet><item><id>a</id><state>old</state><tail/></item><item><id>b</id></item></thingSet>"
        b"</DescribeThingsResponse>"
    )
    document = Document(books)
    first = next(document.items("thingSet"))
    put(first, "state", {"name": "new"})
    assert [child.tag for child in first] == ["id", "state", "tail"]
    put(first, "tail", None)
    document.keep("thingSet", {"b": False}, "id")
    again = Document(document.body(call()))
    assert again.root.findtext("requestId") == "r-1"
    assert again.root.findtext("thingSet/item/state/name") == "new"
    assert [item.findtext("id") for item in again.items("thingSet")] == ["a"]


def test_filters_on_state_are_taken_out_and_the_rest_renumbered() -> None:
    params = {
        "Filter.1.Name": "instance-state-name",
        "Filter.1.Value.1": "running",
        "Filter.1.Value.2": "stopped",
        "Filter.2.Name": "tag:a",
        "Filter.2.Value.1": "b",
        "MaxResults": "5",
    }
    rest, taken = take_filters(params, ["instance-state-name"])
    assert taken == [("instance-state-name", {"running", "stopped"})]
    assert rest == {"Filter.1.Name": "tag:a", "Filter.1.Value.1": "b", "MaxResults": "5"}
