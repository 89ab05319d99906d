"""The one actor that injures: plays a timeline in a process of its own and owns every heal.

Each injury is written to the undo journal *before* it happens, so that whoever comes later can heal it: the nemesis on
every way out (done, told to stop as by `pbx-chaos abort`, or its parent gone), and the run where the nemesis died. A
cell whose harness was killed is not healed but removed, by `pbx-chaos clean` or the next run.
`python -m harness.nemesis --cell NAME --plan FILE --journal FILE --out FILE --steady-ns T`
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from harness.clock import NS_PER_S, now_ns
from harness.errors import HarnessError, InfrastructureError
from harness.faults.on_node import START_TIMEOUT_S
from harness.faults.types import Fault, Landed, dump, load
from harness.history import Op, OpType, Writer

if TYPE_CHECKING:
    from harness.cell.cell import Cell
    from harness.scenario import Step


def plan_rows(timeline: Sequence[Step]) -> list[dict[str, Any]]:
    """A timeline as JSON-ready data, for the nemesis process and for scenario.json."""
    return [{"at_s": step.at_s, "hold_s": step.hold_s, **dump(step.fault)} for step in timeline]


class UndoJournal:
    """Write-ahead list of injuries: `planned` before, `landed` once seen, `healed` after; a line each, synced."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def note(self, number: int, state: str, fault: Fault) -> None:
        line = json.dumps({"n": number, "state": state, "time_ns": now_ns(), **dump(fault)}) + "\n"
        with self.path.open("ab+") as file:
            if file.tell() and not _ends_whole(file):
                file.write(b"\n")
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())

    def open_rows(self) -> list[dict[str, Any]]:
        """The last row of each injury that was planned and not healed, newest first. A torn line counts as not written:
        a plan that never reached the disk was never carried out."""
        latest: dict[int, dict[str, Any]] = {}
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
                with suppress(ValueError):
                    row = json.loads(line)
                    latest[int(row["n"])] = row
        return [row for _, row in sorted(latest.items(), reverse=True) if row["state"] != "healed"]

    def open_injuries(self) -> list[tuple[int, Fault]]:
        """Injuries that were planned and not healed, newest first."""
        return [(int(row["n"]), load(row)) for row in self.open_rows()]

    def heal_all(self, cell: Cell) -> list[str]:
        """Heal whatever is open; returns the names of what was healed. One that fails does not stop the others."""
        healed, errors = [], []
        for row in self.open_rows():
            try:
                fault = load(row)
                fault.heal(cell)
                self.note(int(row["n"]), "healed", fault)
                healed.append(fault.name)
            except Exception as error:
                errors.append(f"{row['fault']} {row['fields']}: {error}")
        if errors:
            raise InfrastructureError(f"not healed: {'; '.join(errors)}")
        return healed


def _ends_whole(file: IO[bytes]) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


@dataclass(order=True, frozen=True, kw_only=True)
class _Due:
    time_ns: int
    number: int
    heal: bool


class Nemesis:
    """Plays one plan. `stop` may be set from a signal handler; everything held is healed before `play` returns.

    `time_ns` and `pause` (wait at most so many seconds, or until told to stop) are the clock; tests bring their own.
    """

    def __init__(
        self,
        *,
        cell: Cell,
        plan: Sequence[dict[str, Any]],
        journal: UndoJournal,
        writer: Writer,
        time_ns: Callable[[], int] = now_ns,
        pause: Callable[[float], object] | None = None,
    ) -> None:
        self._cell = cell
        self._plan = plan
        self._journal = journal
        self._writer = writer
        self._held: dict[int, tuple[Fault, ExitStack]] = {}
        self._injured = False
        self._time_ns = time_ns
        self.stop = threading.Event()
        self._pause = pause or self.stop.wait

    def play(self, *, steady_ns: int, parent: int | None = None) -> None:
        """Injure and heal on schedule until all is healed, `stop` is set or the parent process is gone."""
        due = [
            _Due(time_ns=steady_ns + round(row["at_s"] * NS_PER_S), number=n, heal=False)
            for n, row in enumerate(self._plan)
        ]
        heapq.heapify(due)
        parent = parent or os.getppid()
        try:
            while due and not self.stop.is_set() and os.getppid() == parent:
                wait_s = (due[0].time_ns - self._time_ns()) / NS_PER_S
                if wait_s > 0:
                    self._pause(min(wait_s, 0.2))
                else:
                    self._act(due)
        finally:
            for number in sorted(self._held, reverse=True):
                self._heal(number)
            self._give_back()

    def _give_back(self) -> None:
        """Nothing is held any more: start what fencing has switched off, as an operator does in the end."""
        if not self._injured:
            return
        for node in self._cell.nodes:
            try:
                self._cell.cloud.ensure_started(node.instance_id, timeout_s=START_TIMEOUT_S)
            except Exception as error:
                with suppress(OSError):
                    self._record(-1, "give_back", "fail", name=node.name, error=_words(error))

    def _act(self, due: list[_Due]) -> None:
        """Do what is due first; an injury that landed becomes due for its heal."""
        now = heapq.heappop(due)
        if now.heal:
            self._heal(now.number)
            return
        landed = self._injure(now.number)
        if landed is not None:
            hold_ns = round(self._plan[now.number]["hold_s"] * NS_PER_S)
            heapq.heappush(due, _Due(time_ns=landed.at_ns + hold_ns, number=now.number, heal=True))

    def _injure(self, number: int) -> Landed | None:
        """Injure, or record why not. What an injury that did not land may have begun is healed at once."""
        role = load(self._plan[number])
        stack = ExitStack()
        begun = False
        planned: Fault | None = None
        try:
            fault = role.resolved(self._cell)
            reason = self._hit_already(fault) or fault.unmet(self._cell)
            if reason:
                raise InfrastructureError(f"can't run here: {reason}")
            self._journal.note(number, "planned", fault)
            planned = fault
            self._record(number, "fault", "invoke", name=role.name)
            begun = True
            landed = stack.enter_context(fault.inject(self._cell))
        except Exception as error:
            if not begun:
                self._record(number, "fault", "invoke", name=role.name)
            if planned is not None:
                self._heal_unlanded(number, planned)
            self._record(number, "fault", "fail", name=role.name, error=_words(error))
            return None
        self._held[number] = (fault, stack)
        self._injured = True
        self._journal.note(number, "landed", fault)
        self._record(
            number,
            "fault",
            "ok",
            name=role.name,
            target=landed.target,
            landed_ns=landed.at_ns,
            observed_by=landed.observed_by,
        )
        return landed

    def _hit_already(self, fault: Fault) -> str | None:
        """Two faults on one thing would be healed by whichever ends first: one at a time."""
        for held, _ in self._held.values():
            if shared := _holds(held) & _holds(fault):
                return f"{min(shared)} is still held by {held.name!r}"
        return None

    def _heal(self, number: int) -> None:
        """Heal; whatever else fails, a full disk included, the next one still gets its turn."""
        fault, stack = self._held.pop(number)
        with suppress(OSError):
            self._record(number, "heal", "invoke", name=fault.name)
        self._healed(number, fault, stack.close)

    def _heal_unlanded(self, number: int, fault: Fault) -> None:
        self._healed(number, fault, lambda: fault.heal(self._cell))

    def _healed(self, number: int, fault: Fault, heal: Callable[[], None]) -> None:
        try:
            heal()
        except Exception as error:
            with suppress(OSError):
                self._record(number, "heal", "fail", name=fault.name, error=_words(error))
            return
        with suppress(OSError):
            self._journal.note(number, "healed", fault)
        with suppress(OSError):
            self._record(number, "heal", "ok", name=fault.name)

    def _record(self, number: int, f: str, kind: OpType, *, error: str | None = None, **facts: Any) -> None:
        value = {"n": number, **facts}
        self._writer.write(Op(time_ns=self._time_ns(), process="nemesis", f=f, type=kind, value=value, error=error))


def _holds(fault: Fault) -> set[str]:
    """What a fault has in its hands while it is held: its node, and what it says it `holds`."""
    return {str(name) for name in (getattr(fault, "target", None), getattr(fault, "holds", None)) if name}


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {error}"


def main() -> int:
    from harness.cell.cell import load as load_cell

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cell", required=True)
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steady-ns", type=int, required=True)
    parser.add_argument("--parent-pid", type=int, help="who must live on; by default the parent of this process")
    args = parser.parse_args()
    cell = load_cell(args.cell)
    writer = Writer(args.out)
    nemesis = Nemesis(
        cell=cell, plan=json.loads(args.plan.read_text()), journal=UndoJournal(args.journal), writer=writer
    )
    signal.signal(signal.SIGTERM, lambda *_: nemesis.stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    nemesis.play(steady_ns=args.steady_ns, parent=args.parent_pid)
    writer.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
