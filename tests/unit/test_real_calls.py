"""What a real client's call tells of itself: the Call-ID is the one that its partner saw."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.clients.partner import Partner
from harness.clients.real_calls import Pair
from harness.clients.recorder import Recorder
from harness.clients.story import Story
from harness.clock import now_ns
from harness.history import Op, read


class Caller:
    """A client that calls and hears at once."""

    def __init__(self, recorder: Recorder) -> None:
        self.story = Story(recorder, call="webrtc-0", side="caller", alive=lambda: True)
        self.heard_ns: int | None = None

    async def begin(self) -> None:
        self.story.invoke(kind="webrtc", transport="wss", caller="1000", callee="1001")
        self.story.event("confirmed", now_ns())
        self.heard_ns = now_ns()


def called(path: Path, session: Any) -> Op:
    """The `call` of a client whose partner has this session."""

    async def at_once() -> None:
        pass

    async def heard(timeout_s: float) -> int:
        return now_ns()

    async def main() -> None:
        recorder = Recorder(path, process="calls_webrtc", f="call")
        partner: Any = Partner.__new__(Partner)
        partner._session = session
        partner.start, partner.heard = at_once, heard
        caller: Any = Caller(recorder)
        assert await Pair(caller=caller, partner=partner).begin() is None
        recorder.close()

    asyncio.run(main())
    return next(op for op in read(path) if op.f == "call" and op.type == "ok")


@pytest.mark.parametrize(("session", "call_id"), [(SimpleNamespace(call_id="x@y"), "x@y"), (None, None)])
def test_a_call_tells_the_call_id_that_its_partner_saw(tmp_path: Path, session: Any, call_id: str | None) -> None:
    assert called(tmp_path / "h", session).value.get("call_id") == call_id
