"""What a browser heard, from what its page samples: right packets, silences and counts, as the media engine tells them.

Packets are counted by the browser; whether they carry the other end's tone is judged by ear, a little later, once they
were decoded and played. So packets wait for the ear: heard, all that came until then was right; not heard for
`SETTLE_NS`, what came that long ago was foreign. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness.clients.rtp.stats import FRAME_NS, SILENCE_NS, Gap
from harness.clock import ms

SETTLE_NS = 500_000_000
"""How long after its arrival a packet can still be heard: Chromium's jitter buffer, the player, 80 ms of window."""

UNTOLD = 10
"""So many packets that the browser counted, but did not tell of: then it no longer tells of each."""

SHARE = 0.5
"""The tone is heard when at least this part of the sound's power lies on it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrival:
    """`count` packets of one sender that came between two moments (CLOCK_MONOTONIC); of one they are the same."""

    first_ns: int
    last_ns: int
    count: int
    ssrc: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One look at a connection: totals of getStats, what the ear heard, and the packets since the look before.

    `packets` is None where the browser does not tell of each packet; then they are estimated from the totals.
    """

    at_ns: int
    connection: int
    received: int
    lost: int
    ssrc: int | None
    last_ns: int | None
    heard: bool
    packets: tuple[Arrival, ...] | None = None


@dataclass(kw_only=True)
class Hearing:
    """One end's reception over the whole call, through changes of the connection."""

    opened_ns: int
    received: int = 0
    right: int = 0
    foreign: int = 0
    lost: int = 0
    first_ns: int | None = None
    last_ns: int | None = None
    longest: Gap | None = None
    last_gap: Gap | None = None
    ssrcs: dict[int, int] = field(default_factory=dict)
    exact: bool = True
    _before: Sample | None = None
    _waiting: list[Arrival] = field(default_factory=list)
    _ssrc: int | None = None
    _untold: int = 0
    _lost_then: int = 0

    @property
    def resolution_ms(self) -> int:
        """How exactly the ends of a silence are known: of single packets, or of the looks every 100 ms."""
        return 1 if self.exact else 100

    def take(self, sample: Sample) -> list[Gap]:
        """Count; the silences that are now known to have ended."""
        sample = self._trusted(sample)
        came = arrivals(sample, self._before)
        if sample.packets is None and came:
            self.exact = False
        self._count_lost(sample)
        self._before = sample
        self.received += sum(arrival.count for arrival in came)
        self._waiting += came
        if sample.heard:
            right, self._waiting = self._waiting, []
            return [gap for arrival in right if (gap := self._take_right(arrival)) is not None]
        while self._waiting and sample.at_ns - self._waiting[0].last_ns > SETTLE_NS:
            self.foreign += self._waiting.pop(0).count
        return []

    def heard_since(self, at_ns: int) -> bool:
        """Whether right audio came after this moment."""
        return self.last_ns is not None and self.last_ns > at_ns

    def row(self, at_ns: int, *, jitter_ms: float | None) -> list[Any]:
        """This leg in a `media_second`: received, right, lost, longest gap, time since the last right one, jitter."""
        longest_ms = None if self.longest is None else ms(self.longest.length_ns)
        since_ms = None if self.last_ns is None else ms(at_ns - self.last_ns)
        return [self.received, self.right, self.lost, longest_ms, since_ms, jitter_ms]

    def whole(self, at_ns: int) -> dict[str, Any]:
        """This leg in its `media_leg`."""
        longest = self.longest
        return {
            "opened_ns": self.opened_ns,
            "received": self.received,
            "right": self.right,
            "foreign": self.foreign,
            "lost": self.lost,
            "ssrcs": [[f"{ssrc:08x}", first_ns] for ssrc, first_ns in self.ssrcs.items()],
            "longest": {"from_ns": longest.from_ns, "to_ns": longest.to_ns} if longest else None,
            "first_ns": self.first_ns,
            "last_ns": self.last_ns,
            "since_last_ms": None if self.last_ns is None else ms(at_ns - self.last_ns),
            "resolution_ms": self.resolution_ms,
        }

    def _trusted(self, sample: Sample) -> Sample:
        """Without its word of each packet, where the browser has stopped to give it."""
        if sample.packets:
            self._untold = 0
        elif sample.packets is not None:
            self._untold += sum(arrival.count for arrival in arrivals(replace(sample, packets=None), self._before))
        distrusted = not self.exact or self._untold >= UNTOLD
        return replace(sample, packets=None) if distrusted else sample

    def _count_lost(self, sample: Sample) -> None:
        """The browser may take a packet back from the lost ones that comes after all."""
        before = self._before
        goes_on = before is not None and (before.connection, before.ssrc) == (sample.connection, sample.ssrc)
        self.lost += sample.lost - before.lost if goes_on and before is not None else max(sample.lost, 0)

    def _take_right(self, arrival: Arrival) -> Gap | None:
        gap = None
        if self.last_ns is not None and arrival.first_ns - self.last_ns >= SILENCE_NS:
            changed = arrival.ssrc != self._ssrc
            lost = None if changed else max(self.lost - self._lost_then, 0)
            self.last_gap = gap = Gap(from_ns=self.last_ns, to_ns=arrival.first_ns, lost=lost, ssrc_changed=changed)
            if self.longest is None or gap.length_ns > self.longest.length_ns:
                self.longest = gap
        self.right += arrival.count
        self.first_ns = arrival.first_ns if self.first_ns is None else self.first_ns
        self.last_ns = max(arrival.last_ns, self.last_ns or 0)
        self.ssrcs.setdefault(arrival.ssrc, arrival.first_ns)
        self._ssrc, self._lost_then = arrival.ssrc, self.lost
        return gap


def arrivals(sample: Sample, before: Sample | None) -> Sequence[Arrival]:
    """What came since the look before. Without word of each packet: so many as the total grew by, the last when the
    browser says, the others 20 ms apart before it, but none before the look before."""
    if sample.packets is not None:
        return sample.packets
    same = before is not None and before.connection == sample.connection and before.ssrc == sample.ssrc
    count = sample.received - (before.received if same and before is not None else 0)
    if count <= 0 or sample.ssrc is None:
        return ()
    last_ns = sample.at_ns if sample.last_ns is None else sample.last_ns
    earliest_ns = last_ns - (count - 1) * FRAME_NS
    if before is not None:
        earliest_ns = min(max(earliest_ns, before.at_ns), last_ns)
    return (Arrival(first_ns=earliest_ns, last_ns=last_ns, count=count, ssrc=sample.ssrc),)
