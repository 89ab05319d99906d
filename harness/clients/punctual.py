"""An event loop that wakes up when it said it would.

asyncio waits in epoll, whose time-out counts in whole milliseconds and is rounded up: a send on a 2-ms grid would be
late by half a millisecond in the middle. An epoll descriptor can itself be waited for with select(), in microseconds.
"""

from __future__ import annotations

import asyncio
import select
import selectors


class PunctualSelector(selectors.EpollSelector):
    """epoll with time-outs in microseconds."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout > 0:
            select.select([self.fileno()], [], [], timeout)
            timeout = 0
        return super().select(timeout)


def new_loop() -> asyncio.AbstractEventLoop:
    """For `asyncio.Runner(loop_factory=new_loop)`."""
    return asyncio.SelectorEventLoop(PunctualSelector())
