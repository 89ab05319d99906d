"""A prompt is recognised by its tones, in their order, wherever the listening began."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.clients.prompt import Recogniser
from harness.clients.rtp.g711 import encode
from harness.clients.rtp.packet import FIRST_BYTE, HEADER, PCMU
from harness.clients.rtp.tone import FRAME_SAMPLES, sine

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
