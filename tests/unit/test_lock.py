"""One harness per cell; the lock dies with its holder, whatever its file says."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from harness import topology
from harness.errors import InfrastructureError
from harness.lock import cell_lock, holder, lock_path


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topology, "STATE_ROOT", tmp_path / "state")


def test_the_second_one_is_told_who_has_it(tmp_path: Path) -> None:
    with cell_lock("c", doing="run x", run_dir=tmp_path) as died:
        assert died is None
        assert holder("c") == {"pid": os.getpid(), "doing": "run x", "run_dir": str(tmp_path)}
        with (
            pytest.raises(InfrastructureError, match=rf"in use by process {os.getpid()} \(run x\)"),
            cell_lock("c", doing="y"),
        ):
            pytest.fail("held twice")
        assert holder("c") is not None


def test_other_cells_are_free() -> None:
    with cell_lock("c", doing="x"), cell_lock("d", doing="y"):
        assert holder("c") != holder("d")


def test_it_is_free_again_afterwards_also_after_an_error() -> None:
    with pytest.raises(RuntimeError), cell_lock("c", doing="x"):
        raise RuntimeError
    assert holder("c") is None
    with cell_lock("c", doing="y") as died:
        assert died is None


def test_the_note_of_a_killed_holder_locks_nothing_and_is_handed_on() -> None:
    path = lock_path("c")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"pid": 1, "doing": "run x", "run_dir": "there"}))
    assert holder("c") is None
    with cell_lock("c", doing="y") as died:
        assert died == {"pid": 1, "doing": "run x", "run_dir": "there"}


def test_a_torn_note_is_no_obstacle() -> None:
    path = lock_path("c")
    path.parent.mkdir(parents=True)
    path.write_text('{"pid": 1, "do')
    with cell_lock("c", doing="y") as died:
        assert died is None


def test_a_cell_nobody_ever_held_is_free() -> None:
    assert holder("never") is None
