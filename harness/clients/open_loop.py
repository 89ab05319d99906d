"""The open loop: sends fall due on a fixed grid of CLOCK_MONOTONIC, whether or not anything was answered.

A send that the host delays is still made, late, and says so (`slip_ms`); sends whose whole period passed are left out
and counted (`skipped`) - a burst of catching up would measure the burst.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from harness.clients.punctual import new_loop
from harness.clients.recorder import Recorder
from harness.clock import NS_PER_S, now_ns
from harness.errors import HarnessError


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One send that is due now. `n` is its place on the grid; `slip_ms` counts from the earliest one not yet made."""

    n: int
    slip_ms: float
    skipped: int
    slipped: bool

    def value(self) -> dict[str, Any]:
        """As it goes into the invocation: what is normal is left out, lines are many."""
        row: dict[str, Any] = {"n": self.n, "slip_ms": self.slip_ms}
        if self.skipped:
            row["skipped"] = self.skipped
        if self.slipped:
            row["slipped"] = True
        return row


class Pace:
    """The grid: send n is due at start + n periods."""

    def __init__(self, *, start_ns: int, period_s: float) -> None:
        self._start_ns = start_ns
        self._period_ns = round(period_s * NS_PER_S)
        self._n = 0

    @property
    def due_ns(self) -> int:
        return self._start_ns + self._n * self._period_ns

    def take(self, at_ns: int) -> Turn:
        """The send to make at `at_ns`, which is not before `due_ns`; the next one is due after it."""
        current = max(self._n, (at_ns - self._start_ns) // self._period_ns)
        own_slip_ns = at_ns - self._start_ns - current * self._period_ns
        turn = Turn(
            n=current,
            slip_ms=round(max(at_ns - self.due_ns, 0) / 1e6, 3),
            skipped=current - self._n,
            slipped=own_slip_ns * 2 > self._period_ns,
        )
        self._n = current + 1
        return turn


class Probe(Protocol):
    """What runs in an open loop: `send` makes one attempt, `idle` says that no attempt waits for its end any more."""

    def send(self, turn: Turn) -> None: ...

    @property
    def idle(self) -> bool: ...


async def run(probe: Probe, *, period_s: float, stop: asyncio.Event) -> None:
    """Send on the grid until `stop` is set, then wait for the ends of what was sent."""
    loop = asyncio.get_running_loop()
    gc.collect()
    gc.freeze()
    pace = Pace(start_ns=now_ns(), period_s=period_s)
    broken: asyncio.Future[Any] = loop.create_future()

    def turn() -> None:
        if stop.is_set():
            return
        at_ns = now_ns()
        if at_ns >= pace.due_ns:
            try:
                probe.send(pace.take(at_ns))
            except Exception as error:
                if not broken.done():
                    broken.set_exception(error)
                return
        call_at_ns(loop, pace.due_ns, turn)

    turn()
    stopped: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
    await asyncio.wait({stopped, broken}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if broken.done():
        broken.result()
    while not probe.idle:
        await asyncio.sleep(0.01)


def call_at_ns(loop: asyncio.AbstractEventLoop, at_ns: int, callback: Callable[..., None], *args: Any) -> Any:
    """`loop.call_at` on CLOCK_MONOTONIC in ns: the loop's own clock is the same one, in seconds."""
    return loop.call_at(at_ns / NS_PER_S, callback, *args)


def stop_on_signals() -> asyncio.Event:
    """Set by SIGTERM, or by Ctrl-C where the probe runs by hand (the harness gives it a session of its own)."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, stop.set)
    return stop


async def beats(stop: asyncio.Event, *, every_s: float) -> AsyncIterator[None]:
    """Comes round at once, and again after each `every_s`, until `stop` is set."""
    while not stop.is_set():
        yield
        with suppress(TimeoutError):
            async with asyncio.timeout(every_s):
                await stop.wait()


async def end_all(endings: Iterable[Callable[[], Awaitable[object]]], *, recorder: Recorder) -> None:
    """End everything, whatever fails on the way, and write what is left; the first failure is raised in the end."""
    failures: list[Exception] = []
    try:
        for end in endings:
            try:
                await end()
            except Exception as error:
                failures.append(error)
    finally:
        recorder.close()
    if failures:
        raise failures[0]


def be_punctual() -> None:
    """Run before others on a busy host: with real-time priority, or nice -10 where the host refuses that.

    Call it before anything starts a thread: a thread that inherits no priority and holds the interpreter's lock would
    hold up the one that does. What is sent on time on a busy host is still answered late: that is for `host_pressure`.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, -10)


def main(program: Coroutine[Any, Any, None]) -> None:
    """Run a probe process to its end; what a user can mend is one line on stderr and its exit code."""
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(program)
    except HarnessError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from None
