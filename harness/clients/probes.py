"""The probe families a scenario can ask for, and their processes.

Each probe runs in a process of its own inside the client container's network namespace, so that nothing the harness
does bends its clock; it appends its ops to `<out_dir>/<process>.jsonl`. A new family is a factory here and a module.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from harness.clients.new_call import PASSWORD
from harness.errors import InfrastructureError
from harness.region import background

ClockName = Literal["options", "new_call"]

MODULES: dict[ClockName, str] = {"options": "harness.clients.options", "new_call": "harness.clients.new_call"}


@dataclass(frozen=True, kw_only=True)
class ProbeSpec:
    """One reachability probe: sent each `period_s`, an answer after `deadline_s` is not ok."""

    clock: ClockName
    period_s: float
    deadline_s: float

    def __post_init__(self) -> None:
        if self.clock not in MODULES:
            raise ValueError(f"no probe measures {self.clock!r}; there are {', '.join(MODULES)}")
        if not 0.01 <= self.period_s <= 60:
            raise ValueError(f"{self.clock}: period_s is 0.01-60 s, not {self.period_s}")
        if not 0 < self.deadline_s <= 32:
            raise ValueError(f"{self.clock}: deadline_s is above 0 and at most 32 s (64*T1), not {self.deadline_s}")


def sip_options(*, period_s: float = 0.05, deadline_s: float = 0.5) -> ProbeSpec:
    """OPTIONS to the public address: is it answered by a PBX that says it serves?"""
    return ProbeSpec(clock="options", period_s=period_s, deadline_s=deadline_s)


def new_calls(*, period_s: float = 0.1, deadline_s: float = 1.0) -> ProbeSpec:
    """A new call from one extension to another: is it set up, with audio both ways?"""
    return ProbeSpec(clock="new_call", period_s=period_s, deadline_s=deadline_s)


class CellLike(Protocol):
    """What a probe needs to know of a cell: `profile` is a PBX profile, `topology.cell` the cell's name."""

    @property
    def public_ip(self) -> str: ...

    @property
    def topology(self) -> Any: ...

    @property
    def profile(self) -> Any: ...


class ProbeProcess:
    """A running probe."""

    def __init__(self, process: subprocess.Popen[bytes], *, name: str, log: Path) -> None:
        self._process = process
        self._name = name
        self._log = log

    def check_alive(self) -> None:
        """`InfrastructureError` with the probe's last words when it has ended: nobody measures any more."""
        code = self._process.poll()
        if code is not None:
            raise InfrastructureError(f"the {self._name} probe ended with {code}: {self._last_words()}")

    def stop(self, timeout_s: float) -> None:
        """End it after its last deadline; `InfrastructureError` when it had to be killed or had failed before."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(timeout=5)
            raise InfrastructureError(f"the {self._name} probe did not end within {timeout_s:g} s") from None
        if code != 0:
            raise InfrastructureError(f"the {self._name} probe ended with {code}: {self._last_words()}")

    def _last_words(self) -> str:
        text = self._log.read_text(errors="replace").strip() if self._log.exists() else ""
        return text.splitlines()[-1] if text else "it said nothing"


def start(spec: ProbeSpec, *, cell: CellLike, netns_pid: int, out_dir: Path) -> ProbeProcess:
    """Start a probe against the cell's public address, in the network namespace of process `netns_pid`.

    Ops go to `<out_dir>/<clock>.jsonl`, what it says to `<out_dir>/../logs/<clock>.log`.
    """
    logs = out_dir.parent / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{spec.clock}.log"
    argv = ["nsenter", "-t", str(netns_pid), "-n", sys.executable, *arguments(spec, cell)]
    argv += ["--out", str(out_dir / f"{spec.clock}.jsonl")]
    env = background.environment(cell.topology.cell) | {PASSWORD: str(cell.profile.extensions.password)}
    with log.open("wb") as said:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True, env=env
        )
    return ProbeProcess(process, name=spec.clock, log=log)


def arguments(spec: ProbeSpec, cell: CellLike) -> list[str]:
    """How Python is called for this probe. The two last extensions are its own, the others free for other clients."""
    profile = cell.profile
    argv = ["-m", MODULES[spec.clock], "--to", f"{cell.public_ip}:{profile.sip.udp_port}"]
    argv += ["--domain", profile.sip.domain, "--period-s", str(spec.period_s), "--deadline-s", str(spec.deadline_s)]
    argv += ["--process", spec.clock]
    if spec.clock == "new_call":
        last = int(profile.extensions.last)
        argv += ["--caller", str(last - 1), "--callee", str(last)]
    return argv
