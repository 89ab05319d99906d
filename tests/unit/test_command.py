"""Commands are bounded, also where a killed one does not die, and explain themselves."""

from __future__ import annotations

import os
import subprocess
import time

import pytest

from harness import command
from harness.command import CommandFailed, TimedOut, run, wait_for


def test_what_a_command_said_and_read() -> None:
    done = run(["sh", "-c", "cat; echo oops >&2; exit 3"], input="hello", timeout_s=10, check=False)
    assert (done.code, done.stdout, done.stderr.strip(), done.ok) == (3, "hello", "oops", False)


def test_without_input_a_command_reads_nothing() -> None:
    assert run(["cat"], timeout_s=10).stdout == ""


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["sh", "-c", "echo last words >&2; exit 3"], r"ended with 3: last words$"),
        (["no-such-command-of-ours"], "no-such-command-of-ours is not installed"),
        (["sleep", "60"], r"sleep 60 did not end within 0.05 s"),
    ],
)
def test_a_failure_is_one_line(argv: list[str], words: str) -> None:
    with pytest.raises(CommandFailed, match=words):
        run(argv, timeout_s=0.05 if argv[0] == "sleep" else 10)


def test_a_command_is_out_of_reach_of_the_terminals_ctrl_c() -> None:
    done = run(["sh", "-c", "ps -o sid= -p $$ 2>/dev/null || cut -d' ' -f6 /proc/$$/stat"], timeout_s=10)
    assert int(done.stdout) != os.getsid(0)


def test_one_that_hangs_in_the_kernel_is_left_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a process can't be made here: one that is not killed stands in for it."""
    victims: list[subprocess.Popen[str]] = []
    kill = subprocess.Popen.kill
    monkeypatch.setattr(subprocess.Popen, "kill", lambda self: victims.append(self))
    monkeypatch.setattr(command, "KILLED_S", 0.05)
    began = time.monotonic()
    with pytest.raises(CommandFailed, match="did not end"):
        run(["sleep", "60"], timeout_s=0.05)
    assert time.monotonic() - began < 10
    kill(victims[0])
    victims[0].wait(timeout=10)


def test_a_condition_that_never_comes_says_what_was_seen() -> None:
    with pytest.raises(TimedOut, match=r"the tide did not happen within 0 s; last seen: low water"):
        wait_for("the tide", lambda: None, timeout_s=0, last_seen=lambda: "low water")
