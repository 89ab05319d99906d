"""What a history says about the audio of its calls: who heard nothing, from when to when. Pure, for checkers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from harness.clients.rtp.stats import PAUSE_BUCKET_NS, SILENCE_NS, merged, quantile_ns
from harness.history import Op

Direction = tuple[str, str]
"""The call, and the side that should have heard: "caller" or "callee"."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Silence:
    """No right packet strictly between these; `to_ns` None: none came any more.

    `lost` is None where it can't be known. `held`: the other end was told to be silent for a part of it.
    """

    from_ns: int
    to_ns: int | None
    lost: int | None = None
    ssrc_changed: bool = False
    held: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Floor:
    """The time between right packets, in ms, over all legs; `n` of them."""

    n: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float


def calls_from_ops(ops: Iterable[Op], *, until_ns: int | None = None) -> dict[Direction, list[Silence]]:
    """The silences of 60 ms and more of each call and side, in order; an empty list where there were none.

    With `until_ns` everything is told as it stood at that moment (`f="unaided"`: what came later came with help): a
    silence that had not ended by then has no end. A leg that never heard anything is silent from its opening; the wait
    for a leg's first audio is no silence. A leg whose engine was killed is judged by its last `media_second`.
    """
    directions: dict[Direction, _Known] = {}
    for op in sorted(ops, key=lambda op: op.time_ns):
        if op.f == "media_second":
            _take_second(directions, op, until_ns)
        elif op.f in ("media_gap", "media_leg"):
            known = directions.setdefault((op.value["call"], op.value["side"]), _Known())
            if op.f == "media_gap":
                known.silences.append(_silence(op.value))
                known.last_ns = op.value["to_ns"]
            else:
                known.opened_ns = op.value["opened_ns"]
                known.first_ns, known.last_ns = op.value["first_ns"], op.value["last_ns"]
            known.seen_ns = op.time_ns
    return {key: known.silences_until(until_ns) for key, known in directions.items() if known.there_by(until_ns)}


def noise_floor(ops: Iterable[Op], *, from_ns: int, to_ns: int) -> Floor | None:
    """The pauses between right packets in the whole seconds that lie in between; None when there are none.

    Over a time without a fault this is the harness's own noise, and the network's and the PBX's.
    """
    seconds: dict[str, list[Op]] = {}
    for op in sorted((op for op in ops if op.f == "media_second"), key=lambda op: op.time_ns):
        seconds.setdefault(op.process, []).append(op)
    told = [
        op.value
        for process in seconds.values()
        for before, op in pairwise(process)
        if from_ns <= before.time_ns and op.time_ns <= to_ns
    ]
    counts = merged({int(at): count for at, count in value["pauses_ms"].items()} for value in told)
    if not counts:
        return None
    longest_ns = max(map(_longest_ns, told))
    at = {
        part: quantile_ns(counts, part, width_ns=PAUSE_BUCKET_NS, longest_ns=longest_ns) / 1e6
        for part in (0.5, 0.99, 0.999)
    }
    n = sum(counts.values())
    return Floor(n=n, p50_ms=at[0.5], p99_ms=at[0.99], p999_ms=at[0.999], max_ms=longest_ns / 1e6)


def _longest_ns(second: dict[str, Any]) -> int:
    """The longest pause of one `media_second`; of one that does not say, the upper edge of its last bucket."""
    if "longest_ms" in second:
        return round(float(second["longest_ms"]) * 1e6)
    return max((int(at) + 1 for at in second["pauses_ms"]), default=0) * PAUSE_BUCKET_NS


@dataclass(kw_only=True)
class _Known:
    """What the ops say of one direction: `seen_ns` is when that was last written down."""

    silences: list[Silence] = field(default_factory=list)
    opened_ns: int | None = None
    first_ns: int | None = None
    last_ns: int | None = None
    seen_ns: int = 0

    def there_by(self, until_ns: int | None) -> bool:
        return until_ns is None or self.opened_ns is None or self.opened_ns <= until_ns

    def silences_until(self, until_ns: int | None) -> list[Silence]:
        end_ns = self.seen_ns if until_ns is None else min(self.seen_ns, until_ns)
        if self.opened_ns is not None and self._deaf(until_ns):
            told = [Silence(from_ns=self.opened_ns, to_ns=None)]
            return told if end_ns - self.opened_ns >= SILENCE_NS else []
        told = list(self.silences)
        if self.last_ns is not None and self.seen_ns - self.last_ns >= SILENCE_NS:
            told.append(Silence(from_ns=self.last_ns, to_ns=None))
        return [_cut(silence, end_ns) for silence in told if end_ns - silence.from_ns >= SILENCE_NS]

    def _deaf(self, until_ns: int | None) -> bool:
        """Whether it had not heard anything right by then."""
        if self.last_ns is None:
            return True
        return until_ns is not None and self.first_ns is not None and self.first_ns > until_ns


def _cut(silence: Silence, end_ns: int) -> Silence:
    if silence.to_ns is not None and silence.to_ns > end_ns:
        return replace(silence, to_ns=None, lost=None, ssrc_changed=False)
    return silence


def _silence(value: dict[str, Any]) -> Silence:
    return Silence(
        from_ns=value["from_ns"],
        to_ns=value["to_ns"],
        lost=value["lost"],
        ssrc_changed=value["ssrc_changed"],
        held=value["held"],
    )


def _take_second(directions: dict[Direction, _Known], op: Op, until_ns: int | None) -> None:
    for key, row in op.value["legs"].items():
        call, _, side = key.rpartition("/")
        known = directions.setdefault((call, side), _Known())
        known.seen_ns = op.time_ns
        if known.opened_ns is None:
            known.opened_ns = op.time_ns
        if row[4] is not None:
            known.last_ns = op.time_ns - round(row[4] * 1e6)
