"""What is known while a run goes on: follows the history parts as they grow and keeps the state of every clock.

`Follower` reads new ops; `Clock` says since when a clock has been fine; `Narrator` turns changes into the lines a
person watches. Nothing here judges: the verdict is made from the whole history afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from harness.checkers.outage import IN_A_ROW
from harness.history import Op
from harness.results import split_clock

WORDS = {
    "options": "OPTIONS",
    "register": "REGISTER",
    "new_call": "new calls",
    "media": "media",
    "load": "background calls",
}
"""What a person calls the clocks."""


def words_of(name: str) -> str:
    """`options_tls` is "OPTIONS over TLS", `calls_ip_phone` "held calls (ip_phone)"."""
    for prefix, words in (("calls_", "held calls"), ("clients_", "registered clients"), ("in_flight_", "transactions")):
        if name.startswith(prefix):
            return f"{words} ({name.removeprefix(prefix)})"
    clock, transport = split_clock(name)
    return WORDS.get(clock, clock) + ("" if transport == "udp" else f" over {transport.upper()}")


class Follower:
    """Yields the ops appended to `<folder>/*.jsonl` since the last call, oldest first per file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}

    def new(self) -> list[Op]:
        ops: list[Op] = []
        for path in sorted(self._folder.glob("*.jsonl")):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                data = file.read()
            whole = data.rfind(b"\n") + 1
            self._read[path] = self._read.get(path, 0) + whole
            for line in data[:whole].splitlines():
                row = json.loads(line)
                ops.append(
                    Op(**{k: row[k] for k in ("time_ns", "process", "f", "type", "value")}, error=row.get("error"))
                )
        return sorted(ops, key=lambda op: op.time_ns)


@dataclass(kw_only=True)
class Clock:
    """One reachability clock: `ok_since_ns` is the first ok of the current unbroken row, None while it is broken.

    A clock whose last good answer is older than `stale_s` is not fine either: its probe hangs.
    """

    name: str
    stale_s: float = 5.0
    ok_since_ns: int | None = None
    last_ok_ns: int | None = None
    not_ok_row: int = 0
    last_error: str | None = None

    def feed(self, op: Op) -> None:
        if op.type == "ok":
            self.ok_since_ns = op.time_ns if self.ok_since_ns is None else self.ok_since_ns
            self.last_ok_ns = op.time_ns
            self.not_ok_row = 0
        elif op.type in ("fail", "info"):
            self.ok_since_ns = None
            self.not_ok_row += 1
            self.last_error = op.error

    def fine_for_s(self, now_ns: int) -> float:
        """How long every answer has been good, up to the last one; 0 while broken or stale."""
        if self.ok_since_ns is None or self.last_ok_ns is None or now_ns - self.last_ok_ns > self.stale_s * 1e9:
            return 0.0
        return (min(now_ns, self.last_ok_ns) - self.ok_since_ns) / 1e9

    def describe(self) -> str:
        if self.last_ok_ns is None:
            return f"{self.name}: no good answer yet ({self.last_error or 'nothing came back'})"
        if self.ok_since_ns is None:
            return f"{self.name}: {self.not_ok_row} bad answers in a row ({self.last_error or 'nothing came back'})"
        return f"{self.name}: fine"


@dataclass(kw_only=True)
class Narrator:
    """Turns ops into lines for a person: (time_ns, kind, text). Until `steady` is set it only watches, and tells
    nothing but the faults: what comes and goes while a cell starts up is no news."""

    clocks: dict[str, Clock]
    steady: bool = False
    _down: set[str] = field(default_factory=set)
    _owner: dict[str, str | None] = field(default_factory=dict)

    def tell(self, op: Op) -> Iterator[tuple[int, str, str]]:
        if op.f in self.clocks:
            yield from (line for line in self._clock(op) if self.steady)
        elif op.f == "ownership" and op.type == "ok":
            yield from (line for line in self._ownership(op) if self.steady)
        elif op.f == "fault" and op.type == "ok":
            text = f"{op.value['name']} ({op.value['target']}), {op.value['observed_by']}"
            yield int(op.value["landed_ns"]), "FAULT", text
        elif op.f == "fault" and op.type == "fail":
            yield op.time_ns, "FAULT", f"{op.value['name']} did not land: {op.error}"
        elif op.f == "heal" and op.type != "invoke":
            ending = "healed" if op.type == "ok" else f"NOT healed: {op.error}"
            yield op.time_ns, "heal", f"{op.value['name']} {ending}"

    def _clock(self, op: Op) -> Iterator[tuple[int, str, str]]:
        clock = self.clocks[op.f]
        clock.feed(op)
        words = words_of(op.f)
        if clock.not_ok_row == IN_A_ROW and op.f not in self._down:
            self._down.add(op.f)
            yield op.time_ns, "down", f"{words} unanswered"
        elif op.type == "ok" and op.f in self._down:
            self._down.discard(op.f)
            yield op.time_ns, "up", f"{words} ok again"

    def _ownership(self, op: Op) -> Iterator[tuple[int, str, str]]:
        now = {
            "volume": " and ".join(op.value["mounted"]) or None,
            "PBX": " and ".join(op.value["pbx"]) or None,
            "address": op.value["address"],
        }
        for what, owner in now.items():
            known = what in self._owner
            if known and self._owner[what] != owner and owner is not None:
                yield op.time_ns, "owner", f"{what} on {owner}"
            if not known or owner is not None:
                self._owner[what] = owner
