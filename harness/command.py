"""The one place where external commands are run and conditions are waited for: always bounded, always explained.

A command that fails or hangs raises `CommandFailed` with what it last printed; a condition that never comes raises
`TimedOut` with what was last seen. Nothing in this project sleeps and hopes.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from harness.errors import InfrastructureError

T = TypeVar("T")

KILLED_S = 2.0
"""How long the end of a killed command is waited for."""


@dataclass(frozen=True, kw_only=True)
class Completed:
    """What a command did: exit code, what it printed, and how long it took in seconds."""

    argv: tuple[str, ...]
    code: int
    stdout: str
    stderr: str
    took_s: float

    @property
    def ok(self) -> bool:
        return self.code == 0


class CommandFailed(InfrastructureError):
    """An external command ended with a non-zero code or did not end in time."""


class TimedOut(InfrastructureError):
    """A condition did not come true in time; the message says what was last seen."""


def run(
    argv: Sequence[str],
    *,
    timeout_s: float,
    input: str | None = None,
    check: bool = True,
    env: dict[str, str] | None = None,
) -> Completed:
    """Run `argv` to its end, at most `timeout_s` seconds; raise `CommandFailed` on a failure when `check`."""
    started = time.monotonic()
    process = _start(argv, reads=input is not None, env=env)
    try:
        stdout, stderr = process.communicate(input, timeout=timeout_s)
    except BaseException as error:
        _give_up(process)
        if isinstance(error, subprocess.TimeoutExpired):
            raise CommandFailed(f"{' '.join(argv)} did not end within {timeout_s:g} s") from error
        raise
    result = Completed(
        argv=tuple(argv), code=process.returncode, stdout=stdout, stderr=stderr, took_s=time.monotonic() - started
    )
    if check and not result.ok:
        last = (result.stderr.strip() or result.stdout.strip() or "no output").splitlines()[-1]
        raise CommandFailed(f"{' '.join(argv)} ended with {result.code}: {last}")
    return result


def _start(argv: Sequence[str], *, reads: bool, env: dict[str, str] | None) -> subprocess.Popen[str]:
    """In a session of its own: an impatient second Ctrl-C must not end the commands of a clean-up."""
    try:
        return subprocess.Popen(
            list(argv), stdin=subprocess.PIPE if reads else subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, errors="replace", env=env, start_new_session=True,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise CommandFailed(f"{argv[0]} is not installed") from error


def _give_up(process: subprocess.Popen[str]) -> None:
    """Kill it and wait a moment for its end; one that hangs in the kernel (a dead disk) is left to itself."""
    process.kill()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=KILLED_S)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()


def wait_for(
    what: str,
    probe: Callable[[], T | None],
    *,
    timeout_s: float,
    every_s: float = 0.05,
    last_seen: Callable[[], str] | None = None,
) -> T:
    """Call `probe` until it returns something truthy, and return that; raise `TimedOut` after `timeout_s`.

    `what` names the condition in the error; `last_seen` adds the state that was there instead.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() >= deadline:
            seen = f"; last seen: {last_seen()}" if last_seen else ""
            raise TimedOut(f"{what} did not happen within {timeout_s:g} s{seen}")
        time.sleep(every_s)
