"""RTP and RTCP on the wire, the kernel's stamps, and the wheel."""

from __future__ import annotations

import random
import struct
from itertools import pairwise

import pytest

from harness.clients.media import Token
from harness.clients.rtp import marks
from harness.clients.rtp.packet import unpack
from harness.clients.rtp.rtcp import Block, Exchange, Report, compound, ntp_of, reports
from harness.clients.rtp.stamps import TIMESPEC, Stamps
from harness.clients.rtp.stats import Reception
from harness.clients.rtp.tone import Tone
from harness.clients.rtp.wheel import Wheel

MS = 1_000_000
BODY = bytes(range(160))


def rtp(first: int = 0x80, second: int = 0, extra: bytes = b"", after: bytes = b"") -> bytes:
    return struct.pack("!BBHII", first, second, 7, 1120, 0xCAFE) + extra + BODY + after


@pytest.mark.parametrize(
    ("case", "data"),
    [
        ("plain", rtp()),
        ("two sources that were mixed", rtp(0x82, extra=b"\0" * 8)),
        ("a header extension", rtp(0x90, extra=b"\xbe\xde\0\1" + b"\0" * 4)),
        ("padding", rtp(0xA0, after=b"\0\0\0\4")),
    ],
)
def test_the_payload_is_found(case: str, data: bytes) -> None:
    fields = unpack(data, len(data))
    assert fields is not None
    kind, seq, stamp, ssrc, start, end = fields
    assert (kind, seq, stamp, ssrc) == (0, 7, 1120, 0xCAFE)
    assert data[start:end] == BODY


@pytest.mark.parametrize(
    ("case", "data"),
    [
        ("empty", b""),
        ("short", rtp()[:11]),
        ("of version 1", rtp(0x40)),
        ("RTCP", rtp(0x80, 200)),
        ("an extension longer than the packet", rtp(0x90, extra=b"\xbe\xde\xff\xff")),
        ("an extension that is cut", rtp(0x90)[:13]),
        ("padding longer than the packet", rtp(0xA0, after=b"\xff")),
        ("STUN", b"\x00\x01\x00\x00\x21\x12\xa4\x42" + b"\0" * 12),
    ],
)
def test_what_is_no_audio_is_none(case: str, data: bytes) -> None:
    assert unpack(data, len(data)) is None


def test_the_marker_is_not_part_of_the_type() -> None:
    fields = unpack(rtp(0x80, 0x88), 172)
    assert fields is not None
    assert fields[0] == 8


BLOCK = Block(ssrc=5, fraction_lost=64, lost=-2, highest=70_000, jitter=12, lsr=1, dlsr=65536)


@pytest.mark.parametrize("bye", [False, True])
@pytest.mark.parametrize("ntp", [None, ntp_of(1_700_000_000 * 10**9)])
def test_reports_are_read_back(ntp: int | None, bye: bool) -> None:
    report = Report(ssrc=9, ntp=ntp, blocks=(BLOCK,))
    data = compound(report, stamp=160, packets=3, payload_bytes=480, name="a@b", bye=bye)
    assert len(data) % 4 == 0
    assert list(reports(data)) == [report]


def test_torn_and_wild_reports_end_the_reading_and_nothing_else() -> None:
    chance = random.Random(3)
    good = compound(Report(ssrc=9, ntp=1, blocks=(BLOCK,)), stamp=0, packets=1, payload_bytes=1, name="x")
    for _ in range(2000):
        wild = bytearray(good)
        for _ in range(chance.randrange(1, 5)):
            wild[chance.randrange(len(wild))] = chance.randrange(256)
        assert len(list(reports(bytes(wild[: chance.randrange(len(wild) + 1)])))) <= 4


def test_two_ends_learn_loss_and_round_trip_from_each_other() -> None:
    """One way takes 30 ms; the answer waits 2 s for its turn."""
    one, two = Exchange(ssrc=1, name="one"), Exchange(ssrc=2, name="two")
    heard_by_two, heard_by_one = Reception(), Reception()
    for seq in [*range(50), *range(100, 150)]:
        heard_by_two.arrive(seq, seq * 160, 1, seq * 20 * MS, right=True)
    wall = 1_700_000_000 * 10**9
    two.read(one.write(heard_by_one, wall_ns=wall, stamp=0, sent=150, payload_bytes=1), wall_ns=wall + 30 * MS)
    later = wall + 2030 * MS
    one.read(two.write(heard_by_two, wall_ns=later, stamp=0, sent=0, payload_bytes=0), wall_ns=later + 30 * MS)
    told = one.value()
    assert told["received"] == 1
    assert told["fraction_lost"] == pytest.approx(0.332, abs=0.01)
    assert told["rtt_ms"] == pytest.approx(60, abs=0.1)
    assert two.value() == {"received": 1, "fraction_lost": None, "rtt_ms": None}


def test_reports_go_out_every_five_seconds_more_or_less() -> None:
    exchange = Exchange(ssrc=1, name="x")
    times = [t for t in range(0, 100_000) if exchange.due(1 + t * MS)]
    assert 15 <= len(times) <= 30
    assert times[0] >= 1250


@pytest.mark.parametrize("mark", [Token(run=b"12345678", role="B", n=3), Tone(hz=400, other_hz=450)])
def test_marks_travel_as_json_and_hear_the_other_end_only(mark: marks.Mark) -> None:
    assert marks.from_json(marks.to_json(mark)) == mark
    other = Token(run=b"12345678", role="A", n=3) if isinstance(mark, Token) else mark.other
    for sent, right in ((other, True), (mark, False)):
        data = bytearray(12) + marks.frame(sent, "PCMU")
        assert marks.hears(mark)(data, 12, len(data), 0) is right


def test_bytes_after_the_packet_are_not_heard() -> None:
    mark = Token(run=b"12345678", role="B", n=3)
    buffer = bytearray(12) + marks.frame(Token(run=b"12345678", role="A", n=3), "PCMU")
    assert not marks.hears(mark)(buffer, 12, 20, 0)


class Clocks:
    """A wall clock that is 1000 s ahead, and a host that may be busy between two readings."""

    def __init__(self) -> None:
        self.now = 500 * 10**9
        self.ahead = 1000 * 10**9
        self.busy = 0

    def monotonic_ns(self) -> int:
        self.now += 100 + self.busy
        return self.now

    def wall_ns(self) -> int:
        self.now += 100
        return self.now + self.ahead


def stamp(wall_ns: int) -> list[tuple[int, int, bytes]]:
    return [(1, 35, TIMESPEC.pack(*divmod(wall_ns, 10**9)))]


def test_a_kernel_stamp_is_turned_into_monotonic_time() -> None:
    clocks = Clocks()
    stamps = Stamps(monotonic_ns=clocks.monotonic_ns, wall_ns=clocks.wall_ns)
    then = clocks.now - 3 * MS
    assert stamps.received_ns(stamp(then + clocks.ahead)) == pytest.approx(then, abs=500)


def test_a_busy_moment_keeps_the_offset_and_a_clock_that_was_set_changes_it() -> None:
    clocks = Clocks()
    stamps = Stamps(monotonic_ns=clocks.monotonic_ns, wall_ns=clocks.wall_ns)
    before = stamps.offset_ns
    clocks.busy = 3 * MS
    stamps.refresh()
    assert stamps.offset_ns == before
    clocks.ahead += 10**9
    stamps.refresh()
    assert stamps.offset_ns == pytest.approx(before + 10**9, abs=4 * MS)


@pytest.mark.parametrize("control", [[], stamp(0)])
def test_without_a_true_stamp_it_is_now(control: list[tuple[int, int, bytes]]) -> None:
    clocks = Clocks()
    stamps = Stamps(monotonic_ns=clocks.monotonic_ns, wall_ns=clocks.wall_ns)
    assert stamps.received_ns(control) == pytest.approx(clocks.now, abs=1000)


def test_ends_are_spread_over_the_wheel_and_each_comes_once_a_turn() -> None:
    wheel: Wheel[int] = Wheel()
    for end in range(25):
        wheel.add(end, at_ns=0)
    turns = [(due_ns, slot) for due_ns, slot in wheel.due(60 * MS - 1)]
    assert max(len(slot) for _, slot in turns) <= 3
    for end in range(25):
        due = [due_ns for due_ns, slot in turns if end in slot]
        assert [b - a for a, b in pairwise(due)] == [20 * MS, 20 * MS]


def test_the_wheel_rests_while_nobody_sends() -> None:
    wheel: Wheel[str] = Wheel()
    assert wheel.next_ns() is None
    wheel.add("a", at_ns=5 * MS)
    assert wheel.next_ns() == 5 * MS
    assert list(wheel.due(4 * MS)) == []
    assert list(wheel.due(5 * MS)) == [(5 * MS, ["a"])]
    assert wheel.next_ns() == 25 * MS
    wheel.remove("a")
    assert wheel.next_ns() is None
    wheel.add("b", at_ns=10**12)
    assert [slot for _, slot in wheel.due(10**12)] == [["b"]]
