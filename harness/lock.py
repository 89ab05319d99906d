"""One harness per cell: an advisory lock that dies with its holder, and a note of who that is."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from harness import topology
from harness.command import TimedOut, wait_for
from harness.errors import InfrastructureError

TAKE_S = 0.2
"""How long a lock that is taken is tried for: one who only asks who holds it has it for a moment, too."""


def lock_path(cell: str) -> Path:
    """Where the lock of a cell lives: beside its state, not in it, so that clean-up can hold it."""
    return topology.STATE_ROOT / f"{cell}.lock"


@dataclass(frozen=True, kw_only=True)
class Held:
    """A cell that is ours. `died` is the note of a holder that was killed and never gave the cell back, else None."""

    died: dict[str, Any] | None
    _file: TextIO
    _doing: str

    def works_in(self, run_dir: Path | None) -> None:
        """Note where the evidence goes: `pbx-chaos abort` tells it."""
        note = {"pid": os.getpid(), "doing": self._doing, "run_dir": str(run_dir.resolve()) if run_dir else None}
        self._file.seek(0)
        self._file.truncate()
        self._file.write(json.dumps(note))
        self._file.flush()


@contextmanager
def cell_lock(cell: str, *, doing: str) -> Iterator[Held]:
    """Hold the cell for this process; `InfrastructureError` at once, naming the holder, when another one has it.

    The lock's file goes while it is still held: removed later, it could be one that somebody else has just taken.
    """
    path = lock_path(cell)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = wait_for("the lock", lambda: _take(path), timeout_s=TAKE_S, every_s=0.02)
    except PermissionError:
        raise InfrastructureError(f"can't write {path}: pbx-chaos needs root") from None
    except TimedOut:
        who = holder(cell) or {}
        raise InfrastructureError(
            f"cell {cell!r} is in use by process {who.get('pid', '?')} ({who.get('doing', 'unknown')}): "
            f"wait for it, stop it with `pbx-chaos abort`, or use another one with --cell NAME --slot N"
        ) from None
    with file:
        file.seek(0)
        held = Held(died=_parsed(file.read()), _file=file, _doing=doing)
        held.works_in(None)
        try:
            yield held
        finally:
            path.unlink(missing_ok=True)


def _take(path: Path) -> TextIO | None:
    """The lock's file, locked; None while somebody else has it or when it was removed under our hands."""
    file = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
    except (BlockingIOError, FileNotFoundError):
        pass
    file.close()
    return None


def holder(cell: str) -> dict[str, Any] | None:
    """Who holds the cell right now ({pid, doing, run_dir}), or None when it is free."""
    try:
        with lock_path(cell).open("r", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _parsed(file.read()) or {}
            return None
    except FileNotFoundError:
        return None


def _parsed(text: str) -> dict[str, Any] | None:
    """A holder's note; None for an empty or a torn one."""
    try:
        return dict(json.loads(text)) if text else None
    except ValueError:
        return None
