"""What of ours is on the host right now, found without the code under test."""

from __future__ import annotations

import os
from pathlib import Path

import docker

from harness.command import run


def traces(cell: str) -> list[str]:
    """Containers, networks, loop devices, mounts, bridges, processes and files of a cell; empty when all is gone."""
    client = docker.from_env()
    label = {"label": f"pbx-chaos.cell={cell}"}
    found = [f"container {c.name}" for c in client.containers.list(all=True, filters=label)]
    found += [f"network {n.name}" for n in client.networks.list(filters=label)]
    rows = run(["losetup", "-a"], timeout_s=10).stdout.splitlines()
    found += [f"loop {row}" for row in rows if f"/{cell}/" in row or row.endswith("(/)")]  # (/): its FUSE file is gone
    found += [f"mount {row}" for row in Path("/proc/self/mounts").read_text().splitlines() if f"/{cell}/" in row]
    found += [f"process {pid}" for pid in _processes(cell)]
    state = Path("/var/lib/pbx-chaos") / cell
    return found + ([f"state {state}"] if state.exists() else [])


def _processes(cell: str) -> list[int]:
    wanted = f"PBX_CHAOS_CELL={cell}".encode()
    pids = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0") and (entry / "cmdline").read_bytes():
                pids.append(int(entry.name))
        except OSError:
            continue
    return pids
