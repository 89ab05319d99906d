"""The one actor that injures: plays a timeline in a process of its own and owns every heal.

Each injury is written to the undo journal *before* it happens, so that whoever comes later can heal it: the nemesis on
every way out (done, told to stop, or its parent gone), `pbx-chaos abort` and `pbx-chaos clean` from elsewhere.
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
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.clock import NS_PER_S, now_ns
from harness.faults.types import Fault, Landed, dump, load
from harness.history import Op, OpType, Writer

if TYPE_CHECKING:
    from harness.cell.cell import Cell
    from harness.scenario import Step


def plan_rows(timeline: Sequence[Step]) -> list[dict[str, Any]]:
    """A timeline as JSON-ready data, for the nemesis process and for scenario.json."""
    return [{"at_s": step.at_s, "hold_s": step.hold_s, **dump(step.fault)} for step in timeline]


class UndoJournal:
    """Write-ahead list of injuries: `planned` before, `landed` once seen, `healed` after."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def note(self, number: int, state: str, fault: Fault) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"n": number, "state": state, "time_ns": now_ns(), **dump(fault)}) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def open_injuries(self) -> list[tuple[int, Fault]]:
        """Injuries that were planned and not healed, newest first."""
        latest: dict[int, dict[str, Any]] = {}
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines(keepends=True):
                if line.endswith("\n"):
                    row = json.loads(line)
                    latest[int(row["n"])] = row
        return [(n, load(row)) for n, row in sorted(latest.items(), reverse=True) if row["state"] != "healed"]

    def heal_all(self, cell: Cell) -> list[str]:
        """Heal whatever is open; returns the names of what was healed. One that fails does not stop the others."""
        healed, errors = [], []
        for number, fault in self.open_injuries():
            try:
                fault.heal(cell)
            except Exception as error:
                errors.append(f"{fault.name}: {error}")
            else:
                self.note(number, "healed", fault)
                healed.append(fault.name)
        if errors:
            raise RuntimeError(f"not healed: {'; '.join(errors)}")
        return healed


@dataclass(order=True)
class _Due:
    time_ns: int
    number: int
    heal: bool


class Nemesis:
    """Plays one plan. `stop` may be set from a signal handler; everything held is healed before `play` returns."""

    def __init__(self, *, cell: Cell, plan: Sequence[dict[str, Any]], journal: UndoJournal, writer: Writer) -> None:
        self._cell = cell
        self._plan = plan
        self._journal = journal
        self._writer = writer
        self._held: dict[int, tuple[Fault, ExitStack]] = {}
        self.stop = threading.Event()

    def play(self, *, steady_ns: int) -> None:
        queue = [
            _Due(time_ns=steady_ns + round(row["at_s"] * NS_PER_S), number=n, heal=False)
            for n, row in enumerate(self._plan)
        ]
        heapq.heapify(queue)
        parent = os.getppid()
        try:
            while queue and not self.stop.is_set() and os.getppid() == parent:
                wait_s = (queue[0].time_ns - now_ns()) / NS_PER_S
                if wait_s > 0:
                    self.stop.wait(min(wait_s, 0.2))
                    continue
                due = heapq.heappop(queue)
                if due.heal:
                    self._heal(due.number)
                    continue
                landed = self._injure(due.number)
                if landed:
                    hold_ns = round(self._plan[due.number]["hold_s"] * NS_PER_S)
                    heapq.heappush(queue, _Due(time_ns=landed.at_ns + hold_ns, number=due.number, heal=True))
        finally:
            for number in sorted(self._held, reverse=True):
                self._heal(number)

    def _injure(self, number: int) -> Landed | None:
        role = load(self._plan[number])
        self._record(number, "fault", "invoke", name=role.name)
        stack = ExitStack()
        fault = role
        try:
            fault = role.resolved(self._cell)
            reason = fault.unmet(self._cell)
            if reason:
                raise RuntimeError(f"can't run here: {reason}")
            self._journal.note(number, "planned", fault)
            landed = stack.enter_context(fault.inject(self._cell))
        except Exception as error:
            self._record(number, "fault", "fail", name=role.name, error=f"{type(error).__name__}: {error}")
            self._heal_failed(number)
            return None
        self._held[number] = (fault, stack)
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

    def _heal(self, number: int) -> None:
        fault, stack = self._held.pop(number)
        self._record(number, "heal", "invoke", name=fault.name)
        try:
            stack.close()
        except Exception as error:
            self._record(number, "heal", "fail", name=fault.name, error=f"{type(error).__name__}: {error}")
            return
        self._journal.note(number, "healed", fault)
        self._record(number, "heal", "ok", name=fault.name)

    def _heal_failed(self, number: int) -> None:
        """An injury that did not land may still have left something: heal it, or leave it open in the journal."""
        for open_number, fault in self._journal.open_injuries():
            if open_number == number:
                with suppress(Exception):
                    fault.heal(self._cell)
                    self._journal.note(number, "healed", fault)

    def _record(self, number: int, f: str, kind: OpType, *, error: str | None = None, **facts: Any) -> None:
        value = {"n": number, **facts}
        self._writer.write(Op(time_ns=now_ns(), process="nemesis", f=f, type=kind, value=value, error=error))


def main() -> int:
    from harness.cell.cell import load as load_cell

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cell", required=True)
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steady-ns", type=int, required=True)
    args = parser.parse_args()
    cell = load_cell(args.cell)
    writer = Writer(args.out)
    nemesis = Nemesis(
        cell=cell, plan=json.loads(args.plan.read_text()), journal=UndoJournal(args.journal), writer=writer
    )
    signal.signal(signal.SIGTERM, lambda *_: nemesis.stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    nemesis.play(steady_ns=args.steady_ns)
    writer.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
