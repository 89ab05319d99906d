"""The EBS agent's decisions: one look at EC2's books, at most one step, and never a wrong one."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.unit.agents import load_agent

ME, OTHER, VOLUME = "i-0me", "i-0other", "vol-0123"


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The agent as a module, silent."""
    module = load_agent("awsebs", monkeypatch)
    monkeypatch.setattr(module, "log", lambda text: None)
    return module


class Books:
    """EC2 as the agent sees it: a volume that someone may have, and what was asked for."""

    me = ME

    def __init__(self, *, holder: str | None, state: str = "attached", power: str = "running") -> None:
        self.attachments = [{"InstanceId": holder, "State": state}] if holder else []
        self.power_of_holder = power
        self.asked: list[Any] = []

    def volume(self) -> dict[str, Any]:
        return {"State": "in-use" if self.attachments else "available", "Attachments": self.attachments}

    def power(self, instance_id: str) -> str:
        return self.power_of_holder

    def attach(self) -> None:
        self.asked.append("attach")

    def detach(self, instance_id: str, *, force: bool) -> None:
        self.asked.append(("detach", instance_id, "force" if force else "plain"))


@pytest.fixture
def parameters(agent: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("OCF_RESKEY_volume_id", VOLUME)
    return agent.Parameters()


@pytest.mark.parametrize(
    ("books", "asked", "seen"),
    [
        (Books(holder=None), ["attach"], "attach asked for"),
        (Books(holder=ME, state="attaching"), [], "attaching here"),
        (Books(holder=OTHER, power="stopped"), [("detach", OTHER, "plain")], "attached at i-0other, which is stopped"),
        (Books(holder=OTHER, power="running"), [("detach", OTHER, "plain")], "which is running"),
        (Books(holder=OTHER, power="stopping"), [], "which is stopping"),
        (Books(holder=OTHER, power="shutting-down"), [], "which is shutting-down"),
        (Books(holder=OTHER, power="terminated"), [("detach", OTHER, "plain")], "which is terminated"),
        (Books(holder=OTHER, state="detaching"), [], "detaching at i-0other"),
        (Books(holder=OTHER, state="busy"), [("detach", OTHER, "plain")], "busy at i-0other"),
    ],
)
def test_one_step_towards_having_the_volume(
    agent: ModuleType, parameters: Any, books: Books, asked: list[Any], seen: str
) -> None:
    with pytest.raises(agent.NotYet, match=seen):
        agent.attached_here(books, parameters)
    assert books.asked == asked


def test_a_volume_that_is_here_needs_no_step(agent: ModuleType, parameters: Any) -> None:
    books = Books(holder=ME)
    assert agent.attached_here(books, parameters) is True
    assert books.asked == []


@pytest.mark.parametrize(("force", "late", "asked"), [(True, True, 1), (True, False, 0), (False, True, 0)])
def test_force_is_used_only_when_allowed_and_only_after_a_plain_detach_had_its_time(
    agent: ModuleType, parameters: Any, force: bool, late: bool, asked: int
) -> None:
    parameters.force = force
    parameters.force_from += -1000 if late else 1000
    books = Books(holder=OTHER, state="detaching", power="running")
    with pytest.raises(agent.NotYet):
        agent.attached_here(books, parameters)
    assert books.asked == [("detach", OTHER, "force")] * asked


def test_a_stop_gives_back_only_what_this_node_has(
    agent: ModuleType, parameters: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "local_device", lambda p: None)
    assert agent.gone_from_here(Books(holder=None), parameters) is True
    assert agent.gone_from_here(Books(holder=OTHER), parameters) is True
    books = Books(holder=ME)
    with pytest.raises(agent.NotYet):
        agent.gone_from_here(books, parameters)
    assert books.asked == [("detach", ME, "plain")]


def test_a_device_that_is_still_here_is_not_gone(
    agent: ModuleType, parameters: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "local_device", lambda p: "/dev/nvme1n1")
    with pytest.raises(agent.NotYet, match="still here"):
        agent.gone_from_here(Books(holder=None), parameters)


@pytest.mark.parametrize(
    ("code", "status", "exit_code"),
    [
        ("RequestLimitExceeded", 503, None),
        ("InternalError", 500, None),
        ("SomethingNew", 502, None),
        ("IncorrectState", 400, None),
        ("VolumeInUse", 400, None),
        ("UnauthorizedOperation", 403, 4),
        ("InvalidVolume.NotFound", 400, 2),
        ("InvalidParameterValue", 400, 1),
    ],
)
def test_an_error_of_ec2_ends_in_another_look_or_in_a_clear_failure(
    agent: ModuleType, monkeypatch: pytest.MonkeyPatch, code: str, status: int, exit_code: int | None
) -> None:
    error = load_agent("ec2.py", monkeypatch).ApiError(code, "no", status)
    if exit_code is None:
        assert agent.reason_to_go_on(error).startswith(code)
        return
    with pytest.raises(agent.Failed, match=code) as raised:
        agent.reason_to_go_on(error)
    assert raised.value.code == exit_code


def test_it_ends_at_the_deadline_and_says_what_it_saw_last(
    agent: ModuleType, parameters: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now_s=0.0)
    monkeypatch.setattr(agent.time, "monotonic", lambda: clock.now_s)
    monkeypatch.setattr(agent.time, "sleep", lambda seconds: setattr(clock, "now_s", clock.now_s + seconds))
    parameters.deadline = 3.0

    def look() -> bool:
        raise agent.NotYet("attached at i-0other, which is running")

    with pytest.raises(agent.Failed, match="not in time; last seen: attached at i-0other, which is running"):
        agent.look_until(parameters, look)


@pytest.mark.parametrize(("name", "value"), [("volume_id", "snap-1"), ("link", "pbx-data"), ("device", "sdf")])
def test_a_wrong_parameter_is_a_configuration_error(
    agent: ModuleType, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv("OCF_RESKEY_volume_id", VOLUME)
    monkeypatch.setenv(f"OCF_RESKEY_{name}", value)
    with pytest.raises(agent.Failed) as raised:
        agent.validate(agent.Parameters())
    assert raised.value.code == 6
