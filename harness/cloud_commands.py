"""Commands on nodes by Systems Manager (AWS-RunShellScript): sent, and their end waited for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.cloud_calls import POLL_S, CloudError, calling
from harness.command import wait_for

SSM_GRACE_S = 5.0
"""How much longer than it may run the end of a command is waited for."""


@dataclass(frozen=True, kw_only=True)
class CommandResult:
    """How a command on a node ended: Success, Failed or TimedOut (SSM's Status), exit code (-1: none), output."""

    status: str
    code: int
    stdout: str
    stderr: str


def run_command(ssm: Any, instance_id: str, commands: Sequence[str], *, timeout_s: int) -> CommandResult:
    """Run a shell script as root on a node by SSM, for at most `timeout_s`; `TimedOut` when no end is told.

    A node that is off or can't be reached does not get it; then this waits in vain.
    """
    with calling("SendCommand"):
        sent = ssm.send_command(
            DocumentName="AWS-RunShellScript",
            InstanceIds=[instance_id],
            TimeoutSeconds=max(30, timeout_s),
            Parameters={"commands": list(commands), "executionTimeout": [str(timeout_s)]},
        )
    seen = "nothing"

    def ended() -> CommandResult | None:
        nonlocal seen
        try:
            with calling("GetCommandInvocation"):
                found = ssm.get_command_invocation(CommandId=sent["Command"]["CommandId"], InstanceId=instance_id)
        except CloudError as error:
            if error.code != "InvocationDoesNotExist":  # as it may be said for a moment
                raise
            return None
        seen = found["Status"]
        if seen in ("Pending", "InProgress", "Delayed", "Cancelling"):
            return None
        return CommandResult(
            status=seen,
            code=found["ResponseCode"],
            stdout=found["StandardOutputContent"],
            stderr=found["StandardErrorContent"],
        )

    return wait_for(
        f"the end of a command on {instance_id}",
        ended,
        timeout_s=timeout_s + SSM_GRACE_S,
        every_s=POLL_S,
        last_seen=lambda: seen,
    )
