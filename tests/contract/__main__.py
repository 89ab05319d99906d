"""The contract on both kinds of books side by side, and whether they agree.

    python -m tests.contract [--fidelity FILE] [pytest's own options]

One pytest process for each kind of books (`--books`), a third one for AWS where `--aws` is given. It fails when one of
them does, when a verdict differs, and when a row did not run on one of the local books, skipped ones included. What a
process printed is shown when it failed; of one that passed, its last line. With -x the other one ends too. Ctrl-C ends
all of them, and waits until they have tidied up.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.contract import guard, plugin
from tests.contract.promises import LOCAL

TIDY_S = 30.0
"""How long an interrupted session may take to remove its container."""

STOPPED_EARLY = ("-x", "--exitfirst", "--maxfail")
HERE = str(Path(__file__).parent)


def main(argv: Sequence[str]) -> int:
    """pytest's exit code: 0 when every process passed and the books agree."""
    parser = argparse.ArgumentParser(prog="python -m tests.contract", allow_abbrev=False)
    parser.add_argument(
        "--fidelity", type=Path, metavar="FILE", help="write the verdicts of the contract to FILE (JSON)"
    )
    known, options = parser.parse_known_args(argv)
    asked = guard.OPTION in options
    kinds = (*LOCAL, "aws") if asked else LOCAL
    for number in (signal.SIGINT, signal.SIGTERM):  # children inherit what a shell ignores, not what is handled here
        signal.signal(number, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        try:
            codes = side_by_side(
                {kind: _command(kind, options, folder) for kind in kinds}, folder, first=ends_at_the_first(options)
            )
        except KeyboardInterrupt:
            print("contract: interrupted", flush=True)
            return int(pytest.ExitCode.INTERRUPTED)
        parts = [json.loads(_verdicts(folder, kind).read_text()) for kind in kinds if _verdicts(folder, kind).exists()]
    ran = plugin.merged(parts)
    failed = next((code for code in codes.values() if code), 0)
    for line in plugin.told(ran["verdicts"], asked=asked, everywhere=not failed):
        print(f"contract: {line}")
    if known.fidelity is not None:
        plugin.keep(known.fidelity, ran)
    if failed:
        return failed
    agree = ran["verdicts"] and not plugin.differing(ran["verdicts"], everywhere=True)
    return int(pytest.ExitCode.OK if agree else pytest.ExitCode.TESTS_FAILED)


def side_by_side(commands: Mapping[str, Sequence[str]], folder: Path, *, first: bool) -> dict[str, int]:
    """Run them all at once; their exit codes. Prints what each said as it ends, with `first` a failure ends the others.

    Each is in a session of its own: Ctrl-C reaches it once, from here; a second one would cut its tidying short.
    """
    began_s = time.monotonic()
    codes: dict[str, int] = {}
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, command in commands.items():
            with _output(folder, name).open("wb") as file, _interruptible():
                running[name] = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
                )
        while running:
            ended = next((name for name, child in running.items() if child.poll() is not None), None)
            if ended is None:
                time.sleep(0.05)
                continue
            codes[ended] = running.pop(ended).returncode
            said = _output(folder, ended).read_text(errors="replace").rstrip()
            if codes[ended]:
                print(f"contract on {ended}: failed ({codes[ended]})\n{said}", flush=True)
                if first:
                    _end(running)
                    codes |= dict.fromkeys(running, int(pytest.ExitCode.INTERRUPTED))
                    break
            else:
                took_s = time.monotonic() - began_s
                print(f"contract on {ended}: {said.splitlines()[-1].strip(' =')} ({took_s:.0f} s)", flush=True)
    finally:
        _end(running)
    return codes


@contextmanager
def _interruptible() -> Iterator[None]:
    """A child started in here can be interrupted, also where this process ignores SIGINT, as in a shell's background:
    what is ignored stays ignored in a child, and Python then raises no KeyboardInterrupt."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end(running: Mapping[str, subprocess.Popen[bytes]]) -> None:
    """Ctrl-C for those that still run, and the end of those that do not mind."""
    for child in running.values():
        if child.poll() is None:
            child.send_signal(signal.SIGINT)
    deadline_s = time.monotonic() + TIDY_S
    for child in running.values():
        try:
            child.wait(max(0.0, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _command(kind: str, options: Sequence[str], folder: Path) -> list[str]:
    mine = ["--books", kind, "--verdicts", str(_verdicts(folder, kind)), "-p", "no:cacheprovider"]
    return [sys.executable, "-m", "pytest", HERE, *mine, *options]


def ends_at_the_first(options: Sequence[str]) -> bool:
    """Whether the first failure is to end it all."""
    return any(option.startswith(STOPPED_EARLY) for option in options)


def _verdicts(folder: Path, kind: str) -> Path:
    return folder / f"{kind}.json"


def _output(folder: Path, kind: str) -> Path:
    return folder / f"{kind}.txt"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
