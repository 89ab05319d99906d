"""Timers on virtual time: what `call_later` was asked for happens when the test lets the time pass."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any


class Timer:
    def __init__(self, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._callback: Callable[..., Any] | None = callback
        self._args = args

    @property
    def pending(self) -> bool:
        return self._callback is not None

    def cancel(self) -> None:
        self._callback = None

    def fire(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback(*self._args)


class VirtualTime:
    """`now_s` begins at 0."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._queue: list[tuple[float, int, Timer]] = []
        self._count = itertools.count()

    @property
    def pending(self) -> int:
        return sum(timer.pending for _, _, timer in self._queue)

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> Timer:
        timer = Timer(callback, args)
        heapq.heappush(self._queue, (self.now_s + delay, next(self._count), timer))
        return timer

    def pass_s(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        while self._queue and self._queue[0][0] <= until_s:
            self.now_s, _, timer = heapq.heappop(self._queue)
            timer.fire()
        self.now_s = until_s
