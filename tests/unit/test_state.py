"""The gateway's memory: what survives it, and how far back a Describe call can see."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.region.semantics.volume_changes import Modification, Shape
from harness.region.semantics.volumes import Attachment
from harness.region.state import MEMORY_S, STATE_FILE, Address, State, Volume


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


def test_a_volume_is_there_after_a_restart_with_all_that_it_has(tmp_path: Path) -> None:
    place = Attachment(instance_id="i-1", device="/dev/sdf", state="busy", since="2026-01-01T00:00:00.000Z")
    small, large = Shape(size_gib=1), Shape(size_gib=2)
    change = Modification(state="optimizing", original=small, target=large, started="2026-01-01T00:00:00.000Z")
    volume = Volume(
        volume_id="vol-1",
        size_gib=2,
        zone="z",
        multi_attach=True,
        attachments=(place, replace(place, instance_id="i-2")),
        modification=change,
        modified_s=(1.0, 2.0),
    )
    State(tmp_path).put(volume)
    state = State(tmp_path)
    assert state.volumes["vol-1"] == volume
    assert state.volumes_of("i-2") == [volume]
    assert volume.without("i-1").attachment == replace(place, instance_id="i-2")


@pytest.mark.parametrize(
    "place", [None, {"instance_id": "i-1", "device": "/dev/sdf", "state": "attached", "since": ""}]
)
def test_what_an_earlier_version_wrote_can_be_read(tmp_path: Path, place: dict[str, str] | None) -> None:
    row = {"volume_id": "vol-1", "size_gib": 1, "zone": "z", "attachment": place}
    (tmp_path / STATE_FILE).write_text(json.dumps({"instances": [], "volumes": [row], "addresses": []}))
    attachment = State(tmp_path).volumes["vol-1"].attachment
    assert (attachment and attachment.instance_id) == (place and place["instance_id"])


def test_what_the_disk_does_not_take_has_not_happened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record in memory alone would be believed for ever: an instance that is `stopping`, and nobody stops it."""
    before = Address(allocation_id="a", public_ip="203.0.113.1")
    state = State(tmp_path)
    state.put(before)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("harness.region.state.write_json", full)
        with pytest.raises(OSError, match="No space"):
            state.put(replace(before, instance_id="i-1"), Volume(volume_id="vol-1", size_gib=1, zone="z"))
        with pytest.raises(OSError, match="No space"):
            state.drop(before)
        with pytest.raises(OSError, match="No space"):
            state.put_acl("acl-1", ())
    assert state.addresses == {"a": before}
    assert (dict(state.volumes), dict(state.acls)) == ({}, {})
    state.put(replace(before, instance_id="i-1"))
    assert State(tmp_path).addresses["a"].instance_id == "i-1"


def test_tables_that_somebody_reads_do_not_change(tmp_path: Path) -> None:
    state = State(tmp_path)
    held = state.now()
    state.put(Address(allocation_id="a", public_ip="203.0.113.1"))
    assert dict(held.addresses) == {}
