"""Bad input is answered with one clear line and exit code 3, before anything is started."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli import invoke
from harness.session import Request


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["run", "no-such-scenario"], 3, "unknown scenario 'no-such-scenario'"),
        (["run", "active-node-crush"], 3, "did you mean 'active-node-crash'?"),
        (["run", "missing.py"], 3, "no scenario file missing.py"),
        (["run", "active-node-crash", "--policy", "tunned"], 3, "did you mean 'tuned'?"),
        (["run", "active-node-crash", "--policy", "tuned,nope"], 3, "unknown policy 'nope'"),
        (["run", "active-node-crash", "--policy", "missing.toml"], 3, "no policy file missing.toml"),
        (["run", "active-node-crash", "--pbx", "asterix"], 3, "unknown PBX profile 'asterix'"),
        (["run", "active-node-crash", "--cloud", "aws"], 3, "--cloud aws"),
        (["run", "active-node-crash", "--timing", "awss"], 3, "did you mean 'aws'?"),
        (["run", "active-node-crash", "--slot", "99"], 3, "slot must be 0-15"),
        (["run", "active-node-crash", "--out", ""], 3, "--out: name a folder"),
        (["run", "active-node-crash", "--repeat", "0"], 3, "--repeat"),
        (["run", "active-node-crash", "--no-such-option"], 3, "No such option"),
        (["run", "active-node-crash", "--cell", "/etc"], 3, "a cell's name is at most 32 of"),
        *((["up", "--cell", name], 3, "a cell's name is") for name in ("", "..", "a/b", "Pbx", "x" * 33)),
        *(([command, "--cell", "../../home"], 3, "a cell's name is") for command in ("down", "abort", "status")),
        (["shell", "active", "--cell", "/etc"], 3, "a cell's name is"),
        (["capacity", "--ramp", "cals"], 3, "--ramp: no 'cals'"),
        (["capacity", "--limits", "ser_ratio=2"], 3, "--limits: ser_ratio"),
        (["capacity", "--n", "0"], 3, "--n"),
        (["capacity", "--policy", "tunned"], 3, "did you mean 'tuned'?"),
        (["capacity", "--out", ""], 3, "--out: name a folder"),
        (["run"], 3, "Missing argument"),
        (["nonsense"], 3, "No such command"),
    ],
)
def test_bad_input_is_one_line_and_exit_3(
    argv: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(argv) == code
    said = capsys.readouterr()
    assert words in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert said.out == ""


def test_what_nobody_foresaw_is_never_exit_1(monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    from docker.errors import APIError

    from harness import catalogue

    for error, words in (
        (KeyError("x"), "this is a bug: KeyError: 'x'"),
        (APIError("it is on fire"), "Docker: it is on fire"),
        (PermissionError(13, "Permission denied", "f"), "PermissionError: [Errno 13] Permission denied: 'f'"),
    ):
        monkeypatch.setattr(catalogue, "listing", lambda error=error: (_ for _ in ()).throw(error))
        assert invoke(["list"]) == 2
        assert words in capsys.readouterr().err.splitlines()[-1]


def test_what_could_not_be_removed_is_not_success(monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    from harness import admin

    monkeypatch.setattr(admin, "clean", lambda: ["container a", "loop device /dev/loop7 could NOT be freed"])
    assert invoke(["clean"]) == 2
    said = capsys.readouterr()
    assert said.out.splitlines() == ["removed  container a", "LEFT     loop device /dev/loop7 could NOT be freed"]
    assert "1 things could not be removed" in said.err


def test_a_scenario_file_that_does_not_load_says_why(tmp_path, capsys) -> None:  # type: ignore[no-untyped-def]
    broken = tmp_path / "broken.py"
    broken.write_text("from harness.scenario import Scenario\nX = Scenario(name='Bad Name', probes=[], timeline=[])\n")
    assert invoke(["run", str(broken)]) == 3
    assert "a scenario's name is lower-case words" in capsys.readouterr().err
    broken.write_text("raise SystemExit(0)")
    assert invoke(["run", str(broken)]) == 3
    assert "can't be loaded: SystemExit" in capsys.readouterr().err


def test_no_docker_engine_says_what_to_do(monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    assert invoke(["doctor"]) == 2
    said = capsys.readouterr().out
    assert "no Docker engine answers" in said
    assert "make setup" in said


def test_list_json_is_one_document_with_everything_there_is(capsys) -> None:  # type: ignore[no-untyped-def]
    assert invoke(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"scenarios", "faults", "probes", "checkers", "policies", "profiles", "timings", "defects"}
    assert "active-node-crash" in {row["name"] for row in found["scenarios"]}
    assert {"default", "tuned"} <= {row["name"] for row in found["policies"]}
    assert "power_off" in {row["name"] for row in found["faults"]}
    assert {"sip_options", "new_calls"} <= {row["name"] for row in found["probes"]}
    for rows in found.values():
        assert all(row["name"] and row["summary"] for row in rows)


def test_importing_the_command_line_is_quick_enough_to_answer_a_typo() -> None:
    code = "import sys, harness.cli; sys.exit('moto' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=30).returncode == 0


def test_the_command_that_runs_it_again_can_be_pasted() -> None:
    usual = Request(scenarios=("x",), policy="tuned", seed=7)
    assert usual.again("x") == "pbx-chaos run x --policy tuned --seed 7"
    other = Request(scenarios=("my dir/x.py",), policy="p.toml", cell="usr", slot=10, out=Path("/tmp/o"))
    expected = "pbx-chaos run 'my dir/x.py' --policy p.toml --seed 0 --cell usr --slot 10 --out /tmp/o"
    assert other.again("my dir/x.py") == expected
