"""Many calls at once, and a host that fails in the middle of them: nobody waits for what is not theirs to wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any, cast

import pytest

from harness.command import wait_for
from harness.region import calls
from harness.region.books import Books
from harness.region.calls import AwsError, Document
from tests.fronts import KEY, NODE_ID, Front

pytestmark = pytest.mark.timeout(60)

STOP = f"Action=StopInstances&Version=2016-11-15&InstanceId.1={NODE_ID}&SkipOsShutdown=true&Force=true"
MANY = 70
"""More than any pool of the gateway has threads."""


def until(what: str, holds: Callable[[], object]) -> None:
    wait_for(what, holds, timeout_s=20, every_s=0.002)


def fence(site: Front) -> None:
    """Another node is fenced: answered, and done."""
    assert site.post(STOP)[0] == 200
    until("the fence", lambda: ("power_off", NODE_ID) in cast(Any, site.plane.instances).done)


@pytest.fixture
def crowd() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(MANY) as threads:
        yield threads


def test_a_fence_does_not_wait_behind_associations_that_take_their_time(site: Front, crowd: ThreadPoolExecutor) -> None:
    """AWS answers other calls while an AssociateAddress takes its seconds."""
    public = site.client("ec2").allocate_address(Domain="vpc")["PublicIp"]
    site.plane.delays.hold({"associate": 3600.0})
    asked = f"Action=AssociateAddress&Version=2016-11-15&InstanceId={NODE_ID}&PublicIp={public}"
    drawn, draw = [0], site.plane.delays.draw

    def counted(operation: str) -> float:
        drawn[0] += operation == "associate"
        return draw(operation)

    site.plane.delays.draw = counted  # type: ignore[method-assign]
    waiting = [crowd.submit(site.post, asked) for _ in range(MANY)]
    until("all of them waiting", lambda: drawn[0] >= 32)
    fence(site)
    assert not any(each.done() for each in waiting)
    site.stop()
    site.stop = lambda: None
    for each in waiting:
        each.exception()


def test_a_fence_does_not_wait_behind_workers_that_wait(site: Front) -> None:
    """Seventy volumes may be `busy` in their guests, or seventy moves lag: a worker each, for as long as it takes."""
    release, waiting = threading.Event(), threading.Semaphore(0)

    def work() -> None:
        waiting.release()
        release.wait(20)

    for _ in range(MANY):
        site.plane.background(work)
    for _ in range(MANY):
        assert waiting.acquire(timeout=10)
    fence(site)
    release.set()


def test_a_fence_does_not_wait_for_describes_whose_books_are_slow(
    site: Front, crowd: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither for their threads nor for a lock of theirs, and not for the books itself."""
    release, asking, call = threading.Event(), threading.Semaphore(0), Books.call

    def slow(books: Books, action: str, params: Any) -> Document:
        asking.release()
        assert release.wait(20)
        return call(books, action, params)

    monkeypatch.setattr(Books, "call", slow)
    names = ("DescribeInstances", "DescribeAddresses", "DescribeVolumes", "DescribeNetworkInterfaces")
    described = [crowd.submit(site.post, f"Action={names[n % 4]}&Version=2016-11-15") for n in range(MANY)]
    for _ in range(4):
        assert asking.acquire(timeout=10)
    fence(site)
    release.set()
    assert {each.result()[0] for each in described} == {200}


def test_a_full_disk_keeps_no_call_from_its_answer(site: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line is written when there is room again."""
    write, full = calls.os.write, [True]

    def written(fd: int, data: bytes) -> int:
        if full[0] and b'"request_id"' in data:
            raise OSError(28, "No space left on device")
        return write(fd, data)

    monkeypatch.setattr(calls.os, "write", written)
    asked = "Action=DescribeAddresses&Version=2016-11-15"
    assert site.post(asked)[0] == 200
    full[0] = False
    assert site.post(asked)[0] == 200
    assert [row["action"] for row in site.calls()] == ["DescribeAddresses", "DescribeAddresses"]


def test_a_fence_that_could_not_be_written_down_can_be_asked_for_again(
    site: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("harness.region.state.write_json", full)
        status, body, _ = site.post(STOP)
        assert (status, calls.error_code(body)) == (500, "InternalError")
        assert site.plane.state.instances[NODE_ID].transition is None
    fence(site)
