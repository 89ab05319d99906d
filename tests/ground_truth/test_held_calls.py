"""The gap of each held call is what the packets say: results against the capture of the same run.

After the scenarios, whose run it looks into. Only calls between phones of ours: on the wire is what they sent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from fixtures.plugin import RunOnce
from harness import history
from harness.clients.kinds import kind
from harness.rundir import RunDir
from scenarios.regression.active_node_crash_all_clients import ACTIVE_NODE_CRASH_ALL_CLIENTS
from tests.capture import Heard, Packet, gaps_of, packets, right_times_ns

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

PLAIN_CALLS = 16
MS = 1_000_000
SILENCE_NS = 60 * MS
"""From there on the engine tells of a gap. Frames come every 20 ms, so that many a gap is close to it: within 1 ms
either may tell of it."""

AUDIO_AT = 12
"""Where the audio begins in an RTP packet without CSRCs and extension (RFC 3550 5.1)."""

Address = tuple[str, int]
Gap = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a run's history says that one end of a call heard, its gaps since the epoch."""

    local: Address
    right: int
    gaps: Sequence[Gap]


def test_no_packet_is_missing_and_no_gap_is_off_by_more_than_a_millisecond(run_once: RunOnce) -> None:
    """Right is, byte for byte, the audio that the other end put on the wire."""
    outcome = run_once(ACTIVE_NODE_CRASH_ALL_CLIENTS).outcome
    rows = {row["call"]: row for row in outcome.results["calls"]["calls"] if not kind(row["kind"]).is_real}
    ends = dict(ends_told(outcome.run_dir, rows.keys()))
    assert len(rows) == PLAIN_CALLS and len(ends) == 2 * PLAIN_CALLS
    to, audio_of = by_address(outcome.run_dir.path / "capture.pcap")
    for (call, side), told in ends.items():
        what = f"{call}, heard by the {side}"
        (mark,) = audio_of[ends[call, "callee" if side == "caller" else "caller"].local]
        heard = Heard(ip=told.local[0], port=told.local[1], mark=mark)
        assert told.right == len(right_times_ns(to[told.local], heard)) > 1000, what
        shown = gaps_of(to[told.local], heard, silence_ns=SILENCE_NS - MS)
        for gap in told.gaps:
            assert any(near(gap, other) for other in shown), f"{what}: no packets show the gap {gap}"
        for gap in (gap for gap in shown if length_ns(gap) > SILENCE_NS + MS):
            assert any(near(gap, other) for other in told.gaps), f"{what}: the gap {gap} is not told"
        longest_ns = max(map(length_ns, shown))
        assert longest_ns > 1000 * MS, f"{what}: a failover takes longer than that"
        assert rows[call][f"gap_to_{side}_s"] * 1e9 == pytest.approx(longest_ns, abs=MS), what


def ends_told(run_dir: RunDir, calls: Collection[str]) -> Iterator[tuple[tuple[str, str], Told]]:
    """(call, side) and what it heard, for both ends of these calls."""
    offset_ns = (run_dir.read_json("stages.json") or {})["wall_offset_ns"]["end"]
    gaps: dict[tuple[str, str], list[Gap]] = defaultdict(list)
    for op in history.read(run_dir.history):
        if op.f not in ("media_gap", "media_leg") or op.value["call"] not in calls:
            continue
        end = op.value["call"], op.value["side"]
        if op.f == "media_gap":
            gaps[end].append((op.value["from_ns"] + offset_ns, op.value["to_ns"] + offset_ns))
        else:
            host, port = op.value["local"]
            yield end, Told(local=(host, port), right=op.value["right"], gaps=gaps[end])


def by_address(capture: Path) -> tuple[dict[Address, list[Packet]], dict[Address, set[bytes]]]:
    """The packets that came to each address, and the audio that left from each."""
    to, audio_of = defaultdict(list), defaultdict(set)
    for packet in packets(capture):
        if packet.outgoing:
            audio_of[packet.src, packet.sport].add(packet.payload[AUDIO_AT:])
        else:
            to[packet.dst, packet.dport].append(packet)
    return to, audio_of


def length_ns(gap: Gap) -> int:
    return gap[1] - gap[0]


def near(a: Gap, b: Gap) -> bool:
    """Whether both ends of two gaps, and hence their lengths, are the same to a millisecond."""
    return all(abs(x - y) <= MS for x, y in zip(a, b, strict=True)) and abs(length_ns(a) - length_ns(b)) <= MS
