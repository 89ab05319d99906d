"""The loop of the probes: timers and descriptors as in any other, and no time-out of whole milliseconds."""

from __future__ import annotations

import asyncio
import socket

from harness.clients.punctual import PunctualSelector, new_loop


def test_timers_and_descriptors_both_wake_it() -> None:
    async def go() -> list[str]:
        loop = asyncio.get_running_loop()
        seen: list[str] = []
        a, b = socket.socketpair()
        with a, b:
            done = asyncio.Event()
            loop.add_reader(b, lambda: (seen.append(b.recv(1).decode()), done.set()))
            loop.call_later(0.0005, lambda: (seen.append("timer"), a.send(b"x")))
            await asyncio.wait_for(done.wait(), timeout=5)
            loop.remove_reader(b)
        return seen

    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(go()) == ["timer", "x"]


def test_the_wait_is_not_epolls() -> None:
    asked: list[float | None] = []

    class Watched(PunctualSelector):
        def select(self, timeout: float | None = None) -> list[object]:  # type: ignore[override]
            asked.append(timeout)
            return super().select(timeout)  # type: ignore[return-value]

    loop = asyncio.SelectorEventLoop(Watched())
    loop.run_until_complete(asyncio.sleep(0.0004))
    loop.close()
    assert any(timeout is not None and 0 < timeout < 0.001 for timeout in asked)
