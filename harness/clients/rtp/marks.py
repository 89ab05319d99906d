"""How an end makes itself known in its audio: bytes (`Token`) where payload passes untouched, else a sine (`Tone`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.clients.media import Token
from harness.clients.rtp import tone
from harness.clients.rtp.g711 import Codec
from harness.clients.rtp.tone import Ear, Tone

Mark = Token | Tone

Hears = Callable[[bytearray, int, int, int], bool]
"""(buffer, payload's start, its end, payload type) → whether it carries the mark of the other end."""


def frame(mark: Mark, codec: Codec) -> bytes:
    """20 ms of the mark's audio."""
    return mark.payload() if isinstance(mark, Token) else tone.frame(mark.hz, codec)


def hears(mark: Mark) -> Hears:
    """Listens for the end that a leg with this mark talks to."""
    if isinstance(mark, Token):
        other = Token(run=mark.run, role="B" if mark.role == "A" else "A", n=mark.n).word()
        return lambda buffer, start, end, _: buffer.find(other, start, end) >= 0
    ear = Ear(mark.other_hz)
    return lambda buffer, start, end, payload_type: ear.hears(bytes(buffer[start:end]), payload_type)


def to_json(mark: Mark) -> dict[str, Any]:
    if isinstance(mark, Token):
        return {"run": mark.run.hex(), "role": mark.role, "n": mark.n}
    return {"hz": mark.hz, "other_hz": mark.other_hz}


def from_json(row: dict[str, Any]) -> Mark:
    """The inverse; `ValueError` or `KeyError` for anything else."""
    if "hz" in row:
        return Tone(hz=row["hz"], other_hz=row["other_hz"])
    return Token(run=bytes.fromhex(row["run"]), role=row["role"], n=row["n"])
