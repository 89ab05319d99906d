"""Blackouts of known length: the kernel itself drops all packets of an address, and itself stops after the given time.

An element of an nftables set with a timeout: how long it is in force does not hang on how fast anybody runs here, only
on the kernel's tick (4 ms at 250 Hz). Works where the address is a packet's own, before or after translation: in the
router of a cell, or in a network namespace with nothing but a loopback.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from harness.clock import now_ns
from harness.command import run

TICK_S = 0.004
"""How much longer or shorter than asked for a blackout may be: one tick of the kernel (CONFIG_HZ=250)."""

TABLE = "test_blackouts"


@dataclass(frozen=True, kw_only=True)
class Blackout:
    """`length_s` is the truth, give or take a tick; it began between the two times (CLOCK_MONOTONIC)."""

    length_s: float
    began_after_ns: int
    began_before_ns: int


class Blackouts:
    """Plants blackouts of one address in one network namespace."""

    def __init__(self, *, netns_pid: int, address: str) -> None:
        self._nft = ["nsenter", "-t", str(netns_pid), "-n", "-m", "nft"]
        self._address = address

    def plant(self, length_s: float) -> Blackout:
        element = f"{{ {self._address} timeout {round(length_s * 1000)}ms }}"
        before_ns = now_ns()
        run([*self._nft, "add", "element", "ip", TABLE, "gone", element], timeout_s=5)
        after_ns = now_ns()
        return Blackout(length_s=round(length_s * 1000) / 1000, began_after_ns=before_ns, began_before_ns=after_ns)

    @contextmanager
    def ready(self) -> Iterator[Blackouts]:
        """The table exists inside this block and is gone after it."""
        rules = f"""
            table ip {TABLE} {{
                set gone {{ type ipv4_addr; flags timeout; }}
                chain before {{ type filter hook prerouting priority -450; ip daddr @gone drop; }}
                chain after {{ type filter hook prerouting priority -150; ip saddr @gone drop; }}
            }}
        """
        run([*self._nft, "-f", "-"], timeout_s=5, input=rules)
        try:
            yield self
        finally:
            run([*self._nft, "delete", "table", "ip", TABLE], timeout_s=5, check=False)
