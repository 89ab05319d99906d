"""How a real client's held call is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.clients.recorder import Recorder
from harness.clients.story import Story
from harness.history import Op, read

Tell = Callable[[Story], object]


def told(path: Path, tell: Tell, *, alive: bool = True) -> list[Op]:
    async def main() -> None:
        recorder = Recorder(path, process="p", f="call")
        tell(Story(recorder, call="c", side="caller", alive=lambda: alive))
        recorder.close()

    asyncio.run(main())
    return list(read(path))


def call(story: Story, *events: str, caller: bool, callee: bool) -> str | None:
    at_ns = story.invoke(kind="webrtc", transport="wss", caller="1000", callee="1001")
    for event in events:
        story.event(event, at_ns + 5_000_000, reason="480 Not Registered" if event == "failed" else None)
    return story.set_up(
        caller_heard_ns=at_ns + 9_000_000 if caller else None, callee_heard_ns=at_ns + 20_000_000 if callee else None
    )


@pytest.mark.parametrize(
    ("events", "caller", "callee", "kind", "error"),
    [
        (("confirmed",), True, True, "ok", None),
        (("answered", "confirmed"), True, True, "ok", None),
        ((), False, False, "info", "not answered in time"),
        (("confirmed",), False, False, "info", "answered, but no audio in time"),
        (("confirmed",), True, False, "info", "audio only to the caller"),
        (("confirmed",), False, True, "info", "audio only to the callee"),
        (("failed",), False, False, "fail", "the call was refused or ended: 480 Not Registered"),
        (("confirmed", "ended"), True, True, "fail", "the call was refused or ended: ended"),
    ],
)
def test_a_call_is_ok_only_with_audio_both_ways(
    tmp_path: Path, events: tuple[str, ...], caller: bool, callee: bool, kind: str, error: str | None
) -> None:
    problems: list[str | None] = []
    ops = told(tmp_path / "h", lambda story: problems.append(call(story, *events, caller=caller, callee=callee)))
    invoke, end = [op for op in ops if op.f == "call"]
    assert (invoke.type, invoke.value["kind"], invoke.value["transport"]) == ("invoke", "webrtc", "wss")
    assert (end.type, end.error) == (kind, error)
    assert problems == [error]
    if kind == "ok":
        assert (end.value["setup_ms"], end.value["audio_ms"]) == (5.0, 20.0)
        assert end.time_ns == invoke.time_ns + 20_000_000


def test_a_call_tells_which_call_of_the_pbx_it_is(tmp_path: Path) -> None:
    def tell(story: Story) -> None:
        at_ns = story.invoke(kind="webrtc", transport="wss", caller="1000", callee="1001")
        story.event("confirmed", at_ns)
        story.set_up(caller_heard_ns=at_ns, callee_heard_ns=at_ns, call_id="x@y")

    assert [op.value["call_id"] for op in told(tmp_path / "h", tell) if op.f == "call" and op.type == "ok"] == ["x@y"]


def test_an_answer_that_never_came_has_a_code_of_null_and_other_unknowns_are_left_out(tmp_path: Path) -> None:
    ops = told(tmp_path / "h", lambda story: story.event("bye_sent", 7, code=None, reason=None))
    assert ops[0].value == {"call": "c", "side": "caller", "event": "bye_sent", "code": None}
    assert ops[0].time_ns == 7


def test_waiting_ends_with_what_was_waited_for_and_with_the_client(tmp_path: Path) -> None:
    async def main() -> None:
        recorder = Recorder(tmp_path / "h", process="p", f="call")
        story = Story(recorder, call="c", side="caller", alive=lambda: True)
        asyncio.get_running_loop().call_soon(story.event, "registered", 1)
        assert await story.until(lambda: "registered" in story.seen, 5)
        dead = Story(recorder, call="c", side="caller", alive=lambda: False)
        assert not await dead.until(lambda: False, 5)
        recorder.close()

    asyncio.run(main())


def test_another_attempt_starts_with_nothing_seen_of_the_one_before(tmp_path: Path) -> None:
    def tell(story: Story) -> None:
        story.event("confirmed", 1)
        assert story.up
        story.event("ended", 2)
        assert story.over
        assert not story.up
        story.forget("confirmed", "ended")
        assert not story.over

    told(tmp_path / "h", tell)
