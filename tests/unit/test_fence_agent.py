"""The fence agent never says "off" before EC2 says `stopped`, and never gives up while there is time."""

from __future__ import annotations

import io
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.agents import Clock, ScriptedEc2, load_agent

PLUG = "i-0dead"
STATES = ("pending", "running", "shutting-down", "terminated", "stopping", "stopped")
DEAD = ("stopped", "terminated")


def told(state: str) -> str:
    return f"<r><instancesSet><item><currentState><name>{state}</name></currentState></item></instancesSet></r>"


def seen(state: str) -> str:
    item = f"<item><instanceId>{PLUG}</instanceId><instanceState><name>{state}</name></instanceState></item>"
    return f"<r><reservationSet><item><instancesSet>{item}</instancesSet></item></reservationSet></r>"


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = load_agent("fence_pbxha_aws", monkeypatch)
    monkeypatch.setattr(module, "time", Clock())
    monkeypatch.setattr(module.api, "time", module.time)
    return module


def off(agent: ModuleType, ec2: ScriptedEc2, *, timeout_s: float = 60) -> int:
    return int(agent.off(ec2, {"plug": PLUG}, agent.time.monotonic() + timeout_s))


def test_the_power_is_cut_and_success_waits_for_stopped(agent: ModuleType) -> None:
    ec2 = ScriptedEc2(StopInstances=[told("stopping")], DescribeInstances=[seen("stopping")] * 3 + [seen("stopped")])
    assert off(agent, ec2) == 0
    assert ec2.calls[0] == ("StopInstances", {"InstanceId.1": PLUG, "Force": "true", "SkipOsShutdown": "true"})
    assert ec2.actions == ["StopInstances"] + ["DescribeInstances"] * 4
    assert agent.time.slept[0] == 0.1


def test_a_node_that_is_off_already_costs_one_call(agent: ModuleType) -> None:
    ec2 = ScriptedEc2(StopInstances=[told("stopped")])
    assert off(agent, ec2) == 0
    assert ec2.actions == ["StopInstances"] and agent.time.slept == []


def test_stopping_for_ever_is_a_failure_within_the_power_time_out(agent: ModuleType) -> None:
    ec2 = ScriptedEc2(StopInstances=[told("stopping")], DescribeInstances=[seen("stopping")])
    began = agent.time.now_s
    with pytest.raises(agent.Failure, match="not in time; last seen: stopping"):
        off(agent, ec2, timeout_s=60)
    assert agent.time.now_s - began <= 60
    assert len(ec2.calls) < 150, "EC2 allows some ten reads a second"


def test_a_terminated_instance_is_off_though_it_can_not_be_stopped(agent: ModuleType) -> None:
    wrong = agent.api.ApiError("IncorrectInstanceState", "no", 400)
    ec2 = ScriptedEc2(StopInstances=[wrong], DescribeInstances=[seen("shutting-down")] * 2 + [seen("terminated")])
    assert off(agent, ec2) == 0


def test_an_instance_that_ec2_does_not_know_is_no_dead_node(agent: ModuleType) -> None:
    gone = agent.api.ApiError("InvalidInstanceID.NotFound", "no", 400)
    with pytest.raises(agent.api.ApiError):
        off(agent, ScriptedEc2(StopInstances=[gone]))
    wrong = agent.api.ApiError("IncorrectInstanceState", "no", 400)
    with pytest.raises(agent.Failure, match="knows no instance"):
        off(agent, ScriptedEc2(StopInstances=[wrong], DescribeInstances=["<r/>"]))


def test_a_node_that_somebody_starts_meanwhile_is_stopped_again(agent: ModuleType) -> None:
    states = ["stopping", "pending", "running", "stopping", "stopped"]
    wrong = agent.api.ApiError("IncorrectInstanceState", "it is pending", 400)
    ec2 = ScriptedEc2(
        StopInstances=[told("stopping"), wrong, told("stopping")], DescribeInstances=[seen(state) for state in states]
    )
    assert off(agent, ec2) == 0
    assert ec2.actions.count("StopInstances") == 3


@pytest.mark.parametrize("kind", ["throttled", "broken", "silent"])
def test_what_may_pass_is_tried_again(agent: ModuleType, kind: str) -> None:
    trouble: Any = {
        "throttled": agent.api.ApiError("RequestLimitExceeded", "slow down", 503),
        "broken": agent.api.ApiError("InternalError", "oops", 500),
        "silent": agent.api.Unreachable("timed out"),
    }[kind]
    ec2 = ScriptedEc2(
        StopInstances=[trouble, trouble, told("stopping")],
        DescribeInstances=[trouble, seen("stopping"), seen("stopped")],
    )
    assert off(agent, ec2) == 0


def test_a_key_that_may_not_stop_fails_at_once(agent: ModuleType) -> None:
    refused = agent.api.ApiError("UnauthorizedOperation", "no", 403)
    with pytest.raises(agent.api.ApiError):
        off(agent, ScriptedEc2(StopInstances=[refused]))
    assert agent.time.slept == []


def test_an_endpoint_that_does_not_know_skip_os_shutdown_is_asked_without(agent: ModuleType) -> None:
    unknown = agent.api.ApiError("UnknownParameter", "SkipOsShutdown", 400)
    ec2 = ScriptedEc2(StopInstances=[unknown, told("stopping")], DescribeInstances=[seen("stopped")])
    assert off(agent, ec2) == 0
    assert ec2.calls[1] == ("StopInstances", {"InstanceId.1": PLUG, "Force": "true"})


@given(data=st.data())
def test_success_is_never_early(data: st.DataObject) -> None:
    """Whatever EC2 answers, in whatever order: the last thing it said before a success is that the machine is off."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        agent = load_agent("fence_pbxha_aws", monkeypatch)
        monkeypatch.setattr(agent, "time", Clock())
        monkeypatch.setattr(agent.api, "time", agent.time)
        errors = [
            agent.api.ApiError("RequestLimitExceeded", "slow", 503),
            agent.api.ApiError("IncorrectInstanceState", "no", 400),
            agent.api.Unreachable("timed out"),
        ]
        answers = st.lists(st.sampled_from([*STATES, *errors]), min_size=1, max_size=12)
        rest = {"StopInstances": data.draw(answers), "DescribeInstances": data.draw(answers)}
        said: list[Any] = []

        def call(action: str, **_: Any) -> Any:
            left = rest[action]
            said.append(left.pop(0) if len(left) > 1 else left[0])
            if isinstance(said[-1], Exception):
                raise said[-1]
            return agent.api.parsed(200, (told if action == "StopInstances" else seen)(said[-1]).encode())

        try:
            agent.off(SimpleNamespace(call=call), {"plug": PLUG}, agent.time.monotonic() + 30)
        except (agent.Failure, agent.api.ApiError, agent.api.Unreachable):
            assert said[-1] not in DEAD
        else:
            assert said[-1] in DEAD


@pytest.mark.parametrize(("state", "code"), [(s, 2 if s in DEAD else 0) for s in STATES])
def test_status_calls_everything_on_that_may_still_write(agent: ModuleType, state: str, code: int) -> None:
    ec2 = ScriptedEc2(DescribeInstances=[seen(state)])
    assert agent.status(ec2, {"plug": PLUG}, agent.time.monotonic() + 5) == code


def test_a_reboot_succeeds_once_it_was_off_even_if_it_can_not_be_started(agent: ModuleType) -> None:
    refused = agent.api.ApiError("InsufficientInstanceCapacity", "none", 400)
    ec2 = ScriptedEc2(StopInstances=[told("stopped")], StartInstances=[refused])
    assert agent.reboot(ec2, {"plug": PLUG}, agent.time.monotonic() + 60) == 0
    never = ScriptedEc2(StopInstances=[told("stopping")], DescribeInstances=[seen("stopping")], StartInstances=["<r/>"])
    with pytest.raises(agent.Failure):
        agent.reboot(never, {"plug": PLUG}, agent.time.monotonic() + 60)
    assert "StartInstances" not in never.actions


@pytest.mark.parametrize(
    ("argv", "stdin"),
    [
        (["-o", "off", "-n", PLUG, "-r", "eu-west-1"], ""),
        (["--action=off", f"--plug={PLUG}", "--region=eu-west-1"], ""),
        ([], f"action=off\nplug={PLUG}\nregion=eu-west-1\nnodename=pbx-1\n"),
        ([], f"action=off\nport={PLUG}\nregion=eu-west-1\n\n"),
    ],
)
def test_options_come_as_arguments_or_on_stdin(agent: ModuleType, argv: list[str], stdin: str) -> None:
    options = agent.read_options(argv, io.StringIO(stdin))
    assert (options["action"], options["plug"], options["region"]) == ("off", PLUG, "eu-west-1")
    assert options["power_timeout"] == "60"
