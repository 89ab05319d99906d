"""RTP packets on the wire (RFC 3550 5.1)."""

from __future__ import annotations

import struct

PCMU, PCMA = 0, 8
"""Payload types (RFC 3551 6)."""

HEADER = struct.Struct("!BBHII")
FIRST_BYTE = 0x80
MARKER = 0x80

Fields = tuple[int, int, int, int, int, int]
"""Payload type, sequence number, time stamp, SSRC, and where the payload starts and ends."""


def unpack(data: bytes | bytearray, size: int) -> Fields | None:
    """The fields of the RTP packet in the first `size` bytes; None for what is none (RTCP on the same port included).

    CSRCs, a header extension and padding are stepped over; a packet that claims more than it has is none.
    """
    if size < HEADER.size:
        return None
    first, second, seq, stamp, ssrc = HEADER.unpack_from(data)
    if first == FIRST_BYTE:
        start, end = HEADER.size, size
    elif first >> 6 == 2:
        start, end = _payload(data, size, first)
    else:
        return None
    if start > end or 192 <= second <= 223:  # RTCP packet types: RFC 5761 4
        return None
    return second & 0x7F, seq, stamp, ssrc, start, end


def _payload(data: bytes | bytearray, size: int, first: int) -> tuple[int, int]:
    start = HEADER.size + 4 * (first & 0x0F)
    if first & 0x10:
        if start + 4 > size:
            return size + 1, size
        start += 4 + 4 * int.from_bytes(data[start + 2 : start + 4], "big")
    padding = data[size - 1] if first & 0x20 else 0
    return start, size - padding
