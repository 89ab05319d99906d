"""Writes the ops of one clock from a thread of its own, so that a slow disk never delays a send."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from harness.errors import InfrastructureError
from harness.history import Op, OpType, Writer


class Recorder:
    """One invocation and one end per attempt. When the disk fails, the next call raises: nobody would be recording."""

    def __init__(self, path: Path, *, process: str, f: str) -> None:
        self._process = process
        self.f = f
        self._queue: SimpleQueue[Op | None] = SimpleQueue()
        self._broken: Exception | None = None
        self._writer = Writer(path)
        self._thread = threading.Thread(target=self._drain, name="recorder", daemon=True)
        self._thread.start()

    def invoke(self, time_ns: int, value: dict[str, Any]) -> None:
        self._put(Op(time_ns=time_ns, process=self._process, f=self.f, type="invoke", value=value))

    def end(self, kind: OpType, time_ns: int, value: dict[str, Any], *, error: str | None = None) -> None:
        self._put(Op(time_ns=time_ns, process=self._process, f=self.f, type=kind, value=value, error=error))

    def late(self, time_ns: int, value: dict[str, Any]) -> None:
        """An answer to an attempt that had ended already: told, but it ends nothing (`f` is "<clock>_late")."""
        self._put(Op(time_ns=time_ns, process=self._process, f=f"{self.f}_late", type="info", value=value))

    def op(self, f: str, kind: OpType, time_ns: int, value: dict[str, Any], *, error: str | None = None) -> None:
        """Any op of this process; for those that watch more than one thing."""
        self._put(Op(time_ns=time_ns, process=self._process, f=f, type=kind, value=value, error=error))

    def note(self, f: str, time_ns: int, value: dict[str, Any]) -> None:
        """Something else worth knowing about this process."""
        self.op(f, "ok", time_ns, value)

    def close(self) -> None:
        """Write what is left."""
        self._queue.put(None)
        self._thread.join(timeout=10)
        with suppress(OSError):
            self._writer.close()

    def _put(self, op: Op) -> None:
        self._check()
        self._queue.put(op)

    def _check(self) -> None:
        if self._broken is not None:
            raise InfrastructureError(f"the history can't be written: {self._broken}")

    def _drain(self) -> None:
        while (op := self._queue.get()) is not None:
            try:
                self._writer.write(op)
            except Exception as error:  # a full disk, or a value that is no JSON: nobody would be recording
                self._broken = error
                return
