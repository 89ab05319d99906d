"""The journal of the data plane: what really happened to machines, volumes and addresses, one JSON line per fact.

It is the source of t0 (`links_cut`) and of the phases stop, detach, attach. Rows are whole or missing: each is one
appending write, so that several threads and a later process can share the file.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from threading import Lock
from typing import Any

from harness.clock import now_ns
from harness.topology import Topology

FILE_NAME = "region-events.jsonl"


class Journal:
    """Appends to `state_dir/region-events.jsonl`."""

    def __init__(self, *, topology: Topology) -> None:
        topology.state_dir.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(topology.state_dir / FILE_NAME, flags, 0o644)
        self._lock = Lock()
        self._unwritten = b""

    def record(self, event: str, *, time_ns: int | None = None, **facts: Any) -> int:
        """Write `event` with its facts; returns its time (CLOCK_MONOTONIC, ns): `time_ns`, or now.

        Never raises, so that a full disk can't stop a power-off half-way: what could not be written is written before
        the next row.
        """
        at = now_ns() if time_ns is None else time_ns
        row = json.dumps({"time_ns": at, "event": event, **facts}, separators=(",", ":"), default=str)
        with self._lock, suppress(OSError):
            self._unwritten += row.encode() + b"\n"
            while self._unwritten:
                self._unwritten = self._unwritten[os.write(self._fd, self._unwritten) :]
        return at

    def close(self) -> None:
        os.close(self._fd)
