"""Ctrl-C and SIGTERM, tamed: the first raises `Interrupted` where the run stands, and clean-up is never interrupted."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from harness.errors import Interrupted


class Gate:
    """While open, a signal raises `Interrupted`; once closed, signals are only remembered."""

    def __init__(self) -> None:
        self.open = True
        self.seen: str | None = None

    def close(self) -> None:
        """From here on nothing interrupts: called before cleaning up."""
        self.open = False

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        self.seen = signal.Signals(number).name
        if self.open:
            self.open = False
            raise Interrupted(f"stopped by {self.seen}: healing and cleaning up, what was observed so far is kept")
        with suppress(OSError):  # not print: the signal may have come in the middle of one, or with the terminal's end
            os.write(2, b"already cleaning up; `pbx-chaos clean` does it again should this one be killed\n")


@contextmanager
def interrupts() -> Iterator[Gate]:
    """Install the gate for SIGINT, SIGTERM and SIGHUP; the old handlers come back at the end. What is ignored (SIGHUP
    under nohup) stays ignored."""
    gate = Gate()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handled = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, gate) for number in handled}
    try:
        yield gate
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
