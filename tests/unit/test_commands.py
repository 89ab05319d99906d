"""Commands of SSM: what is an order, how it stands, and what becomes of it when its node is off or dies."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from harness.cloud import Cloud
from harness.cloud_commands import CommandResult
from harness.command import run, wait_for
from harness.region import guest
from harness.region.calls import AwsError
from harness.region.semantics.commands import (
    TERMINAL,
    Details,
    command_status,
    matching,
    outcome,
    read_order,
    shown,
    status_of,
)
from tests.contract.site import error_of
from tests.fronts import KEY, NODE_ID, Front

pytestmark = pytest.mark.timeout(60)

ORDER: dict[str, Any] = {
    "DocumentName": "AWS-RunShellScript",
    "InstanceIds": [NODE_ID],
    "Parameters": {"commands": ["echo a", "echo b"]},
}


def test_an_order_has_defaults() -> None:
    order = read_order(ORDER)
    assert (order.script, order.execution_s, order.delivery_s, order.folder) == ("echo a\necho b\n", 3600, 3600, "")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"DocumentName": "AWS-RunPatchBaseline"}, "InvalidDocument"),
        ({"DocumentName": None}, "InvalidDocument"),
        ({"Parameters": {}}, "InvalidParameters"),
        ({"Parameters": "echo"}, "SerializationException"),
        ({"Parameters": {"commands": "echo"}}, "SerializationException"),
        ({"Parameters": {"commands": ["x"], "colour": ["red"]}}, "InvalidParameters"),
        ({"Parameters": {"commands": ["x"], "executionTimeout": ["0"]}}, "InvalidParameters"),
        ({"Parameters": {"commands": ["x"], "executionTimeout": ["soon"]}}, "InvalidParameters"),
        ({"Parameters": {"commands": ["x"], "executionTimeout": ["9" * 5000]}}, "InvalidParameters"),
        ({"Parameters": {"commands": ["x"], "executionTimeout": ["1", "2"]}}, "InvalidParameters"),
        ({"DocumentVersion": "7"}, "InvalidDocumentVersion"),
        ({"TimeoutSeconds": 29}, "ValidationException"),
        ({"TimeoutSeconds": True}, "ValidationException"),
        ({"TimeoutSeconds": "60"}, "ValidationException"),
        ({"InstanceIds": []}, "ValidationException"),
        ({"InstanceIds": [NODE_ID, NODE_ID]}, "DuplicateInstanceId"),
        ({"InstanceIds": [f"i-{n}" for n in range(51)]}, "ValidationException"),
        ({"Targets": [{"Key": "tag:a", "Values": ["b"]}]}, "ValidationException"),
        ({"InstanceIds": [], "Targets": [{"Key": "colour", "Values": ["red"]}]}, "ValidationException"),
        ({"InstanceIds": [], "Targets": ["all"]}, "ValidationException"),
    ],
)
def test_what_is_no_order_is_refused(change: dict[str, Any], code: str) -> None:
    with pytest.raises(AwsError) as caught:
        read_order({**ORDER, **change})
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("targets", "found"),
    [
        ([("InstanceIds", ("i-1", "i-9"))], ("i-1",)),
        ([("tag:role", ("pbx",))], ("i-1", "i-2")),
        ([("tag:role", ("pbx",)), ("tag:zone", ("b",))], ("i-2",)),
        ([("tag-key", ("zone",))], ("i-2",)),
        ([("tag:role", ("database",))], ()),
    ],
)
def test_targets_are_ids_or_tags(targets: list[tuple[str, tuple[str, ...]]], found: tuple[str, ...]) -> None:
    tags = {"i-1": {"role": "pbx"}, "i-2": {"role": "pbx", "zone": "b"}, "i-3": {}}
    assert matching(targets, tags) == found


@pytest.mark.parametrize(
    ("code", "timed_out", "cancelled", "expected"),
    [
        (0, False, False, ("Success", 0)),
        (7, False, False, ("Failed", 7)),
        (124, True, False, ("ExecutionTimedOut", 137)),
        (137, False, True, ("Cancelled", 137)),
    ],
)
def test_how_a_script_ended(code: int, timed_out: bool, cancelled: bool, expected: tuple[str, int]) -> None:
    assert outcome(code, timed_out=timed_out, cancelled=cancelled) == expected


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        (["Success", "Success"], "Success"),
        (["Success", "Pending"], "InProgress"),
        (["Pending", "Delayed"], "Pending"),
        (["Success", "Failed"], "Failed"),
        (["Success", "DeliveryTimedOut"], "TimedOut"),
        (["Cancelled", "Failed"], "Cancelled"),
        (["Cancelling", "Failed"], "Cancelling"),
        ([], "Success"),
    ],
)
def test_a_command_stands_as_its_invocations_do(details: list[Details], expected: str) -> None:
    assert command_status(details) == expected


def test_time_outs_are_one_status_and_two_details() -> None:
    assert status_of("DeliveryTimedOut") == status_of("ExecutionTimedOut") == "TimedOut"
    assert shown("DeliveryTimedOut") == "Delivery Timed Out"
    assert "InProgress" not in TERMINAL


def send(site: Front, *commands: str, **more: Any) -> str:
    order = {**ORDER, "Parameters": {"commands": list(commands), **more.pop("parameters", {})}, **more}
    return str(site.client("ssm").send_command(**order)["Command"]["CommandId"])


def invocation(site: Front, command_id: str) -> Any:
    return site.client("ssm").get_command_invocation(CommandId=command_id, InstanceId=NODE_ID)


def ended(site: Front, command_id: str) -> Any:
    def seen() -> Any:
        found = invocation(site, command_id)
        return found if found["Status"] not in ("Pending", "Delayed", "InProgress", "Cancelling") else None

    return wait_for("the end of the command", seen, timeout_s=10)


def test_a_command_runs_and_tells(site: Front) -> None:
    command_id = send(site, "echo out", "echo err >&2", "exit 3", Comment="why")
    site.client("ssm").get_waiter("command_executed")  # exists in boto3; polls every 5 s
    done = ended(site, command_id)
    assert (done["Status"], done["StatusDetails"], done["ResponseCode"]) == ("Failed", "Failed", 3)
    assert (done["StandardOutputContent"], done["StandardErrorContent"]) == ("out\n", "err\n")
    assert done["ExecutionStartDateTime"] and done["ExecutionElapsedTime"].startswith("PT")
    ssm = site.client("ssm")
    listed = ssm.list_command_invocations(CommandId=command_id, Details=True)["CommandInvocations"]
    assert [(i["Status"], i["CommandPlugins"][0]["ResponseCode"]) for i in listed] == [("Failed", 3)]
    row = ssm.list_commands(CommandId=command_id)["Commands"][0]
    assert (row["Status"], row["TargetCount"], row["ErrorCount"], row["Comment"]) == ("Failed", 1, 1, "why")


def test_output_is_cut(site: Front) -> None:
    done = ended(site, send(site, "head -c 30000 /dev/zero | tr '\\0' x; head -c 9000 /dev/zero | tr '\\0' y >&2"))
    assert (len(done["StandardOutputContent"]), len(done["StandardErrorContent"])) == (24000, 8000)


def test_a_node_that_is_off_gets_nothing(site: Front) -> None:
    site.guests.deaf.add(NODE_ID)
    command_id = send(site, "true", TimeoutSeconds=30)
    wait_for("delayed", lambda: invocation(site, command_id)["Status"] == "Delayed", timeout_s=5)
    assert invocation(site, command_id)["ResponseCode"] == -1
    real = site.plane.commands.wall_s
    site.plane.commands.wall_s = lambda: real() + 31
    done = ended(site, command_id)
    assert (done["Status"], done["StatusDetails"], done["ResponseCode"]) == ("TimedOut", "Delivery Timed Out", -1)


def test_a_node_that_comes_back_in_time_gets_it(site: Front) -> None:
    site.guests.deaf.add(NODE_ID)
    command_id = send(site, "echo late")
    wait_for("delayed", lambda: invocation(site, command_id)["Status"] == "Delayed", timeout_s=5)
    site.guests.deaf.clear()
    assert ended(site, command_id)["StandardOutputContent"] == "late\n"


def test_of_a_node_that_died_nobody_hears(site: Front) -> None:
    site.guests.dying.add(NODE_ID)
    command_id = send(site, "true", TimeoutSeconds=30, parameters={"executionTimeout": ["60"]})
    wait_for("dead", lambda: NODE_ID in site.guests.deaf, timeout_s=5)
    assert invocation(site, command_id)["Status"] == "InProgress"
    real = site.plane.commands.wall_s
    site.plane.commands.wall_s = lambda: real() + 91
    assert ended(site, command_id)["StatusDetails"] == "Delivery Timed Out"


def test_a_command_can_be_cancelled(site: Front) -> None:
    ssm = site.client("ssm")
    site.guests.hold.clear()
    running = send(site, "true")
    wait_for("running", lambda: invocation(site, running)["Status"] == "InProgress", timeout_s=5)
    ssm.cancel_command(CommandId=running)
    done = ended(site, running)
    assert (done["Status"], site.guests.killed) == ("Cancelled", [NODE_ID])
    site.guests.deaf.add(NODE_ID)
    waiting = send(site, "true")
    ssm.cancel_command(CommandId=waiting, InstanceIds=[NODE_ID])
    assert ended(site, waiting)["Status"] == "Cancelled"
    assert error_of(ssm.cancel_command, CommandId="0" * 36) == "InvalidCommandId"


def test_what_ran_when_the_gateway_ended_has_failed_and_what_waited_is_delivered(site: Front) -> None:
    site.guests.hold.clear()
    ran = send(site, "true")
    wait_for("running", lambda: invocation(site, ran)["Status"] == "InProgress", timeout_s=5)
    site.guests.deaf.add(NODE_ID)
    waits = send(site, "echo then")
    site.restart()
    site.guests.hold.set()
    assert invocation(site, ran)["Status"] == "Failed"
    site.guests.deaf.clear()
    assert ended(site, waits)["StandardOutputContent"] == "then\n"


def test_ids_that_are_none_are_refused(site: Front) -> None:
    ssm = site.client("ssm")
    assert error_of(ssm.send_command, **{**ORDER, "InstanceIds": ["i-00000000000000000"]}) == "InvalidInstanceId"
    command_id = send(site, "true")
    ask = ssm.get_command_invocation
    assert error_of(ask, CommandId=command_id, InstanceId="i-00000000000000000") == "InvocationDoesNotExist"
    assert error_of(ask, CommandId="0" * 36, InstanceId=NODE_ID) == "InvocationDoesNotExist"
    assert error_of(ask, CommandId=command_id, InstanceId=NODE_ID, PluginName="none") == "InvalidPluginName"
    assert error_of(ssm.list_commands, NextToken="x") == "InvalidNextToken"


def test_which_nodes_can_be_reached(site: Front) -> None:
    ssm = site.client("ssm")
    seen = ssm.describe_instance_information()["InstanceInformationList"]
    assert [(i["InstanceId"], i["PingStatus"], i["PlatformType"]) for i in seen] == [(NODE_ID, "Online", "Linux")]
    site.guests.deaf.add(NODE_ID)
    filters = [{"Key": "PingStatus", "Values": ["ConnectionLost"]}]
    assert len(ssm.describe_instance_information(Filters=filters)["InstanceInformationList"]) == 1


def test_a_lost_node_was_seen_when_it_was_last_heard(site: Front) -> None:
    def last_ping_s() -> float:
        (row,) = site.client("ssm").describe_instance_information()["InstanceInformationList"]
        return float(row["LastPingDateTime"].timestamp())

    site.plane.commands.wall_s = lambda: 1_800_000_000.0
    assert last_ping_s() == 1_800_000_000.0
    site.guests.deaf.add(NODE_ID)
    site.plane.commands.wall_s = lambda: 1_800_000_300.0
    assert last_ping_s() == 1_800_000_000.0


def test_a_node_that_nobody_has_heard_of_was_seen_at_its_launch(site: Front) -> None:
    state = site.plane.state
    state.put(replace(state.instances[NODE_ID], launched="2026-01-02T03:04:05.000Z"))
    site.guests.deaf.add(NODE_ID)
    (row,) = site.client("ssm").describe_instance_information()["InstanceInformationList"]
    assert row["LastPingDateTime"].astimezone(UTC) == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    state.put(replace(state.instances[NODE_ID], transition="pending"))
    assert site.client("ssm").describe_instance_information()["InstanceInformationList"] == []


def others(site: Front, *ids: str) -> None:
    state = site.plane.state
    for instance_id in ids:
        state.put(replace(state.instances[NODE_ID], instance_id=instance_id, access_key_id=instance_id))


def test_nodes_are_asked_side_by_side(site: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    others(site, "i-00000000000000001", "i-00000000000000002")
    all_at_once = threading.Barrier(3)

    def hears(instance_id: str) -> bool:
        all_at_once.wait(10)
        return instance_id != NODE_ID

    monkeypatch.setattr(site.guests, "hears", hears)
    seen = site.client("ssm").describe_instance_information()["InstanceInformationList"]
    assert sorted(i["PingStatus"] for i in seen) == ["ConnectionLost", "Online", "Online"]


def test_a_command_does_not_wait_for_a_node_that_is_cut_off(site: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    others(site, "i-00000000000000001")
    ended_waiting = threading.Event()
    monkeypatch.setattr(site.guests, "hears", lambda i: i == NODE_ID or ended_waiting.wait(10))
    command_id = send(site, "echo on", InstanceIds=["i-00000000000000001", NODE_ID])
    try:
        assert ended(site, command_id)["StandardOutputContent"] == "on\n"
    finally:
        ended_waiting.set()


def test_what_is_going_away_can_not_be_sent_to(site: Front) -> None:
    state = site.plane.state
    state.put(replace(state.instances[NODE_ID], transition="shutting-down"))
    assert error_of(site.client("ssm").send_command, **ORDER) == "InvalidInstanceId"
    state.put(replace(state.instances[NODE_ID], transition="stopping"))
    send(site, "true")


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ("ListCommands", {"MaxResults": True}),
        ("ListCommands", {"Filters": 5}),
        ("ListCommands", {"Filters": [{"key": "Status", "value": 5}]}),
        ("DescribeInstanceInformation", {"Filters": [{"Key": "PingStatus", "Values": 5}]}),
        ("SendCommand", {**ORDER, "TimeoutSeconds": "60"}),
        ("SendCommand", {**ORDER, "Parameters": {"commands": [None]}}),
        ("CancelCommand", {"CommandId": ["x"]}),
    ],
)
def test_a_value_of_another_type_is_refused(site: Front, action: str, body: Any) -> None:
    headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": f"AmazonSSM.{action}"}
    status, answer, _ = site.post(json.dumps(body), service="ssm", headers=headers)
    assert (status, json.loads(answer)["__type"]) == (400, "SerializationException")


def test_pages_of_commands(site: Front) -> None:
    sent = [send(site, "true") for _ in range(3)]
    pages = site.client("ssm").get_paginator("list_commands").paginate(PaginationConfig={"PageSize": 2})
    assert [c["CommandId"] for page in pages for c in page["Commands"]] == sent[::-1]


def test_the_harness_runs_commands_by_ssm(site: Front) -> None:
    cloud = Cloud(endpoint_url=site.url, access_key_id=KEY, secret_access_key="x")
    result = cloud.run_command(NODE_ID, ["echo hello", "exit 4"], timeout_s=5)
    assert result == CommandResult(status="Failed", code=4, stdout="hello\n", stderr="")


@pytest.mark.parametrize(
    ("script", "code", "stdout", "stderr"),
    [
        ("echo out; echo err >&2; exit 7\n", 7, "out\n", "err\n"),
        ("#!/bin/bash\n[[ a == a ]] && pwd\n", 0, "/tmp\n", ""),
        ("", 0, "", ""),
        ("head -c 3000000 /dev/zero | tr '\\0' x | wc -c\n", 0, "3000000\n", ""),
        ("echo a; sleep 30 & sleep 30; echo b\n", 124, "a\n", ""),
        ("trap '' TERM; echo a; sleep 30; sleep 30\n", 124, "a\n", ""),
    ],
)
def test_a_script_is_bounded_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, code: int, stdout: str, stderr: str
) -> None:
    monkeypatch.setattr(guest, "_FOLDER", str(tmp_path))
    wrapped = guest.wrapper(key="k", timeout_s=0.5, folder="/tmp")
    done = run(["sh", "-c", wrapped], timeout_s=10, input=script, check=False)
    assert (done.code, done.stdout, done.stderr) == (code, stdout, stderr)
    assert list(tmp_path.iterdir()) == []


def test_output_beyond_what_is_kept_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest, "_FOLDER", str(tmp_path))
    script = "head -c 3000000 /dev/zero | tr '\\0' x; head -c 3000000 /dev/zero | tr '\\0' y >&2\n"
    wrapped = guest.wrapper(key="k", timeout_s=5, folder="")
    done = run(["sh", "-c", wrapped], timeout_s=10, input=script, check=False)
    assert (len(done.stdout), len(done.stderr)) == (96000, 32000)
