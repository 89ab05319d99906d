"""The volatile write cache: reads see the newest, a flush reaches the backing file, a power cut takes the rest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from harness.region.write_cache import SECTOR_BYTES, WriteCache

SIZE = 64 * SECTOR_BYTES


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "backing"
    path.write_bytes(bytes(SIZE))
    handle = os.open(path, os.O_RDWR)
    yield handle
    os.close(handle)


def cache(fd: int, limit_bytes: int = SIZE) -> WriteCache:
    return WriteCache(fd=fd, size_bytes=SIZE, limit_bytes=limit_bytes)


def on_disk(fd: int) -> bytes:
    return os.pread(fd, SIZE, 0)


@pytest.mark.parametrize("seed", range(20))
def test_reads_see_what_was_written_last_whatever_the_alignment(fd: int, seed: int) -> None:
    random = Random(seed)
    mirror = bytearray(SIZE)
    under_test = cache(fd, limit_bytes=random.choice([4, 16, 64]) * SECTOR_BYTES)
    for _ in range(60):
        offset = random.randrange(SIZE)
        size = random.randrange(1, SIZE - offset + 1)
        what = random.random()
        if what < 0.5:
            data = random.randbytes(size)
            under_test.write(offset, data)
            mirror[offset : offset + size] = data
        elif what < 0.6:
            under_test.flush()
            assert on_disk(fd) == mirror
        else:
            assert under_test.read(offset, size) == mirror[offset : offset + size]


def test_nothing_reaches_the_backing_file_before_a_flush(fd: int) -> None:
    under_test = cache(fd)
    under_test.write(0, b"x" * SECTOR_BYTES * 3)
    assert on_disk(fd) == bytes(SIZE)
    assert under_test.dirty_blocks == 3


def test_power_loss_drops_what_was_not_flushed_and_keeps_what_was(fd: int) -> None:
    under_test = cache(fd)
    under_test.write(0, b"kept" * 128)
    under_test.flush()
    under_test.write(0, b"lost" * 128)
    under_test.write(SECTOR_BYTES, b"lost" * 128)
    loss = under_test.power_loss(keep_ratio=0, seed=1)
    assert (loss.dropped_blocks, loss.kept_blocks) == (2, 0)
    assert under_test.read(0, 2 * SECTOR_BYTES) == b"kept" * 128 + bytes(SECTOR_BYTES)


def test_torn_writes_are_whole_sectors_and_the_same_for_the_same_seed(fd: int) -> None:
    outcomes = []
    for _ in range(2):
        under_test = cache(fd)
        os.pwrite(fd, bytes(SIZE), 0)
        under_test.write(0, b"y" * SIZE)
        loss = under_test.power_loss(keep_ratio=0.5, seed=7)
        assert loss.dropped_blocks + loss.kept_blocks == SIZE // SECTOR_BYTES
        assert 0 < loss.kept_blocks < SIZE // SECTOR_BYTES
        outcomes.append(on_disk(fd))
    sectors = {outcomes[0][at : at + SECTOR_BYTES] for at in range(0, SIZE, SECTOR_BYTES)}
    assert outcomes[0] == outcomes[1]
    assert sectors == {bytes(SECTOR_BYTES), b"y" * SECTOR_BYTES}


def test_the_cache_is_bounded_and_writes_the_oldest_back_early(fd: int) -> None:
    under_test = cache(fd, limit_bytes=8 * SECTOR_BYTES)
    under_test.write(0, b"a" * SECTOR_BYTES * 8)
    under_test.write(8 * SECTOR_BYTES, b"b" * SECTOR_BYTES)
    assert under_test.dirty_blocks <= 8
    assert on_disk(fd)[:SECTOR_BYTES] == b"a" * SECTOR_BYTES
    assert on_disk(fd)[8 * SECTOR_BYTES : 9 * SECTOR_BYTES] == bytes(SECTOR_BYTES)


def test_a_read_ends_with_the_volume(fd: int) -> None:
    assert cache(fd).read(SIZE - 10, 100) == bytes(10)


def test_what_could_not_be_written_stays_unflushed(tmp_path: Path) -> None:
    path = tmp_path / "backing"
    path.write_bytes(bytes(SIZE))
    handle = os.open(path, os.O_RDONLY)  # as on a host whose disk is full, a write fails
    under_test = cache(handle)
    under_test.write(SECTOR_BYTES, b"x" * SECTOR_BYTES)
    for _ in range(2):
        with pytest.raises(OSError, match="Bad file descriptor"):
            under_test.flush()
    assert under_test.dirty_blocks == 1
    assert under_test.read(SECTOR_BYTES, 1) == b"x"
    os.close(handle)


def test_half_a_write_is_no_flush(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    under_test = cache(fd)
    under_test.write(0, b"x" * SECTOR_BYTES * 2)
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: len(data) // 2)
    with pytest.raises(OSError, match="512 of 1024 bytes"):
        under_test.flush()
    assert under_test.dirty_blocks == 2
