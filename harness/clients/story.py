"""The story of one held call of a real client: its events as ops, what was seen already, and waiting for more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

from harness.clients.recorder import Recorder
from harness.clock import ms, now_ns

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
        self._reason = "nothing happened"
        self._called_ns = 0

    @property
    def up(self) -> bool:
        """Whether the client holds that the call is up."""
        return "confirmed" in self.seen and not self.over

    @property
    def over(self) -> bool:
        """Whether it was refused or has ended."""
        return bool(self.seen.keys() & {"ended", "failed"})

    def _ends(self) -> list[int]:
        return [at_ns for event, at_ns in self.seen.items() if event in ("ended", "failed")]

    @property
    def latest(self) -> str:
        return max(self.seen, key=self.seen.__getitem__, default="nothing")

    def invoke(self, *, kind: str, transport: str, caller: str, callee: str) -> int:
        """The call goes out now; returns when."""
        self._called_ns = now_ns()
        value = {"n": 0, "call": self.call, "kind": kind, "transport": transport, "caller": caller, "callee": callee}
        self._recorder.invoke(self._called_ns, value)
        return self._called_ns

    def set_up(
        self, *, caller_heard_ns: int | None, callee_heard_ns: int | None, call_id: str | None = None
    ) -> str | None:
        """How the attempt ended: ok once it was answered and both ends have heard each other; else what went wrong.
        With `call_id` the PBX's data of this call can be told from others'."""
        value: dict[str, Any] = {"n": 0, "call": self.call} | ({"call_id": call_id} if call_id else {})
        answered_ns = self.seen.get("answered", self.seen.get("confirmed"))
        problem = None
        if self.over:
            problem = f"the call was refused or ended: {self._reason}"
            self._recorder.end("fail", max(self._called_ns, min(self._ends())), value, error=problem)
        elif answered_ns is None or caller_heard_ns is None or callee_heard_ns is None:
            problem = "not answered in time" if answered_ns is None else "answered, but no audio in time"
            if (caller_heard_ns is None) != (callee_heard_ns is None):
                problem = f"audio only to the {'caller' if callee_heard_ns is None else 'callee'}"
            self._recorder.end("info", now_ns(), value, error=problem)
        else:
            both_ns = max(answered_ns, caller_heard_ns, callee_heard_ns)
            value |= {"setup_ms": ms(answered_ns - self._called_ns), "audio_ms": ms(both_ns - self._called_ns)}
            self._recorder.end("ok", both_ns, value)
        return problem

    def event(self, event: str, at_ns: int, **more: Any) -> None:
        """Something happened; what is unknown is left out, but for an answer that never came (`code` null)."""
        self.seen[event] = at_ns
        self._reason = str(more.get("reason") or more.get("code") or event)
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
