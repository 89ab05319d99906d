"""The gateway's memory: what survives it, and how far back a Describe call can see."""

from __future__ import annotations

from pathlib import Path

from harness.region.state import MEMORY_S, Address, State


def test_tables_of_a_moment_ago_can_still_be_seen(tmp_path: Path) -> None:
    now = [100.0]
    state = State(tmp_path, clock=lambda: now[0])
    state.put(Address(allocation_id="a", public_ip="203.0.113.1"))
    now[0] = 101.0
    state.put(Address(allocation_id="a", public_ip="203.0.113.1", instance_id="i-1"))
    now[0] = 101.5
    assert state.as_of(0).addresses["a"].instance_id == "i-1"
    assert state.as_of(0.4).addresses["a"].instance_id == "i-1"
    assert state.as_of(0.6).addresses["a"].instance_id is None
    assert dict(state.as_of(1.6).addresses) == {}


def test_what_is_older_than_the_memory_is_forgotten(tmp_path: Path) -> None:
    now = [0.0]
    state = State(tmp_path, clock=lambda: now[0])
    for turn in range(200):
        now[0] = float(turn)
        state.put(Address(allocation_id="a", public_ip="203.0.113.1", instance_id=f"i-{turn}"))
    assert state.as_of(30.5).addresses["a"].instance_id == "i-168"
    assert len(state._past) <= MEMORY_S + 1


def test_what_was_put_is_there_after_a_restart(tmp_path: Path) -> None:
    State(tmp_path).put(Address(allocation_id="a", public_ip="203.0.113.1"))
    assert State(tmp_path).addresses["a"].public_ip == "203.0.113.1"
