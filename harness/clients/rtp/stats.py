"""What one direction of a call's audio was like, from the arrivals of its packets. No clock, no socket: only numbers.

Loss, reordering, duplicates and jitter follow RFC 3550 (appendix A.1, A.3, A.8); a packet counts as *right* when it
carries the watermark of the other end. Silences are those between right packets: noise that goes on arriving from
somewhere else does not shorten an outage.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.clock import ms

FRAME_NS = 20_000_000
UNIT_NS = 125_000
"""One unit of the RTP clock of G.711 (8000 Hz)."""

SILENCE_NS = 60_000_000
"""From here on a pause between two right packets is a gap: three frames."""

PAUSE_BUCKET_NS = 1_000_000
"""How finely the times between right packets are counted."""

BUCKETS = 1000

MAX_MISORDER = 100
MAX_DROPOUT = 3000
"""RFC 3550 A.1: what lies further behind or ahead is a sender that began anew."""

MAX_SOURCES = 64
"""SSRCs kept per direction; what claims to be one more is counted as foreign."""

_WINDOW = (1 << (MAX_MISORDER + 1)) - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """A silence of 60 ms and more that ended: the last right packet before it and the first after.

    `lost` is None where it can't be known: the sender changed its SSRC or began to count anew.
    """

    from_ns: int
    to_ns: int
    lost: int | None
    ssrc_changed: bool

    @property
    def length_ns(self) -> int:
        return self.to_ns - self.from_ns


class Histogram:
    """Durations in buckets of equal width; the last bucket takes what is longer. Knows the longest exactly."""

    def __init__(self, *, width_ns: int, buckets: int = BUCKETS) -> None:
        self.width_ns = width_ns
        self.count = 0
        self.longest_ns = 0
        self._last = buckets - 1
        self._counts: dict[int, int] = {}

    def add(self, length_ns: int) -> None:
        at = min(length_ns // self.width_ns, self._last)
        self._counts[at] = self._counts.get(at, 0) + 1
        self.count += 1
        if length_ns > self.longest_ns:
            self.longest_ns = length_ns

    def quantile_ns(self, part: float) -> int:
        """An upper bound of the quantile, one bucket wide at most below the last; 0 when there is nothing."""
        last = self._last
        return quantile_ns(self._counts, part, width_ns=self.width_ns, longest_ns=self.longest_ns, last=last)

    def take(self) -> tuple[dict[int, int], int]:
        """Bucket → count, and the longest; begin anew."""
        taken = self._counts, self.longest_ns
        self._counts = {}
        self.count = self.longest_ns = 0
        return taken


def quantile_ns(
    counts: Mapping[int, int], part: float, *, width_ns: int, longest_ns: int, last: int = BUCKETS - 1
) -> int:
    """The upper edge of the bucket that holds the quantile, the longest in the last; never more than the longest."""
    left = part * sum(counts.values())
    for at in sorted(counts):
        left -= counts[at]
        if left <= 1e-9:
            return longest_ns if at >= last else min((at + 1) * width_ns, longest_ns)
    return longest_ns


def merged(histograms: Iterable[Mapping[int, int]]) -> dict[int, int]:
    total: dict[int, int] = {}
    for counts in histograms:
        for at, count in counts.items():
            total[at] = total.get(at, 0) + count
    return total


class Source:
    """The packets of one SSRC."""

    def __init__(self, ssrc: int, *, seq: int, stamp: int, at_ns: int) -> None:
        self.ssrc = ssrc
        self.first_ns = at_ns
        self.received = 1
        self.lost = 0
        self.reordered = 0
        self.duplicates = 0
        self.restarts = 0
        self.jitter_ns = 0.0
        self._reported = (0, 0)
        self._base = self._highest = self._seen = self._stamp = self._last_ns = 0
        self._begin(seq, stamp, at_ns)

    @property
    def highest(self) -> int:
        """The extended highest sequence number, as reports carry it."""
        return self._highest

    @property
    def jitter_units(self) -> int:
        return int(self.jitter_ns / UNIT_NS)

    def arrive(self, seq: int, stamp: int, at_ns: int) -> bool:
        """Take a packet in; False when it had been here before."""
        ahead = (seq - self._highest) & 0xFFFF
        if ahead == 1:
            self._highest += 1
            self._seen = (self._seen << 1 | 1) & _WINDOW
        elif ahead == 0:
            self.duplicates += 1
            return False
        elif ahead <= MAX_DROPOUT + (at_ns - self._last_ns) // FRAME_NS and ahead < 0x10000 - MAX_MISORDER:
            self._highest += ahead
            self._seen = (self._seen << min(ahead, MAX_MISORDER + 1) | 1) & _WINDOW
            self.lost += ahead - 1
        elif ahead >= 0x10000 - MAX_MISORDER:
            return self._late(0x10000 - ahead)
        else:
            self.restarts += 1
            self._begin(seq, stamp, at_ns)
        self.received += 1
        self._time(stamp, at_ns)
        return True

    def fraction_lost(self) -> int:
        """Of 256, since this was last asked (RFC 3550 A.3)."""
        lost, received = self.lost - self._reported[0], self.received - self._reported[1]
        self._reported = (self.lost, self.received)
        return min(255, 256 * lost // (lost + received)) if lost > 0 else 0

    def _begin(self, seq: int, stamp: int, at_ns: int) -> None:
        self._base = self._highest = seq
        self._seen = 1
        self._stamp = stamp
        self._last_ns = at_ns

    def _late(self, behind: int) -> bool:
        bit = 1 << behind
        if self._seen & bit:
            self.duplicates += 1
            return False
        self._seen |= bit
        self.received += 1
        self.reordered += 1
        own = self._highest - behind
        if own < self._base:  # it was sent before the first one that came
            self.lost += self._base - own - 1
            self._base = own
        else:
            self.lost -= 1
        return True

    def _time(self, stamp: int, at_ns: int) -> None:
        units = (stamp - self._stamp + 0x80000000 & 0xFFFFFFFF) - 0x80000000
        off_ns = abs(at_ns - self._last_ns - units * UNIT_NS)
        self.jitter_ns += (off_ns - self.jitter_ns) / 16
        self._stamp = stamp
        self._last_ns = at_ns


class Reception:
    """One direction, all its SSRCs. `gap` is the silence that the last right packet ended, when it was one."""

    def __init__(self) -> None:
        self.received = 0
        self.right = 0
        self.foreign = 0
        self.first_ns: int | None = None
        self.last_ns: int | None = None
        self.gap: Gap | None = None
        self.longest: Gap | None = None
        self.sources: dict[int, Source] = {}
        self.source: Source | None = None
        self._right_source: Source | None = None
        self._right_mark = (0, 0)
        self._second_ns = 0

    @property
    def lost(self) -> int:
        return sum(source.lost for source in self.sources.values())

    @property
    def reordered(self) -> int:
        return sum(source.reordered for source in self.sources.values())

    @property
    def duplicates(self) -> int:
        return sum(source.duplicates for source in self.sources.values())

    @property
    def jitter_ms(self) -> float | None:
        """Of the newest source."""
        return round(self.source.jitter_ns / 1e6, 3) if self.source else None

    def arrive(self, seq: int, stamp: int, ssrc: int, at_ns: int, *, right: bool) -> int | None:
        """Take a packet in. For a right one that is new: how long after the last right one, in ns; else None.

        A pause of `SILENCE_NS` and more is then `gap`.
        """
        self.received += 1
        source = self.source
        if source is None or source.ssrc != ssrc:
            source = self.sources.get(ssrc)
            if source is None:
                if len(self.sources) >= MAX_SOURCES:
                    self.foreign += 1
                    return None
                source = self.sources[ssrc] = Source(ssrc, seq=seq, stamp=stamp, at_ns=at_ns)
                fresh = True
            else:
                fresh = source.arrive(seq, stamp, at_ns)
            self.source = source
        else:
            fresh = source.arrive(seq, stamp, at_ns)
        if not right:
            self.foreign += 1
            return None
        return self._hear(source, at_ns) if fresh else None

    def pause_of_second_ns(self) -> int:
        """The longest pause that ended since this was last asked."""
        longest, self._second_ns = self._second_ns, 0
        return longest

    def row(self, at_ns: int) -> list[float | int | None]:
        """[received, right, lost, max_gap_ms, since_last_ms, jitter_ms]; the gap is the longest that ended since this
        was last asked."""
        pause_ms = ms(self.pause_of_second_ns())
        return [self.received, self.right, self.lost, pause_ms, self.since_last_ms(at_ns), self.jitter_ms]

    def whole(self, at_ns: int) -> dict[str, Any]:
        """All there is to say of this direction."""
        longest = self.longest
        return {
            "received": self.received,
            "right": self.right,
            "foreign": self.foreign,
            "lost": self.lost,
            "reordered": self.reordered,
            "duplicates": self.duplicates,
            "ssrcs": self.ssrcs(),
            "jitter_ms": self.jitter_ms,
            "longest": {"from_ns": longest.from_ns, "to_ns": longest.to_ns} if longest else None,
            "first_ns": self.first_ns,
            "last_ns": self.last_ns,
            "since_last_ms": self.since_last_ms(at_ns),
        }

    def since_last_ms(self, at_ns: int) -> float | None:
        """How long ago the last right packet came; None before the first."""
        return None if self.last_ns is None else ms(at_ns - self.last_ns)

    def ssrcs(self) -> list[list[str | int]]:
        return [[f"{source.ssrc:08x}", source.first_ns] for source in self.sources.values()]

    def _hear(self, source: Source, at_ns: int) -> int | None:
        self.right += 1
        last_ns, before = self.last_ns, self._right_source
        if last_ns is None or before is None:
            self.first_ns = self.last_ns = at_ns
            self._right_source = source
            self._right_mark = (source.lost, source.restarts)
            return None
        pause_ns = at_ns - last_ns
        if pause_ns < 0:  # the stamp of a packet that came over another path
            return None
        if pause_ns > self._second_ns:
            self._second_ns = pause_ns
        self.gap = self._new_gap(source, before, last_ns, at_ns) if pause_ns >= SILENCE_NS else None
        self.last_ns = at_ns
        self._right_source = source
        self._right_mark = (source.lost, source.restarts)
        return pause_ns

    def _new_gap(self, source: Source, before: Source, last_ns: int, at_ns: int) -> Gap:
        lost, restarts = self._right_mark
        known = source is before and source.restarts == restarts
        gap = Gap(
            from_ns=last_ns,
            to_ns=at_ns,
            lost=max(source.lost - lost, 0) if known else None,
            ssrc_changed=source is not before,
        )
        if self.longest is None or gap.length_ns > self.longest.length_ns:
            self.longest = gap
        return gap
