"""The commands around runs: bring a cell up and keep it, look at it, enter it, abort a run, take everything away."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import Any

from harness import catalogue, session
from harness.cell import cell as cells
from harness.cell.cell import Cell
from harness.checkers.settled import unsettled
from harness.collect import as_plain
from harness.command import wait_for
from harness.errors import InfrastructureError, UsageError
from harness.interrupts import interrupts
from harness.lock import cell_lock, holder
from harness.region.cleanup import cleanup, known_cells
from harness.run import Say
from harness.session import Resolved
from harness.topology import Topology

ABORT_TIMEOUT_S = 120


def up(resolved: Resolved, *, say: Say) -> dict[str, Any]:
    """Bring a cell up and leave it standing; one that already stands is left alone. Returns its status."""
    name = resolved.topology.cell
    with interrupts() as gate, cell_lock(name, doing="up") as held:
        cell = session.standing_cell(resolved, died=held.died)
        if cell is None:
            try:
                cell = session.bring_up(resolved, progress=lambda line: say(None, "cell", line), gate=gate)
                gate.close()
            except BaseException:  # also a signal between the two lines
                session.take_down(resolved.topology)
                raise
        session.stand(cell)
        return {**_state(cell), "in_use_by": None}


def status(name: str) -> dict[str, Any]:
    """What the cell is doing now; works beside a run."""
    return _state(_load(name))


def status_lines(state: dict[str, Any]) -> list[str]:
    """The status for a person."""
    cluster = state["cluster"]
    lines = [
        f"cell     {state['cell']}, {state['pbx']} under policy {state['policy']}, "
        f"phones connect to {state['public_ip']}",
        f"nodes    online {', '.join(cluster['online']) or 'none'}; active {cluster['active'] or 'none'}; "
        f"DC {cluster['dc'] or 'none'}",
    ]
    lines += [f"resource {r['id']:<12} {r['role']:<8} {r['node'] or '-'}" for r in cluster["resources"]]
    lines += [f"failed   {action}" for action in cluster["failed_actions"]]
    if wrong := unsettled(cluster, state["nodes"]):
        lines.append(f"not at rest: {'; '.join(wrong)}")
    if state["in_use_by"]:
        lines.append(f"in use   by process {state['in_use_by'].get('pid')}: {state['in_use_by'].get('doing')}")
    return lines


def shell(name: str, node: str) -> int:
    """An interactive shell on a node, by name or as `active`; returns the shell's exit code."""
    cell = _load(name)
    target = node
    if node == "active":
        target = cell.cluster().active or ""
        if not target:
            raise InfrastructureError("no node is active right now; name one")
    names = [one.name for one in cell.nodes]
    if target not in names:
        raise UsageError(catalogue.unknown("node", target, [*names, "active"]))
    terminal = ["-it"] if os.isatty(0) else ["-i"]
    return subprocess.call(["docker", "exec", *terminal, f"{name}-{target}", "bash", "-l"])


def down(name: str) -> list[str]:
    """Take a cell away; returns what was removed."""
    topology = _topology(name)
    with interrupts() as gate, cell_lock(name, doing="down"):
        gate.close()
        return cells.down(topology)


def abort(name: str) -> str:
    """Ask the running harness to heal and stop, and wait for it; says what happened."""
    _named(name)
    who = holder(name)
    if who is None:
        raise InfrastructureError(f"nothing runs on cell {name!r}; `pbx-chaos clean` removes what a killed run left")
    if "pid" not in who:
        raise InfrastructureError(f"cell {name!r} is being taken at this very moment: try again")
    pid = int(who["pid"])
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        pass
    except PermissionError:
        raise InfrastructureError(f"process {pid} belongs to another user: use sudo") from None
    wait_for(
        f"the end of process {pid}",
        lambda: (holder(name) or {}).get("pid") != pid,
        timeout_s=ABORT_TIMEOUT_S,
        every_s=0.1,
    )
    kept = f"; its evidence is in {os.path.relpath(who['run_dir'])}" if who.get("run_dir") else ""
    return f"{who.get('doing', 'it')} (process {pid}) has healed and stopped{kept}"


def clean() -> list[str]:
    """Remove everything of ours; a cell that a live harness holds is an error, the others are still cleaned."""
    removed: list[str] = []
    busy: list[str] = []
    for name in known_cells():
        try:
            topology = _topology(name)
        except UsageError:
            continue  # a name that no cell can have: not ours
        who = holder(name)
        if who is not None:
            busy.append(f"{name} (process {who.get('pid')}: {who.get('doing')})")
            continue
        with cell_lock(name, doing="clean"):
            removed += cleanup(topology)
    if busy:
        raise InfrastructureError(f"still in use: {', '.join(busy)}; stop it with `pbx-chaos abort --cell NAME`")
    return removed


def _load(name: str) -> Cell:
    _named(name)
    return cells.load(name)


def _topology(name: str) -> Topology:
    """The topology of a cell that may be a ruin: its slot only matters for addresses, which clean-up does not use."""
    ruin = _named(name)
    try:
        return cells.load(name).topology
    except Exception:
        return ruin


def _named(name: str) -> Topology:
    """`UsageError` for a name that no cell can have, before it becomes part of a path."""
    try:
        return Topology(cell=name, slot=0)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _state(cell: Cell) -> dict[str, Any]:
    state = cell.cluster()
    return {
        "cell": cell.topology.cell,
        "policy": cell.policy.name,
        "pbx": cell.profile.name,
        "nodes": [node.name for node in cell.nodes],
        "public_ip": str(cell.public_ip),
        "cluster": as_plain(state),
        "in_use_by": holder(cell.topology.cell),
    }
