"""A prompt is recognised by its tones, in their order, wherever the listening began."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from harness.clients import prompt
from harness.clients.prompt import PromptCaller, Recogniser
from harness.clients.rtp.g711 import encode
from harness.clients.rtp.packet import FIRST_BYTE, HEADER, PCMU
from harness.clients.rtp.tone import FRAME_SAMPLES, sine
from harness.clients.sip.reply import Reply

TONES = (392, 523, 659, 784)
FRAMES = 25


def played(*tones_hz: int, skip: int = 0, payload_type: int = PCMU) -> Iterator[bytes]:
    """Packets of these tones, 0.5 s each, without the first `skip`; 0 is silence."""
    for n in range(skip, FRAMES * len(tones_hz)):
        samples = sine(tones_hz[n // FRAMES], FRAME_SAMPLES, at=n * FRAME_SAMPLES)
        header = HEADER.pack(FIRST_BYTE, payload_type, n, n * FRAME_SAMPLES, 1)
        yield header + encode(samples, "PCMU")


def recognised(packets: Iterator[bytes]) -> bool:
    heard = Recogniser(TONES)
    for packet in packets:
        heard.take(packet)
    return heard.recognised


@pytest.mark.parametrize("skip", [0, 10, 24])
def test_a_prompt_is_recognised_wherever_it_begins(skip: int) -> None:
    assert recognised(played(*TONES, *TONES, skip=skip))


def test_four_tones_will_do() -> None:
    assert recognised(played(659, 784, 392, 523))


@pytest.mark.parametrize(
    "packets",
    [
        played(392, 523, 659),
        played(392, 523, 784, 659, 392, 523, 784, 659),  # not in this order
        played(392, 523, 700, 784, 392, 523, 700, 784),  # one of them is another
        played(392, 392, 392, 392, 392),
        played(0, 0, 0, 0),
        played(*TONES, payload_type=18),  # no G.711
        iter([b"", b"x" * 172]),
    ],
)
def test_something_else_is_not(packets: Iterator[bytes]) -> None:
    assert not recognised(packets)


Told = list[tuple[str, str, str | None]]


def attempts(monkeypatch: pytest.MonkeyPatch, codes: Sequence[int | None], *, heard: bool = True) -> Told:
    """What is told of calls that are answered with these codes (None: not at all), and whether BYE was sent."""
    told: Told = []
    monkeypatch.setattr(prompt, "ANSWER_S", 0.001)

    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def done(**_: Any) -> None:
            told.append(("BYE", "", None))

        def call(code: int | None) -> Any:
            answered: asyncio.Future[Reply] = loop.create_future()
            if code is not None:
                answered.set_result(Reply(code=code, reason="x", sent_ns=1, received_ns=2))
            sdp = b"c=IN IP4 127.0.0.1\r\nm=audio 9 RTP/AVP 0\r\n"
            return SimpleNamespace(answered=answered, remote_sdp=sdp, bye=done, cancel=lambda: "CANCEL")

        calls = iter(codes)
        agent: Any = SimpleNamespace(
            call=lambda user, sdp: call(next(calls)), spawn=lambda work: told.append((work, "", None))
        )
        recorder: Any = SimpleNamespace(
            op=lambda f, kind, at_ns, value, error=None: None if kind == "invoke" else told.append((f, kind, error))
        )
        caller = PromptCaller(agent, extension="900", tones_hz=TONES, local_ip="127.0.0.1", recorder=recorder)

        async def listen(udp: Any, remote: Any) -> bool:
            return heard

        monkeypatch.setattr(caller, "_listen", listen)
        for _ in codes:
            await caller.attempt()

    asyncio.run(main())
    return told


def test_the_first_time_it_is_recognised_is_an_acknowledgement(monkeypatch: pytest.MonkeyPatch) -> None:
    ok, bye = ("prompt", "ok", None), ("BYE", "", None)
    assert attempts(monkeypatch, [200, 200]) == [ok, ("ack", "ok", None), bye, ok, bye]


def test_a_call_that_is_not_answered_in_time_is_unknown_and_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [row[:2] for row in attempts(monkeypatch, [None])] == [("CANCEL", ""), ("prompt", "info")]


def test_a_refusal_and_an_answer_with_something_else_are_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    assert attempts(monkeypatch, [480]) == [("prompt", "fail", "480 x")]
    other = ("prompt", "fail", "answered, but the prompt was not recognised within 4 s")
    assert attempts(monkeypatch, [200], heard=False) == [other, ("BYE", "", None)]
