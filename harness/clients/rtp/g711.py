"""G.711: what the bytes of PCMU and PCMA sound like, as 16-bit samples, and back (ITU-T G.711; RFC 3551 4.5.14)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Literal

from harness.clients.rtp.packet import PCMA, PCMU

Codec = Literal["PCMU", "PCMA"]
PAYLOAD_TYPE: dict[Codec, int] = {"PCMU": PCMU, "PCMA": PCMA}


def _mu_law(byte: int) -> int:
    byte = ~byte & 0xFF
    magnitude = ((((byte & 0x0F) << 3) + 0x84) << (byte >> 4 & 7)) - 0x84
    return -magnitude if byte & 0x80 else magnitude


def _a_law(byte: int) -> int:
    byte ^= 0x55
    segment, step = byte >> 4 & 7, (byte & 0x0F) << 4
    magnitude = step + 8 if segment == 0 else (step + 0x108) << (segment - 1)
    return magnitude if byte & 0x80 else -magnitude


SAMPLES: dict[int, tuple[int, ...]] = {
    PCMU: tuple(_mu_law(byte) for byte in range(256)),
    PCMA: tuple(_a_law(byte) for byte in range(256)),
}
"""The sample of each byte, by payload type."""

_LEVELS = {kind: sorted((sample, byte) for byte, sample in enumerate(table)) for kind, table in SAMPLES.items()}


def encode(samples: Sequence[float], codec: Codec) -> bytes:
    """Each sample as the byte whose level is nearest."""
    levels = _LEVELS[PAYLOAD_TYPE[codec]]
    return bytes(_nearest(levels, sample) for sample in samples)


def decode(payload: bytes | bytearray, codec: Codec) -> list[int]:
    table = SAMPLES[PAYLOAD_TYPE[codec]]
    return [table[byte] for byte in payload]


def _nearest(levels: list[tuple[int, int]], sample: float) -> int:
    at = bisect_left(levels, (sample, -1))
    around = levels[max(at - 1, 0) : at + 1]
    return min(around, key=lambda level: abs(level[0] - sample))[1]
