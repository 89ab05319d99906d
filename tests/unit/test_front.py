"""The gateway's front: what it refuses and how, faults of the API as a client meets them, tokens, control, identity."""

from __future__ import annotations

import json
import socket
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, HTTPClientError, ReadTimeoutError

from harness.region.control import restore_delays
from harness.topology import ZONE
from tests.fronts import KEY, NODE_ID, NODE_KEY, SIGNED, Front

pytestmark = pytest.mark.timeout(60)

TARGET = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "AmazonSSM.SendCommand"}


def error_of(call: Callable[..., object], **params: object) -> tuple[str, int]:
    with pytest.raises(ClientError) as caught:
        call(**params)
    answer = caught.value.response
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]


def code_in(body: bytes) -> str:
    if body.startswith(b"{"):
        return str(json.loads(body)["__type"])
    found = [e.text or "" for e in ET.fromstring(body).iter() if e.tag.rpartition("}")[2] == "Code"]
    return found[0]


ASK = "Action=DescribeAddresses&Version=2016-11-15"


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"body": "Action=MakeCoffee"}, (400, "InvalidAction")),
        ({"body": "Action=DescribeCoffee"}, (400, "InvalidAction")),
        ({"body": "Action=CreateFlowLogs"}, (400, "UnsupportedOperation")),
        ({"body": "Action=DescribeByoipCidrs&MaxResults=5"}, (400, "UnsupportedOperation")),
        ({"body": "Action=DescribeVolumes&NextToken=%C2%B2"}, (400, "InvalidNextToken")),
        ({"body": "Action=DescribeAddresses&Version=2016-11-99"}, (400, "NoSuchVersion")),
        ({"body": "Action=GetCallerIdentity&Version=2016-11-15", "service": "sts"}, (400, "InvalidAction")),
        ({"body": "Version=2016-11-15"}, (400, "MissingAction")),
        ({"body": ASK, "key": None}, (403, "MissingAuthenticationToken")),
        ({"body": ASK, "key": "nobody"}, (401, "AuthFailure")),
        ({"body": ASK, "key": None, "headers": {"Authorization": "Basic eDp5"}}, (400, "IncompleteSignature")),
        ({"body": ASK + "&Filter.1.Name=%zz"}, (404, "MalformedQueryString")),
        ({"body": ASK + "&Filter.1.Name=%ff"}, (404, "MalformedQueryString")),
        ({"body": b"Action=\xff\xfe"}, (404, "MalformedQueryString")),
        ({"body": "&".join(f"a{n}=1" for n in range(20000))}, (404, "MalformedQueryString")),
        ({"body": "Action=StopInstances&InstanceId.1=%00%01"}, (400, "InvalidInstanceID.Malformed")),
        ({"body": f"Action=StopInstances&InstanceId.1={NODE_ID}&Force=perhaps"}, (400, "InvalidParameterValue")),
        ({"body": f"Action=StopInstances&InstanceId.1={NODE_ID}&DryRun=2"}, (400, "InvalidParameterValue")),
        ({"body": f"Action=StopInstances&InstanceId.{'9' * 5000}={NODE_ID}"}, (400, "MissingParameter")),
        ({"body": "Action=StopInstances&InstanceId.%C2%B2=x"}, (400, "MissingParameter")),
        ({"body": "Action=" + "x" * 2_000_000}, (413, "RequestEntityTooLarge")),
        ({"body": ASK, "method": "PUT"}, (405, "MethodNotAllowed")),
        ({"body": "Action=GetUser", "service": "iam"}, (400, "UnsupportedOperation")),
        ({"body": "Action=Nothing", "service": "nothing"}, (400, "InvalidAction")),
        ({"body": "Action=AssumeRole", "service": "sts"}, (400, "UnsupportedOperation")),
        ({"body": "Action=GetCallerIdentity", "service": "sts", "key": "nobody"}, (403, "InvalidClientTokenId")),
        ({"body": "{", "service": "ssm", "headers": TARGET}, (400, "SerializationException")),
        ({"body": "[" * 100_000, "service": "ssm", "headers": TARGET}, (400, "SerializationException")),
        ({"body": "[]", "service": "ssm", "headers": TARGET}, (400, "SerializationException")),
        ({"body": "{}", "service": "ssm", "headers": TARGET, "key": "nobody"}, (400, "UnrecognizedClientException")),
        (
            {"body": "{}", "service": "ssm", "headers": {**TARGET, "X-Amz-Target": "AmazonSSM.MakeCoffee"}},
            (400, "UnknownOperationException"),
        ),
        (
            {"body": "{}", "service": "ssm", "headers": {**TARGET, "X-Amz-Target": "AmazonSSM.PutParameter"}},
            (400, "UnsupportedOperation"),
        ),
    ],
)
def test_what_is_no_call_is_refused_in_its_own_protocol(
    site: Front, request_: dict[str, Any], expected: tuple[int, str]
) -> None:
    status, body, headers = site.post(**request_)
    assert (status, code_in(body)) == expected
    assert headers["x-amzn-requestid"]
    row = site.calls()[-1]
    assert (row["status"], row["error"]) == expected
    assert len(json.dumps(row)) < 20_000
    assert site.client("ec2").describe_addresses()["Addresses"] == []


@pytest.mark.parametrize(
    "action", ["CreateFlowLogs", "MonitorInstances", "CreateSnapshot", "ModifyInstanceMetadataOptions"]
)
def test_nothing_succeeds_that_is_not_carried_out(site: Front, action: str) -> None:
    status, body, _ = site.post(urlencode({"Action": action, "Version": "2016-11-15", "InstanceId.1": NODE_ID}))
    assert (status, code_in(body)) == (400, "UnsupportedOperation")


def test_every_answer_has_its_request_id_in_body_and_header(site: Front) -> None:
    for text in (ASK, "Action=DescribeAvailabilityZones", "Action=Nothing", "Action=DeleteVolume&VolumeId=vol-0"):
        _, body, headers = site.post(text)
        found = [e.text for e in ET.fromstring(body).iter() if e.tag.rpartition("}")[2].lower() == "requestid"]
        assert found == [headers["x-amzn-requestid"]]
        assert site.calls()[-1]["request_id"] == found[0]


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("describe_addresses", {}),
        ("describe_availability_zones", {}),
        ("allocate_address", {}),
        ("stop_instances", {"InstanceIds": [NODE_ID]}),
        ("create_vpc", {"CidrBlock": "198.18.18.0/24"}),
        ("create_tags", {"Resources": [NODE_ID], "Tags": [{"Key": "a", "Value": "b"}]}),
    ],
)
def test_a_dry_run_changes_nothing(site: Front, method: str, params: dict[str, Any]) -> None:
    ec2 = site.client("ec2")
    assert error_of(getattr(ec2, method), DryRun=True, **params) == ("DryRunOperation", 412)
    assert ec2.describe_addresses()["Addresses"] == []


def test_a_flood_of_headers_is_refused_and_the_gateway_lives(site: Front) -> None:
    for headers in ({"X-Long": "x" * 100_000}, {f"X-{n}": "x" * 4000 for n in range(300)}):
        try:
            status, _, _ = site.post(ASK, headers=headers)
            assert status in (200, 400, 431)
        except (OSError, ValueError):
            pass  # hung up on
    assert site.client("ec2").describe_addresses()["Addresses"] == []


def test_a_thousand_describes_at_once_are_all_answered(site: Front) -> None:
    place = urlsplit(site.url)
    body = f"{ASK}&Filter.1.Name=domain&Filter.1.Value.1=vpc".encode()
    head = (
        f"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nConnection: close\r\n"
        f"Authorization: {SIGNED.format(key=KEY, service='ec2')}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    callers = []
    for _ in range(1000):
        caller = socket.create_connection((str(place.hostname), place.port or 0), timeout=50)
        caller.sendall(head.encode() + body)
        callers.append(caller)

    def answer(caller: socket.socket) -> bytes:
        with caller:
            return b"".join(iter(lambda: caller.recv(65536), b""))

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(answer, callers))
    assert all(b"200 OK" in text and b"<addressesSet" in text for text in answers)
    assert len(site.calls()) == 1000
    assert site.client("ec2").describe_addresses()["Addresses"] == []


def fault(kind: str, **more: Any) -> dict[str, Any]:
    return {"id": kind, "kind": kind, **more}


def test_a_throttle_meets_the_node_it_is_for_and_no_other(site: Front) -> None:
    rule = fault("throttle", actions=["DescribeAddresses"], callers=["pbx-1"], count=2)
    assert site.control({"api_faults": [rule]}) == (200, {"api_faults": {"throttle": 0}})
    node = site.client("ec2", NODE_KEY)
    assert error_of(node.describe_addresses) == ("RequestLimitExceeded", 503)
    node.describe_availability_zones()
    site.client("ec2").describe_addresses()
    assert error_of(node.describe_addresses) == ("RequestLimitExceeded", 503)
    node.describe_addresses()
    marked = [row.get("fault") for row in site.calls()]
    assert marked == ["throttle/throttle", None, None, "throttle/throttle", None]
    assert site.shown()["api_faults"][0]["struck"] == 2
    assert site.control({"api_faults": {"clear": ["throttle"]}}) == (200, {"api_faults": {"throttle": 2}})


def test_a_client_that_repeats_itself_gets_through(site: Front) -> None:
    site.control({"api_faults": [fault("server_error", count=2)]})
    assert site.client("ec2", NODE_KEY, attempts=4).describe_addresses()["Addresses"] == []
    assert [row["status"] for row in site.calls()] == [500, 500, 200]


def test_each_service_has_its_own_words_for_too_much(site: Front) -> None:
    site.control({"api_faults": [fault("throttle"), fault("expired_credentials")]})
    ssm, sts = site.client("ssm", NODE_KEY), site.client("sts", NODE_KEY)
    assert error_of(ssm.list_commands) == ("ThrottlingException", 400)
    assert error_of(sts.get_caller_identity) == ("Throttling", 400)
    site.control({"api_faults": {"clear": ["throttle"]}})
    assert error_of(ssm.list_commands) == ("ExpiredTokenException", 400)
    assert error_of(sts.get_caller_identity) == ("ExpiredToken", 403)
    assert error_of(site.client("ec2", NODE_KEY).describe_addresses) == ("RequestExpired", 400)


def test_latency_is_waited_for_and_then_answered(site: Front) -> None:
    site.control({"api_faults": [fault("latency", latency_s=0.3)]})
    began = time.monotonic()
    site.client("ec2", NODE_KEY).describe_addresses()
    assert time.monotonic() - began >= 0.3
    assert site.calls()[-1]["took_ms"] >= 300


def test_the_delay_of_any_call_is_held_until_it_ends(site: Front) -> None:
    assert site.control({"delays": {"api": 0.3}}) == (200, {"delays": {"api": 0.3}})
    assert site.control({"delays": {}})[1] == {"delays": {}}
    assert site.control({"delays": {"address": 1}})[1] == {"delays": {"address": 1.0}}
    assert site.control({"delays": {"api": 0.2}})[1] == {"delays": {"address": 1.0, "api": 0.2}}
    began = time.monotonic()
    absent = "vol-0123456789abcdef0"
    assert error_of(site.client("ec2").delete_volume, VolumeId=absent) == ("InvalidVolume.NotFound", 400)
    assert time.monotonic() - began >= 0.2
    assert site.control({"delays": {"api": None}})[1] == {"delays": {"address": 1.0}}
    assert site.control({"delays": {}})[1] == {"delays": {}}


def test_a_call_that_is_never_answered_is_not_carried_out(site: Front) -> None:
    site.control({"api_faults": [fault("time_out", callers=["harness"], count=1)]})
    with pytest.raises(ReadTimeoutError):
        site.client("ec2", read_timeout_s=0.5).allocate_address()
    assert site.client("ec2").describe_addresses()["Addresses"] == []
    row = site.calls()[0]
    assert (row["status"], row["error"], row["fault"]) == (0, None, "time_out/time_out")


def test_a_reset_is_a_reset(site: Front) -> None:
    site.control({"api_faults": [fault("reset", callers=["*", "harness"])]})
    place = urlsplit(site.url)
    with socket.create_connection((str(place.hostname), place.port or 0), timeout=5) as caller:
        head = f"POST / HTTP/1.1\r\nHost: x\r\nAuthorization: {SIGNED.format(key=KEY, service='ec2')}\r\n"
        form = "Content-Type: application/x-www-form-urlencoded\r\n"
        caller.sendall(f"{head}{form}Content-Length: {len(ASK)}\r\n\r\n{ASK}".encode())
        with pytest.raises(ConnectionResetError):
            caller.recv(100)
    with pytest.raises(HTTPClientError):
        site.client("ec2").describe_addresses()


def test_a_lost_reply_was_carried_out(site: Front) -> None:
    site.control({"api_faults": [fault("lost_reply", actions=["AllocateAddress"], callers=["harness"])]})
    ec2 = site.client("ec2")
    with pytest.raises((ConnectionClosedError, HTTPClientError)):
        ec2.allocate_address()
    addresses = ec2.describe_addresses()["Addresses"]
    assert len(addresses) == 1
    assert (site.calls()[0]["status"], site.calls()[0]["fault"]) == (200, "lost_reply/lost_reply")
    ec2.release_address(AllocationId=addresses[0]["AllocationId"])


def test_faults_outlive_the_gateway(site: Front) -> None:
    site.control({"api_faults": [fault("throttle", count=2)], "delays": {"address": 2}})
    site.plane.delays.hold({})
    restore_delays(site.plane)
    assert site.plane.delays.held() == {"address": 2.0}
    assert error_of(site.client("ec2", NODE_KEY).describe_addresses)[0] == "RequestLimitExceeded"
    site.restart()
    node = site.client("ec2", NODE_KEY)
    assert error_of(node.describe_addresses)[0] == "RequestLimitExceeded"
    assert node.describe_addresses()["Addresses"] == []


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ([], "not a mapping"),
        ({"weather": "rain"}, "unknown 'weather'"),
        ({"api_faults": [{"id": "a", "kind": "burn"}]}, "unknown kind"),
        ({"api_faults": "all"}, "a list of rules"),
        ({"delays": {"coffee": 1}}, "unknown delay"),
        ({"delays": {"api": -1}}, "0 to 600"),
        ({"metadata": {"pbx-9": "refused"}}, "no instance 'pbx-9'"),
        ({"metadata": {"pbx-1": "shy"}}, "unknown mode"),
    ],
)
def test_control_says_what_is_wrong(site: Front, wanted: object, words: str) -> None:
    status, answer = site.control(wanted)
    assert status == 400 and words in answer["error"]


def test_control_is_the_harnesss_alone(site: Front) -> None:
    assert site.control({"delays": {"api": 1}}, key=NODE_KEY)[0] == 403
    assert site.post(b"", method="GET", path="/_region/control")[0] == 403
    assert site.plane.delays.held() == {}


def test_the_same_token_is_carried_out_once(site: Front) -> None:
    ec2 = site.client("ec2")
    params: dict[str, Any] = {"AvailabilityZone": ZONE, "Size": 1, "ClientToken": "once"}
    first = ec2.create_volume(**params)["VolumeId"]
    assert ec2.create_volume(**params)["VolumeId"] == first
    site.restart()
    again = site.client("ec2")
    answer = again.create_volume(**params)
    assert answer["VolumeId"] == first
    assert answer["ResponseMetadata"]["RequestId"] == site.calls()[-1]["request_id"]
    assert error_of(again.create_volume, **{**params, "Size": 2}) == ("IdempotentParameterMismatch", 400)
    assert again.create_volume(**{**params, "ClientToken": "other"})["VolumeId"] != first


def test_a_lost_reply_and_a_token_make_one_volume(site: Front) -> None:
    site.control({"api_faults": [fault("lost_reply", actions=["CreateVolume"], count=1)]})
    made = site.client("ec2", NODE_KEY, attempts=3).create_volume(AvailabilityZone=ZONE, Size=1)
    assert list(site.plane.state.volumes) == [made["VolumeId"]]


def test_two_identical_calls_at_once_make_one_volume(site: Front) -> None:
    clients = [site.client("ec2") for _ in range(8)]
    together = threading.Barrier(8)

    def make(ec2: Any) -> str:
        together.wait(10)
        return str(ec2.create_volume(AvailabilityZone=ZONE, Size=1, ClientToken="twins")["VolumeId"])

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(make, clients))
    assert set(made) == set(site.plane.state.volumes)
    assert len(set(made)) == 1


def test_who_is_calling(site: Front) -> None:
    node = site.client("sts", NODE_KEY).get_caller_identity()
    assert node["Account"] == "123456789012"
    assert node["Arn"] == f"arn:aws:sts::123456789012:assumed-role/pbx-node/{NODE_ID}"
    assert node["UserId"].startswith("AROA") and node["UserId"].endswith(f":{NODE_ID}")
    assert site.client("sts").get_caller_identity()["Arn"] == "arn:aws:iam::123456789012:user/pbx-chaos"
