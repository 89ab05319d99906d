"""A tiny ramp on the session's cell: real load, real clocks, a level each, and no figure from a single ramp."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from harness import history
from harness.cell.cell import Cell
from harness.clients import programs
from harness.ramp.drive import Work
from harness.ramp.plan import plan
from harness.rundir import RunDir
from harness.session import Resolved

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


def test_two_levels_of_calls_per_second_hold_and_one_ramp_is_no_figure(
    cell: Cell, resolved: Resolved, tmp_path: Path
) -> None:
    if (why := programs.unmet()) is not None:
        pytest.skip(why)
    asked = plan(ramp="calls_per_s", during="normal", n=1, measure_s=3, limits="", levels="5,10")
    run_dir = RunDir.create(tmp_path, scenario="capacity", seed=0)
    said: list[str] = []
    work = Work(
        plan=asked,
        resolved=resolved,
        run_dir=run_dir,
        say=lambda at_s, kind, text: said.append(text),
        started=datetime.now(UTC),
    )
    work.on(cell)
    (figure,) = work.save()["figures"]
    assert figure == json.loads((run_dir.path / "capacity.json").read_text())["figures"][0]
    assert (figure["n"], figure["knee"]) == (1, None)
    busy = [level["host"] for level in figure["levels"]][-1]
    assert busy or [level["load"] for level in figure["levels"]] == [5, 10], said
    assert figure["levels"][0]["attempts"] > 20
    for level in figure["levels"]:
        assert level["host"] or level["ser_ratio"] == 1.0, level
        assert level["not_taken"] is None
        assert level["media_loss_ratio"] is not None
        assert level["cpu_ratio"] is not None
    parts = run_dir.path / "levels" / "calls_per_s-1-5" / "history.d"
    placed = [op.value["cps"] for op in history.read(parts / "load.jsonl") if op.f == "load"]
    assert max(placed) == pytest.approx(5, rel=0.3)
    assert "no figure: n < 3" in (run_dir.path / "summary.md").read_text()
