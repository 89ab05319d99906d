"""What one direction was like: loss, order, jitter and silences, from planted arrivals."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from harness.clients.rtp.stats import (
    FRAME_NS,
    MAX_SOURCES,
    Gap,
    Histogram,
    Reception,
    merged,
    quantile_ns,
)

MS = 1_000_000
START_NS = 5_000_000_000


def receive(
    frames: Iterable[tuple[int, float]],
    *,
    into: Reception | None = None,
    ssrc: int = 7,
    right: bool = True,
    first_seq: int = 0,
) -> tuple[Reception, list[Gap]]:
    """Take in (number of the frame, ms it came after it was due)."""
    reception, gaps = into or Reception(), []
    for n, late_ms in frames:
        at_ns = START_NS + n * FRAME_NS + round(late_ms * MS)
        stamp = (n * 160) & 0xFFFFFFFF
        pause_ns = reception.arrive((first_seq + n) & 0xFFFF, stamp, ssrc, at_ns, right=right)
        if pause_ns is not None and reception.gap is not None:
            gaps.append(reception.gap)
    return reception, gaps


def steady(*spans: range) -> list[tuple[int, float]]:
    return [(n, 0.0) for span in spans for n in span]


@pytest.mark.parametrize(
    ("case", "frames", "first_seq", "received", "lost", "reordered", "duplicates"),
    [
        ("nothing wrong", steady(range(100)), 0, 100, 0, 0, 0),
        ("three lost", steady(range(10), range(13, 100)), 0, 97, 3, 0, 0),
        ("two swapped", [(0, 0), (2, -20), (1, 20), (3, 0)], 0, 4, 0, 1, 0),
        ("one far behind", [*steady(range(10), range(11, 100)), (10, 1780)], 0, 100, 0, 1, 0),
        ("the first two swapped", [(1, 0), (0, 21), (2, 0)], 0, 3, 0, 1, 0),
        ("the first comes after one that is lost", [(2, 0), (0, 41), (3, 0)], 0, 3, 1, 1, 0),
        ("every packet twice", [(n, late) for n in range(50) for late in (0, 1)], 0, 100, 0, 0, 50),
        ("an old one twice", [*steady(range(20)), (12, 160)], 0, 21, 0, 0, 1),
        ("the number wraps", steady(range(100)), 65_500, 100, 0, 0, 0),
        ("lost across the wrap", steady(range(20), range(50, 100)), 65_500, 70, 30, 0, 0),
        ("swapped across the wrap", [(0, 0), (2, -20), (1, 20), (3, 0)], 65_534, 4, 0, 1, 0),
        ("15 s dark", steady(range(50), range(800, 850)), 0, 100, 750, 0, 0),
        ("two minutes dark", steady(range(50), range(6_050, 6_100)), 0, 100, 6_000, 0, 0),
    ],
)
def test_loss_order_and_duplicates(
    case: str,
    frames: list[tuple[int, float]],
    first_seq: int,
    received: int,
    lost: int,
    reordered: int,
    duplicates: int,
) -> None:
    got, _ = receive(frames, first_seq=first_seq)
    assert (got.received, got.lost, got.reordered, got.duplicates) == (received, lost, reordered, duplicates)
    assert got.right == received - duplicates


@pytest.mark.parametrize(
    ("case", "frames", "gaps_ms", "lost"),
    [
        ("steady", steady(range(100)), [], []),
        ("two lost are no gap of 60 ms less a little", [*steady(range(10)), (12, -0.1), (13, 0)], [], []),
        ("two lost", steady(range(10), range(12, 20)), [60], [2]),
        ("delayed, not lost", [(n, 0.0 if n < 10 else 80.0) for n in range(20)], [100], [0]),
        ("two gaps", steady(range(10), range(20, 30), range(50, 60)), [220, 420], [10, 20]),
    ],
)
def test_gaps_lie_between_the_right_packets_around_a_silence(
    case: str, frames: list[tuple[int, float]], gaps_ms: list[float], lost: list[int]
) -> None:
    reception, gaps = receive(frames)
    assert [gap.length_ns / MS for gap in gaps] == gaps_ms
    assert [gap.lost for gap in gaps] == lost
    assert reception.longest == (max(gaps, key=lambda gap: gap.length_ns) if gaps else None)
    if gaps:
        last_before = max(n for n, _ in frames if START_NS + n * FRAME_NS <= gaps[0].from_ns)
        assert gaps[0].from_ns == START_NS + last_before * FRAME_NS


def test_somebody_elses_audio_does_not_end_a_silence() -> None:
    reception, _ = receive(steady(range(10)))
    receive(steady(range(10, 60)), into=reception, ssrc=8, right=False)
    _, gaps = receive(steady(range(60, 70)), into=reception)
    assert [gap.length_ns / MS for gap in gaps] == [51 * 20]
    assert (reception.right, reception.foreign, reception.received) == (20, 50, 70)


def test_a_copy_of_an_old_packet_does_not_end_a_silence() -> None:
    _, gaps = receive([*steady(range(10)), (9, 100), *steady(range(20, 30))])
    assert [gap.length_ns / MS for gap in gaps] == [220]


def test_a_new_ssrc_is_told_and_its_loss_is_unknown() -> None:
    reception, _ = receive(steady(range(10)))
    _, gaps = receive(steady(range(40, 50)), into=reception, ssrc=0xABC, first_seq=999)
    assert [(gap.ssrc_changed, gap.lost) for gap in gaps] == [(True, None)]
    assert reception.ssrcs() == [["00000007", START_NS], ["00000abc", START_NS + 40 * FRAME_NS]]
    assert reception.lost == 0


def test_a_sender_that_counts_anew_loses_nothing_that_is_known() -> None:
    reception, _ = receive(steady(range(10)))
    _, gaps = receive(steady(range(40, 50)), into=reception, first_seq=30_000)
    assert [(gap.ssrc_changed, gap.lost) for gap in gaps] == [(False, None)]
    assert reception.lost == 0
    assert reception.right == 20


def test_a_flood_of_ssrcs_is_counted_and_not_kept() -> None:
    reception = Reception()
    for ssrc in range(1000):
        reception.arrive(0, 0, ssrc, START_NS, right=True)
    assert len(reception.sources) == MAX_SOURCES
    assert reception.foreign == 1000 - MAX_SOURCES


def test_jitter_is_that_of_rfc_3550() -> None:
    """Arrivals that are late by 0 and 8 ms in turn: D is 8 ms each time, and J goes to it by a sixteenth."""
    reception, _ = receive([(n, 8.0 * (n % 2)) for n in range(3)])
    assert reception.jitter_ms == pytest.approx(0.5 + (8 - 0.5) / 16, abs=0.001)
    reception, _ = receive([(n, 8.0 * (n % 2)) for n in range(400)])
    assert reception.jitter_ms == pytest.approx(8.0, abs=0.01)


def test_jitter_is_none_of_a_pause_that_the_sender_made() -> None:
    assert receive(steady(range(10), range(100, 110)))[0].jitter_ms == 0


def test_jitter_survives_the_wrap_of_the_stamp() -> None:
    reception = Reception()
    for n in range(10):
        reception.arrive(n, (0xFFFFFF00 + n * 160) & 0xFFFFFFFF, 7, START_NS + n * FRAME_NS, right=True)
    assert reception.jitter_ms == 0


def test_fraction_lost_is_since_the_last_report() -> None:
    reception, _ = receive(steady(range(50), range(100, 150)))
    source = reception.sources[7]
    assert source.fraction_lost() == 256 * 50 // 149 // 1
    assert source.fraction_lost() == 0
    receive(steady(range(150, 200)), into=reception)
    assert source.fraction_lost() == 0


def test_the_longest_pause_of_a_second_is_asked_once() -> None:
    reception, _ = receive(steady(range(10), range(12, 20)))
    assert reception.pause_of_second_ns() == 60 * MS
    assert reception.pause_of_second_ns() == 0


def test_a_quantile_is_an_upper_bound_one_bucket_wide() -> None:
    histogram = Histogram(width_ns=10, buckets=100)
    for length in range(1000):
        histogram.add(length)
    assert histogram.quantile_ns(0.5) == 500
    assert histogram.quantile_ns(0.999) == 999
    histogram.add(1_000_000)
    assert histogram.longest_ns == 1_000_000
    assert histogram.quantile_ns(0.0) == 10
    assert histogram.quantile_ns(0.999) == 1_000_000  # the last bucket has no upper edge
    assert histogram.take()[1] == 1_000_000
    assert histogram.take() == ({}, 0)


def test_histograms_add_up() -> None:
    total = merged([{1: 2, 3: 1}, {3: 4}])
    assert total == {1: 2, 3: 5}
    assert quantile_ns(total, 0.5, width_ns=10, longest_ns=39) == 39
    assert quantile_ns({}, 0.5, width_ns=10, longest_ns=0) == 0
