"""Systems Manager: commands that really run on the nodes, and which nodes can be reached. JSON 1.1, "AmazonSSM".

AWS: the API reference of each action, "Understanding command statuses". Only AWS-RunShellScript is there; no S3 or
CloudWatch output, no MaxConcurrency and MaxErrors (all instances at once).
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from harness.region.calls import AwsError, Call
from harness.region.commands import Command, Invocation
from harness.region.plane import Action, Plane
from harness.region.semantics import commands as semantics
from harness.region.semantics.commands import DOCUMENT, PLUGIN, status_of
from harness.region.state import LAUNCH_TIME, Instance

AGENT_VERSION = "3.3.0.0"
UNSUPPORTED = (
    "DocumentHash",
    "OutputS3BucketName",
    "NotificationConfig",
    "CloudWatchOutputConfig",
    "ServiceRoleArn",
    "AlarmConfiguration",
)

T = TypeVar("T")


def send_command(plane: Plane, call: Call) -> bytes:
    """SendCommand: taken at once, delivered when the node can be reached."""
    for name in UNSUPPORTED:
        if call.data.get(name):
            raise AwsError("UnsupportedOperation", f"This region does not carry out {name}.")
    order = semantics.read_order(call.data)
    with plane.state.lock:
        takers = [i for i, record in plane.state.instances.items() if _takes(record)]
    if order.targets:
        instance_ids = semantics.matching(order.targets, _tags(plane, takers))
    else:
        semantics.check_instances(order.instance_ids, takers)
        instance_ids = order.instance_ids
    command = plane.commands.send(str(uuid.uuid4()), order, instance_ids)
    return _body({"Command": _command(command)})


def get_command_invocation(plane: Plane, call: Call) -> bytes:
    """GetCommandInvocation: how the command stands on one instance, with its output once it has ended."""
    command_id, instance_id = _text(call, "CommandId"), _text(call, "InstanceId")
    if call.data.get("PluginName") not in (None, PLUGIN, "runShellScript"):
        raise AwsError("InvalidPluginName", "The plugin name isn't valid.")
    command = plane.commands.get(command_id)
    invocation = command.invocations.get(instance_id) if command is not None else None
    if command is None or invocation is None or _too_young(plane, command):
        raise AwsError("InvocationDoesNotExist", "No invocation of this command on this instance.")
    return _body(
        {
            "CommandId": command_id,
            "InstanceId": instance_id,
            "Comment": command.order.comment,
            "DocumentName": DOCUMENT,
            "DocumentVersion": "$DEFAULT",
            "PluginName": PLUGIN,
            "ResponseCode": invocation.code,
            "ExecutionStartDateTime": _iso(invocation.started_s),
            "ExecutionElapsedTime": _elapsed(invocation),
            "ExecutionEndDateTime": _iso(invocation.ended_s) if invocation.started_s else "",
            "Status": status_of(invocation.details),
            "StatusDetails": semantics.shown(invocation.details),
            "StandardOutputContent": invocation.stdout,
            "StandardOutputUrl": "",
            "StandardErrorContent": invocation.stderr,
            "StandardErrorUrl": "",
            "CloudWatchOutputConfig": {"CloudWatchLogGroupName": "", "CloudWatchOutputEnabled": False},
        }
    )


def list_command_invocations(plane: Plane, call: Call) -> bytes:
    """ListCommandInvocations, of one command or instance or of all; Details=true shows the plugin and its output."""
    details = bool(call.data.get("Details"))
    rows = [(c, i) for c in _commands(plane, call) for i in c.invocations.values() if _wanted(call, i)]
    page, token = _page(call, rows)
    shown = [_invocation(command, invocation, details=details) for command, invocation in page]
    return _body({"CommandInvocations": shown, **token})


def list_commands(plane: Plane, call: Call) -> bytes:
    """ListCommands, the newest first."""
    rows = [c for c in _commands(plane, call) if any(_wanted(call, i) for i in c.invocations.values())]
    page, token = _page(call, rows)
    return _body({"Commands": [_command(command) for command in page], **token})


def cancel_command(plane: Plane, call: Call) -> bytes:
    """CancelCommand: what has not begun never will, what runs is killed; no error for what has ended."""
    command_id = _text(call, "CommandId")
    command = plane.commands.get(command_id)
    if command is None:
        raise AwsError("InvalidCommandId", "The specified command ID isn't valid.")
    instance_ids = call.data.get("InstanceIds") or []
    if not isinstance(instance_ids, list) or not set(map(str, instance_ids)) <= set(command.invocations):
        raise AwsError("InvalidInstanceId", "The command was not sent to this instance.")
    plane.commands.cancel(command_id, tuple(map(str, instance_ids)))
    return _body({})


def describe_instance_information(plane: Plane, call: Call) -> bytes:
    """DescribeInstanceInformation: every instance whose agent has ever reported, Online when it can be reached now.

    The agent reports when somebody looks (on AWS: every five minutes), and first of all when it is launched (ours).
    """
    with plane.state.lock:
        records = [r for r in plane.state.instances.values() if not r.terminated]
    online = plane.commands.hear(r.instance_id for r in records)
    told = [r for r in records if online[r.instance_id] or not _launching(r)]
    rows = [_information(plane, record, online=online[record.instance_id]) for record in told]
    for key, values in _filters(call):
        field = {"InstanceIds": "InstanceId", "PlatformTypes": "PlatformType"}.get(key, key)
        if field not in ("InstanceId", "PlatformType", "PingStatus", "ResourceType", "AgentVersion"):
            raise AwsError("InvalidFilterKey", "The specified key isn't valid.")
        rows = [row for row in rows if row.get(field) in values]
    page, token = _page(call, rows)
    return _body({"InstanceInformationList": page, **token})


def _takes(record: Instance) -> bool:
    """Whether commands can be sent to it. SendCommand, InvalidInstanceId: not when shutting-down or terminated."""
    return not record.terminated and record.transition != "shutting-down"


def _launching(record: Instance) -> bool:
    """Whether its agent has never run yet."""
    return record.transition == "pending" and record.how != "start"


def _information(plane: Plane, record: Instance, *, online: bool) -> dict[str, Any]:
    heard_s = plane.commands.heard_s(record.instance_id)
    return {
        "InstanceId": record.instance_id,
        "PingStatus": "Online" if online else "ConnectionLost",
        "LastPingDateTime": _launched_s(record) if heard_s is None else heard_s,
        "AgentVersion": AGENT_VERSION,
        "IsLatestVersion": True,
        "PlatformType": "Linux",
        "PlatformName": "Debian GNU/Linux",
        "PlatformVersion": "12",
        "ResourceType": "EC2Instance",
        "IPAddress": record.private_ip,
        "ComputerName": record.name,
    }


def _launched_s(record: Instance) -> float | None:
    """Seconds since the epoch; None for a record that does not say."""
    if not record.launched:
        return None
    return datetime.strptime(record.launched, LAUNCH_TIME).replace(tzinfo=UTC).timestamp()


def _command(command: Command) -> dict[str, Any]:
    every = [i.details for i in command.invocations.values()]
    status = semantics.command_status(every)
    return {
        "CommandId": command.command_id,
        "DocumentName": DOCUMENT,
        "DocumentVersion": "$DEFAULT",
        "Comment": command.order.comment,
        "ExpiresAfter": command.expires_s,
        "Parameters": {"commands": list(command.order.commands)},
        "InstanceIds": list(command.order.instance_ids),
        "Targets": [{"Key": key, "Values": list(values)} for key, values in command.order.targets],
        "RequestedDateTime": command.requested_s,
        "Status": status,
        "StatusDetails": status,
        "TargetCount": len(every),
        "CompletedCount": sum(i.ended for i in command.invocations.values()),
        "ErrorCount": sum(d in ("Failed", "ExecutionTimedOut") for d in every),
        "DeliveryTimedOutCount": every.count("DeliveryTimedOut"),
        "TimeoutSeconds": command.order.delivery_s,
        "MaxConcurrency": "50",
        "MaxErrors": "0",
    }


def _invocation(command: Command, invocation: Invocation, *, details: bool) -> dict[str, Any]:
    status, text = status_of(invocation.details), semantics.shown(invocation.details)
    plugin = {
        "Name": PLUGIN,
        "Status": status,
        "StatusDetails": text,
        "ResponseCode": invocation.code,
        "Output": (invocation.stdout + invocation.stderr)[: semantics.SUMMARY_CHARACTERS],
    }
    return {
        "CommandId": command.command_id,
        "InstanceId": invocation.instance_id,
        "InstanceName": "",
        "Comment": command.order.comment,
        "DocumentName": DOCUMENT,
        "DocumentVersion": "$DEFAULT",
        "RequestedDateTime": command.requested_s,
        "Status": status,
        "StatusDetails": text,
        "CommandPlugins": [plugin] if details else [],
    }


def _commands(plane: Plane, call: Call) -> list[Command]:
    command_id = call.data.get("CommandId")
    if command_id is None:
        return plane.commands.all()
    command = plane.commands.get(str(command_id))
    if command is None:
        raise AwsError("InvalidCommandId", "The specified command ID isn't valid.")
    return [command]


def _wanted(call: Call, invocation: Invocation) -> bool:
    if call.data.get("InstanceId") not in (None, invocation.instance_id):
        return False
    for key, values in _filters(call):
        if key != "Status":
            raise AwsError("InvalidFilterKey", "The specified key isn't valid.")
        if status_of(invocation.details) not in values:
            return False
    return True


def _filters(call: Call) -> list[tuple[str, list[str]]]:
    """The filters of all the forms in which SSM takes them: key, Key, value, valueSet, Values."""
    found = []
    for name in ("Filters", "InstanceInformationFilterList"):
        for row in call.data.get(name) or []:
            lower = {str(k).lower(): v for k, v in row.items()}
            values = lower.get("values") or lower.get("valueset") or [lower.get("value")]
            found.append((str(lower.get("key")), list(map(str, values))))
    return found


def _page(call: Call, rows: Sequence[T]) -> tuple[list[T], dict[str, str]]:
    """One page of the rows, and the token of the next."""
    token, size = call.data.get("NextToken"), call.data.get("MaxResults") or 50
    if token is not None and not (str(token).isascii() and str(token).isdigit() and len(str(token)) < 10):
        raise AwsError("InvalidNextToken", "The specified token isn't valid.")
    if not 1 <= size <= 50:
        raise AwsError("ValidationException", "MaxResults is 1 to 50.")
    begin = int(token or 0)
    more = begin + size < len(rows)
    return list(rows[begin : begin + size]), {"NextToken": str(begin + size)} if more else {}


def _tags(plane: Plane, instance_ids: Iterable[str]) -> dict[str, dict[str, str]]:
    """The tags of these instances, from the books."""
    tags: dict[str, dict[str, str]] = {i: {} for i in instance_ids}
    document = plane.books.call("DescribeTags", {"Filter.1.Name": "resource-type", "Filter.1.Value.1": "instance"})
    for item in document.items("tagSet"):
        owner = item.findtext("resourceId") or ""
        if owner in tags:
            tags[owner][item.findtext("key") or ""] = item.findtext("value") or ""
    return tags


def _too_young(plane: Plane, command: Command) -> bool:
    """A command may be unknown for a moment after it was sent: the answers of SSM lag as those of EC2 do."""
    return plane.commands.wall_s() - command.requested_s < plane.delays.draw("consistency")


def _text(call: Call, name: str) -> str:
    value = call.data.get(name)
    if not isinstance(value, str) or not value:
        raise AwsError("ValidationException", f"{name} has to be given.")
    return value


def _iso(moment_s: float | None) -> str:
    return "" if moment_s is None else datetime.fromtimestamp(moment_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _elapsed(invocation: Invocation) -> str:
    if invocation.started_s is None or invocation.ended_s is None:
        return ""
    return f"PT{invocation.ended_s - invocation.started_s:.3f}S"


def _body(answer: Mapping[str, Any]) -> bytes:
    return json.dumps(answer).encode()


ACTIONS: Mapping[str, Action] = {
    "SendCommand": send_command,
    "GetCommandInvocation": get_command_invocation,
    "ListCommandInvocations": list_command_invocations,
    "ListCommands": list_commands,
    "CancelCommand": cancel_command,
    "DescribeInstanceInformation": describe_instance_information,
}
