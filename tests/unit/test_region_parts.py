"""A region of which a part has died is no region to measure on."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import topology as topologies
from harness.region import background
from harness.region.books import Books, place_file
from harness.region.process import dead_parts
from harness.topology import Topology

TOPOLOGY = Topology(cell="paper", slot=3)
ALL = {n: f"python -m harness.region.{name} --cell paper" for n, name in enumerate(("gateway", "icmp", "books"))}


@pytest.mark.parametrize(
    ("kind", "gone", "said"),
    [
        ("moto", (), []),
        ("moto", (0,), ["gateway"]),
        ("moto", (1, 2), ["icmp", "books"]),
        ("localstack", (2,), []),
    ],
)
def test_each_part_that_is_gone_is_named(
    kind: str, gone: tuple[int, ...], said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topologies, "STATE_ROOT", tmp_path)
    TOPOLOGY.state_dir.mkdir()
    Books(host="127.0.0.1", port=1, kind="moto" if kind == "moto" else "localstack").write(place_file(TOPOLOGY))
    running = {pid: command for pid, command in ALL.items() if pid not in gone}
    monkeypatch.setattr(background, "marked", lambda cell: running)
    assert [line.split()[2] for line in dead_parts(TOPOLOGY)] == said
