"""Background processes of ours: started with the cell's mark, found again by it, and ended by their ids."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from harness.command import TimedOut, wait_for

MARK = "PBX_CHAOS_CELL"


def start(
    module: str,
    arguments: Sequence[str],
    *,
    cell: str,
    log: Path,
    netns_pid: int | None = None,
    stdout: int | None = None,
) -> subprocess.Popen[bytes]:
    """Run `python -m module` in a session of its own, in the network namespace of `netns_pid` if given.

    stderr is appended to `log`, stdout too unless a pipe is asked for.
    """
    enter = [] if netns_pid is None else ["nsenter", "-t", str(netns_pid), "-n", "--"]
    with log.open("ab") as file:
        return subprocess.Popen(
            [*enter, sys.executable, "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file if stdout is None else stdout,
            stderr=file,
            start_new_session=True,
            env=environment(cell),
        )


def environment(cell: str) -> dict[str, str]:
    """The environment of a background process of a cell: `pbx-chaos clean` finds it by this."""
    return {**os.environ, MARK: cell}


def marked(cell: str | None = None) -> dict[int, str]:
    """Processes that carry the mark: pid -> command line; of one cell, or of all. Never ourselves or our ancestors."""
    own = set(_lineage(os.getpid()))
    return {
        pid: command
        for pid, its_cell, command in _all_marked()
        if pid not in own and (cell is None or its_cell == cell)
    }


def marked_cells() -> set[str]:
    """Names of the cells that have background processes."""
    return {cell for _, cell, _ in _all_marked()}


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and waits to be reaped does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def end(pids: Iterable[int], *, grace_s: float = 1.0) -> None:
    """SIGTERM, and SIGKILL to those that stay longer than `grace_s`. Returns when all have ended, or after 5 s."""
    waiting = list(pids)
    for number, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5.0)):
        waiting = [pid for pid in waiting if alive(pid)]
        for pid in waiting:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        with suppress(TimedOut):
            left = tuple(waiting)
            wait_for(
                "the end of background processes",
                lambda left=left: not any(alive(pid) for pid in left),  # type: ignore[misc]
                timeout_s=patience_s,
                every_s=0.01,
            )


def _all_marked() -> Iterator[tuple[int, str, str]]:
    prefix = f"{MARK}=".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        cell = next((item[len(prefix) :].decode() for item in environment if item.startswith(prefix)), None)
        if cell is not None and command:
            yield int(entry.name), cell, command


def _lineage(pid: int) -> Iterator[int]:
    while pid > 0:
        yield pid
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            return
