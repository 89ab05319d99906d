"""Telling never decides: a reader that is gone ends it, nothing else."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import sys
from harness.say import Printer
printer = Printer(quiet={quiet})
for n in range(2000):
    printer(1.5, "up", "word " * 20)
    printer.ending(["PASS     it went on"])
sys.exit(2)
"""


@pytest.mark.parametrize("quiet", [True, False])
def test_a_reader_that_is_gone_ends_the_telling_and_not_the_run(quiet: bool) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    streams = {"stderr" if quiet else "stdout": writer, "stdout" if quiet else "stderr": subprocess.PIPE}
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(quiet=quiet)], timeout=30, **streams)  # type: ignore[call-overload]
    os.close(writer)
    assert (done.returncode, done.stdout or b"", done.stderr or b"") == (2, b"", b"")


def test_a_full_disk_behind_it_does_not_end_the_run_either() -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = subprocess.run([sys.executable, "-c", SCRIPT.format(quiet=False)], stdout=full, timeout=30)
    assert done.returncode == 2
