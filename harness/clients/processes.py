"""The processes of a scenario's clients: started in the client container's network namespace, each on its own.

Nothing the harness does bends their clocks; each appends its ops to `<out_dir>/<name>.jsonl`.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.clients.new_call import PASSWORD
from harness.clients.offers import CellLike
from harness.clients.probes import Spec
from harness.errors import InfrastructureError
from harness.region import background


class ProbeProcess:
    """A running client."""

    def __init__(self, process: subprocess.Popen[bytes], *, name: str, log: Path, stop_s: float = 10.0) -> None:
        self._process = process
        self._name = name
        self._log = log
        self._stop_s = stop_s
        self._asked = False

    def check_alive(self) -> None:
        """`InfrastructureError` with the client's last words when it has ended: nobody measures any more."""
        code = self._process.poll()
        if code is not None:
            raise InfrastructureError(f"the {self._name} probe ended with {code}: {self._last_words()}")

    def ask_to_stop(self) -> None:
        """From now on it finishes what it is at. Said once: a second signal would meet it with its handler gone."""
        if not self._asked and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        self._asked = True

    def stop(self, timeout_s: float | None = None) -> None:
        """End it after what it still waits for; `InfrastructureError` when it had to be killed or had failed before."""
        self.ask_to_stop()
        timeout_s = self._stop_s if timeout_s is None else timeout_s
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


def start(spec: Spec, *, cell: CellLike, netns_pid: int, out_dir: Path) -> ProbeProcess:
    """Start a client against the cell's public address, in the network namespace of process `netns_pid`.

    Ops go to `<out_dir>/<name>.jsonl`, what it says to `<out_dir>/../logs/<name>.log`.
    """
    logs = out_dir.parent / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{spec.name}.log"
    argv = ["nsenter", "-t", str(netns_pid), "-n", sys.executable, *spec.arguments(cell)]
    argv += ["--out", str(out_dir / f"{spec.name}.jsonl")]
    env = background.environment(cell.topology.cell) | {PASSWORD: str(cell.profile.extensions.password)}
    with log.open("wb") as said:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True, env=env
        )
    return ProbeProcess(process, name=spec.name, log=log, stop_s=spec.stop_s)


def stop_all(processes: Sequence[ProbeProcess]) -> list[str]:
    """End all of them side by side; returns which had not watched until then, and why."""
    for process in processes:
        process.ask_to_stop()
    blind = []
    for process in processes:
        try:
            process.stop()
        except (InfrastructureError, subprocess.TimeoutExpired) as error:
            blind.append(str(error))
    return blind
