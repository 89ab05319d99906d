"""What Systems Manager promises of a command sent to instances, as pure functions.

AWS: "SendCommand", "GetCommandInvocation", "Understanding command statuses", "Understanding command timeout values",
document AWS-RunShellScript (commands, workingDirectory, executionTimeout 3600 s by default, 1 to 172800).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.region.calls import BOOKS_ACCOUNT, AwsError

DOCUMENT = "AWS-RunShellScript"
PLUGIN = "aws:runShellScript"
STDOUT_CHARACTERS, STDERR_CHARACTERS, SUMMARY_CHARACTERS = 24000, 8000, 2500
DEFAULT_DELIVERY_S, MIN_DELIVERY_S, MAX_DELIVERY_S = 3600, 30, 2592000
DEFAULT_EXECUTION_S, MAX_EXECUTION_S = 3600, 172800
MAX_INSTANCES, MAX_TARGETS = 50, 5
KILLED_CODE = 137
"""Response code of a command that was ended from outside, by its time-out or CancelCommand."""

Details = Literal[
    "Pending", "InProgress", "Delayed", "Success", "Failed", "Cancelling", "Cancelled",
    "DeliveryTimedOut", "ExecutionTimedOut", "Undeliverable", "Terminated",
]  # fmt: skip
"""StatusDetails of an invocation."""

_STATUS: Mapping[Details, str] = {
    "Delayed": "Delayed",
    "DeliveryTimedOut": "TimedOut",
    "ExecutionTimedOut": "TimedOut",
    "Undeliverable": "Failed",
    "Terminated": "Failed",
}
_SHOWN: Mapping[Details, str] = {
    "DeliveryTimedOut": "Delivery Timed Out",
    "ExecutionTimedOut": "Execution Timed Out",
    "InProgress": "InProgress",
}
TERMINAL: frozenset[Details] = frozenset(
    ("Success", "Failed", "Cancelled", "DeliveryTimedOut", "ExecutionTimedOut", "Undeliverable", "Terminated")
)


@dataclass(frozen=True, kw_only=True)
class Order:
    """A SendCommand that has been read: the script, its bounds in seconds, where it runs, and where to."""

    commands: tuple[str, ...]
    execution_s: int
    delivery_s: int
    folder: str
    comment: str
    instance_ids: tuple[str, ...]
    targets: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def script(self) -> str:
        return "\n".join(self.commands) + "\n"


def status_of(details: Details) -> str:
    """Status that goes with StatusDetails."""
    return _STATUS.get(details, details)


def shown(details: Details) -> str:
    """StatusDetails as they are spelled."""
    return _SHOWN.get(details, details)


def read_order(data: Mapping[str, Any]) -> Order:
    """The order in a SendCommand; AWS's error for one that can't be carried out."""
    if data.get("DocumentName") != DOCUMENT:
        raise AwsError("InvalidDocument", f"This region has the document {DOCUMENT} only.")
    parameters = data.get("Parameters") or {}
    if not isinstance(parameters, Mapping):
        raise AwsError("SerializationException", "Parameters is a mapping.")
    unknown = sorted(set(parameters) - {"commands", "executionTimeout", "workingDirectory"})
    if unknown:
        raise AwsError("InvalidParameters", f"{DOCUMENT} has no parameter {unknown[0]!r}.")
    commands = _texts("commands", parameters.get("commands"))
    if not commands:
        raise AwsError("InvalidParameters", "commands is required.")
    execution = _one("executionTimeout", parameters.get("executionTimeout"), str(DEFAULT_EXECUTION_S))
    if not (execution.isascii() and execution.isdigit() and 1 <= int(execution[:9]) <= MAX_EXECUTION_S):
        raise AwsError("InvalidParameters", f"executionTimeout is 1 to {MAX_EXECUTION_S}, not {execution[:64]!r}.")
    if data.get("DocumentVersion") not in (None, "", "$DEFAULT", "$LATEST", "1"):
        raise AwsError("InvalidDocumentVersion", "The document version isn't valid or doesn't exist.")
    delivery = data.get("TimeoutSeconds", DEFAULT_DELIVERY_S)
    if not isinstance(delivery, int) or isinstance(delivery, bool) or not MIN_DELIVERY_S <= delivery <= MAX_DELIVERY_S:
        raise AwsError("ValidationException", f"TimeoutSeconds is {MIN_DELIVERY_S} to {MAX_DELIVERY_S}.")
    instance_ids = _texts("InstanceIds", data.get("InstanceIds"))
    if len(instance_ids) > MAX_INSTANCES:
        raise AwsError("ValidationException", f"InstanceIds has at most {MAX_INSTANCES} members.")
    if len(set(instance_ids)) < len(instance_ids):
        raise AwsError("DuplicateInstanceId", "An instance is named twice.")
    return Order(
        commands=commands,
        execution_s=int(execution),
        delivery_s=delivery,
        folder=_one("workingDirectory", parameters.get("workingDirectory"), ""),
        comment=str(data.get("Comment") or "")[:100],
        instance_ids=instance_ids,
        targets=_targets(data.get("Targets"), instance_ids),
    )


def check_instances(instance_ids: Sequence[str], takers: Collection[str]) -> None:
    """InvalidInstanceId for instances that are not among `takers`."""
    bad = [i for i in instance_ids if i not in takers]
    if bad:
        raise AwsError(
            "InvalidInstanceId", f"Instances [[{', '.join(bad)}]] not in a valid state for account {BOOKS_ACCOUNT}"
        )


def matching(targets: Sequence[tuple[str, Sequence[str]]], tags: Mapping[str, Mapping[str, str]]) -> tuple[str, ...]:
    """Instances that all targets mean, by id or by tag; `tags` of each instance that could be meant."""
    found = set(tags)
    for key, values in targets:
        if key == "InstanceIds":
            found &= set(values)
        else:
            name = key.removeprefix("tag:") if key.startswith("tag:") else None
            found = {i for i in found if (tags[i].get(name) in values if name else bool(set(tags[i]) & set(values)))}
    return tuple(sorted(found))


def command_status(invocations: Sequence[Details]) -> str:
    """Status of the whole command from those of its invocations."""
    if not invocations:
        return "Success"
    if "Cancelling" in invocations:
        return "Cancelling"
    if any(details not in TERMINAL for details in invocations):
        return "InProgress" if any(d not in ("Pending", "Delayed") for d in invocations) else "Pending"
    for wanted in ("Cancelled", "Failed", "TimedOut"):
        if wanted in map(status_of, invocations):
            return wanted
    return "Success"


def outcome(code: int, *, timed_out: bool, cancelled: bool) -> tuple[Details, int]:
    """StatusDetails and ResponseCode of a command that ended on the node with this exit code."""
    if cancelled:
        return "Cancelled", KILLED_CODE
    if timed_out:
        return "ExecutionTimedOut", KILLED_CODE
    return ("Success" if code == 0 else "Failed"), code


def _targets(value: object, instance_ids: Sequence[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    if not value:
        if not instance_ids:
            raise AwsError("ValidationException", "Either InstanceIds or Targets has to be given.")
        return ()
    if instance_ids:
        raise AwsError("ValidationException", "InstanceIds and Targets can't be given together.")
    if not isinstance(value, list) or len(value) > MAX_TARGETS or not all(isinstance(row, Mapping) for row in value):
        raise AwsError("ValidationException", f"Targets is a list of at most {MAX_TARGETS}.")
    rows = tuple((str(row.get("Key")), _texts("Values", row.get("Values"))) for row in value)
    for key, _ in rows:
        if key not in ("InstanceIds", "tag-key") and not key.startswith("tag:"):
            raise AwsError("ValidationException", f"Targets: {key!r} is none of InstanceIds, tag:NAME, tag-key.")
    return rows


def _texts(name: str, value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise AwsError("SerializationException", f"{name} is a list of strings.")
    return tuple(value)


def _one(name: str, value: object, default: str) -> str:
    texts = _texts(name, value)
    if len(texts) > 1:
        raise AwsError("InvalidParameters", f"{name} has one value.")
    return texts[0] if texts else default
