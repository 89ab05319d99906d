"""One harness per cell: an advisory lock that dies with its holder, and a note of who that is."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness import topology
from harness.errors import InfrastructureError


def _path(cell: str) -> Path:
    return topology.STATE_ROOT / f"{cell}.lock"


@contextmanager
def cell_lock(cell: str, *, doing: str, run_dir: Path | None = None) -> Iterator[None]:
    """Hold the cell for this process; `InfrastructureError` at once, naming the holder, when another one has it."""
    path = _path(cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = holder(cell) or {}
            raise InfrastructureError(
                f"cell {cell!r} is in use by process {who.get('pid', '?')} ({who.get('doing', 'unknown')}): "
                f"wait for it, stop it with `pbx-chaos abort`, or use another one with --cell NAME --slot N"
            ) from None
        file.seek(0)
        file.truncate()
        note = {"pid": os.getpid(), "doing": doing, "run_dir": str(run_dir.resolve()) if run_dir else None}
        file.write(json.dumps(note))
        file.flush()
        try:
            yield
        finally:
            file.seek(0)
            file.truncate()
            file.flush()


def holder(cell: str) -> dict[str, Any] | None:
    """Who holds the cell right now ({pid, doing, run_dir}), or None when it is free."""
    try:
        with _path(cell).open("r", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                text = file.read()
                return dict(json.loads(text)) if text else {}
            return None
    except FileNotFoundError:
        return None
