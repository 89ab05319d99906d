"""One harness per cell; the lock dies with its holder, whatever its file says."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import TextIO

import pytest

from harness import topology
from harness.errors import InfrastructureError
from harness.lock import cell_lock, holder, lock_path


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topology, "STATE_ROOT", tmp_path / "state")


def test_the_second_one_is_told_who_has_it(tmp_path: Path) -> None:
    with cell_lock("c", doing="run x") as held:
        assert held.died is None
        held.works_in(tmp_path)
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
    with cell_lock("c", doing="y") as held:
        assert held.died is None


def test_the_note_of_a_killed_holder_locks_nothing_and_is_handed_on() -> None:
    path = lock_path("c")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"pid": 1, "doing": "run x", "run_dir": "there"}))
    assert holder("c") is None
    with cell_lock("c", doing="y") as held:
        assert held.died == {"pid": 1, "doing": "run x", "run_dir": "there"}


def test_a_torn_note_is_no_obstacle() -> None:
    path = lock_path("c")
    path.parent.mkdir(parents=True)
    path.write_text('{"pid": 1, "do')
    with cell_lock("c", doing="y") as held:
        assert held.died is None


def test_a_cell_nobody_ever_held_is_free() -> None:
    assert holder("never") is None


def test_a_lock_leaves_no_file_and_can_be_taken_again() -> None:
    with cell_lock("c", doing="clean"):
        assert holder("c") is not None
    assert not lock_path("c").exists()
    with cell_lock("c", doing="y"):
        assert holder("c") is not None


def test_a_file_removed_while_it_was_taken_is_no_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []

    def flock(file: TextIO, how: int) -> None:
        if not taken:  # the one who held it removes it just before we get it
            lock_path("c").unlink()
        taken.append(how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with cell_lock("c", doing="y"):
        assert lock_path("c").exists()
    assert len(taken) == 2


def test_without_the_rights_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(InfrastructureError, match="needs root"), cell_lock("c", doing="y"):
        pytest.fail("held")
