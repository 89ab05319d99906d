"""The folder of a run: never overwritten, never half-written, linked as the latest."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from harness.errors import InfrastructureError
from harness.rundir import RunDir

WHEN = datetime(2026, 11, 25, 1, 2, 3, tzinfo=UTC)


def test_two_runs_of_one_second_have_two_folders_and_latest_is_the_second(tmp_path: Path) -> None:
    first = RunDir.create(tmp_path, scenario="s", seed=7, started=WHEN)
    second = RunDir.create(tmp_path, scenario="s", seed=7, started=WHEN)
    assert [first.path.name, second.path.name] == ["20261125T010203-7", "20261125T010203-7.2"]
    assert (tmp_path / "s" / "latest").resolve() == second.path.resolve()
    assert first.parts.is_dir()
    assert sorted(p.name for p in (tmp_path / "s").iterdir()) == [first.path.name, second.path.name, "latest"]


def test_latest_survives_that_the_folder_moves(tmp_path: Path) -> None:
    RunDir.create(tmp_path / "a", scenario="s", seed=7, started=WHEN)
    (tmp_path / "a").rename(tmp_path / "b")
    assert (tmp_path / "b" / "s" / "latest" / "history.d").is_dir()


def test_what_is_written_replaces_as_a_whole(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, scenario="s", seed=7)
    run.write_json("stages.json", {"steady_ns": None})
    run.write_json("stages.json", {"steady_ns": 5})
    assert run.read_json("stages.json") == {"steady_ns": 5}
    assert [p.name for p in run.path.iterdir() if p.is_file()] == ["stages.json"]


def test_what_was_never_written_reads_as_nothing(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, scenario="s", seed=7)
    assert (run.read_json("results.json"), run.read_rows("alerts.jsonl")) == (None, [])


def test_a_torn_row_costs_only_itself(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, scenario="s", seed=7)
    (run.path / "alerts.jsonl").write_bytes(b'{"a": 1}\n\n{"b": 2}\n{"c": "\xc3')
    assert run.read_rows("alerts.jsonl") == [{"a": 1}, {"b": 2}]


def test_a_full_disk_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDir.create(tmp_path, scenario="s", seed=7)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(InfrastructureError, match=r"can't write results\.json of the run in .*: No space left"):
        run.write_json("results.json", {})
