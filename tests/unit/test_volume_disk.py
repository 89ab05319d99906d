"""A disk: one live opening, injuries, and power loss that ends every wait and every later request."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.command import wait_for
from harness.region.disk import SHARED_LIMIT, Disk, Switches
from harness.region.volume_server import answer

SECTOR = b"s" * 512


@pytest.fixture
def backing(tmp_path: Path) -> Path:
    path = tmp_path / "backing"
    path.write_bytes(bytes(64 * 512))
    return path


@pytest.fixture
def disk(backing: Path) -> Disk:
    return Disk(backing)


def refused(call: Callable[[], object], *, code: int = errno.EIO) -> bool:
    with pytest.raises(OSError) as caught:
        call()
    return caught.value.errno == code


def test_a_second_opening_is_refused_until_the_first_is_closed(disk: Disk) -> None:
    first = disk.open()
    assert refused(disk.open, code=errno.EBUSY)
    disk.release(first)
    disk.open()


def test_a_flush_makes_durable_and_a_lying_one_only_says_so(disk: Disk, backing: Path) -> None:
    handle = disk.open()
    disk.write(handle, 0, SECTOR)
    disk.switch(Switches(lying_flush=True))
    disk.flush(handle)
    assert backing.read_bytes()[:512] == bytes(512)
    disk.switch(Switches())
    disk.flush(handle)
    assert backing.read_bytes()[:512] == SECTOR


def test_power_loss_refuses_the_old_opening_and_the_next_one_finds_what_was_flushed(disk: Disk) -> None:
    old = disk.open()
    disk.write(old, 0, SECTOR)
    disk.flush(old)
    disk.write(old, 512, SECTOR)
    assert disk.power_loss(keep_ratio=0, seed=0).dropped_blocks == 1
    assert refused(lambda: disk.write(old, 0, SECTOR))
    assert refused(lambda: disk.read(old, 0, 512))
    assert refused(lambda: disk.flush(old))
    new = disk.open()
    assert disk.read(new, 0, 1024) == SECTOR + bytes(512)
    disk.release(old)
    assert disk.status()["open"] == 1


@pytest.mark.parametrize("injury", [Switches(hang=True), Switches(latency_ms=60_000), Switches(throughput_bytes_s=1)])
def test_power_loss_ends_requests_that_wait(disk: Disk, injury: Switches) -> None:
    handle = disk.open()
    disk.switch(injury)
    ended: list[bool] = []
    waiting = threading.Thread(target=lambda: ended.append(refused(lambda: disk.write(handle, 0, SECTOR))))
    waiting.start()
    wait_for("a request that waits", lambda: disk.status()["waiting"] == 1, timeout_s=5, every_s=0.001)
    disk.power_loss(keep_ratio=0, seed=0)
    waiting.join(timeout=5)
    assert ended == [True]


def test_the_end_of_a_hang_lets_the_request_through(disk: Disk) -> None:
    handle = disk.open()
    disk.switch(Switches(hang=True))
    waiting = threading.Thread(target=lambda: disk.write(handle, 0, SECTOR))
    waiting.start()
    wait_for("a request that waits", lambda: disk.status()["waiting"] == 1, timeout_s=5, every_s=0.001)
    disk.switch(Switches())
    waiting.join(timeout=5)
    assert disk.read(handle, 0, 512) == SECTOR


@pytest.mark.parametrize("kind", ["read", "write", "flush"])
def test_an_error_ratio_of_one_fails_every_request_of_its_kind_only(disk: Disk, kind: str) -> None:
    handle = disk.open()
    disk.switch(Switches(**{f"{kind}_error_ratio": 1.0}, error="ETIMEDOUT"))  # type: ignore[arg-type]
    requests = {
        "read": lambda: disk.read(handle, 0, 512),
        "write": lambda: disk.write(handle, 0, SECTOR),
        "flush": lambda: disk.flush(handle),
    }
    assert refused(requests.pop(kind), code=errno.ETIMEDOUT)
    for other in requests.values():
        other()


def test_corruption_flips_one_bit_of_what_is_read_and_none_of_what_is_stored(disk: Disk) -> None:
    handle = disk.open()
    disk.switch(Switches(corrupt_read_ratio=1.0))
    assert sum(byte.bit_count() for byte in disk.read(handle, 0, 4096)) == 1
    disk.switch(Switches())
    assert disk.read(handle, 0, 4096) == bytes(4096)


@pytest.mark.parametrize(
    "wrong", [{"read_error_ratio": 1.5}, {"latency_ms": -1}, {"error": "EWHATEVER"}, {"error": "errorcode"}]
)
def test_impossible_switches_are_refused_where_they_are_made(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Switches(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "request_", [{}, {"do": "explode"}, {"do": "power_loss"}, {"do": "switch", "switches": {"a": 1}}]
)
def test_a_control_request_that_makes_no_sense_is_answered_with_an_error(
    disk: Disk, request_: dict[str, object]
) -> None:
    assert "error" in answer(disk, request_)


def test_writing_beyond_the_end_is_refused(disk: Disk) -> None:
    handle = disk.open()
    assert refused(lambda: disk.write(handle, 64 * 512 - 1, b"ab"), code=errno.ENOSPC)


def test_a_disk_that_grew_keeps_what_it_had_and_reads_as_zeros_beyond(disk: Disk, backing: Path) -> None:
    handle = disk.open()
    disk.write(handle, 0, SECTOR)
    answer(disk, {"do": "grow", "size_bytes": 128 * 512})
    disk.write(handle, 127 * 512, SECTOR)
    assert disk.read(handle, 0, 512) == disk.read(handle, 127 * 512, 1024) == SECTOR
    assert disk.read(handle, 64 * 512, 512) == bytes(512)
    disk.flush(handle)
    assert backing.stat().st_size == disk.status()["size_bytes"] == 128 * 512
    assert "error" in answer(disk, {"do": "grow", "size_bytes": 64 * 512})


def test_a_shared_disk_has_many_openings_and_no_cache(backing: Path) -> None:
    disk = Disk(backing, shared=True)
    handles = [disk.open() for _ in range(SHARED_LIMIT)]
    assert refused(disk.open, code=errno.EBUSY)
    disk.write(handles[0], 0, SECTOR)
    assert disk.read(handles[1], 0, 512) == backing.read_bytes()[:512] == SECTOR
    assert disk.status()["dirty_blocks"] == 0


def test_one_opening_of_a_shared_disk_can_lose_its_power_alone(backing: Path) -> None:
    disk = Disk(backing, shared=True)
    first, second = disk.open(), disk.open()
    disk.write(first, 0, SECTOR)
    loss = answer(disk, {"do": "power_loss", "keep_ratio": 0, "seed": 0, "handle": first})
    assert loss["dropped_blocks"] == 0
    assert refused(lambda: disk.write(first, 0, SECTOR))
    assert disk.read(second, 0, 512) == SECTOR
    assert disk.status()["handles"] == [second]


def test_openings_of_two_servers_of_a_disk_are_not_mistaken_for_each_other(backing: Path) -> None:
    assert Disk(backing).open() != Disk(backing).open()


def test_the_age_of_the_oldest_request_that_waits_is_told(disk: Disk) -> None:
    handle = disk.open()
    assert disk.status()["stalled_s"] == 0
    disk.switch(Switches(hang=True))
    waiting = threading.Thread(target=lambda: disk.write(handle, 0, SECTOR))
    waiting.start()
    wait_for("a request that waits", lambda: disk.status()["stalled_s"] > 0.01, timeout_s=5, every_s=0.001)
    disk.switch(Switches())
    waiting.join(timeout=5)
    assert disk.status()["stalled_s"] == 0
