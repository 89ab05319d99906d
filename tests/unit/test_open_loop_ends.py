"""Whatever fails when a process of clients ends, everything is ended and what is left is written."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from harness import history
from harness.clients.open_loop import beats, end_all
from harness.clients.recorder import Recorder


def test_everything_is_ended_and_the_first_failure_is_told(tmp_path: Path) -> None:
    ended: list[str] = []

    async def broken() -> None:
        ended.append("broken")
        raise OSError("the engine is dead")

    async def fine() -> None:
        ended.append("fine")

    async def go() -> None:
        recorder = Recorder(tmp_path / "x.jsonl", process="p", f="call")
        recorder.note("call", 1, {"last": "word"})
        await end_all([broken, fine, broken], recorder=recorder)

    with pytest.raises(OSError, match="the engine is dead"):
        asyncio.run(go())
    assert ended == ["broken", "fine", "broken"]
    assert [op.value for op in history.read(tmp_path / "x.jsonl")] == [{"last": "word"}]


def test_a_beat_comes_at_once_and_none_after_the_stop() -> None:
    async def go() -> int:
        stop, count = asyncio.Event(), 0
        async for _ in beats(stop, every_s=60):
            count += 1
            stop.set()
        return count

    assert asyncio.run(go()) == 1


def test_a_value_that_is_no_json_is_noticed(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "x.jsonl", process="p", f="call")
    recorder.note("call", 1, {"no": object()})
    recorder._thread.join(timeout=5)
    with pytest.raises(Exception, match="history can't be written"):
        recorder.note("call", 2, {})
