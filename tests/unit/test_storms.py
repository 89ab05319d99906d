"""Many calls at once, and a host that fails in the middle of them: nobody waits for what is not theirs to wait for."""

from __future__ import annotations

import os
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
from harness.region.semantics.volumes import Attachment
from harness.region.state import Address
from tests.fronts import NODE_ID, Front

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
    allocation_id = site.client("ec2").allocate_address(Domain="vpc")["AllocationId"]
    site.plane.delays.hold({"associate": 3600.0})
    asked = f"Action=AssociateAddress&Version=2016-11-15&InstanceId={NODE_ID}&AllocationId={allocation_id}"
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
    write, full = os.write, [True]

    def written(fd: int, data: bytes) -> int:
        if full[0] and b'"request_id"' in data:
            raise OSError(28, "No space left on device")
        return write(fd, data)

    monkeypatch.setattr(os, "write", written)
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


OTHER_ID = "i-0123456789abcdef1"
A, B = "198.18.18.11", "198.18.18.12"


def ask(site: Front, action: str, **params: str) -> tuple[int, str | None]:
    """Status and error code. Parameters by their names on the wire, with `_` for the dots."""
    sent = "".join(f"&{name.replace('_', '.')}={value}" for name, value in params.items())
    status, body, _ = site.post(f"Action={action}&Version=2016-11-15{sent}")
    return status, calls.error_code(body)


def once(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, error: Exception) -> None:
    """The next call of this method fails."""
    method = getattr(owner, name)

    def failing(*arguments: Any, **named: Any) -> Any:
        monkeypatch.setattr(owner, name, method)
        raise error

    monkeypatch.setattr(owner, name, failing)


def held(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> tuple[threading.Event, threading.Event]:
    """This method hangs once it is `entered` until it is told to `go` on."""
    method, entered, go = getattr(owner, name), threading.Event(), threading.Event()

    def hanging(*arguments: Any, **named: Any) -> Any:
        entered.set()
        assert go.wait(20)
        return method(*arguments, **named)

    monkeypatch.setattr(owner, name, hanging)
    return entered, go


def transition(site: Front) -> str | None:
    return site.plane.state.instances[NODE_ID].transition


@pytest.fixture
def elastic(site: Front) -> Address:
    """An Elastic IP that nobody has, in a region of two nodes."""
    node = site.plane.state.instances[NODE_ID]
    site.plane.state.put(replace(node, instance_id=OTHER_ID, private_ip=B, interface_id="eni-2", access_key_id="k2"))
    cast(Any, site.plane.instances).powers[OTHER_ID] = "on"
    return allocated(site)


def allocated(site: Front) -> Address:
    allocation_id = site.client("ec2").allocate_address(Domain="vpc")["AllocationId"]
    return site.plane.state.addresses[allocation_id]


def associate(site: Front, address: Address, instance_id: str) -> tuple[int, str | None]:
    return ask(site, "AssociateAddress", AllocationId=address.allocation_id, InstanceId=instance_id)


def router(site: Front) -> dict[str, str]:
    return {str(public): str(private) for public, private in site.plane.addresses.table().items()}


@pytest.fixture
def volume(site: Front) -> str:
    made = site.client("ec2").create_volume(Size=1, AvailabilityZone="us-east-1a", VolumeType="gp3")["VolumeId"]
    until("the volume", lambda: not site.plane.state.volumes[made].creating)
    return str(made)


def test_a_fence_ends_an_orderly_reboot_and_nobody_boots_after_it(site: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    machines = cast(Any, site.plane.instances)
    entered, hurried = held(monkeypatch, machines, "shut_down")
    monkeypatch.setattr(machines, "hurry", lambda _: hurried.set())
    ask(site, "RebootInstances", InstanceId_1=NODE_ID)
    assert entered.wait(10)
    fence(site)
    until("stopped", lambda: transition(site) is None)
    assert machines.power(NODE_ID) == "off"
    assert ("start", NODE_ID) not in machines.done


def test_a_reboot_that_fails_can_be_asked_for_again(site: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    once(monkeypatch, site.plane.instances, "shut_down", OSError("no answer from the engine"))
    for _ in range(2):
        assert ask(site, "RebootInstances", InstanceId_1=NODE_ID)[0] == 200
        until("the end of the reboot", lambda: transition(site) is None)
    assert cast(Any, site.plane.instances).done == [("shut_down", NODE_ID), ("start", NODE_ID)]


@pytest.mark.parametrize("what", ["terminate", "shut_down"])
def test_a_terminate_goes_on_until_it_is_done(site: Front, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was answered, and a second call would change nothing."""
    once(monkeypatch, site.plane.instances, what, OSError("no answer from the engine"))
    ask(site, "TerminateInstances", InstanceId_1=NODE_ID)
    until("terminated", lambda: site.plane.state.instances[NODE_ID].terminated)
    assert site.plane.instances.power(NODE_ID) == "gone"


def test_a_terminate_waits_for_the_books_without_anybody_noticing(site: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    call, down = Books.call, [True]

    def away(books: Books, action: str, params: Any) -> Document:
        if down[0]:
            raise AwsError("Unavailable", "The service is unavailable", 503)
        return call(books, action, params)

    monkeypatch.setattr(Books, "call", away)
    assert ask(site, "TerminateInstances", InstanceId_1=NODE_ID) == (200, None)
    until("the machine's end", lambda: site.plane.instances.power(NODE_ID) == "gone")
    assert transition(site) == "shutting-down"
    down[0] = False
    until("terminated", lambda: site.plane.state.instances[NODE_ID].terminated)


def test_a_stop_ends_whatever_becomes_of_its_book_keeping(site: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    own = replace(site.plane.state.instances[NODE_ID], wants_public=True, own_public="203.0.113.9")
    site.plane.state.put(own)
    once(monkeypatch, site.plane.addresses, "change", OSError("nft"))
    ask(site, "StopInstances", InstanceId_1=NODE_ID)
    put, failed = site.plane.state.put, [0]

    def full(*records: Any) -> None:
        if failed[0] < 3 and records[0].instance_id == NODE_ID and records[0].transition is None:
            failed[0] += 1
            raise OSError(28, "No space left on device")
        put(*records)

    monkeypatch.setattr(site.plane.state, "put", full)
    until("stopped", lambda: transition(site) is None)
    assert site.plane.state.instances[NODE_ID].own_public is None


def test_a_terminate_does_not_wait_for_a_start_that_takes_its_time(site: Front) -> None:
    cast(Any, site.plane.instances).powers[NODE_ID] = "off"
    site.plane.delays.hold({"start": 3600.0})
    assert ask(site, "StartInstances", InstanceId_1=NODE_ID) == (200, None)
    assert ask(site, "TerminateInstances", InstanceId_1=NODE_ID) == (200, None)
    until("terminated", lambda: site.plane.state.instances[NODE_ID].terminated)
    assert site.plane.state.instances[NODE_ID].terminated


def test_a_fence_does_not_wait_for_a_detach_that_hangs(
    site: Front, volume: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.plane.state.put(site.plane.state.volumes[volume].placed(_place(NODE_ID)))
    site.plane.volumes.attach(volume, instance_id=NODE_ID, guest_pid=1, device="/dev/sdf")
    entered, go = held(monkeypatch, site.plane.volumes, "detach")
    assert ask(site, "DetachVolume", VolumeId=volume) == (200, None)
    assert entered.wait(10)
    fence(site)
    go.set()
    until("available", lambda: not site.plane.state.volumes[volume].attachments)
    assert site.plane.volumes.attachments(volume) == []


def test_a_detach_that_comes_in_the_middle_of_an_attach_has_the_last_word(
    site: Front, volume: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Had the detach found nothing yet and gone, the guest would keep a device of a volume that is `available`."""
    monkeypatch.setattr(Books, "call", lambda *_: Document(b"<r/>"))  # this node is not in them
    entered, go = held(monkeypatch, site.plane.volumes, "attach")
    assert ask(site, "AttachVolume", VolumeId=volume, InstanceId=NODE_ID, Device="/dev/sdf") == (200, None)
    assert entered.wait(10)
    assert ask(site, "DetachVolume", VolumeId=volume) == (200, None)
    go.set()
    until("available", lambda: not site.plane.state.volumes[volume].attachments)
    assert site.plane.volumes.attachments(volume) == []


@pytest.mark.parametrize("failing", ["router", "disk"])
def test_an_association_that_fails_has_not_happened_and_can_be_asked_for_again(
    site: Front, elastic: Address, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert associate(site, elastic, NODE_ID) == (200, None)
    owner, name = (site.plane.addresses, "change") if failing == "router" else (site.plane.state, "put")
    once(monkeypatch, owner, name, OSError("full"))
    assert associate(site, elastic, OTHER_ID) == (
        500,
        "InternalError",
    )
    assert [a.instance_id for a in site.plane.state.addresses.values()] == [NODE_ID]
    until("the router's agreement", lambda: router(site) == {elastic.public_ip: A})
    assert associate(site, elastic, OTHER_ID) == (200, None)
    assert router(site) == {elastic.public_ip: B}


def test_a_move_that_lags_is_made_though_the_router_fails_at_first(
    site: Front, elastic: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asking for it again would change nothing: it is associated."""
    site.plane.delays.hold({"address": 0.001})
    once(monkeypatch, site.plane.addresses, "change", OSError("nft"))
    assert associate(site, elastic, NODE_ID) == (200, None)
    until("the router", lambda: router(site) == {elastic.public_ip: A})


def test_state_and_router_agree_after_a_storm_of_moves(
    site: Front, elastic: Address, crowd: ThreadPoolExecutor
) -> None:
    """Two sides that take one address from each other, with data-plane lags of every length, and a terminate."""
    draws = iter(range(10**6))
    draw = site.plane.delays.draw
    site.plane.delays.draw = (  # type: ignore[method-assign]
        lambda operation: (next(draws) * 7 % 11) / 500 if operation == "address" else draw(operation)
    )
    other = allocated(site)
    turns: list[dict[str, str]] = [
        {"AllocationId": (elastic, other)[n % 2].allocation_id, "InstanceId": (NODE_ID, OTHER_ID)[n // 2 % 2]}
        for n in range(200)
    ]
    asked = [crowd.submit(ask, site, "AssociateAddress", **turn) for turn in turns]
    assert {each.result()[0] for each in asked} == {200}
    ask(site, "TerminateInstances", InstanceId_1=OTHER_ID)
    until("terminated", lambda: site.plane.state.instances[OTHER_ID].terminated)
    told = {a.public_ip: a.private_ip for a in site.plane.state.addresses.values() if a.private_ip}
    assert B not in told.values()
    until("the router's agreement", lambda: router(site) == told)
    site.stop()
    site.stop = lambda: None
    assert router(site) == told
    assert IPv4Address(B) not in site.plane.addresses.table().values()


def _place(instance_id: str) -> Attachment:
    return Attachment(instance_id=instance_id, device="/dev/sdf", state="attached", since="2026-01-01T00:00:00.000Z")
