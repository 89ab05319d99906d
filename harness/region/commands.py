"""Commands of Systems Manager under way: delivered when the node's agent can be reached, run, and told how they ended.

A node that is off, frozen or cut off from the API gets nothing: the command waits, and has timed out when
TimeoutSeconds are over. One that dies while the command runs tells nobody: the command is `InProgress` until its whole
time is over. What is known is in a file of the cell; what ran when the gateway died has failed for the next one.
"""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from threading import Event, RLock
from typing import Any

from harness.region.files import write_json
from harness.region.guest import GuestLost, Guests
from harness.region.journal import Journal
from harness.region.semantics.commands import (
    STDERR_CHARACTERS,
    STDOUT_CHARACTERS,
    TERMINAL,
    Details,
    Order,
    outcome,
)

FILE = "ssm-commands.json"
LOOK_S = 0.1
"""How often a node that could not be reached is tried again."""

AT_ONCE = 16
"""Scripts that run, and nodes that are asked whether they hear: a second each when they are cut off."""

KEPT = 200
"""Commands that are remembered; AWS keeps them for 30 days."""


@dataclass(frozen=True, kw_only=True)
class Invocation:
    """One command on one instance. Times are seconds since the epoch; `code` is -1 while none is known."""

    command_id: str
    instance_id: str
    details: Details = "Pending"
    code: int = -1
    stdout: str = ""
    stderr: str = ""
    started_s: float | None = None
    ended_s: float | None = None

    @property
    def key(self) -> str:
        return f"{self.command_id}-{self.instance_id}"

    @property
    def ended(self) -> bool:
        return self.details in TERMINAL


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command that was sent, when, and how it stands on each instance."""

    command_id: str
    order: Order
    requested_s: float
    invocations: Mapping[str, Invocation]

    @property
    def deliver_until_s(self) -> float:
        return self.requested_s + self.order.delivery_s

    @property
    def expires_s(self) -> float:
        """AWS: the total time-out is that of the delivery plus that of the execution."""
        return self.deliver_until_s + self.order.execution_s


@dataclass(kw_only=True)
class Commands:
    """All commands of one region. `guests` are the nodes; threads start with the first command."""

    path: Path
    journal: Journal
    guests: Guests
    wall_s: Callable[[], float] = time.time
    _commands: dict[str, Command] = field(default_factory=dict)
    _lock: RLock = field(default_factory=RLock)
    _closing: Event = field(default_factory=Event)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(AT_ONCE, "command"))
    _lookers: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(AT_ONCE, "look"))
    _heard_s: dict[str, float] = field(default_factory=dict)
    _running: set[str] = field(default_factory=set)
    _thread: threading.Thread | None = None

    def __post_init__(self) -> None:
        if self.path.exists():
            self._load()

    def send(self, command_id: str, order: Order, instance_ids: tuple[str, ...]) -> Command:
        """Take the command; it is delivered by a worker."""
        invocations = {i: Invocation(command_id=command_id, instance_id=i) for i in instance_ids}
        command = Command(
            command_id=command_id, order=order, requested_s=self.wall_s(), invocations=invocations
        )  # fmt: skip
        with self._lock:
            self._commands[command_id] = command
            while len(self._commands) > KEPT:
                del self._commands[next(iter(self._commands))]
            self._save()
            self._start()
        return command

    def get(self, command_id: str) -> Command | None:
        with self._lock:
            return self._commands.get(command_id)

    def all(self) -> list[Command]:
        """Those that are remembered, the newest first."""
        with self._lock:
            return list(reversed(self._commands.values()))

    def cancel(self, command_id: str, instance_ids: tuple[str, ...]) -> None:
        """What has not begun never will; what runs is killed if its node can be reached."""
        with self._lock:
            command = self._commands[command_id]
            for invocation in command.invocations.values():
                if (instance_ids and invocation.instance_id not in instance_ids) or invocation.ended:
                    continue
                if invocation.key in self._running:
                    self._put(replace(invocation, details="Cancelling"))
                    threading.Thread(target=self._kill, args=(invocation,), daemon=True).start()
                else:
                    self._end(invocation, "Cancelled")

    def hear(self, instance_ids: Iterable[str]) -> dict[str, bool]:
        """Which nodes' agents would get a command now: all are asked side by side, up to AT_ONCE of them."""
        ids = list(dict.fromkeys(instance_ids))
        return dict(zip(ids, self._lookers.map(self._hears, ids), strict=True))

    def heard_s(self, instance_id: str) -> float | None:
        """When the node was last found to hear, seconds since the epoch; None: never by this gateway."""
        return self._heard_s.get(instance_id)

    def close(self) -> None:
        """Ends the waiting; scripts that run go on, untold of."""
        self._closing.set()
        self._lookers.shutdown(wait=False, cancel_futures=True)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def look(self) -> None:
        """Deliver what can be delivered, and end what is over; no node waits for another that is cut off."""
        waiting: defaultdict[str, list[tuple[Command, Invocation]]] = defaultdict(list)
        for command in self.all():
            for invocation in command.invocations.values():
                if not invocation.ended and invocation.key not in self._running:
                    waiting[invocation.instance_id].append((command, invocation))
        for _ in self._lookers.map(self._look_for, waiting.values()):
            pass

    def _look_for(self, waiting: Sequence[tuple[Command, Invocation]]) -> None:
        """Worker: what waits for one node."""
        for command, invocation in waiting:
            self._look_at(command, invocation)

    def _hears(self, instance_id: str) -> bool:
        heard = self.guests.hears(instance_id)
        if heard:
            self._heard_s[instance_id] = self.wall_s()
        return heard

    def _look_at(self, command: Command, invocation: Invocation) -> None:
        begun = invocation.details not in ("Pending", "Delayed")
        if self.wall_s() >= (command.expires_s if begun else command.deliver_until_s):
            self._end(invocation, "DeliveryTimedOut")
        elif not begun and self._hears(invocation.instance_id):
            with self._lock:
                current = self._current(invocation)
                if current.ended:
                    return
                self._running.add(invocation.key)
                self._put(replace(current, details="InProgress", started_s=self.wall_s()))
            self._pool.submit(self._carry_out, command, invocation)
        elif invocation.details == "Pending" and not begun:
            with self._lock:
                if self._current(invocation).details == "Pending":
                    self._put(replace(invocation, details="Delayed"))

    def _carry_out(self, command: Command, invocation: Invocation) -> None:
        """Worker: run it, and tell how it ended once the node can be reached (again)."""
        order = command.order
        try:
            ran = self.guests.run(
                invocation.instance_id,
                order.script,
                key=invocation.key,
                timeout_s=order.execution_s,
                folder=order.folder,
            )
            while not self._hears(invocation.instance_id):
                if self.wall_s() >= command.expires_s or self._closing.wait(LOOK_S):
                    return
            current = self._current(invocation)
            details, code = outcome(ran.code, timed_out=ran.timed_out, cancelled=current.details == "Cancelling")
            self._end(
                current,
                details,
                code=code,
                stdout=ran.stdout[:STDOUT_CHARACTERS],
                stderr=ran.stderr[:STDERR_CHARACTERS],
            )
        except GuestLost:
            self.journal.record("command_lost", instance_id=invocation.instance_id, command_id=command.command_id)
        except Exception as error:
            self.journal.record("operation_failed", operation="SendCommand", error=str(error))
            self._end(self._current(invocation), "Failed", code=1, stderr=str(error)[:STDERR_CHARACTERS])
        finally:
            with self._lock:
                self._running.discard(invocation.key)

    def _kill(self, invocation: Invocation) -> None:
        if self.guests.hears(invocation.instance_id):
            self.guests.kill(invocation.instance_id, key=invocation.key)

    def _end(self, invocation: Invocation, details: Details, **more: Any) -> None:
        with self._lock:
            if not self._current(invocation).ended:
                self._put(replace(invocation, details=details, ended_s=self.wall_s(), **more))

    def _current(self, invocation: Invocation) -> Invocation:
        with self._lock:
            command = self._commands.get(invocation.command_id)
            return command.invocations[invocation.instance_id] if command else invocation

    def _put(self, invocation: Invocation) -> None:
        with self._lock:
            command = self._commands.get(invocation.command_id)
            if command is not None:
                after = {**command.invocations, invocation.instance_id: invocation}
                self._commands[command.command_id] = replace(command, invocations=after)
                self._save()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="commands", daemon=True)
            self._thread.start()

    def _watch(self) -> None:
        while not self._closing.is_set():
            try:
                self.look()
            except Exception as error:
                if not self._closing.is_set():
                    self.journal.record("operation_failed", operation="commands", error=str(error))
            self._closing.wait(LOOK_S)

    def _save(self) -> None:
        write_json(self.path, [asdict(command) for command in self._commands.values()])

    def _load(self) -> None:
        for row in json.loads(self.path.read_text(encoding="utf-8")):
            given = row.pop("order")
            order = Order(
                **{**given, "targets": tuple((key, tuple(values)) for key, values in given["targets"])}
                | {name: tuple(given[name]) for name in ("commands", "instance_ids")}
            )
            invocations = {i: _orphan(Invocation(**row_i)) for i, row_i in row.pop("invocations").items()}
            command = Command(order=order, invocations=invocations, **row)
            self._commands[command.command_id] = command
        if any(not i.ended for c in self._commands.values() for i in c.invocations.values()):
            self._start()


def _orphan(invocation: Invocation) -> Invocation:
    """An invocation as the next gateway finds it: nobody heard how what was running ended."""
    if invocation.ended or invocation.details in ("Pending", "Delayed"):
        return invocation
    return replace(invocation, details="Failed", stderr="the gateway ended while the command was running")
