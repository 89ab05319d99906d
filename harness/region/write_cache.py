"""The volatile write cache of a volume: what was written but not flushed lives in memory only, sector by sector.

A flush brings all of it to the backing file; a power loss drops all of it or a seeded random part (torn writes). The
cache is bounded: above its limit the oldest half is written back early, which a real disk may do at any time.
Not thread-safe: `harness.region.disk` holds the lock.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from random import Random

SECTOR_BYTES = 512
"""What reaches a disk whole or not at all."""


@dataclass(frozen=True, kw_only=True)
class PowerLoss:
    """What a power cut did to the cache. A block is a sector of 512 bytes; `answered` is False when the volume's
    server was dead or deaf and had to be killed: then all that was not flushed is gone, and nobody counted it."""

    dropped_blocks: int
    kept_blocks: int
    answered: bool = True

    @property
    def dropped_bytes(self) -> int:
        return self.dropped_blocks * SECTOR_BYTES


class WriteCache:
    """Unflushed sectors over a backing file of `size_bytes`, opened read-write as `fd`."""

    def __init__(self, *, fd: int, size_bytes: int, limit_bytes: int) -> None:
        self._fd = fd
        self._size_bytes = size_bytes
        self._limit = max(2, limit_bytes // SECTOR_BYTES)
        self._dirty: dict[int, bytes] = {}

    @property
    def dirty_blocks(self) -> int:
        return len(self._dirty)

    def read(self, offset: int, size: int) -> bytes:
        """Newest content of `size` bytes at `offset`; shorter at the end of the volume."""
        size = max(0, min(size, self._size_bytes - offset))
        first = offset // SECTOR_BYTES
        last = -(-(offset + size) // SECTOR_BYTES)
        if not self._dirty or not any(sector in self._dirty for sector in range(first, last)):
            return os.pread(self._fd, size, offset)
        start = first * SECTOR_BYTES
        data = bytearray(os.pread(self._fd, (last - first) * SECTOR_BYTES, start))
        for sector in range(first, last):
            newer = self._dirty.get(sector)
            if newer is not None:
                at = sector * SECTOR_BYTES - start
                data[at : at + SECTOR_BYTES] = newer
        return bytes(data[offset - start : offset - start + size])

    def write(self, offset: int, data: bytes) -> None:
        """Keep `data` in memory. Whatever does not fill its sectors is completed with what is there."""
        head = offset % SECTOR_BYTES
        tail = -(offset + len(data)) % SECTOR_BYTES
        if head or tail:
            data = self.read(offset - head, head) + data + self.read(offset + len(data), tail)
        view = memoryview(data)
        first = (offset - head) // SECTOR_BYTES
        for number in range(len(view) // SECTOR_BYTES):
            self._dirty[first + number] = bytes(view[number * SECTOR_BYTES : (number + 1) * SECTOR_BYTES])
        if len(self._dirty) > self._limit:
            self._write_back(list(islice(self._dirty, len(self._dirty) // 2)))

    def grow(self, size_bytes: int) -> None:
        """The backing file has become larger."""
        self._size_bytes = size_bytes

    def flush(self) -> None:
        """Bring everything to the backing file. The caller makes it durable (fdatasync)."""
        self._write_back(list(self._dirty))

    def power_loss(self, *, keep_ratio: float, seed: int) -> PowerLoss:
        """Drop the unflushed sectors, but each with probability `keep_ratio` reaches the disk after all."""
        random = Random(seed)
        kept = [sector for sector in self._dirty if random.random() < keep_ratio]
        dropped = len(self._dirty) - len(kept)
        self._write_back(kept)
        self._dirty.clear()
        return PowerLoss(dropped_blocks=dropped, kept_blocks=len(kept))

    def _write_back(self, sectors: Iterable[int]) -> None:
        """What could not be written (a full host) stays dirty: the next flush must not succeed without it."""
        for start, stop in _runs(sorted(sectors)):
            data = b"".join(self._dirty[sector] for sector in range(start, stop))
            written = os.pwrite(self._fd, data, start * SECTOR_BYTES)
            if written != len(data):
                raise OSError(errno.ENOSPC, f"{written} of {len(data)} bytes reached the backing file")
            for sector in range(start, stop):
                del self._dirty[sector]


def _runs(ordered: list[int], longest: int = 2048) -> Iterable[tuple[int, int]]:
    """Adjacent sectors joined: (first, one past the last), at most `longest` sectors each."""
    start = 0
    for index in range(1, len(ordered) + 1):
        ends = index == len(ordered) or ordered[index] != ordered[index - 1] + 1 or index - start == longest
        if ends:
            yield ordered[start], ordered[index - 1] + 1
            start = index
