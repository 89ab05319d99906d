"""Tones through what a call does to them: codecs, gain, resampling, jumps of phase."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from harness.clients.rtp.g711 import PAYLOAD_TYPE, SAMPLES, Codec, decode, encode
from harness.clients.rtp.tone import (
    FRAME_SAMPLES,
    HIGHEST_HZ,
    LOWEST_HZ,
    RATE_HZ,
    STEP_HZ,
    Ear,
    Tone,
    frame,
    share,
    sine,
    tone_of_call,
)

ALL_HZ = range(LOWEST_HZ, HIGHEST_HZ + 1, STEP_HZ)
CODECS: tuple[Codec, ...] = ("PCMU", "PCMA")


def as_ints(samples: list[float]) -> list[int]:
    return [round(max(-32768.0, min(32767.0, sample))) for sample in samples]


def resampled(samples: list[float], *, ratio: float) -> list[float]:
    """Straight lines between samples: worse than any browser."""
    out, at = [], 0.0
    while at < len(samples) - 1:
        n = int(at)
        out.append(samples[n] + (samples[n + 1] - samples[n]) * (at - n))
        at += ratio
    return out


def frames_of(samples: list[float], codec: Codec, size: int = FRAME_SAMPLES) -> list[bytes]:
    data = encode(samples, codec)
    return [data[at : at + size] for at in range(0, len(data) - size + 1, size)]


@pytest.mark.parametrize(
    ("codec", "byte", "sample"),
    [
        ("PCMU", 0xFF, 0),
        ("PCMU", 0x80, 32124),
        ("PCMU", 0x00, -32124),
        ("PCMU", 0xEF, 132),
        ("PCMA", 0xD5, 8),
        ("PCMA", 0x55, -8),
        ("PCMA", 0xAA, 32256),
        ("PCMA", 0x2A, -32256),
    ],
)
def test_a_byte_of_g711_is_the_level_that_the_standard_gives_it(codec: Codec, byte: int, sample: int) -> None:
    assert SAMPLES[PAYLOAD_TYPE[codec]][byte] == sample


@pytest.mark.parametrize("codec", CODECS)
def test_every_level_is_its_own_nearest(codec: Codec) -> None:
    table = SAMPLES[PAYLOAD_TYPE[codec]]
    back = decode(encode(table, codec), codec)
    assert back == list(table)


@pytest.mark.parametrize("codec", CODECS)
def test_every_tone_is_heard_and_no_neighbour_is(codec: Codec) -> None:
    for hz in ALL_HZ:
        heard = {other for other in ALL_HZ if Ear(other).hears(frame(hz, codec), PAYLOAD_TYPE[codec])}
        assert heard == {hz}


def test_a_frame_goes_on_where_the_last_ended() -> None:
    twice = sine(350, 2 * FRAME_SAMPLES)
    assert decode(encode(twice, "PCMU"), "PCMU") == decode(frame(350, "PCMU") * 2, "PCMU")


@pytest.mark.parametrize("hz", [300, 650, 1000, 2150, 3000])
@pytest.mark.parametrize("gain", [0.05, 0.3, 3.0])
@pytest.mark.parametrize("ratio", [0.9999, 1.0001])
def test_a_tone_survives_a_transcoder_a_gain_control_and_a_resampler(hz: int, gain: float, ratio: float) -> None:
    random.seed(hz)
    once = decode(b"".join(frames_of(sine(hz, 40 * FRAME_SAMPLES), "PCMU")), "PCMU")
    ramp = [sample * gain * (1 + n / len(once)) + random.gauss(0, 30) for n, sample in enumerate(once)]
    frames = frames_of(resampled([float(value) for value in as_ints(ramp)], ratio=ratio), "PCMA")
    ears = {other: Ear(other) for other in (hz - 50, hz, hz + 50)}
    told = {other: [ear.hears(data, 8) for data in frames] for other, ear in ears.items()}
    assert all(told[hz])
    assert not any(told[hz - 50])
    assert not any(told[hz + 50])


@pytest.mark.parametrize("offset", [1, 40, 80, 159])
def test_a_tone_that_begins_anywhere_is_heard_within_two_frames(offset: int) -> None:
    silence = [0.0] * (FRAME_SAMPLES * 3 + offset)
    frames = frames_of(silence + sine(700, FRAME_SAMPLES * 10), "PCMU")
    ear = Ear(700)
    heard = [ear.hears(data, 0) for data in frames]
    first = (3 * FRAME_SAMPLES + offset) // FRAME_SAMPLES
    assert not any(heard[:first])
    assert all(heard[first + 1 :])


def test_a_jump_of_phase_costs_one_frame_at_most() -> None:
    stream = sine(700, 5 * FRAME_SAMPLES + 77) + sine(700, 5 * FRAME_SAMPLES + 83, at=13)
    ear = Ear(700)
    heard = [ear.hears(data, 0) for data in frames_of(stream, "PCMU")]
    assert heard.count(False) <= 1


@pytest.mark.parametrize("size", [80, 160, 240, 320])
def test_other_lengths_of_frame_tell_neighbours_apart_too(size: int) -> None:
    stream = sine(1000, 20 * FRAME_SAMPLES)
    for hz, right in ((950, False), (1000, True), (1050, False)):
        ear = Ear(hz)
        heard = [ear.hears(data, 0) for data in frames_of(stream, "PCMU", size)]
        assert heard[-5:] == [right] * 5


@pytest.mark.parametrize(
    ("case", "payload", "payload_type"),
    [
        ("silence", b"\xff" * 160, 0),
        ("nothing", b"", 0),
        ("a key press", b"\x01\x0a\x00\xa0", 101),
        ("comfort noise", b"\x40", 13),
        ("noise", bytes(random.Random(4).randrange(256) for _ in range(160)), 0),
    ],
)
def test_other_audio_is_not_the_tone(case: str, payload: bytes, payload_type: int) -> None:
    assert not Ear(700).hears(payload, payload_type)


def test_the_share_is_that_of_the_power() -> None:
    mixed = as_ints([a + b for a, b in zip(sine(700, 160), sine(1200, 160), strict=True)])
    assert share(mixed, 700) == pytest.approx(0.5, abs=0.01)


def test_calls_get_tones_of_their_own() -> None:
    tones = [tone_of_call(n) for n in range(27)]
    used = [hz for tone in tones for hz in (tone.hz, tone.other_hz)]
    assert len(set(used)) == 54
    assert tones[3].other == Tone(hz=tones[3].other_hz, other_hz=tones[3].hz)
    assert tone_of_call(27) == tones[0]
    assert all(a.hz < b.hz for a, b in pairwise(tones))


@pytest.mark.parametrize(("hz", "other_hz"), [(310, 400), (250, 400), (400, 3050), (500, 500)])
def test_a_tone_that_would_not_be_told_apart_is_refused(hz: int, other_hz: int) -> None:
    with pytest.raises(ValueError, match="Hz"):
        Tone(hz=hz, other_hz=other_hz)


def test_a_frame_holds_whole_periods() -> None:
    assert all(hz * FRAME_SAMPLES % RATE_HZ == 0 for hz in ALL_HZ)
