"""Audio that says whose it is, and the addresses it goes to."""

from __future__ import annotations

import struct

import pytest

from harness.clients.media import FRAME_BYTES, Token, heard
from harness.clients.sip.sdp import BadSdp, audio_address, describe

TOKEN = Token(run=b"12345678", role="A", n=70_000)
HEADER = struct.pack("!BBHII", 0x80, 0, 1, 160, 99)


def test_a_frame_is_20_ms_of_pcmu_and_recognised() -> None:
    assert len(TOKEN.payload()) == FRAME_BYTES
    assert heard(HEADER + TOKEN.payload()) == TOKEN


def test_a_frame_that_a_relay_cut_elsewhere_is_recognised() -> None:
    stream = TOKEN.payload() + TOKEN.payload()
    assert heard(HEADER + stream[100:260]) == TOKEN


@pytest.mark.parametrize("data", [b"", HEADER, HEADER + b"\xff" * 160, b"\x00" + HEADER[1:] + TOKEN.payload()])
def test_other_packets_are_nobodys(data: bytes) -> None:
    assert heard(data) is None


def test_an_offer_is_read_back() -> None:
    assert audio_address(describe(("198.18.1.11", 40000), session="x")) == ("198.18.1.11", 40000)


def test_the_address_of_the_audio_itself_goes_first() -> None:
    video = b"v=0\r\nc=IN IP4 1.1.1.1\r\nm=video 9 RTP/AVP 96\r\nc=IN IP4 3.3.3.3\r\n"
    assert audio_address(video + b"m=audio 10 RTP/AVP 0\r\nc=IN IP4 2.2.2.2\r\n") == ("2.2.2.2", 10)


@pytest.mark.parametrize("body", [b"", b"c=IN IP4 1.1.1.1\r\n", b"c=IN IP4 1.1.1.1\r\nm=audio 0 RTP/AVP 0\r\n"])
def test_a_refused_or_missing_audio_is_bad(body: bytes) -> None:
    with pytest.raises(BadSdp):
        audio_address(body)
