"""Audio that survives a codec: a sine per end of a call, found again by its share of what was heard (Goertzel's bin).

Frequencies are multiples of 50 Hz: a 20-ms frame holds whole periods of each, so that every frame of a tone is the same
bytes, and two of them never lend each other power whatever their phase. Where an end is a browser or baresip, its
bytes come back re-encoded, louder or softer, resampled: the share stays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import mul

from harness.clients.rtp.g711 import SAMPLES, Codec, encode

RATE_HZ = 8000
FRAME_SAMPLES = 160
STEP_HZ = 50
LOWEST_HZ, HIGHEST_HZ = 300, 3000
"""Well inside the telephone band (300-3400 Hz), whose edges a resampler cuts."""

AMPLITUDE = 8000.0
QUIETEST_RMS = 60.0
"""Below this (-55 dBFS) a frame is silence, whatever colour it has."""

SHARE = 0.5
"""The tone is heard when at least this part of the frame's power lies on it. A frame half of which is the tone, as at
an edge or a jump of phase, comes out near this."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tone:
    """An end that sends a sine of `hz` and is right to hear one of `other_hz`."""

    hz: int
    other_hz: int

    def __post_init__(self) -> None:
        for hz in (self.hz, self.other_hz):
            if hz % STEP_HZ or not LOWEST_HZ <= hz <= HIGHEST_HZ:
                raise ValueError(f"a tone is a multiple of {STEP_HZ} Hz in {LOWEST_HZ}-{HIGHEST_HZ}, not {hz}")
        if self.hz == self.other_hz:
            raise ValueError(f"both ends send {self.hz} Hz: an echo would pass for the other end")

    @property
    def other(self) -> Tone:
        """The mark of the other end."""
        return Tone(hz=self.other_hz, other_hz=self.hz)


def tone_of_call(n: int) -> Tone:
    """The caller's mark of call n, `.other` is the callee's; 27 calls differ, then they repeat."""
    pair = n % ((HIGHEST_HZ - LOWEST_HZ + STEP_HZ) // (2 * STEP_HZ))
    lower = LOWEST_HZ + pair * 2 * STEP_HZ
    return Tone(hz=lower, other_hz=lower + STEP_HZ)


@lru_cache(maxsize=256)
def frame(hz: int, codec: Codec) -> bytes:
    """20 ms of a sine; a frame after another goes on without a jump."""
    return encode(sine(hz, FRAME_SAMPLES), codec)


def sine(hz: float, count: int, *, amplitude: float = AMPLITUDE, at: int = 0) -> list[float]:
    return [amplitude * math.sin(2 * math.pi * hz * n / RATE_HZ) for n in range(at, at + count)]


class Ear:
    """Listens to one direction for one tone.

    Frames shorter than 20 ms are judged together with what came before them, so that neighbours stay apart.
    """

    def __init__(self, hz: int) -> None:
        self._hz = hz
        self._payload = b""
        self._heard = False
        self._tail: list[int] = []

    def hears(self, payload: bytes, payload_type: int) -> bool:
        """Whether this frame carries the tone. False for what is not G.711."""
        table = SAMPLES.get(payload_type)
        if table is None or not payload:
            return False
        if payload == self._payload and len(payload) >= FRAME_SAMPLES:
            return self._heard
        samples = [table[byte] for byte in payload]
        if len(samples) < FRAME_SAMPLES:
            samples = self._tail = (self._tail + samples)[-FRAME_SAMPLES:]
        self._payload = payload
        self._heard = share(samples, self._hz) >= SHARE
        return self._heard


def share(samples: Sequence[int], hz: int) -> float:
    """The part of the samples' power that lies on `hz`, 0-1; 0 for silence."""
    count = len(samples)
    power = sum(map(mul, samples, samples))
    if power < count * QUIETEST_RMS**2:
        return 0.0
    cosine, sines = _waves(hz, count)
    real, imaginary = sum(map(mul, samples, cosine)), sum(map(mul, samples, sines))
    return float(2 * (real * real + imaginary * imaginary) / (count * power))


@lru_cache(maxsize=256)
def _waves(hz: int, count: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    angles = [2 * math.pi * hz * n / RATE_HZ for n in range(count)]
    return tuple(map(math.cos, angles)), tuple(map(math.sin, angles))
