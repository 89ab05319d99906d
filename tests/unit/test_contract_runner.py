"""The contract's two sessions side by side: what is told of them, and that none of them is left running."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.contract import __main__ as runner

ENDLESS = """
import pathlib, sys, time
try:
    pathlib.Path(sys.argv[1]).touch()
    time.sleep(60)
except KeyboardInterrupt:
    pathlib.Path(sys.argv[1]).write_text("tidied")
    sys.exit(2)
"""
FAILS_AFTER = "import pathlib, sys\nwhile not pathlib.Path(sys.argv[1]).exists(): pass\nsys.exit('a row failed')"


def python(script: str, *arguments: object) -> list[str]:
    return [sys.executable, "-Ic", script, *map(str, arguments)]


def test_a_failure_is_shown_whole_and_of_a_success_the_last_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = {
        "moto": python("print('...'); print('== 3 passed ==')"),
        "localstack": python("import sys; print('why'); print('1 failed'); sys.exit(1)"),
    }
    assert runner.side_by_side(commands, tmp_path, first=False) == {"moto": 0, "localstack": 1}
    said = capsys.readouterr().out
    assert "contract on localstack: failed (1)\nwhy\n1 failed\n" in said
    assert "contract on moto: 3 passed (" in said and "..." not in said


def test_the_first_failure_ends_the_other_one_and_waits_until_it_has_tidied_up(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    commands = {"moto": python(ENDLESS, mark), "localstack": python(FAILS_AFTER, mark)}
    codes = runner.side_by_side(commands, tmp_path, first=True)
    assert codes == {"localstack": 1, "moto": pytest.ExitCode.INTERRUPTED}
    assert mark.read_text() == "tidied"


def test_ctrl_c_ends_them_all_and_waits_until_they_have_tidied_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = [tmp_path / name for name in ("a", "b")]

    class Impatient:
        """Whoever presses Ctrl-C when both are at work."""

        @staticmethod
        def monotonic() -> float:
            return 0.0

        @staticmethod
        def sleep(_: float) -> None:
            if all(mark.exists() for mark in marks):
                raise KeyboardInterrupt

    monkeypatch.setattr(runner, "time", Impatient)
    with pytest.raises(KeyboardInterrupt):
        runner.side_by_side({mark.name: python(ENDLESS, mark) for mark in marks}, tmp_path, first=False)
    assert [mark.read_text() for mark in marks] == ["tidied"] * 2


@pytest.mark.parametrize(
    ("options", "first"), [(["-q"], False), (["-q", "-x"], True), (["--maxfail=1"], True), (["--exitfirst"], True)]
)
def test_whether_the_first_failure_ends_it_all(options: list[str], first: bool) -> None:
    assert runner.ends_at_the_first(options) is first
