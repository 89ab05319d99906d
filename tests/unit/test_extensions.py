"""No two clients of a run are the same account, whatever the kinds, and a small PBX is told apart from a large one."""

from __future__ import annotations

from itertools import combinations
from types import SimpleNamespace
from typing import Any

import pytest

from harness.clients import extensions
from harness.clients.kinds import KINDS, OWN_KINDS
from harness.clients.probes import registered
from harness.results import TRANSPORTS


@pytest.mark.parametrize(("first", "last"), [(1000, 9999), (1000, 29999), (100, 3000)])
def test_nobody_shares_an_extension(first: int, last: int) -> None:
    own: Any = SimpleNamespace(first=first, last=last)
    callers, callee = extensions.of_load(own)
    groups = [set(callers) | {callee}, {extensions.of_prompt(own)}]
    groups += [set(extensions.of_probes(own, transport)) for transport in TRANSPORTS]
    for kind in KINDS:
        begin = extensions.of_held_calls(own, kind)
        groups += [set(range(begin, begin + 2 * extensions.MAX_HELD)), set(extensions.of_clients(own, kind))]
    for kind in OWN_KINDS:
        begin = extensions.of_in_flight(own, kind)
        groups.append(set(range(begin, begin + 8 * extensions.MAX_SETS)))
    assert not any(one & other for one, other in combinations(groups, 2))
    assert all(first <= min(group) and max(group) <= last for group in groups if group)


def test_what_a_pbx_has_no_extensions_for_is_not_run() -> None:
    small: Any = SimpleNamespace(
        name="small", extensions=SimpleNamespace(first=1000, last=3500), sip=SimpleNamespace(udp_port=5060)
    )
    assert registered(count=60).unmet(small) is None
    assert registered(count=61).unmet(small) == "PBX small has extensions for 60 registered clients of a kind"
    small.extensions.last = 1100
    assert registered(count=1).unmet(small) == "PBX small has extensions for 0 registered clients of a kind"
