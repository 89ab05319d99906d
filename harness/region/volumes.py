"""The volumes of the region: block devices that lose what was not flushed when their machine loses its power.

A volume is a sparse file, a server process with a volatile write cache (`volume_server`), and, while it is attached to
a machine that is on, a loop device that appears in the guest as /dev/nvmeXn1. A shared one (Multi-Attach) has a loop
device per machine over the same file. What there is, is in `state_dir/volumes/<id>/state.json`: a new process of ours
takes up where a killed one stopped.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import defaultdict
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import RLock
from typing import Any

from harness.command import TimedOut, run, wait_for
from harness.errors import InfrastructureError
from harness.region import background, guest_devices, loops
from harness.region.disk import Switches
from harness.region.files import write_json
from harness.region.journal import Journal
from harness.region.volume_control import ServerSilent, VolumeControl
from harness.region.write_cache import PowerLoss
from harness.topology import Topology

SERVER_UP_TIMEOUT_S = 10
FREE_TIMEOUT_S = 5
"""How long the end of a machine may take to let go of the loop device (its mounts are undone by then)."""


class VolumeBusy(InfrastructureError):
    """The volume is mounted in its guest, or attached to another one."""


class NotAttached(InfrastructureError):
    """The volume is not there (any more)."""


@dataclass(frozen=True, kw_only=True)
class Attachment:
    """Where a volume is. `device` is what EC2 calls it (/dev/sdf), `guest_device` what the guest calls it; `handle` is
    the loop's opening in the volume's server. `loop` and what follows from it are None while the machine is off."""

    instance_id: str
    device: str
    guest_pid: int | None = None
    guest_device: str | None = None
    loop: str | None = None
    handle: int | None = None
    mounted_in_guest: bool = False


@dataclass(frozen=True, kw_only=True)
class _State:
    size_gib: int
    shared: bool = False
    attachments: tuple[Attachment, ...] = ()
    attached_times: int = 0

    def at(self, instance_id: str | None) -> Attachment | None:
        """The attachment to this instance; without one the only attachment there can be."""
        if instance_id is None and len(self.attachments) > 1:
            raise InfrastructureError("the volume is attached to several instances: which of them is meant?")
        return next((each for each in self.attachments if instance_id in (None, each.instance_id)), None)

    def without(self, attachment: Attachment) -> _State:
        return replace(self, attachments=tuple(each for each in self.attachments if each != attachment))

    def changed(self, old: Attachment, new: Attachment) -> _State:
        """With `new` in the place of `old`, or added to the others."""
        return replace(self, attachments=(*self.without(old).attachments, new))

    def handles_but(self, attachment: Attachment) -> set[int]:
        """The openings of the other attachments."""
        return {each.handle for each in self.attachments if each != attachment and each.handle is not None}


class Volumes:
    """All volumes of one region. Thread-safe; operations on one volume take turns.

    `instance_id` says which attachment of a shared volume is meant; any other volume has one at most.
    """

    def __init__(self, *, topology: Topology, journal: Journal) -> None:
        self._topology = topology
        self._journal = journal
        self._locks: defaultdict[str, RLock] = defaultdict(RLock)
        self._servers: dict[str, subprocess.Popen[bytes]] = {}

    def create(self, volume_id: str, *, size_gib: int, shared: bool = False) -> None:
        """A new, empty volume; sparse, so that it costs what is written to it. `shared`: several machines at a time."""
        with self._locks[volume_id]:
            if (self._folder(volume_id) / "state.json").exists():
                raise InfrastructureError(f"there is a volume {volume_id} already")
            self._folder(volume_id).mkdir(parents=True, exist_ok=True)
            with self._backing(volume_id).open("wb") as file:
                file.truncate(size_gib << 30)
            self._mount(volume_id).touch()
            self._save(volume_id, _State(size_gib=size_gib, shared=shared))
            self._ensure_server(volume_id)
        self._journal.record("volume_created", volume_id=volume_id, size_gib=size_gib)

    def attach(self, volume_id: str, *, instance_id: str, guest_pid: int, device: str) -> str:
        """Give the volume to a running guest; returns its device there, e.g. /dev/nvme1n1.

        Raises `VolumeBusy` when it is attached already: a disk has one machine, a shared one each machine once.
        """
        with self._locks[volume_id]:
            state = self._load(volume_id)
            if (there := state.at(instance_id if state.shared else None)) is not None:
                raise VolumeBusy(f"volume {volume_id} is attached to {there.instance_id}")
            return self._plug(volume_id, state, Attachment(instance_id=instance_id, device=device), guest_pid)

    def reattach(self, volume_id: str, *, guest_pid: int, instance_id: str | None = None) -> str:
        """The volume's machine was started again: give it its volume. Returns the new device path in the guest."""
        with self._locks[volume_id]:
            state = self._load(volume_id)
            attachment = state.at(instance_id)
            if attachment is None:
                raise NotAttached(f"volume {volume_id} is not attached to {instance_id or 'anything'}")
            if attachment.loop is not None:
                self.release(volume_id, instance_id=attachment.instance_id)
                state = self._load(volume_id)
                attachment = _off(attachment)
            return self._plug(volume_id, state, attachment, guest_pid)

    def detach(self, volume_id: str, *, force: bool = False, instance_id: str | None = None) -> None:
        """Take the volume away. `VolumeBusy` while the guest has it mounted, unless `force`: then the guest gets I/O
        errors at once, mounted or not, and what it has not flushed is lost (how much of it had reached the volume is
        in the journal)."""
        with self._locks[volume_id]:
            state = self._load(volume_id)
            attachment = state.at(instance_id)
            if attachment is None:
                return
            mounted = _is_mounted(attachment)
            if mounted and not force:
                raise VolumeBusy(f"volume {volume_id} is mounted in {attachment.instance_id}")
            dropped_bytes = 0
            if attachment.loop is not None:
                if force:
                    dropped_bytes = self.power_loss(volume_id, instance_id=attachment.instance_id).dropped_bytes
                if attachment.guest_pid is not None and attachment.guest_device is not None:
                    guest_devices.remove(
                        attachment.guest_pid,
                        volume_id=volume_id,
                        device=attachment.guest_device,
                        loop=attachment.loop,
                    )
                self._unplug(volume_id, state, attachment, wait=not force)
                if not force:
                    with suppress(ServerSilent):
                        self._control(volume_id).write_back()
            self._save(volume_id, state.without(attachment))
            self._journal.record(
                "volume_detached",
                volume_id=volume_id,
                instance_id=attachment.instance_id,
                mounted=mounted,
                force=force,
                dropped_bytes=dropped_bytes,
            )

    def power_loss(
        self, volume_id: str, *, keep_ratio: float = 0.0, seed: int = 0, instance_id: str | None = None
    ) -> PowerLoss:
        """Drop what is not flushed, but each block with probability `keep_ratio` gets to the disk (torn writes).

        From now on the present attachment gets nothing but I/O errors, hung requests included; of a shared volume the
        one of `instance_id` alone, and nothing is dropped: it has no volatile cache. A server that does not answer is
        killed, which has the same effect, on every attachment. The state of the machine is not looked at.
        """
        handle = None
        if instance_id is not None and (state := self._load(volume_id)).shared:
            attachment = state.at(instance_id)
            if attachment is None or attachment.handle is None:
                return PowerLoss(dropped_blocks=0, kept_blocks=0)
            handle = attachment.handle
        try:
            loss = self._control(volume_id).power_loss(keep_ratio=keep_ratio, seed=seed, handle=handle)
        except ServerSilent:
            self._end_server(volume_id)
            loss = PowerLoss(dropped_blocks=0, kept_blocks=0, answered=False)
        facts = {**asdict(loss), "dropped_bytes": loss.dropped_bytes}
        self._journal.record("volume_power_lost", volume_id=volume_id, **facts)
        return loss

    def release(self, volume_id: str, *, instance_id: str | None = None) -> None:
        """The guest is gone: free its loop device; what it never flushed is lost. The volume stays the instance's."""
        with self._locks[volume_id]:
            state = self._load(volume_id)
            attachment = state.at(instance_id)
            if attachment is None or attachment.loop is None:
                return
            self._unplug(volume_id, state, attachment, wait=True)
            with suppress(ServerSilent):
                if self._control(volume_id).status()["dirty_blocks"]:
                    self.power_loss(volume_id)
            self._save(volume_id, state.changed(attachment, _off(attachment)))
            self._journal.record("volume_released", volume_id=volume_id, instance_id=attachment.instance_id)

    def grow(self, volume_id: str, *, size_gib: int) -> None:
        """Make the volume larger, in use or not: its guests see a larger device at once. Doing it again is harmless.

        `InfrastructureError` when it would shrink, or its server does not answer; then it is as it was.
        """
        with self._locks[volume_id]:
            state = self._load(volume_id)
            mount = str(self._mount(volume_id))
            loops_in_use = [each.loop for each in state.attachments if each.loop is not None]
            if not loops_in_use:  # one that is dead may be replaced: nobody uses it
                self._ensure_server(volume_id)
            self._control(volume_id).grow(size_gib << 30)
            for loop in loops_in_use:
                if loops.backing_file(loop) == mount:  # not one whose server has died: it has no disk any more
                    loops.take_new_size(loop)
            self._save(volume_id, replace(state, size_gib=size_gib))
        self._journal.record("volume_grown", volume_id=volume_id, size_gib=size_gib)

    def attachment(self, volume_id: str, *, instance_id: str | None = None) -> Attachment | None:
        """Where the volume is now, None when it is attached to nothing, or not to `instance_id`."""
        attachment = self._load(volume_id).at(instance_id)
        return None if attachment is None else _seen(attachment)

    def attachments(self, volume_id: str) -> list[Attachment]:
        """All places of the volume, the oldest first."""
        return [_seen(attachment) for attachment in self._load(volume_id).attachments]

    def attached_to(self, instance_id: str) -> list[str]:
        """The volumes of an instance, be it on or off."""
        found = []
        for volume_id in self.list():
            with suppress(InfrastructureError):  # deleted meanwhile
                if any(each.instance_id == instance_id for each in self._load(volume_id).attachments):
                    found.append(volume_id)
        return found

    def list(self) -> list[str]:
        """Ids of all volumes."""
        return sorted(path.parent.name for path in self._root().glob("*/state.json"))

    def switch(self, volume_id: str, switches: Switches) -> None:
        """Injure the volume (errors, hang, latency, …); `Switches()` heals it. Gone when its server is replaced."""
        self._control(volume_id).switch(switches)
        self._journal.record("volume_switched", volume_id=volume_id, **asdict(switches))

    def status(self, volume_id: str) -> dict[str, Any]:
        """What the volume's server counts: requests, errors, unflushed blocks, openings."""
        return self._control(volume_id).status()

    def delete(self, volume_id: str) -> None:
        """The volume and its content are gone; `VolumeBusy` while it is attached."""
        with self._locks[volume_id]:
            if self._load(volume_id).attachments:
                raise VolumeBusy(f"volume {volume_id} is attached")
            self._end_server(volume_id)
            shutil.rmtree(self._folder(volume_id))
        self._journal.record("volume_deleted", volume_id=volume_id)

    def _plug(self, volume_id: str, state: _State, attachment: Attachment, guest_pid: int) -> str:
        """Loop device, device node in the guest, state on disk: in this order, undone when it fails."""
        in_use = {each.loop for each in state.attachments}
        for orphan in loops.below(self._folder(volume_id)):  # of a process of ours that was killed half-way
            if orphan not in in_use:
                loops.ask_to_free(orphan)
        self._ensure_server(volume_id)
        self._wait_unopened(volume_id, but=state.handles_but(attachment))
        loop = loops.make(self._mount(volume_id))
        try:
            handle = max(self._control(volume_id).status()["handles"], default=None)  # the last one given
            guest_device = guest_devices.add(guest_pid, volume_id=volume_id, loop=loop, first=state.attached_times)
        except (OSError, ServerSilent) as error:
            loops.ask_to_free(loop)
            raise InfrastructureError(f"the guest or the server of volume {volume_id} is gone: {error}") from error
        plugged = replace(attachment, guest_pid=guest_pid, guest_device=guest_device, loop=loop, handle=handle)
        state = replace(state.changed(attachment, plugged), attached_times=state.attached_times + 1)
        self._save(volume_id, state)
        self._journal.record(
            "volume_attached", volume_id=volume_id, instance_id=plugged.instance_id, device=guest_device, loop=loop
        )
        return guest_device

    def _unplug(self, volume_id: str, state: _State, attachment: Attachment, *, wait: bool) -> None:
        """Free the loop device. One that a dead guest does not let go of loses its power and is left to the kernel."""
        loop = attachment.loop
        assert loop is not None

        def freed() -> bool:  # the file has lost its name where the server had to be killed
            return loops.backing_file(loop) != str(self._mount(volume_id)) and not loops.nameless(loop)

        if not freed():
            loops.ask_to_free(loop)
        if not wait:
            return
        try:
            wait_for(f"the end of {loop}", freed, timeout_s=FREE_TIMEOUT_S, every_s=0.005)
            self._wait_unopened(volume_id, but=state.handles_but(attachment))
        except TimedOut as error:
            self._journal.record("loop_lingers", volume_id=volume_id, loop=loop, seen=str(error))
            self.power_loss(volume_id, instance_id=attachment.instance_id)
        except ServerSilent:
            return

    def _wait_unopened(self, volume_id: str, *, but: set[int]) -> None:
        """Until no live opening is left but these: the kernel's last close comes a moment after the free."""
        control = self._control(volume_id)
        wait_for(
            f"the closing of volume {volume_id}",
            lambda: set(control.status()["handles"]) <= but,
            timeout_s=FREE_TIMEOUT_S,
            every_s=0.005,
            last_seen=lambda: str(control.status()),
        )

    def _ensure_server(self, volume_id: str) -> None:
        """Start a server unless one answers; whatever is left of a dead one is removed first."""
        control = self._control(volume_id)
        with suppress(ServerSilent):
            control.status()
            return
        self._end_server(volume_id)
        server = background.start(
            "harness.region.volume_server",
            [
                *("--backing", str(self._backing(volume_id))),
                *("--mount", str(self._mount(volume_id))),
                *("--control", str(self._folder(volume_id) / "control.sock")),
                *(["--shared"] if self._load(volume_id).shared else []),
            ],
            cell=self._topology.cell,
            log=self._topology.state_dir / "volumes.log",
        )
        self._servers[volume_id] = server

        def up() -> bool:
            if server.poll() is not None:
                raise InfrastructureError(
                    f"the server of volume {volume_id} ended with {server.returncode}: see volumes.log of the cell"
                )
            with suppress(ServerSilent):
                return bool(control.status())
            return False

        wait_for(f"the start of volume {volume_id}", up, timeout_s=SERVER_UP_TIMEOUT_S, every_s=0.01)

    def _end_server(self, volume_id: str) -> None:
        """Kill the server and undo its mount: what is in its cache is lost, as at a power cut."""
        mount = str(self._mount(volume_id))
        mine = [
            pid for pid, command in background.marked(self._topology.cell).items() if f"--mount {mount} " in command
        ]
        background.end(mine, grace_s=0)
        if (server := self._servers.pop(volume_id, None)) is not None:
            server.wait(timeout=5)
        run(["umount", "-l", mount], timeout_s=10, check=False)

    def _root(self) -> Path:
        return self._topology.state_dir / "volumes"

    def _folder(self, volume_id: str) -> Path:
        return self._root() / volume_id

    def _backing(self, volume_id: str) -> Path:
        return self._folder(volume_id) / "backing"

    def _mount(self, volume_id: str) -> Path:
        return self._folder(volume_id) / "disk"

    def _control(self, volume_id: str) -> VolumeControl:
        return VolumeControl(self._folder(volume_id) / "control.sock")

    def _load(self, volume_id: str) -> _State:
        try:
            row = json.loads((self._folder(volume_id) / "state.json").read_text(encoding="utf-8"))
        except OSError as error:
            raise InfrastructureError(f"there is no volume {volume_id}") from error
        return _State(**{**row, "attachments": tuple(Attachment(**each) for each in row["attachments"])})

    def _save(self, volume_id: str, state: _State) -> None:
        write_json(self._folder(volume_id) / "state.json", asdict(state))


def _off(attachment: Attachment) -> Attachment:
    """The same place while its machine is off."""
    return Attachment(instance_id=attachment.instance_id, device=attachment.device)


def _seen(attachment: Attachment) -> Attachment:
    return replace(attachment, mounted_in_guest=_is_mounted(attachment))


def _is_mounted(attachment: Attachment) -> bool:
    if attachment.guest_pid is None or attachment.loop is None:
        return False
    return guest_devices.is_mounted(attachment.guest_pid, attachment.loop)
