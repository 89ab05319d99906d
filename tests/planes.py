"""A data plane without Docker: machines, volumes and addresses as dictionaries, for tests of the gateway's decisions.

The real parts keep the same contract (docs/contracts.md); tests/integration/test_gateway.py runs calls on those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from threading import Event
from typing import Any, Literal

from harness.region.instances import InstanceSpec
from harness.region.volumes import VolumeBusy

Power = Literal["on", "stopping", "off", "gone"]


@dataclass(kw_only=True)
class FakeInstances:
    """`gate` is awaited by every change of power: a test holds a machine in a transition with it."""

    gate: Event = field(default_factory=Event)
    powers: dict[str, Power] = field(default_factory=dict)
    specs: dict[str, InstanceSpec] = field(default_factory=dict)
    done: list[tuple[str, str]] = field(default_factory=list)
    paused: set[str] = field(default_factory=set)
    fail_launch: bool = False
    fail_start: bool = False

    def __post_init__(self) -> None:
        self.gate.set()

    def launch(self, spec: InstanceSpec) -> None:
        self._wait()
        if self.fail_launch:
            raise RuntimeError("no such image")
        self.specs[spec.instance_id] = spec
        self._now(spec.instance_id, "launch", "on")

    def power(self, instance_id: str) -> Power:
        return self.powers.get(instance_id, "gone")

    def pid(self, instance_id: str) -> int | None:
        return 4242 if self.power(instance_id) == "on" else None

    def power_off(self, instance_id: str) -> int:
        self._wait()
        return self._now(instance_id, "power_off", "off")

    def shut_down(self, instance_id: str, *, timeout_s: float) -> None:
        self._wait()
        self._now(instance_id, "shut_down", "off")

    def hurry(self, instance_id: str) -> None:
        self.done.append(("hurry", instance_id))

    def frozen(self, instance_id: str) -> bool:
        return instance_id in self.paused

    def start(self, instance_id: str) -> None:
        self._wait()
        if self.fail_start:
            raise RuntimeError("no room on this host")
        self._now(instance_id, "start", "on")

    def terminate(self, instance_id: str) -> None:
        self._wait()
        self._now(instance_id, "terminate", "gone")

    def list(self) -> list[str]:
        return [i for i, power in self.powers.items() if power != "gone"]

    def _wait(self) -> None:
        assert self.gate.wait(10)

    def _now(self, instance_id: str, what: str, power: Power) -> int:
        self.powers[instance_id] = power
        self.done.append((what, instance_id))
        return 0


@dataclass(frozen=True, kw_only=True)
class FakeAttachment:
    instance_id: str
    device: str
    loop: str = "/dev/loop0"


@dataclass(kw_only=True)
class FakeVolumes:
    """A volume in `mounted` is busy; `stalled_s` is how long its oldest request waits."""

    places: dict[str, dict[str, FakeAttachment]] = field(default_factory=dict)
    sizes_gib: dict[str, int] = field(default_factory=dict)
    shared: set[str] = field(default_factory=set)
    mounted: set[str] = field(default_factory=set)
    stalled_s: dict[str, float] = field(default_factory=dict)
    fail_attach: bool = False
    fail_detach: bool = False
    fail_grow: bool = False

    def create(self, volume_id: str, *, size_gib: int, shared: bool = False) -> None:
        self.places[volume_id], self.sizes_gib[volume_id] = {}, size_gib
        if shared:
            self.shared.add(volume_id)

    def attach(self, volume_id: str, *, instance_id: str, guest_pid: int, device: str) -> str:
        if self.fail_attach:
            raise RuntimeError("no loop device left")
        assert volume_id in self.shared or not self.places[volume_id]
        self.places[volume_id][instance_id] = FakeAttachment(instance_id=instance_id, device=device)
        return "/dev/nvme1n1"

    def detach(self, volume_id: str, *, force: bool = False, instance_id: str | None = None) -> None:
        if self.fail_detach:
            raise RuntimeError("losetup did not end")
        if volume_id in self.mounted and not force:
            raise VolumeBusy(volume_id)
        self.places[volume_id].pop(instance_id or next(iter(self.places[volume_id]), ""), None)

    def attachment(self, volume_id: str, *, instance_id: str | None = None) -> FakeAttachment | None:
        places = self.places.get(volume_id, {})
        return places.get(instance_id) if instance_id else next(iter(places.values()), None)

    def attachments(self, volume_id: str) -> list[FakeAttachment]:
        return list(self.places[volume_id].values())

    def grow(self, volume_id: str, *, size_gib: int) -> None:
        if self.fail_grow:
            raise RuntimeError("the host is full")
        self.sizes_gib[volume_id] = size_gib

    def status(self, volume_id: str) -> dict[str, Any]:
        return {"stalled_s": self.stalled_s.get(volume_id, 0.0)}

    def list(self) -> list[str]:
        return sorted(self.places)

    def delete(self, volume_id: str) -> None:
        del self.places[volume_id]


@dataclass(kw_only=True)
class FakeAddresses:
    known: dict[IPv4Address, IPv4Address] = field(default_factory=dict)
    owners: dict[IPv4Address, str] = field(default_factory=dict)
    overlays: dict[IPv4Address, IPv4Address] = field(default_factory=dict)

    def map(self, public: IPv4Address, private: IPv4Address) -> None:
        self.change({public: private})

    def unmap(self, public: IPv4Address) -> None:
        self.change({public: None})

    def change(self, changes: Mapping[IPv4Address, IPv4Address | None]) -> None:
        takers = set(changes.values())
        kept = {p: q for p, q in self.known.items() if p not in changes and q not in takers}
        self.known = kept | {p: q for p, q in changes.items() if q is not None}

    def own(self, owners: Mapping[IPv4Address, str], guests: Mapping[str, int]) -> None:
        self.owners = dict(owners)

    def route(self, overlays: Mapping[IPv4Address, IPv4Address]) -> None:
        self.overlays = dict(overlays)

    def table(self) -> dict[IPv4Address, IPv4Address]:
        return dict(self.known)

    def restore(self, wanted: dict[IPv4Address, IPv4Address]) -> None:
        self.known = dict(wanted)


@dataclass(kw_only=True)
class FakeFilters:
    """`guests` are the rules of each instance, `loads` how often they were handed over; `acl` the router's chains."""

    guests: dict[str, str] = field(default_factory=dict)
    loads: int = 0
    acl: str = ""

    def guard(self, wanted: Mapping[str, str], guests: Mapping[str, int]) -> None:
        self.guests = dict(wanted)
        self.loads += 1

    def bound(self, rules: str) -> None:
        self.acl = rules


@dataclass(kw_only=True)
class FakeJournal:
    rows: list[dict[str, Any]] = field(default_factory=list)

    def record(self, event: str, **facts: Any) -> int:
        self.rows.append({"event": event, **facts})
        return 0
