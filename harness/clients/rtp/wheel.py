"""Which ends send now: a wheel of 20 ms with slots of 2 ms, the ends spread evenly over it. No clock of its own.

One wake-up serves a slot's ends together; an end keeps its slot, so that its packets stay 20 ms apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from harness.clients.rtp.stats import FRAME_NS

SLOT_NS = 2_000_000
SLOTS = FRAME_NS // SLOT_NS

T = TypeVar("T")


class Wheel(Generic[T]):
    def __init__(self) -> None:
        self._slots: list[list[T]] = [[] for _ in range(SLOTS)]
        self._start_ns = 0
        self._tick = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, end: T, *, at_ns: int) -> None:
        """From the next turn of its slot on, in 20 ms at most."""
        if self._count == 0:
            self._start_ns, self._tick = at_ns, 0
        min(self._slots[self._tick % SLOTS :] + self._slots[: self._tick % SLOTS], key=len).append(end)
        self._count += 1

    def remove(self, end: T) -> None:
        for slot in self._slots:
            if end in slot:
                slot.remove(end)
                self._count -= 1

    def next_ns(self) -> int | None:
        """When the next slot with an end in it is due; None when nobody sends."""
        if self._count == 0:
            return None
        ahead = next(n for n in range(SLOTS) if self._slots[(self._tick + n) % SLOTS])
        return self._start_ns + (self._tick + ahead) * SLOT_NS

    def due(self, at_ns: int) -> Iterator[tuple[int, list[T]]]:
        """(when it was due, its ends) of each slot up to `at_ns`, those that are overdue by more than a turn too."""
        while self._count and self._start_ns + self._tick * SLOT_NS <= at_ns:
            due_ns, slot = self._start_ns + self._tick * SLOT_NS, self._slots[self._tick % SLOTS]
            self._tick += 1
            if slot:
                yield due_ns, list(slot)
