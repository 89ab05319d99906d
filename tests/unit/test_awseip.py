"""The address agent: one call to start, a stop that takes from nobody, a monitor that knows what it does not know."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from tests.unit.agents import Clock, ScriptedEc2, load_agent

ME, OTHER = ScriptedEc2.me, "i-0other"
EIP, ALLOCATION, ASSOCIATION = "203.0.113.1", "eipalloc-1", "eipassoc-1"
ASSOCIATED = f"<r><return>true</return><associationId>{ASSOCIATION}</associationId></r>"


def owned_by(instance_id: str | None) -> str:
    owner = f"<instanceId>{instance_id}</instanceId><associationId>{ASSOCIATION}</associationId>" if instance_id else ""
    return f"<r><addressesSet><item><publicIp>{EIP}</publicIp>{owner}</item></addressesSet></r>"


class Metadata:
    """The leaves that are there; a `None` for all of them is a service that does not answer."""

    def __init__(self, agent: ModuleType, leaves: dict[str, str] | None) -> None:
        self._agent, self._leaves = agent, leaves

    def find(self, path: str) -> str | None:
        if self._leaves is None:
            raise self._agent.api.Unreachable("instance metadata: timed out")
        return self._leaves.get(path)

    def get(self, path: str) -> str:
        text = self.find(path)
        assert text is not None
        return text


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = load_agent("awseip", monkeypatch)
    monkeypatch.setattr(module, "time", Clock())
    monkeypatch.setattr(module.api, "time", module.time)
    monkeypatch.setattr(module, "log", lambda text: None)
    monkeypatch.setenv("OCF_RESKEY_elastic_ip", EIP)
    monkeypatch.setenv("OCF_RESKEY_allocation_id", ALLOCATION)
    return module


def parameters(agent: ModuleType, **changes: Any) -> Any:
    p = agent.Parameters()
    vars(p).update(changes)
    return p


def test_a_start_is_one_call_that_may_take_the_address_from_another(agent: ModuleType) -> None:
    ec2 = ScriptedEc2(AssociateAddress=[ASSOCIATED])
    assert agent.start(parameters(agent), ec2, Metadata(agent, {})) == 0
    wanted = {"AllocationId": ALLOCATION, "AllowReassociation": "true", "InstanceId": ME}
    assert ec2.calls == [("AssociateAddress", wanted)]


def test_a_start_at_a_private_address_names_the_interface_that_has_it(agent: ModuleType) -> None:
    macs = "network/interfaces/macs/"
    leaves = {
        macs: "aa/\nbb/",
        f"{macs}aa/local-ipv4s": "198.18.0.11",
        f"{macs}bb/local-ipv4s": "198.18.0.21\n198.18.0.22",
        f"{macs}bb/interface-id": "eni-b",
    }
    ec2 = ScriptedEc2(AssociateAddress=[ASSOCIATED])
    assert agent.start(parameters(agent, private_ip="198.18.0.22"), ec2, Metadata(agent, leaves)) == 0
    assert ec2.calls[0][1] == {
        "AllocationId": ALLOCATION,
        "AllowReassociation": "true",
        "NetworkInterfaceId": "eni-b",
        "PrivateIpAddress": "198.18.0.22",
    }
    with pytest.raises(agent.Failed, match="no interface here has"):
        agent.start(parameters(agent, private_ip="198.18.0.99"), ec2, Metadata(agent, leaves))


def test_a_start_tries_again_until_shortly_before_its_time_out(agent: ModuleType) -> None:
    throttled, silent = agent.api.ApiError("RequestLimitExceeded", "slow", 503), agent.api.Unreachable("timed out")
    ec2 = ScriptedEc2(AssociateAddress=[throttled, silent, throttled, ASSOCIATED])
    assert agent.start(parameters(agent), ec2, Metadata(agent, {})) == 0
    p, began = parameters(agent), agent.time.now_s
    with pytest.raises(agent.api.ApiError):
        agent.start(p, ScriptedEc2(AssociateAddress=[throttled]), Metadata(agent, {}))
    assert 20 < agent.time.now_s - began < 29.5, "the time-out is 30 s"


def test_a_stop_gives_up_what_is_ours_by_its_association(agent: ModuleType) -> None:
    ec2 = ScriptedEc2(DescribeAddresses=[owned_by(ME)], DisassociateAddress=["<r/>"])
    assert agent.stop(parameters(agent), ec2, Metadata(agent, {})) == 0
    assert ec2.calls[-1] == ("DisassociateAddress", {"AssociationId": ASSOCIATION})


@pytest.mark.parametrize("owner", [OTHER, None])
def test_a_stop_touches_nothing_that_is_not_ours(agent: ModuleType, owner: str | None) -> None:
    ec2 = ScriptedEc2(DescribeAddresses=[owned_by(owner)])
    assert agent.stop(parameters(agent), ec2, Metadata(agent, {})) == 0
    assert ec2.actions == ["DescribeAddresses"]


def test_an_address_that_was_taken_between_look_and_stop_stays_with_its_new_owner(agent: ModuleType) -> None:
    gone = agent.api.ApiError("InvalidAssociationID.NotFound", "no", 400)
    ec2 = ScriptedEc2(DescribeAddresses=[owned_by(ME)], DisassociateAddress=[gone])
    assert agent.stop(parameters(agent), ec2, Metadata(agent, {})) == 0


def test_a_stop_does_not_cost_the_node_its_power_when_ec2_is_silent(agent: ModuleType) -> None:
    began = agent.time.now_s
    ec2 = ScriptedEc2(DescribeAddresses=[agent.api.Unreachable("timed out")])
    assert agent.stop(parameters(agent), ec2, Metadata(agent, {})) == 0
    assert 4 < agent.time.now_s - began < 8


def test_a_stop_that_ec2_refuses_is_a_failure(agent: ModuleType) -> None:
    refused = agent.api.ApiError("UnauthorizedOperation", "no", 403)
    ec2 = ScriptedEc2(DescribeAddresses=[owned_by(ME)], DisassociateAddress=[refused])
    with pytest.raises(agent.api.ApiError):
        agent.stop(parameters(agent), ec2, Metadata(agent, {}))


HERE, AWAY, SILENT = {"public-ipv4": EIP}, {"public-ipv4": "192.0.2.9"}, None
NO_CALL: list[str] = []
ASK = ["DescribeAddresses"]


@pytest.mark.parametrize(
    ("probe", "metadata", "books", "code", "calls"),
    [
        (False, HERE, None, 0, NO_CALL),
        (False, AWAY, ME, 0, ASK),  # metadata lags behind a start
        (False, AWAY, OTHER, 7, None),
        (False, SILENT, OTHER, 7, None),
        (False, AWAY, "silent", 7, None),  # the node was told: the address has left
        (False, SILENT, "silent", 0, None),  # nobody can tell: moving it would need the same API
        (True, HERE, ME, 0, ASK),
        (True, HERE, OTHER, 7, ASK),  # metadata lags behind a move: a second owner must not be reported
        (True, HERE, "silent", 0, None),
        (True, AWAY, None, 7, NO_CALL),
        (True, SILENT, ME, 0, ASK),
        (True, SILENT, "silent", 7, None),
    ],
)
def test_who_is_asked_whether_the_address_is_here(
    agent: ModuleType, probe: bool, metadata: Any, books: str | None, code: int, calls: list[str] | None
) -> None:
    answer = agent.api.Unreachable("timed out") if books == "silent" else owned_by(books)
    ec2 = ScriptedEc2(DescribeAddresses=[answer])
    assert agent.monitor(parameters(agent, probe=probe), ec2, Metadata(agent, metadata)) == code
    assert calls is None or ec2.actions == calls


def test_what_ec2_said_before_the_start_is_not_taken_for_a_loss(agent: ModuleType) -> None:
    ec2 = ScriptedEc2(DescribeAddresses=[owned_by(None), owned_by(OTHER), owned_by(ME)])
    assert agent.monitor(parameters(agent, probe=False), ec2, Metadata(agent, AWAY)) == 0
    began, lost = agent.time.now_s, ScriptedEc2(DescribeAddresses=[owned_by(OTHER)])
    assert agent.monitor(parameters(agent, probe=False), lost, Metadata(agent, AWAY)) == 7
    assert 2 < agent.time.now_s - began < 4
    assert agent.monitor(parameters(agent, probe=True), ec2, Metadata(agent, SILENT)) == 0


def test_a_monitor_that_can_not_know_ends_long_before_its_time_out(agent: ModuleType) -> None:
    began = agent.time.now_s
    ec2 = ScriptedEc2(DescribeAddresses=[agent.api.ApiError("InternalError", "oops", 500)])
    assert agent.monitor(parameters(agent, probe=False), ec2, Metadata(agent, None)) == 0
    assert agent.time.now_s - began < 4


@pytest.mark.parametrize(
    ("code", "status", "exit_code"),
    [("UnauthorizedOperation", 403, 4), ("InvalidAllocationID.NotFound", 400, 2), ("InternalError", 500, 1)],
)
def test_what_ec2_refuses_has_its_own_exit_code(agent: ModuleType, code: str, status: int, exit_code: int) -> None:
    assert agent.exit_code(agent.api.ApiError(code, "no", status)) == exit_code


@pytest.mark.parametrize(("name", "value"), [("elastic_ip", "pbx"), ("allocation_id", "vol-1")])
def test_a_wrong_parameter_is_a_configuration_error(
    agent: ModuleType, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"OCF_RESKEY_{name}", value)
    with pytest.raises(agent.Failed) as raised:
        agent.validate(agent.Parameters())
    assert raised.value.code == 6
