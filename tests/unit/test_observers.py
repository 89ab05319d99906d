"""The end of the observers: bounded, complete, and it says who had not watched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from harness.clients.probes import sip_options
from harness.clients.processes import ProbeProcess
from harness.observers import Observers
from harness.rundir import RunDir


def process(code: str) -> subprocess.Popen[bytes]:
    started = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert started.stdout is not None
    started.stdout.readline()
    return started


WAITS = """
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # one that comes before the wait is not lost
print("up", flush=True)
signal.sigwait([signal.SIGTERM])
sys.exit({})
"""
ENDS = "print('up', flush=True); raise SystemExit(4)"


def observers(tmp_path: Path, *, probe: str, other: str) -> Observers:
    cell: Any = SimpleNamespace()
    found = Observers(cell=cell, probes=[sip_options(), sip_options()], run_dir=RunDir(path=tmp_path))
    found._probes.append(ProbeProcess(process(probe), name="options", log=tmp_path / "options.log"))
    found._others["ownership"] = process(other)
    return found


def test_those_that_watched_until_told_to_stop_are_no_news(tmp_path: Path) -> None:
    watching = observers(tmp_path, probe=WAITS.format(0), other=WAITS.format(1))
    assert watching.stop() == []
    assert watching._others["ownership"].poll() == 1


def test_one_that_died_or_failed_at_its_end_did_not_watch(tmp_path: Path) -> None:
    (tmp_path / "options.log").write_text("the history can't be written\n")
    watching = observers(tmp_path, probe=WAITS.format(2), other=ENDS)
    watching._others["ownership"].wait(timeout=10)
    assert watching.stop() == [
        "ownership died with 4",
        "the options probe ended with 2: the history can't be written",
    ]
