"""Work that takes its time beside the calls, each piece in a thread of its own.

No pool: a worker waits (for an unmount, for a delay, for a shutdown) far more than it computes, and thirty that wait
must not keep the next one, which may cut somebody's power, from beginning.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock, Thread


class Workers:
    """The threads that are under way. Safe to use from several threads."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = Lock()
        self._threads: set[Thread] = set()
        self._closed = False

    def begin(self, work: Callable[[], None]) -> None:
        """Begin `work` at once; after `close` not at all: what is written down is taken up by the next gateway."""

        def done() -> None:
            try:
                work()
            finally:
                with self._lock:
                    self._threads.discard(thread)

        thread = Thread(target=done, name=self._name, daemon=True)
        with self._lock:
            if self._closed:
                return
            thread.start()
            self._threads.add(thread)

    def close(self) -> None:
        """Returns when all that were begun have ended."""
        with self._lock:
            self._closed = True
            waiting = list(self._threads)
        for thread in waiting:
            thread.join()
