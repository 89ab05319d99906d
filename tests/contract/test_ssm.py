"""Systems Manager: commands on instances, without a way in of their own. (On real guests: test_guests.py.)"""

from __future__ import annotations

from typing import Any

from tests.contract.local import LocalSite
from tests.contract.promises import SSM_API, promise
from tests.contract.site import Site, error_of

UNKNOWN = "i-0123456789abcdef0"
SHELL = {"DocumentName": "AWS-RunShellScript", "Parameters": {"commands": ["true"]}}
NO_AGENT = "the bare image of the contract has no role for Systems Manager"


@promise(
    "ssm:SendCommand", "an unknown instance is refused: InvalidInstanceId", source=f"{SSM_API}API_SendCommand.html"
)
def test_a_command_for_nobody(site: Site) -> None:
    assert error_of(site.client("ssm").send_command, InstanceIds=[UNKNOWN], **SHELL) == "InvalidInstanceId"


@promise(
    "ssm:SendCommand",
    "an instance that is shutting-down is refused: InvalidInstanceId",
    source=f"{SSM_API}API_SendCommand.html",
    local_only=NO_AGENT,
)
def test_a_command_for_what_goes_away(site: LocalSite, two: tuple[str, str]) -> None:
    site.instances.gate.clear()
    site.ec2().terminate_instances(InstanceIds=[two[0]])
    assert site.state(two[0]) == "shutting-down"
    assert error_of(site.client("ssm").send_command, InstanceIds=[two[0]], **SHELL) == "InvalidInstanceId"
    site.client("ssm").send_command(InstanceIds=[two[1]], **SHELL)


@promise(
    "ssm:DescribeInstanceInformation",
    "LastPingDateTime of a node that is lost is when its agent was heard last",
    source=f"{SSM_API}API_InstanceInformation.html",
    local_only=NO_AGENT,
)
def test_when_a_lost_node_was_heard(site: LocalSite, two: tuple[str, str]) -> None:
    def pings() -> dict[str, Any]:
        told = site.client("ssm").describe_instance_information()["InstanceInformationList"]
        return {row["InstanceId"]: row["LastPingDateTime"] for row in told}

    before = pings()
    site.stop(two[0])
    after = pings()
    assert after[two[0]] == before[two[0]] and after[two[1]] > before[two[1]]


@promise(
    "ssm:SendCommand",
    "a document that is not there is refused: InvalidDocument",
    source=f"{SSM_API}API_SendCommand.html",
    local_only=NO_AGENT,
)
def test_an_unknown_document(site: Site, two: tuple[str, str]) -> None:
    send = site.client("ssm").send_command
    assert error_of(send, InstanceIds=[two[0]], DocumentName="PBX-NoSuchDocument") == "InvalidDocument"


@promise(
    "ssm:GetCommandInvocation",
    "an unknown command is refused: InvocationDoesNotExist",
    source=f"{SSM_API}API_GetCommandInvocation.html",
)
def test_an_unknown_command(site: Site, two: tuple[str, str]) -> None:
    asked: dict[str, Any] = {"CommandId": "0d1a6e1e-4a4e-4d7b-9a54-3a5f0f1d2c3b", "InstanceId": two[0]}
    assert error_of(site.client("ssm").get_command_invocation, **asked) == "InvocationDoesNotExist"


@promise(
    "ssm:DescribeInstanceInformation",
    "running instances are Online, one that is off is not",
    source=f"{SSM_API}API_InstanceInformation.html",
    local_only=NO_AGENT,
)
def test_who_is_online(site: Site, two: tuple[str, str]) -> None:
    def pings() -> dict[str, str]:
        told = site.client("ssm").describe_instance_information()["InstanceInformationList"]
        return {row["InstanceId"]: row["PingStatus"] for row in told}

    site.until("both online", lambda: {pings().get(i) for i in two} == {"Online"})
    site.stop(two[0])
    site.until("one lost", lambda: pings().get(two[0]) != "Online" and pings().get(two[1]) == "Online")
    assert pings().get(two[0]) in ("ConnectionLost", None)
