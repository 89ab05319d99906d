"""What a browser heard, from samples of its page; the browser itself is in tests/integration/test_browser.py."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.clients.browser.chromium import PageClock
from harness.clients.browser.hearing import Arrival, Gap, Hearing, Sample
from harness.clients.browser.held import sample_of

MS = 1_000_000
FRAME = 20 * MS
LOOK = 100 * MS
START = 1_000_000 * MS


def looks(*stretches: tuple[int, bool, bool], ssrc: int = 1, exact: bool = True) -> list[Sample]:
    """Samples every 100 ms through stretches of (how many, packets come, the tone is heard)."""
    samples, received, at_ns, last_ns = [], 0, START, None
    for count, comes, heard in stretches:
        for _ in range(count):
            packets = []
            if comes:
                packets = [packet(at_ns + n * FRAME, ssrc) for n in range(5)]
                received += 5
                last_ns = at_ns + 4 * FRAME
            at_ns += LOOK
            samples.append(
                Sample(
                    at_ns=at_ns,
                    connection=1,
                    received=received,
                    lost=0,
                    ssrc=ssrc,
                    last_ns=last_ns,
                    heard=heard,
                    packets=tuple(packets) if exact else None,
                )
            )
    return samples


def packet(at_ns: int, ssrc: int = 1) -> Arrival:
    return Arrival(first_ns=at_ns, last_ns=at_ns, count=1, ssrc=ssrc)


def later(sample: Sample, *, by_ns: int) -> Sample:
    packets = tuple(packet(p.first_ns + by_ns, p.ssrc) for p in sample.packets or ())
    return replace(sample, at_ns=sample.at_ns + by_ns, packets=packets)


def hear(samples: list[Sample]) -> tuple[Hearing, list[Gap]]:
    hearing = Hearing(opened_ns=START)
    return hearing, [gap for sample in samples for gap in hearing.take(sample)]


@pytest.mark.parametrize("exact", [True, False])
def test_audio_without_a_pause_has_no_silence(exact: bool) -> None:
    hearing, gaps = hear(looks((20, True, True), exact=exact))
    assert gaps == []
    assert (hearing.received, hearing.right, hearing.foreign) == (100, 100, 0)
    assert (hearing.first_ns, hearing.last_ns) == (START, START + 20 * LOOK - FRAME)
    assert hearing.resolution_ms == (1 if exact else 100)


@pytest.mark.parametrize("exact", [True, False])
def test_a_silence_lies_between_the_packets_around_it(exact: bool) -> None:
    _, gaps = hear(looks((10, True, True), (7, False, False), (10, True, True), exact=exact))
    assert [(gap.from_ns, gap.to_ns) for gap in gaps] == [(START + 10 * LOOK - FRAME, START + 17 * LOOK)]
    assert gaps[0].lost == 0
    assert not gaps[0].ssrc_changed


def test_audio_that_is_heard_a_little_after_its_packets_is_right_from_its_first_packet() -> None:
    hearing, gaps = hear(looks((10, True, True), (7, False, False), (3, True, False), (10, True, True)))
    assert [gap.to_ns for gap in gaps] == [START + 17 * LOOK]
    assert hearing.foreign == 0


def test_what_plays_on_from_the_jitter_buffer_makes_no_silence_shorter() -> None:
    _, gaps = hear(looks((10, True, True), (2, False, True), (8, False, False), (5, True, True)))
    assert [(gap.from_ns, gap.to_ns) for gap in gaps] == [(START + 10 * LOOK - FRAME, START + 20 * LOOK)]


def test_packets_with_other_audio_are_foreign_and_end_no_silence() -> None:
    hearing, gaps = hear(looks((10, True, True), (20, True, False)))
    assert gaps == []
    assert hearing.right == 50
    assert hearing.foreign > 60
    assert hearing.last_ns == START + 10 * LOOK - FRAME


def test_a_new_sender_is_told_and_its_losses_are_not_compared() -> None:
    before = looks((5, True, True))
    after = [later(sample, by_ns=9 * LOOK) for sample in looks((5, True, True), ssrc=2)]
    hearing, gaps = hear(before + after)
    assert [(gap.ssrc_changed, gap.lost) for gap in gaps] == [(True, None)]
    assert [ssrc for ssrc, _ in hearing.whole(START)["ssrcs"]] == ["00000001", "00000002"]


def test_losses_of_a_silence_are_those_that_the_browser_counted_in_it() -> None:
    samples = looks((5, True, True), (5, False, False), (5, True, True))
    _, gaps = hear([replace(sample, lost=25 if n >= 10 else 0) for n, sample in enumerate(samples)])
    assert [gap.lost for gap in gaps] == [25]


def test_a_new_connection_counts_from_nothing_again() -> None:
    first = looks((5, True, True), exact=False)
    second = [
        replace(sample, connection=2, at_ns=sample.at_ns + 5 * LOOK, last_ns=(sample.last_ns or 0) + 5 * LOOK)
        for sample in looks((5, True, True), exact=False)
    ]
    hearing, gaps = hear(first + second)
    assert gaps == []
    assert hearing.received == hearing.right == 50


def test_a_browser_that_stops_to_tell_of_each_packet_is_believed_its_totals() -> None:
    samples = looks((10, True, True))
    hearing, gaps = hear([replace(sample, packets=()) if n >= 3 else sample for n, sample in enumerate(samples)])
    assert not hearing.exact
    assert hearing.resolution_ms == 100
    assert hearing.last_ns == START + 10 * LOOK - FRAME
    assert [gap.length_ns // MS for gap in gaps if gap.length_ns > 200 * MS] == []


def test_a_page_sample_is_read_in_our_time() -> None:
    clock = PageClock(offset_ns=START, error_ns=1)
    row = {
        "connection": 1,
        "share": 0.9,
        "received": 5,
        "lost": -1,
        "ssrc": 7,
        "last": 90.5,
        "packets": [[12.25, 1, 7, None]],
    }
    sample = sample_of(row, START, clock)
    assert sample.heard
    assert sample.last_ns == START + 90_500_000
    assert sample.packets == (packet(START + 12_250_000, 7),)
    assert sample_of({"connection": 1, "share": 0.1}, START, clock) == Sample(
        at_ns=START, connection=1, received=0, lost=0, ssrc=None, last_ns=None, heard=False
    )
