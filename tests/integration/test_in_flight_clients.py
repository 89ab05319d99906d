"""Lanes of transactions against a registrar on loopback: each kind comes to its end, and one that does not is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from harness.clients import in_flight
from harness.clients.in_flight import Lane
from harness.clients.kinds import kind
from harness.clients.sip.agent import Account, Behaviour, UserAgent
from harness.clients.sip.message import Message
from harness.history import Op
from tests.registrar import DOMAIN, HOST, PASSWORD, Registrar

pytestmark = pytest.mark.integration


class Kept(list[Op]):
    """In place of a recorder: what is told is here at once."""

    def op(self, f: str, kind: Any, time_ns: int, value: dict[str, Any], *, error: str | None = None) -> None:
        self.append(Op(time_ns=time_ns, process="in_flight_ip_phone", f=f, type=kind, value=value, error=error))

    def told(self, f: str, *types: str) -> list[Op]:
        return [op for op in self if op.f == f and op.type in (types or ("ok",))]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("CANCEL_S", 0.1), ("TAKEN_BACK_S", 0.3), ("AGREE_S", 0.2), ("ASK_S", 0.3)):
        monkeypatch.setattr(in_flight, name, seconds)


async def played(
    what: str, until: Callable[[Kept], bool], *, lose: Callable[[Message], bool] = lambda message: False
) -> Kept:
    """One lane until its ops are enough, then its standing call asked. `lose` is in force from the start on."""
    kept, registrar, stop = Kept(), Registrar(), asyncio.Event()
    await registrar.start("udp")
    registrar.lose = lose

    def agents(on_call: Any) -> tuple[UserAgent, UserAgent]:
        caller, callee = (
            UserAgent(
                account=Account(user=user, password=PASSWORD, domain=DOMAIN), to=(HOST, registrar.ports["udp"]),
                local_ip=HOST, behaviour=Behaviour(transport="udp", timer_t1_s=0.02), on_call=answer,
            )
            for user, answer in (("1000", None), ("1001", on_call))
        )  # fmt: skip
        return caller, callee

    rings_s = {"ringing": 0.1, "cancel": 40.0}.get(what, 0.0)
    lane = Lane(what, own=kind("ip_phone"), recorder=cast(Any, kept), rings_s=rings_s, agents=agents, pause_s=0.01)
    try:
        async with asyncio.timeout(15):
            await lane.start()
            running = asyncio.create_task(lane.run(stop))
            while not until(kept):
                await asyncio.sleep(0.01)
            stop.set()
            await running
            await lane.ask()
    finally:
        await lane.stop()
        await registrar.stop()
    return kept


@pytest.mark.parametrize(("what", "code"), [("ringing", 200), ("cancel", 487), ("hold", 200), ("refer", 202)])
def test_each_kind_completes_again_and_again(what: str, code: int) -> None:
    kept = asyncio.run(played(what, lambda ops: len(ops.told("in_flight")) >= 3))
    assert {op.value["code"] for op in kept.told("in_flight")} == {code}
    assert kept.told("in_flight", "fail", "info") == kept.told("in_flight_orphan") == []
    standing = [(op.value["reinvite"], op.value["bye"]) for op in kept.told("in_flight_after")]
    assert standing == ([(200, 200)] if what in ("hold", "refer") else [])
    byes = {op.value["code"] for op in kept.told("in_flight_bye")}
    assert byes == ({200} if what == "ringing" else set())


def test_a_phone_whose_cancel_is_lost_rings_for_nobody() -> None:
    kept = asyncio.run(
        played("cancel", lambda ops: bool(ops.told("in_flight_orphan")), lose=lambda m: m.method == "CANCEL")
    )
    (end, *_), (orphan, *_) = kept.told("in_flight", "info"), kept.told("in_flight_orphan")
    assert orphan.value == {"id": end.value["id"], "believes": "rings for nobody"}
    assert kept.told("in_flight_orphan_over") == []


def test_a_phone_whose_ack_and_bye_are_lost_is_in_a_call_with_nobody_until_its_own_timer_ends_it() -> None:
    kept = asyncio.run(
        played(
            "ringing", lambda ops: bool(ops.told("in_flight_orphan_over")), lose=lambda m: m.method in ("ACK", "BYE")
        )
    )
    (orphan, *_), (over, *_) = kept.told("in_flight_orphan"), kept.told("in_flight_orphan_over")
    assert orphan.value["believes"] == "is in a call with nobody"
    assert over.value["id"] == orphan.value["id"]
    assert over.value["lasted_s"] > 0.2
    assert kept.told("in_flight_bye")[0].value["code"] is None


def test_a_standing_call_is_asked_by_both_a_re_invite_and_a_bye() -> None:
    kept = asyncio.run(played("hold", lambda ops: bool(ops.told("in_flight")), lose=lambda m: m.method == "BYE"))
    assert [(op.value["reinvite"], op.value["bye"]) for op in kept.told("in_flight_after")] == [(200, None)]
