"""Everything that watches during a run, each in a process of its own: probes, ownership, metronome, packet capture."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harness.clients.probes import Spec
from harness.clients.processes import ProbeProcess, start, stop_all
from harness.errors import InfrastructureError
from harness.region import background
from harness.rundir import RunDir

if TYPE_CHECKING:
    from harness.cell.cell import Cell

CAPTURE_BYTES = 256
"""Bytes kept of each captured packet: all of RTP's header and payload token, the start of each SIP message."""


@dataclass(kw_only=True)
class Observers:
    cell: Cell
    probes: Sequence[Spec]
    run_dir: RunDir
    _probes: list[ProbeProcess] = field(default_factory=list)
    _others: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self) -> None:
        client = self.cell.client_pid(1)
        parts = self.run_dir.parts
        python = sys.executable
        state_dir = str(self.cell.topology.state_dir)
        self._spawn("metronome", [python, "-m", "harness.metronome", "--out", str(parts / "metronome.jsonl")])
        self._spawn(
            "ownership",
            [python, "-m", "harness.cell.observe", "--state-dir", state_dir, "--out", str(parts / "ownership.jsonl")],
        )
        tcpdump = [
            "tcpdump",
            "-i",
            "any",
            "-n",
            "-U",
            "--immediate-mode",
            "-s",
            str(CAPTURE_BYTES),
            "-w",
            "-",
            "udp or tcp or icmp",
        ]
        self._spawn(
            "capture", ["nsenter", "-t", str(client), "-n", "-m", *tcpdump], stdout=self.run_dir.path / "capture.pcap"
        )
        for probe in self.probes:
            self._probes.append(start(probe, cell=self.cell, netns_pid=client, out_dir=parts))

    def check_alive(self) -> None:
        """`InfrastructureError` when an observer died: from then on nobody is looking."""
        for name, process in self._others.items():
            if process.poll() is not None:
                raise InfrastructureError(f"{name} died with {process.returncode}: see logs/{name}.log of the run")
        for probe in self._probes:
            probe.check_alive()

    def stop(self) -> list[str]:
        """End all, the probes first: they wait for their last deadline. Returns what had not watched until then."""
        blind = [f"{name} died with {p.poll()}" for name, p in self._others.items() if p.poll() is not None]
        blind += stop_all(self._probes)
        for process in self._others.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self._others.values():
            try:
                process.wait(timeout=3)
            except subprocess.TimeoutExpired:
                process.kill()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=3)
        return blind

    def _spawn(self, name: str, argv: Sequence[str], *, stdout: Path | None = None) -> None:
        log = (self.run_dir.path / "logs" / f"{name}.log").open("wb")
        with log, stdout.open("wb") if stdout else nullcontext() as out:
            self._others[name] = subprocess.Popen(
                list(argv),
                stdout=out or log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env=background.environment(self.cell.topology.cell),
            )
