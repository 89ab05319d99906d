"""The order in which a cell is taken away, on a host that is made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness import topology as topologies
from harness.region import background, cleanup
from harness.topology import Topology

TOPOLOGY = Topology(cell="paper", slot=3)
GATEWAY, SERVER = "python -m harness.region.gateway", "python -m harness.region.volume_server --mount x"


class BusyHost:
    """While the gateway lives, each look at the containers finds one more; one comes even after its end."""

    def __init__(self) -> None:
        self.api = self
        self.processes = {1: GATEWAY, 2: SERVER}
        self.rows: list[str] = []
        self.late = ["late"]
        self.ended: list[int] = []

    def containers(self, **_: Any) -> list[dict[str, Any]]:
        if 1 in self.processes:
            self.rows.append(f"made-{len(self.rows)}")
        return [{"Id": name, "Names": [f"/{name}"]} for name in self.rows]

    def inspect_container(self, _: str) -> dict[str, Any]:
        return {"State": {"Pid": 0}}

    def remove_container(self, name: str, **_: Any) -> None:
        self.rows.remove(name)

    def networks(self, **_: Any) -> list[dict[str, Any]]:
        return []

    def end(self, pids: Any, *, grace_s: float = 1.0) -> None:
        for pid in pids:
            self.ended.append(pid)
            del self.processes[pid]
        if not self.processes:
            self.rows += self.late


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BusyHost:
    made = BusyHost()
    monkeypatch.setattr(topologies, "STATE_ROOT", tmp_path)
    monkeypatch.setattr(cleanup.engine, "connect", lambda: made)
    monkeypatch.setattr(background, "marked", lambda cell=None: dict(made.processes))
    monkeypatch.setattr(background, "end", made.end)
    monkeypatch.setattr(background, "alive", lambda pid: pid in made.processes)
    return made


def test_what_is_made_while_it_is_taken_away_goes_too(host: BusyHost) -> None:
    removed = cleanup.cleanup(TOPOLOGY)
    assert host.rows == []
    assert host.ended == [1, 2]
    assert removed == [f"process 1 {GATEWAY}", f"process 2 {SERVER}", "container late"]


def test_a_docker_that_stops_answering_keeps_nothing_else_from_going(
    host: BusyHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise cleanup.DockerException("no")

    monkeypatch.setattr(host, "containers", refuse)
    monkeypatch.setattr(host, "networks", refuse)
    removed = cleanup.cleanup(TOPOLOGY)
    assert host.processes == {}
    assert [line for line in removed if "NOT" in line] == [
        "the containers could NOT be listed: no",
        "the networks could NOT be listed: no",
    ]
