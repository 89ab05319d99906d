"""Who is registered, asleep or lost, by the events of its user agent."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from harness.clients.kinds import kind
from harness.clients.population import Population
from harness.clients.sip.reply import Event
from harness.history import Op
from tests.unit.virtual_time import VirtualTime


class Kept(list[Op]):
    """In place of a recorder: what is told is here at once."""

    def op(self, f: str, kind: Any, time_ns: int, value: dict[str, Any], *, error: str | None = None) -> None:
        self.append(Op(time_ns=time_ns, process="clients_mobile", f=f, type=kind, value=value, error=error))


class Site:
    """Three mobiles that never open a socket: their events are told by the test."""

    def __init__(self) -> None:
        self._kept = Kept()
        self.population = Population(
            own=kind("mobile"), to=("127.0.0.1", 1), domain="x", password="p", local_ip="127.0.0.1",
            users=range(1000, 1003), recorder=cast(Any, self._kept),
        )  # fmt: skip
        for user in ("1000", "1001", "1002"):
            self.tell(user, "flow_up", "registered")

    def tell(self, user: str, *events: str) -> None:
        for event in events:
            self.population._on_event(user, Event(time_ns=1, kind=event))

    def beat(self) -> Op:
        self.population.beat()
        return [op for op in self._kept if op.f == "clients_mobile"][-1]

    def told(self, user: str) -> list[str]:
        return [op.value["event"] for op in self._kept if op.f == "client" and op.value["client"] == user]


@pytest.fixture
def site() -> Any:
    async def make() -> Site:
        return Site()

    return asyncio.run(make())


def test_everyone_is_up(site: Site) -> None:
    assert (site.beat().type, site.beat().value) == ("ok", {"up": 3, "of": 3})


def test_who_sleeps_is_not_lost(site: Site) -> None:
    site.population._asleep.add("1001")
    site.tell("1001", "flow_down")
    assert (site.beat().type, site.beat().value) == ("ok", {"up": 2, "of": 3, "asleep": 1})
    site.tell("1001", "flow_up", "registered")
    assert (site.beat().type, site.beat().value) == ("ok", {"up": 3, "of": 3})
    assert site.told("1001") == ["flow_up", "registered", "asleep", "flow_up", "registered"]


def test_who_wakes_up_and_finds_nobody_is_lost(site: Site) -> None:
    site.population._asleep.add("1001")
    site.tell("1001", "flow_down", "flow_failed", "flow_failed")
    assert (site.beat().type, site.beat().error) == ("fail", "1 of 3 not registered")
    assert site.told("1001")[-2:] == ["asleep", "flow_down"]


def test_who_loses_its_flow_awake_is_lost(site: Site) -> None:
    site.tell("1002", "flow_down")
    assert (site.beat().type, site.beat().value) == ("fail", {"up": 2, "of": 3})
    site.tell("1002", "flow_up", "register_failed")
    assert site.beat().type == "fail"


def test_sleep_comes_again_and_again_but_not_to_who_is_lost(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = VirtualTime()
    slept: list[str] = []
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: clock)
    for agent in site.population._agents:
        monkeypatch.setattr(agent, "drop", lambda away_s, user=agent.account.user: slept.append(user))
    site.tell("1002", "flow_down")
    site.population.live()
    clock.pass_s(200)
    assert slept.count("1000") in range(2, 10) and slept.count("1001") in range(2, 10)
    assert "1002" not in slept
