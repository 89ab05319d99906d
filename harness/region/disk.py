"""What a volume does with reads, writes and flushes: live openings, fault switches, growth, and power loss.

An opening ("handle") stands for one attachment. Power loss kills the handles that are open, or one of them: whatever
comes through it from then on, and whatever is waiting in it, gets EIO for ever. The next opening finds a healthy disk
with what was flushed.

A disk has one live opening and a volatile cache. A *shared* one (Multi-Attach) has up to sixteen and writes through:
what one machine wrote, another may have read, so that the first one's power cut can't take it back. What is lost then
is what the machine itself had not written yet.

No FUSE in here: `harness.region.volume_server` connects it.
"""

from __future__ import annotations

import errno
import os
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from threading import Condition, get_ident
from typing import Any, Literal

from harness.region.write_cache import PowerLoss, WriteCache

CACHE_LIMIT_BYTES = 64 << 20
SHARED_LIMIT = 16
"""Machines that may share one disk (AWS: "Amazon EBS Multi-Attach")."""

Kind = Literal["read", "write", "flush"]


@dataclass(frozen=True, kw_only=True)
class Switches:
    """Injuries of a volume. Ratios are probabilities per request, drawn from the disk's seeded generator."""

    read_error_ratio: float = 0.0
    write_error_ratio: float = 0.0
    flush_error_ratio: float = 0.0
    corrupt_read_ratio: float = 0.0
    error: str = "EIO"
    hang: bool = False
    latency_ms: float = 0.0
    throughput_bytes_s: float = 0.0
    lying_flush: bool = False

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name.endswith("_ratio") and not 0 <= value <= 1:
                raise ValueError(f"{name} must be between 0 and 1, not {value}")
        if self.latency_ms < 0 or self.throughput_bytes_s < 0:
            raise ValueError("latency and throughput can't be negative")
        if not isinstance(getattr(errno, self.error, None), int):
            raise ValueError(f"unknown error name {self.error!r}")


class Disk:
    """A disk over `backing` (its size is the file's); thread-safe. I/O methods raise OSError as a device would."""

    def __init__(
        self, backing: Path, *, cache_limit_bytes: int = CACHE_LIMIT_BYTES, seed: int = 0, shared: bool = False
    ) -> None:
        self._fd = os.open(backing, os.O_RDWR | os.O_CLOEXEC)
        self.size_bytes = os.fstat(self._fd).st_size
        self._cache = WriteCache(fd=self._fd, size_bytes=self.size_bytes, limit_bytes=cache_limit_bytes)
        self._changed = Condition()
        self._switches = Switches()
        self._random = Random(seed)
        self._open: dict[int, bool] = {}
        """Handle -> whether it still has power."""
        self._handles = secrets.randbelow(1 << 40)
        """The last one given; of another server of the same disk none may be mistaken for one of ours."""
        self._openings = SHARED_LIMIT if shared else 1
        self._write_through = shared
        self._waiting_since_s: dict[int, float] = {}
        self._busy_until_s = 0.0
        self._counts = {"reads": 0, "writes": 0, "flushes": 0, "errors": 0, "corrupted": 0, "waiting": 0}

    def open(self) -> int:
        """A new handle; EBUSY while another one has power (a shared disk: sixteen): a volume has one machine."""
        with self._changed:
            if sum(self._open.values()) >= self._openings:
                raise OSError(errno.EBUSY, "the volume is attached")
            self._handles += 1
            self._open[self._handles] = True
            return self._handles

    def release(self, handle: int) -> None:
        with self._changed:
            self._open.pop(handle, None)
            self._changed.notify_all()

    def read(self, handle: int, offset: int, size: int) -> bytes:
        self._admit(handle, "read", size)
        with self._changed:
            self._refuse_dead(handle)
            self._counts["reads"] += 1
            data = self._cache.read(offset, size)
            corrupt = bool(data) and self._random.random() < self._switches.corrupt_read_ratio
            position, bit = self._random.randrange(len(data) or 1), 1 << self._random.randrange(8)
            self._counts["corrupted"] += corrupt
        if corrupt:
            data = data[:position] + bytes([data[position] ^ bit]) + data[position + 1 :]
        return data

    def write(self, handle: int, offset: int, data: bytes) -> int:
        if offset + len(data) > self.size_bytes:
            raise OSError(errno.ENOSPC, "beyond the end of the volume")
        self._admit(handle, "write", len(data))
        with self._changed:
            self._refuse_dead(handle)
            self._counts["writes"] += 1
            self._cache.write(offset, data)
            if self._write_through:
                self._cache.flush()
        return len(data)

    def flush(self, handle: int) -> None:
        """What was written before is durable on return; a flush that power loss overtook is never acknowledged."""
        self._admit(handle, "flush", 0)
        with self._changed:
            self._refuse_dead(handle)
            self._counts["flushes"] += 1
            if self._switches.lying_flush:
                return
            self._cache.flush()
        os.fdatasync(self._fd)
        with self._changed:
            self._refuse_dead(handle)

    def write_back(self) -> None:
        """Bring the cache to the backing file, as a controller does at an orderly detach."""
        with self._changed:
            self._cache.flush()
        os.fdatasync(self._fd)

    def grow(self, size_bytes: int) -> None:
        """From now on the disk is so large; never smaller than it was. What is new reads as zeros."""
        with self._changed:
            if size_bytes < self.size_bytes:
                raise ValueError(f"a disk of {self.size_bytes} bytes can't shrink to {size_bytes}")
            os.ftruncate(self._fd, size_bytes)
            self.size_bytes = size_bytes
            self._cache.grow(size_bytes)

    def power_loss(self, *, keep_ratio: float, seed: int, handle: int | None = None) -> PowerLoss:
        """Drop what is not flushed and kill the open handles, or `handle` alone, also while they hang."""
        with self._changed:
            loss = self._cache.power_loss(keep_ratio=keep_ratio, seed=seed)
            self._open = {each: alive and handle not in (None, each) for each, alive in self._open.items()}
            self._changed.notify_all()
        return loss

    def switch(self, switches: Switches) -> None:
        """Replace the injuries; `Switches()` heals."""
        with self._changed:
            self._switches = switches
            self._busy_until_s = 0.0
            self._changed.notify_all()

    def status(self) -> dict[str, Any]:
        """Handles, counters, switches and unflushed blocks, JSON-ready."""
        with self._changed:
            return {
                "size_bytes": self.size_bytes,
                "open": sum(self._open.values()),
                "handles": sorted(handle for handle, alive in self._open.items() if alive),
                "stalled_s": self._stalled_s(),
                "dead": sum(not alive for alive in self._open.values()),
                "dirty_blocks": self._cache.dirty_blocks,
                "switches": asdict(self._switches),
                **self._counts,
            }

    def _admit(self, handle: int, kind: Kind, size: int) -> None:
        """Let a request wait as the switches say, then in or not. Power loss ends every wait."""
        with self._changed:
            self._counts["waiting"] += 1
            self._waiting_since_s[get_ident()] = time.monotonic()
            self._changed.wait_for(lambda: not (self._switches.hang and self._open.get(handle)))
            switches = self._switches
            until_s = time.monotonic() + switches.latency_ms / 1000
            if switches.throughput_bytes_s and size:
                start_s = max(time.monotonic(), self._busy_until_s)
                self._busy_until_s = start_s + size / switches.throughput_bytes_s
                until_s = max(until_s, self._busy_until_s)
            while self._open.get(handle) and (left_s := until_s - time.monotonic()) > 0:
                self._changed.wait(left_s)
            self._counts["waiting"] -= 1
            del self._waiting_since_s[get_ident()]
            self._refuse_dead(handle)
            ratio: float = getattr(switches, f"{kind}_error_ratio")
            if self._random.random() < ratio:
                self._counts["errors"] += 1
                raise OSError(getattr(errno, switches.error), f"injected {kind} error")

    def _stalled_s(self) -> float:
        """How long the oldest request waits by now."""
        return max((time.monotonic() - since_s for since_s in self._waiting_since_s.values()), default=0.0)

    def _refuse_dead(self, handle: int) -> None:
        if not self._open.get(handle):
            self._counts["errors"] += 1
            raise OSError(errno.EIO, "the volume has lost its power")
