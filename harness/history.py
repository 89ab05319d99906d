"""The history of a run: every observation as an `Op`, append-only JSON lines, and the pairing of invocations with ends.

Each observing process writes a part of its own (`history.d/<process>.jsonl`); `merge` orders them into one
`history.jsonl` with indexes. A torn last line, left by a crash, is dropped; nothing else ever is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Literal

OpType = Literal["invoke", "ok", "fail", "info"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Op:
    """One observation.

    `info` means the outcome is unknown (a SIP time-out), `fail` that it surely did not happen (a 503).
    An end (ok, fail, info) carries the same `process`, `f` and `value["n"]` as its invocation.
    """

    time_ns: int
    process: str
    f: str
    type: OpType
    value: dict[str, Any]
    error: str | None = None
    index: int = -1

    def to_json(self) -> str:
        row: dict[str, Any] = {"time_ns": self.time_ns, "process": self.process, "f": self.f, "type": self.type}
        row["value"] = self.value
        if self.error is not None:
            row["error"] = self.error
        if self.index >= 0:
            row = {"index": self.index} | row
        return json.dumps(row, separators=(",", ":"))


class Writer:
    """Appends ops to one file, a line each, flushed at once: what was observed survives a crash of the observer."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: TextIOWrapper = path.open("a", encoding="utf-8", buffering=1)

    def write(self, op: Op) -> None:
        self._file.write(op.to_json() + "\n")

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """An invocation and its end; `end` is None while nothing came back."""

    invoke: Op
    end: Op | None

    @property
    def latency_ns(self) -> int | None:
        return None if self.end is None else self.end.time_ns - self.invoke.time_ns


def read(path: Path) -> Iterator[Op]:
    """The ops of one file in file order. A last line without an end (a crash) is dropped."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if not line.endswith("\n"):
                return
            row = json.loads(line)
            yield Op(
                time_ns=row["time_ns"],
                process=row["process"],
                f=row["f"],
                type=row["type"],
                value=row["value"],
                error=row.get("error"),
                index=row.get("index", -1),
            )


def merge(parts: Iterable[Path], target: Path) -> list[Op]:
    """Order the ops of all parts by time, number them, write them to `target` and return them."""
    ops = sorted((op for part in parts for op in read(part)), key=lambda op: op.time_ns)
    numbered = [
        Op(time_ns=o.time_ns, process=o.process, f=o.f, type=o.type, value=o.value, error=o.error, index=i)
        for i, o in enumerate(ops)
    ]
    scratch = target.with_suffix(".tmp")
    with scratch.open("w", encoding="utf-8") as file:
        file.writelines(op.to_json() + "\n" for op in numbered)
    scratch.replace(target)
    return numbered


def pairs(ops: Iterable[Op], f: str) -> list[Pair]:
    """Invocations of `f` in order of sending, each with its end. An end nobody invoked is a bug and raises.

    Ends are matched by number, not by order: a kernel's receive stamp may lie a little before the stamp of the sending.
    """
    started: dict[tuple[str, Any], Op] = {}
    ended: dict[tuple[str, Any], Op] = {}
    for op in ops:
        if op.f != f:
            continue
        key = (op.process, op.value["n"])
        if op.type == "invoke":
            started[key] = op
        else:
            ended[key] = op
    for key in ended.keys() - started.keys():
        raise ValueError(f"{f} {key} ended at {ended[key].time_ns} but was never invoked")
    return [Pair(invoke=op, end=ended.get(key)) for key, op in sorted(started.items(), key=lambda i: i[1].time_ns)]
