"""The instances of the region: containers that boot, shut down and lose their power like machines.

What exists is in the containers' labels, so any process of ours can take up where a killed one stopped. A guest's init
waits for /run/power-good, which is written once its links, routes, metadata and volumes are there: nothing in a guest
ever sees a half-wired machine.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from docker import utils
from docker.errors import APIError, DockerException, NotFound

from harness.clock import now_ns
from harness.command import TimedOut, run, wait_for
from harness.errors import InfrastructureError
from harness.region import background, machine_power, metadata, neighbours, packet_filter
from harness.region.journal import Journal
from harness.region.volumes import NotAttached, Volumes
from harness.topology import CELL_LABEL, REGION_NAME, ROLE_LABEL, ZONE, Topology, mac_of

INSTANCE_LABEL = "pbx-chaos.instance"
ADDRESS_LABEL = "pbx-chaos.private-ip"
ROLE = "pbx-node"
"""The IAM role whose keys an instance gets from its metadata."""

NO_DNS = "nameserver 127.0.0.1\noptions attempts:1\n"
"""A guest's resolv.conf: questions are refused at once, none leaves the guest; names are in /etc/hosts."""

DEATH_TIMEOUT_S = 15
CONFLICT = 409
"""Docker's answer when a name is taken."""

POWER_GOOD = "run/power-good"
WAIT_FOR_POWER = 'until [ -e /run/power-good ]; do sleep 0.01; done; exec "$@"'

Power = Literal["on", "stopping", "off", "gone"]


@dataclass(frozen=True, kw_only=True)
class InstanceSpec:
    """A machine to be made. `image` is a Docker reference, `private_ip` lies in the VPC's subnet."""

    instance_id: str
    name: str
    image: str
    private_ip: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    user_data: str = ""
    zone: str = ZONE


class Instances:
    """All machines of one region. Thread-safe between machines; operations on one machine take turns in the caller."""

    def __init__(self, *, topology: Topology, journal: Journal, volumes: Volumes, docker_client: Any) -> None:
        self._topology = topology
        self._journal = journal
        self._volumes = volumes
        self._docker = docker_client
        self._lock = Lock()
        self._stopping: set[str] = set()
        self._hurried: set[str] = set()
        self._containers: dict[str, str] = {}
        self._services: list[subprocess.Popen[bytes]] = []

    def launch(self, spec: InstanceSpec) -> None:
        """Make the machine and switch it on; returns when its init runs. Nothing is left of one that can't be made."""
        metadata.write_facts(self._topology, _facts(spec))
        try:
            self._create(spec)
        except DockerException as error:
            metadata.facts_path(self._topology, spec.instance_id).unlink(missing_ok=True)
            raise InfrastructureError(f"instance {spec.name} can't be made: {error}") from error
        try:
            self._boot(spec.instance_id)
        except BaseException:
            with suppress(Exception):
                self.terminate(spec.instance_id)
            raise

    def power(self, instance_id: str) -> Power:
        """Whether the machine runs; `stopping` while it is being switched off, `gone` when there is none."""
        with self._lock:
            if instance_id in self._stopping:
                return "stopping"
        state = self._state(instance_id)
        if state is None:
            return "gone"
        return "on" if state["Running"] else "off"

    def pid(self, instance_id: str) -> int | None:
        """Host pid of the guest's init, None unless the machine runs."""
        state = self._state(instance_id)
        return int(state["Pid"]) if state is not None and state["Running"] and state["Pid"] else None

    def power_off(self, instance_id: str) -> int:
        """Take the machine's power away; returns t0 (CLOCK_MONOTONIC, ns), the moment its links were cut.

        Links are cut, volumes drop what was not flushed and refuse I/O, the guest is stopped and killed, its network
        namespace goes (until then the links stay cut), the volumes are ready again. A machine that is off stays off.
        """
        with self._switching_off(instance_id):
            pid = self.pid(instance_id)
            if pid is None:
                self._release_volumes(instance_id)
                return self._journal.record("instance_off", instance_id=instance_id, was_off=True)
            cut = machine_power.cut_links(pid)
            self._journal.record(
                "links_cut",
                time_ns=cut.time_ns,
                instance_id=instance_id,
                links=cut.links,
                took_ms=round((cut.time_ns - cut.asked_ns) / 1e6, 3),
            )
            for volume_id in self._volumes.attached_to(instance_id):
                self._volumes.power_loss(volume_id, instance_id=instance_id)
            machine_power.kill_at_once(pid)
            self._await_death(instance_id, pid, cut.links)
            self._release_volumes(instance_id)
            took_ms = round((now_ns() - cut.time_ns) / 1e6, 1)
            self._journal.record("instance_off", instance_id=instance_id, how="power_off", took_ms=took_ms)
            return cut.time_ns

    def shut_down(self, instance_id: str, *, timeout_s: float) -> None:
        """Ask the guest to shut down and wait until it has; one that takes longer than `timeout_s`, or that is to
        hurry, loses its power."""
        with self._switching_off(instance_id):
            pid = self.pid(instance_id)
            if pid is not None:
                links = machine_power.host_links(pid)
                self._journal.record("shutdown_asked", instance_id=instance_id)
                if self._shuts_down(instance_id, timeout_s):
                    self._await_death(instance_id, pid, links)
                    self._release_volumes(instance_id)
                    self._journal.record("instance_off", instance_id=instance_id, how="shut_down")
                    return
        self.power_off(instance_id)

    def hurry(self, instance_id: str) -> None:
        """A shutdown that is waited for loses its power now; returns at once."""
        with self._lock:
            self._hurried.add(instance_id)

    def frozen(self, instance_id: str) -> bool:
        """Whether the machine is on and nothing in it runs: its container is paused."""
        state = self._state(instance_id)
        return state is not None and bool(state["Paused"])

    def start(self, instance_id: str) -> None:
        """Switch the machine on again: its own disk, fresh /run, its volumes attached. A running one is left alone,
        but for one that a killed gateway left half-wired: nobody would ever let its init run."""
        state = self._state(instance_id)
        if state is None:
            raise InfrastructureError(f"there is no instance {instance_id}")
        if state["Running"]:
            if (Path("/proc") / str(state["Pid"]) / "root" / POWER_GOOD).exists():
                return
            self.power_off(instance_id)
        self._release_volumes(instance_id)
        self._boot(instance_id)

    def terminate(self, instance_id: str) -> None:
        """The machine is gone, what was on its own disk too; its volumes stay attached until they are detached."""
        self.power_off(instance_id)
        container = self._container(instance_id)
        if container is not None:
            with suppress(NotFound):
                self._docker.api.remove_container(container, force=True, v=True)
        with self._lock:
            self._containers.pop(instance_id, None)
        metadata.facts_path(self._topology, instance_id).unlink(missing_ok=True)
        self._journal.record("instance_gone", instance_id=instance_id)

    def list(self) -> list[str]:
        """Ids of all instances that exist, be they on or off."""
        labels = [f"{CELL_LABEL}={self._topology.cell}", f"{ROLE_LABEL}=instance"]
        rows = self._docker.api.containers(all=True, filters={"label": labels})
        return sorted(row["Labels"][INSTANCE_LABEL] for row in rows if INSTANCE_LABEL in row["Labels"])

    def _create(self, spec: InstanceSpec) -> None:
        api = self._docker.api
        image = api.inspect_image(spec.image)
        network = self._topology.vpc_network
        mac = mac_of(spec.private_ip)
        modern = utils.version_gte(api.api_version, "1.44")
        endpoint = api.create_endpoint_config(ipv4_address=spec.private_ip, mac_address=mac if modern else None)
        command = image["Config"]["Cmd"] or ["sleep", "infinity"]
        apparmor = any("name=apparmor" in option for option in api.info().get("SecurityOptions") or ())
        create = partial(
            self._docker.containers.create,
            spec.image,
            ["/bin/sh", "-c", WAIT_FOR_POWER, "power-on", *command],
            hostname=_safe(spec.name),
            network=network,
            networking_config={network: endpoint},
            mac_address=None if modern else mac,
            tmpfs={"/run": "exec,mode=755"},
            shm_size="128m",
            cap_add=["NET_ADMIN", "SYS_ADMIN"],
            device_cgroup_rules=["b 7:* rmw"],
            security_opt=["apparmor=unconfined"] if apparmor else None,
            use_config_proxy=False,  # a host's proxy settings must not come between a guest and its EC2 API
            labels={
                CELL_LABEL: self._topology.cell,
                ROLE_LABEL: "instance",
                INSTANCE_LABEL: spec.instance_id,
                ADDRESS_LABEL: spec.private_ip,
            },
        )
        name = f"{self._topology.cell}-{_safe(spec.name)}"
        try:
            container = create(name=name)
        except APIError as error:
            if error.status_code != CONFLICT:
                raise
            container = create(name=f"{name}-{spec.instance_id}")  # another has the same Name tag
        with self._lock:
            self._containers[spec.instance_id] = container.id

    def _boot(self, instance_id: str) -> None:
        """Start the container, wire it, and let its init run."""
        container = self._container(instance_id)
        with self._lock:
            self._hurried.discard(instance_id)
        try:
            self._docker.api.start(container)
        except DockerException as error:
            raise InfrastructureError(f"instance {instance_id} does not start: {error}") from error
        pid = self.pid(instance_id)
        if pid is None:
            raise InfrastructureError(f"the init of instance {instance_id} ended at once: `docker logs {container}`")
        packet_filter.equip(self._topology, instance_id, pid)
        root = Path("/proc") / str(pid) / "root"
        (root / "etc/resolv.conf").write_text(NO_DNS)
        interface = _interface_of(pid)
        _wire(pid, interface=interface, router=str(self._topology.router_vpc_address))
        neighbours.equip(self._topology, pid, interface=interface)
        mac = (root / "sys/class/net" / interface / "address").read_text().strip()
        metadata.write_facts(self._topology, {**metadata.read_facts(self._topology, instance_id), "mac": mac})
        with self._lock:
            self._services = [service for service in self._services if service.poll() is None]
            self._services.append(metadata.start(self._topology, instance_id=instance_id, guest_pid=pid))
        for volume_id in self._volumes.attached_to(instance_id):
            with suppress(NotAttached):  # it was detached meanwhile
                self._volumes.reattach(volume_id, guest_pid=pid, instance_id=instance_id)
        (root / POWER_GOOD).touch()
        self._journal.record("instance_on", instance_id=instance_id, pid=pid)

    def _shuts_down(self, instance_id: str, timeout_s: float) -> bool:
        """SIGTERM to the guest's init; whether the guest ended in time and unhurried. A paused one does not listen."""
        state = self._state(instance_id)
        if state is None or state["Paused"]:
            return state is None
        with suppress(APIError):
            self._docker.api.kill(self._container(instance_id), signal="SIGTERM")
        try:
            wait_for(
                f"the shutdown of instance {instance_id}",
                lambda: instance_id in self._hurried or self.pid(instance_id) is None,
                timeout_s=timeout_s,
            )
        except TimedOut:
            return False
        return self.pid(instance_id) is None

    def _await_death(self, instance_id: str, pid: int, links: tuple[str, ...]) -> None:
        """Until init, container and network namespace are gone, the last of which shows in the links' end."""

        def seen() -> str:
            left = [link for link in links if machine_power.link_exists(link)]
            return f"init {'runs' if background.alive(pid) else 'ended'}, links {left}, {self._state(instance_id)}"

        def dead() -> bool:
            if background.alive(pid) or any(machine_power.link_exists(link) for link in links):
                return False
            return self.pid(instance_id) is None

        wait_for(f"the death of {instance_id}", dead, timeout_s=DEATH_TIMEOUT_S, every_s=0.005, last_seen=seen)

    def _release_volumes(self, instance_id: str) -> None:
        for volume_id in self._volumes.attached_to(instance_id):
            self._volumes.release(volume_id, instance_id=instance_id)

    @contextmanager
    def _switching_off(self, instance_id: str) -> Iterator[None]:
        with self._lock:
            self._stopping.add(instance_id)
        try:
            yield
        finally:
            with self._lock:
                self._stopping.discard(instance_id)

    def _container(self, instance_id: str) -> str | None:
        """Id of the instance's container, None when there is none."""
        with self._lock:
            known = self._containers.get(instance_id)
        if known is None:
            labels = [f"{CELL_LABEL}={self._topology.cell}", f"{INSTANCE_LABEL}={instance_id}"]
            found = self._docker.api.containers(all=True, filters={"label": labels})
            known = str(found[0]["Id"]) if found else None
            if known is not None:
                with self._lock:
                    self._containers[instance_id] = known
        return known

    def _state(self, instance_id: str) -> dict[str, Any] | None:
        """Docker's state of the instance's container, None when there is none."""
        container = self._container(instance_id)
        if container is None:
            return None
        try:
            return dict(self._docker.api.inspect_container(container)["State"])
        except NotFound:
            with self._lock:
                self._containers.pop(instance_id, None)
            return None


def _safe(name: str) -> str:
    """A Name tag, which may hold anything, as a host or a container can be named."""
    return re.sub(r"[^A-Za-z0-9-]+", "-", name).strip("-")[:63] or "instance"


def _facts(spec: InstanceSpec) -> dict[str, Any]:
    return {
        "instance_id": spec.instance_id,
        "private_ip": spec.private_ip,
        "public_ip": None,
        "mac": "",
        "interface_id": f"eni-{spec.instance_id.removeprefix('i-')}",
        "zone": spec.zone,
        "region": REGION_NAME,
        "hostname": f"ip-{spec.private_ip.replace('.', '-')}.ec2.internal",
        "role": ROLE,
        "access_key_id": spec.access_key_id,
        "secret_access_key": spec.secret_access_key,
        "user_data": spec.user_data,
    }


def _interface_of(pid: int) -> str:
    """The guest's one interface."""
    names = [path.name for path in (Path("/proc") / str(pid) / "root/sys/class/net").iterdir() if path.name != "lo"]
    if len(names) != 1:
        raise InfrastructureError(f"a guest has one interface, not {names}")
    return names[0]


def _wire(pid: int, *, interface: str, router: str) -> None:
    """The route out, through the region's router, and the metadata address, in the guest's network namespace."""
    commands = f"route replace default via {router} dev {interface}\naddress replace {metadata.ADDRESS}/32 dev lo\n"
    run(["nsenter", "-t", str(pid), "-n", "ip", "-batch", "-"], input=commands, timeout_s=10)
    # A machine is no router unless it says so itself; here it inherits Docker's setting of the host, and would answer
    # "no route to host" for a secondary address that it has not configured.
    run(["nsenter", "-t", str(pid), "-n", "sysctl", "-qw", "net.ipv4.ip_forward=0"], timeout_s=10)
