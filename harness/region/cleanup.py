"""Takes away everything of a cell, whatever state it was left in: killed harness, hung volume, restarted Docker.

The order matters: first those go who make things (a gateway may be launching a machine right now); then volumes lose
their power, so that no guest hangs in a disk; containers go before the loop devices they have mounted; volume servers
before the FUSE mounts they serve. Each step is bounded and survives the failure of another; what could not be removed
is said, never raised.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from docker.errors import DockerException, NotFound
from requests.exceptions import RequestException

from harness import engine
from harness import topology as topologies
from harness.command import TimedOut, run, wait_for
from harness.errors import InfrastructureError
from harness.region import background, loops, machine_power
from harness.region.volume_control import VolumeControl
from harness.topology import CELL_LABEL, Topology

GONE_TIMEOUT_S = 10
VOLUME_SERVER = "harness.region.volume_server"
NO_DOCKER = "containers and networks, if any, could NOT be removed: docker does not answer"


def cleanup(topology: Topology) -> list[str]:
    """Remove all of the cell; returns what was removed, and what could not be. Idempotent."""
    client = _client()
    done = _end_processes(topology, but=VOLUME_SERVER)
    devices = _loops(topology)  # now: a file loses its name with the end of its FUSE server
    _cut_power(topology)
    done += _remove_containers(client, topology) if client else [NO_DOCKER]
    done += _end_processes(topology)
    done += _free_loops(topology, devices | _loops(topology))
    done += _unmount(topology)
    if client:
        done += _remove_containers(client, topology)  # what Docker was still making for one who was killed
        done += _remove_networks(client, topology)
    if topology.state_dir.exists():
        shutil.rmtree(topology.state_dir, ignore_errors=True)
        whole = "" if not topology.state_dir.exists() else " could NOT be removed as a whole"
        done.append(f"state {topology.state_dir}{whole}")
    return list(dict.fromkeys(done))


def leftovers(topology: Topology) -> list[str]:
    """What of the cell is on the host, without touching it."""
    client = _client()
    found: list[str] = []
    if client:
        with suppress(DockerException, RequestException):
            found += [f"container {row['Names'][0].lstrip('/')}" for row in _containers(client, topology)]
            found += [f"network {row['Name']}" for row in _networks(client, topology)]
    found += [f"process {pid} {command}" for pid, command in background.marked(topology.cell).items()]
    found += [f"loop device {loop}" for loop in sorted(_loops(topology))]
    found += [f"mount {mount}" for mount in _mounts(topology)]
    return found + ([f"state {topology.state_dir}"] if topology.state_dir.exists() else [])


def known_cells() -> list[str]:
    """Names of all cells of which something is on the host."""
    names = background.marked_cells()
    root = topologies.STATE_ROOT
    if root.is_dir():
        names |= {path.name.removesuffix(".lock") for path in root.iterdir() if path.is_dir() or path.suffix == ".lock"}
    names |= {Path(file).relative_to(root).parts[0] for file in loops.below(root).values()}
    if (client := _client()) is not None:
        with suppress(DockerException, RequestException):
            rows = client.api.containers(all=True, filters={"label": CELL_LABEL})
            rows += client.api.networks(filters={"label": CELL_LABEL})
            names |= {str(row["Labels"][CELL_LABEL]) for row in rows}
    return sorted(names)


def _client() -> Any | None:
    with suppress(InfrastructureError):
        return engine.connect()
    return None


def _cut_power(topology: Topology) -> None:
    """End every wait for a disk. A server that is dead or deaf is ended with the other processes."""
    for control in topology.state_dir.glob("volumes/*/control.sock"):
        with suppress(InfrastructureError):
            VolumeControl(control, timeout_s=1).power_loss(keep_ratio=0, seed=0)


def _containers(client: Any, topology: Topology) -> list[dict[str, Any]]:
    return list(client.api.containers(all=True, filters={"label": f"{CELL_LABEL}={topology.cell}"}))


def _networks(client: Any, topology: Topology) -> list[dict[str, Any]]:
    return list(client.api.networks(filters={"label": f"{CELL_LABEL}={topology.cell}"}))


def _remove_containers(client: Any, topology: Topology) -> list[str]:
    """Kill them all, then remove them. One that can't die because of a deaf volume server gets it killed."""
    done = []
    try:
        rows = _containers(client, topology)
    except (DockerException, RequestException) as error:
        return [f"the containers could NOT be listed: {error}"]
    pids = [pid for row in rows if (pid := _pid(client, row["Id"]))]
    for pid in pids:
        machine_power.kill_at_once(pid)
    try:
        wait_for(
            "the death of the containers",
            lambda: not any(background.alive(pid) for pid in pids),
            timeout_s=GONE_TIMEOUT_S / 2,
            every_s=0.01,
        )
    except TimedOut:
        done += _end_processes(topology)
    for row in rows:
        name = row["Names"][0].lstrip("/")
        try:
            client.api.remove_container(row["Id"], force=True, v=True)
            done.append(f"container {name}")
        except NotFound:
            continue
        except (DockerException, RequestException) as error:
            done.append(f"container {name} could NOT be removed: {error}")
    return done


def _pid(client: Any, container: str) -> int:
    with suppress(DockerException, RequestException):
        return int(client.api.inspect_container(container)["State"]["Pid"])
    return 0


def _end_processes(topology: Topology, *, but: str | None = None) -> list[str]:
    """All, or all `but` those of a module. Volume servers at once, they would wait for their last close; the others
    may end in order first."""
    marked = background.marked(topology.cell)
    processes = {pid: command for pid, command in marked.items() if but is None or but not in command}
    servers = [pid for pid, command in processes.items() if VOLUME_SERVER in command]
    background.end(servers, grace_s=0)
    background.end(set(processes) - set(servers))
    return [
        f"process {pid}" + (" could NOT be ended" if background.alive(pid) else "") + f" {command}"
        for pid, command in processes.items()
    ]


def _loops(topology: Topology) -> set[str]:
    """The cell's loop devices: those whose file lies below its state folder, and those that its volumes' records name
    and whose file has no name any more."""
    noted = set()
    for record in topology.state_dir.glob("volumes/*/state.json"):
        with suppress(OSError, ValueError):
            noted |= set(re.findall(r"/dev/loop\d+", record.read_text(encoding="utf-8")))
    return set(loops.below(topology.state_dir)) | {loop for loop in noted if loops.nameless(loop)}


def _free_loops(topology: Topology, devices: set[str]) -> list[str]:
    """Free devices that were the cell's before its volume servers ended; one that is somebody else's by now is not."""

    def left() -> set[str]:
        return {loop for loop in devices if loops.nameless(loop)} | (devices & set(loops.below(topology.state_dir)))

    found = left()
    for loop in found:
        with suppress(InfrastructureError):
            loops.ask_to_free(loop)
    with suppress(TimedOut):
        wait_for("the end of the loop devices", lambda: not left(), timeout_s=GONE_TIMEOUT_S)
    lasting = left()
    return [
        f"loop device {loop}" + (" could NOT be freed: it is still mounted" if loop in lasting else "")
        for loop in sorted(found)
    ]


def _unmount(topology: Topology) -> list[str]:
    """Lazily: a FUSE mount whose server is dead can't be asked anything."""
    found = list(_mounts(topology))
    for mount in found:
        with suppress(InfrastructureError):
            run(["umount", "-l", mount], timeout_s=GONE_TIMEOUT_S, check=False)
    left = set(_mounts(topology))
    return [f"mount {mount}" + (" could NOT be unmounted" if mount in left else "") for mount in found]


def _mounts(topology: Topology) -> Iterator[str]:
    """Mount points below the cell's state folder, from the kernel's table: a dead one can't be looked at."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount = line.split()[4].encode().decode("unicode_escape")
        if Path(mount).is_relative_to(topology.state_dir):
            yield mount


def _remove_networks(client: Any, topology: Topology) -> list[str]:
    done = []
    try:
        rows = _networks(client, topology)
    except (DockerException, RequestException) as error:
        return [f"the networks could NOT be listed: {error}"]
    for row in rows:
        try:
            for container in client.api.inspect_network(row["Id"]).get("Containers") or {}:
                with suppress(DockerException):
                    client.api.disconnect_container_from_network(container, row["Id"], force=True)
            client.api.remove_network(row["Id"])
            done.append(f"network {row['Name']}")
        except NotFound:
            continue
        except (DockerException, RequestException) as error:
            done.append(f"network {row['Name']} could NOT be removed: {error}")
    return done
