"""The agent on a node that Systems Manager talks to: whether it hears us, and a script run there as root.

Nothing is installed in a guest. Whether its agent could ask for work is looked at as the agent would: the machine runs,
is not frozen, and a connection from within its network namespace reaches the API. A script runs in a process group of
its own, which is killed as a whole when its time is over.
"""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass
from typing import Any, Protocol

from harness.command import CommandFailed, run
from harness.region.api_path import guest_endpoint, read_api
from harness.topology import GATEWAY_PORT, Topology

REACH_TIMEOUT_S = 1.0
GRACE_S = 5.0
"""How much longer than its own bound a script may take until nothing is heard of it any more."""

MAX_BYTES = {"stdout": 96000, "stderr": 32000}
"""Of output that is kept: enough for the characters that are shown, whatever their length in UTF-8."""

_FOLDER = "/var/lib/amazon/ssm/pbx-chaos"
_CONNECT = "import socket,sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 0.8).close()"


@dataclass(frozen=True, kw_only=True)
class Ran:
    """How a script ended: exit code, output, whether its time was over."""

    code: int
    stdout: str
    stderr: str
    timed_out: bool = False


class GuestLost(Exception):
    """The machine went off, or froze, while the script ran: nobody tells how it ended."""


class Guests(Protocol):
    """The nodes' agents."""

    def hears(self, instance_id: str) -> bool:
        """Whether the agent would get a command now."""

    def run(self, instance_id: str, script: str, *, key: str, timeout_s: float, folder: str) -> Ran:
        """Run a shell script as root to its end, or kill it after `timeout_s`; `GuestLost` when nobody tells."""

    def kill(self, instance_id: str, *, key: str) -> None:
        """Kill the script that was started under this key, with all its children. Idempotent."""


@dataclass(kw_only=True)
class ContainerGuests:
    """Guests that are containers of this host. `machines` tells where they run (Instances)."""

    topology: Topology
    machines: Any

    def hears(self, instance_id: str) -> bool:
        pid = self.machines.pid(instance_id)
        container = self._container(instance_id)
        if pid is None or container is None or _state(container).get("Paused", True):
            return False
        endpoint = [str(guest_endpoint(self.topology, read_api(self.topology))), str(GATEWAY_PORT)]
        enter = ["nsenter", "-t", str(pid), "-n", sys.executable, "-c", _CONNECT, *endpoint]
        try:
            return run(enter, timeout_s=REACH_TIMEOUT_S, check=False).ok
        except CommandFailed:
            return False

    def run(self, instance_id: str, script: str, *, key: str, timeout_s: float, folder: str) -> Ran:
        container, pid = self._container(instance_id), self.machines.pid(instance_id)
        if container is None or pid is None:
            raise GuestLost(instance_id)
        argv = ["docker", "exec", "-i", container, "sh", "-c", wrapper(key=key, timeout_s=timeout_s, folder=folder)]
        try:
            done = run(argv, timeout_s=timeout_s + GRACE_S, input=script, check=False)
        except CommandFailed as error:  # a child holds its output open, or the machine is frozen
            if self.machines.pid(instance_id) != pid or _state(container).get("Paused", True):
                raise GuestLost(instance_id) from error
            self.kill(instance_id, key=key)
            return Ran(code=124, stdout="", stderr="", timed_out=True)
        if self.machines.pid(instance_id) != pid or _state(container).get("Paused", True):
            raise GuestLost(instance_id)
        late = done.took_s >= timeout_s and done.code in (124, 137)
        return Ran(code=done.code, stdout=done.stdout, stderr=done.stderr, timed_out=late)

    def kill(self, instance_id: str, *, key: str) -> None:
        container = self._container(instance_id)
        if container is not None:
            script = f'kill -s KILL -- "-$(cat {shlex.quote(f"{_FOLDER}/{key}/pid")})"'
            run(["docker", "exec", container, "sh", "-c", script], timeout_s=10, check=False)

    def _container(self, instance_id: str) -> str | None:
        labels = [f"label=pbx-chaos.instance={instance_id}", f"label=pbx-chaos.cell={self.topology.cell}"]
        filters = [part for label in labels for part in ("--filter", label)]
        return run(["docker", "ps", "-q", *filters], timeout_s=10, check=False).stdout.strip() or None


def wrapper(*, key: str, timeout_s: float, folder: str) -> str:
    """The shell script that runs the one on its standard input: bounded, in its own process group, its output cut.

    The script is put into a file and handed to `sh -c`, as the agent of AWS does, so that a `#!` line counts. The pipes
    are swapped so that both streams are cut while the exit code comes through.
    """
    place = shlex.quote(f"{_FOLDER}/{key}")
    end = f'kill -s KILL -- "-$(cat {place}/pid)" 2>/dev/null'  # `timeout` spares the children of one that it kills
    inner = f"echo $$ >{place}/pid; exec timeout -k 1 {timeout_s:g} sh -c {place}/_script.sh"
    cut = {name: f"{{ head -c {size}; cat >/dev/null; }}" for name, size in MAX_BYTES.items()}
    return (
        f"mkdir -p {place} && cat >{place}/_script.sh && chmod 700 {place}/_script.sh || exit 1; "
        f"cd {shlex.quote(folder or '/')} || exit 1; "
        f"{{ code=$({{ {{ {{ {{ sh -c {shlex.quote(inner)} 3>&- 4>&- 5>&- </dev/null; c=$?; "
        f"case $c in 124|137) {end};; esac; echo $c >&3; }} 2>&5"
        f" | {cut['stdout']} >&4 2>/dev/null; }} 5>&1 | {cut['stderr']} >&2; }} 3>&1; }}); }} 4>&1; "
        f"rm -rf {place}; exit $code"
    )


def _state(container: str) -> dict[str, Any]:
    done = run(["docker", "inspect", "--format", "{{json .State}}", container], timeout_s=10, check=False)
    return dict(json.loads(done.stdout)) if done.ok else {}
