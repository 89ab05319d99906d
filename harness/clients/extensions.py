"""Which extensions of a PBX belong to whom, so that no two clients of a run are the same account.

From the first on: held calls (`MAX_HELD` of each kind, two extensions each), then registered clients (an equal share of
what is left for each kind); the last `LAST_OWN` belong to probes, load, the prompt's caller and transactions in flight.
`Range` is what a profile has as `extensions`, first and last inclusive.
"""

from __future__ import annotations

from typing import Protocol

from harness.clients.kinds import KINDS, OWN_KINDS
from harness.results import TRANSPORTS, TransportName

MAX_HELD = 200
"""Held calls of one kind at most."""

MAX_SETS = 5
"""Sets of transactions in flight of one kind at most, eight extensions each."""

LAST_OWN = 200
"""So many of the last extensions belong to the probes (20), to load, to the prompt's caller and to transactions."""


class Range(Protocol):
    @property
    def first(self) -> int: ...

    @property
    def last(self) -> int: ...


def of_probes(extensions: Range, transport: TransportName) -> tuple[int, int, int]:
    """Who calls, who is called, and who only registers, on one transport."""
    last = extensions.last - 3 * TRANSPORTS.index(transport)
    return last - 1, last, last - 2


def of_load(extensions: Range) -> tuple[range, int]:
    """Callers and the callee of background calls."""
    first = extensions.last - LAST_OWN + 1
    return range(first, first + 50), first + 50


def of_prompt(extensions: Range) -> int:
    """Who calls the prompt."""
    return extensions.last - LAST_OWN + 1 + 51


def of_in_flight(extensions: Range, kind: str) -> int:
    """The first of the extensions between which transactions of this kind are made, eight for each set."""
    return extensions.last - LAST_OWN + 1 + 52 + 8 * MAX_SETS * OWN_KINDS.index(kind)


def of_held_calls(extensions: Range, kind: str) -> int:
    """The first extension of this kind's held calls; each call uses two."""
    return extensions.first + 2 * MAX_HELD * list(KINDS).index(kind)


def of_clients(extensions: Range, kind: str) -> range:
    """Those of registered clients of this kind; empty where the PBX has too few."""
    begin = extensions.first + 2 * MAX_HELD * len(KINDS)
    share = max(0, extensions.last - LAST_OWN + 1 - begin) // len(KINDS)
    first = begin + share * list(KINDS).index(kind)
    return range(first, first + share)
