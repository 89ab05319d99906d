"""The story of one held call of a real client: its events as ops, what was seen already, and waiting for more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

from harness.clients.recorder import Recorder
from harness.clock import now_ns

Side = Literal["caller", "callee"]


class Story:
    """Needs a running event loop. `seen` maps what happened to its latest time (CLOCK_MONOTONIC)."""

    def __init__(self, recorder: Recorder, *, call: str, side: Side, alive: Callable[[], bool]) -> None:
        self.call = call
        self.side = side
        self.seen: dict[str, int] = {}
        self._recorder = recorder
        self._alive = alive
        self._changed = asyncio.Event()

    @property
    def up(self) -> bool:
        """Whether the client holds that the call is up."""
        return "confirmed" in self.seen and not self.over

    @property
    def over(self) -> bool:
        """Whether it was refused or has ended."""
        return bool(self.seen.keys() & {"ended", "failed"})

    @property
    def latest(self) -> str:
        return max(self.seen, key=self.seen.__getitem__, default="nothing")

    def invoke(self, at_ns: int, *, kind: str, transport: str, caller: str, callee: str) -> None:
        value = {"n": 0, "call": self.call, "kind": kind, "transport": transport, "caller": caller, "callee": callee}
        self._recorder.invoke(at_ns, value)

    def set_up(self, called_ns: int, *, heard_ns: int | None, within_s: float) -> None:
        """How the attempt ended: ok once it was answered and this end has heard the other."""
        value: dict[str, Any] = {"n": 0, "call": self.call}
        confirmed_ns = self.seen.get("confirmed")
        if confirmed_ns is not None and heard_ns is not None:
            value |= {"setup_ms": _ms(confirmed_ns - called_ns), "audio_ms": _ms(heard_ns - called_ns)}
            self._recorder.end("ok", max(heard_ns, confirmed_ns), value | {"heard": self.side})
        elif self.over:
            at_ns = self.seen.get("failed") or self.seen["ended"]
            self._recorder.end("fail", max(at_ns, called_ns), value, error=f"refused or ended: {self.latest}")
        else:
            what = "no answer" if confirmed_ns is None else "answered, no audio"
            self._recorder.end("info", now_ns(), value, error=f"{what} within {within_s:g} s")

    def event(self, event: str, at_ns: int, **more: Any) -> None:
        """Something happened; what is unknown is left out, but for an answer that never came (`code` null)."""
        self.seen[event] = at_ns
        told = {name: value for name, value in more.items() if value is not None or name == "code"}
        self._recorder.note("call_event", at_ns, {"call": self.call, "side": self.side, "event": event, **told})
        self._changed.set()

    def unaided(self) -> None:
        """From now on the harness may help."""
        self._recorder.note("unaided", now_ns(), {"call": self.call})

    def news(self) -> None:
        """Something else changed that `until` may wait for."""
        self._changed.set()

    def forget(self, *events: str) -> None:
        """Another attempt begins: these have not happened in it."""
        for event in events:
            self.seen.pop(event, None)

    async def until(self, true: Callable[[], bool], timeout_s: float) -> bool:
        """Wait for a condition; False when it did not come in time, or the client died."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        while not true():
            left_s = deadline_s - loop.time()
            if left_s <= 0 or not self._alive():
                return False
            self._changed.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), min(left_s, 1.0))
        return True


async def hold(stop: asyncio.Event, check: Callable[[], None]) -> None:
    """Until `stop` is set; `check` raises when nobody measures any more."""
    while not stop.is_set():
        check()
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 1.0)


def _ms(nanoseconds: int) -> float:
    return round(nanoseconds / 1e6, 3)
