"""What the gateway knows and must not forget: instances, volumes and addresses, in one JSON file that survives it.

It holds the instances' secrets and is readable by root only.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from threading import RLock
from typing import Any

from harness.region.files import write_json
from harness.region.semantics.instances import StateReason, Transition
from harness.region.semantics.network_acls import Entry
from harness.region.semantics.volume_changes import Modification, Shape
from harness.region.semantics.volumes import Attachment
from harness.topology import ZONE

STATE_FILE = "region.json"
LAUNCH_TIME = "%Y-%m-%dT%H:%M:%S.000Z"
"""How `Instance.launched` is written (strftime), UTC."""

MEMORY_S = 60.0
"""How long past tables are kept for Describe calls that lag; longer than any timing profile's bound."""


@dataclass(frozen=True, kw_only=True)
class Instance:
    """An instance of the region. `how` says how a transition is done: shut_down or power_off.

    `reason_code`, `reason` and `transition_reason` say why it is in its state. Times are seconds since the epoch:
    `checks_ok_s` when its status checks have passed, `host_back_s` until when its host is dead (it recovers then),
    `terminated_s` since when it is terminated.

    `wants_public` is AssociatePublicIpAddress: it gets a public address of its own, `own_public`, while it runs and no
    Elastic IP leads to its primary private address.

    `client_token` and `token_digest` are of the call that made it (idempotency.py), here and of a volume: they are
    written down together with what they made.
    """

    instance_id: str
    name: str
    image: str
    private_ip: str
    interface_id: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    user_data: str = ""
    transition: Transition | None = None
    how: str = ""
    terminated: bool = False
    reason: str = ""
    reason_code: str = ""
    transition_reason: str = ""
    instance_type: str = "m1.small"
    profile: str = ""
    stop_protected: bool = False
    termination_protected: bool = False
    launched: str = ""
    checks_ok_s: float = 0.0
    host_back_s: float = 0.0
    terminated_s: float = 0.0
    zone: str = ZONE
    client_token: str = ""
    token_digest: str = ""

    @property
    def state_reason(self) -> StateReason | None:
        return StateReason(code=self.reason_code, message=self.reason) if self.reason_code else None

    def because(self, reason: StateReason | None, transition_reason: str = "") -> Instance:
        """With another reason for its state, or none."""
        code, message = (reason.code, reason.message) if reason is not None else ("", "")
        return replace(self, reason_code=code, reason=message, transition_reason=transition_reason)

    secondary_ips: tuple[str, ...] = ()
    group_ids: tuple[str, ...] = ()
    wants_public: bool = False
    own_public: str | None = None
    source_dest_check: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "secondary_ips", tuple(self.secondary_ips))  # JSON knows lists only
        object.__setattr__(self, "group_ids", tuple(self.group_ids))

    @property
    def private_ips(self) -> tuple[str, ...]:
        """All private addresses of its interface, the primary one first."""
        return (self.private_ip, *self.secondary_ips)


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A volume with a data plane. Root volumes exist in the books only.

    `modified_s` are the times of its latest modifications, seconds since the epoch.
    """

    volume_id: str
    size_gib: int
    zone: str
    volume_type: str = "gp2"
    iops: int | None = None
    throughput: int | None = None
    multi_attach: bool = False
    creating: bool = False
    deleting: bool = False
    attachments: tuple[Attachment, ...] = ()
    modification: Modification | None = None
    modified_s: tuple[float, ...] = ()
    client_token: str = ""
    token_digest: str = ""

    @property
    def attachment(self) -> Attachment | None:
        """The place of a volume that can have only one; the first of several."""
        return self.attachments[0] if self.attachments else None

    @property
    def shape(self) -> Shape:
        return Shape(size_gib=self.size_gib, volume_type=self.volume_type, iops=self.iops, throughput=self.throughput)

    def place_at(self, instance_id: str) -> Attachment | None:
        """Its attachment to this instance."""
        return next((place for place in self.attachments if place.instance_id == instance_id), None)

    def placed(self, place: Attachment) -> Volume:
        """With `place`, instead of the one that it had at the same instance."""
        others = self.without(place.instance_id).attachments
        return replace(self, attachments=(*others, place))

    def without(self, instance_id: str) -> Volume:
        """No longer attached to this instance."""
        return replace(self, attachments=tuple(p for p in self.attachments if p.instance_id != instance_id))


@dataclass(frozen=True, kw_only=True)
class Address:
    """An Elastic IP and who has it: the instance, and the private address of it that the Elastic IP leads to."""

    allocation_id: str
    public_ip: str
    association_id: str | None = None
    instance_id: str | None = None
    private_ip: str | None = None


@dataclass(frozen=True, kw_only=True)
class Tables:
    """The three tables, and the entries of network ACLs, at one moment; whoever holds them can read them without a
    lock."""

    instances: Mapping[str, Instance]
    volumes: Mapping[str, Volume]
    addresses: Mapping[str, Address]
    acls: Mapping[str, tuple[Entry, ...]] = field(default_factory=dict)

    def having(self, record: Instance | Volume | Address) -> Tables:
        """With this record, new or in the place of the one before it."""
        if isinstance(record, Instance):
            return replace(self, instances={**self.instances, record.instance_id: record})
        if isinstance(record, Volume):
            return replace(self, volumes={**self.volumes, record.volume_id: record})
        return replace(self, addresses={**self.addresses, record.allocation_id: record})

    def without(self, record: Volume | Address) -> Tables:
        if isinstance(record, Volume):
            return replace(self, volumes={k: v for k, v in self.volumes.items() if k != record.volume_id})
        return replace(self, addresses={k: a for k, a in self.addresses.items() if k != record.allocation_id})

    def elastic_at(self, private_ip: str) -> Address | None:
        """The Elastic IP that leads to this private address."""
        return next((a for a in self.addresses.values() if a.private_ip == private_ip), None)

    def public_at(self, instance: Instance, private_ip: str) -> str | None:
        """The public address of one of the instance's private addresses: an Elastic IP, or its own."""
        elastic = self.elastic_at(private_ip)
        if elastic is not None:
            return elastic.public_ip
        return instance.own_public if private_ip == instance.private_ip else None


class State:
    """The three tables, and the entries of network ACLs. Hold `lock` over every read that leads to a change; each
    change is on disk when it returns, and one that the disk does not take (OSError) has not happened.

    A change makes new tables: whoever reads the old ones reads on without a lock.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.lock = RLock()
        self._path = folder / STATE_FILE
        self.clock = clock
        self._past: deque[tuple[float, Tables]] = deque()
        self._tables = Tables(instances={}, volumes={}, addresses={})
        if self._path.exists():
            self._load()

    @property
    def instances(self) -> Mapping[str, Instance]:
        return self._tables.instances

    @property
    def volumes(self) -> Mapping[str, Volume]:
        return self._tables.volumes

    @property
    def addresses(self) -> Mapping[str, Address]:
        return self._tables.addresses

    @property
    def acls(self) -> Mapping[str, tuple[Entry, ...]]:
        return self._tables.acls

    def now(self) -> Tables:
        """The tables as they are."""
        return self._tables

    def as_of(self, age_s: float) -> Tables:
        """The tables as they were `age_s` (up to MEMORY_S) seconds ago."""
        if age_s <= 0:
            return self._tables
        with self.lock:
            wanted = self.clock() - age_s
            return next((tables for until, tables in self._past if until > wanted), self._tables)

    def put(self, *records: Instance | Volume | Address) -> None:
        """Add or replace records, all of them or none."""
        with self.lock:
            tables = self._tables
            for record in records:
                tables = tables.having(record)
            self._become(tables)

    def drop(self, record: Volume | Address) -> None:
        """Forget a deleted volume or a released address."""
        with self.lock:
            self._become(self._tables.without(record))

    def put_acl(self, acl_id: str, entries: tuple[Entry, ...] | None) -> None:
        """The entries of a network ACL; None forgets a deleted one."""
        with self.lock:
            acls = {key: value for key, value in self.acls.items() if key != acl_id}
            if entries is not None:
                acls[acl_id] = entries
            self._become(replace(self._tables, acls=acls))

    def instance_with_key(self, access_key_id: str) -> Instance | None:
        """Without the lock, on purpose: the gateway's event loop must not wait for a call that holds it."""
        return next((i for i in self.instances.values() if i.access_key_id == access_key_id), None)

    def volumes_of(self, instance_id: str) -> list[Volume]:
        with self.lock:
            return [v for v in self.volumes.values() if v.place_at(instance_id)]

    def addresses_of(self, instance_id: str) -> list[Address]:
        """The Elastic IPs of an instance: at most one per private address."""
        with self.lock:
            return [a for a in self.addresses.values() if a.instance_id == instance_id]

    def _become(self, tables: Tables) -> None:
        self._save(tables)
        now = self.clock()
        self._past.append((now, self._tables))
        while self._past[0][0] < now - MEMORY_S:
            self._past.popleft()
        self._tables = tables

    def _save(self, tables: Tables) -> None:
        data = {
            "instances": [asdict(record) for record in tables.instances.values()],
            "volumes": [asdict(record) for record in tables.volumes.values()],
            "addresses": [asdict(record) for record in tables.addresses.values()],
            "acls": {acl_id: [asdict(entry) for entry in entries] for acl_id, entries in tables.acls.items()},
        }
        write_json(self._path, data)

    def _load(self) -> None:
        data = json.loads(self._path.read_text(encoding="utf-8"))
        self._tables = Tables(
            instances={row["instance_id"]: Instance(**row) for row in data["instances"]},
            addresses={row["allocation_id"]: Address(**row) for row in data["addresses"]},
            volumes={row["volume_id"]: _volume(row) for row in data["volumes"]},
            acls={acl_id: tuple(Entry(**row) for row in rows) for acl_id, rows in data.get("acls", {}).items()},
        )


def _volume(row: dict[str, Any]) -> Volume:
    """A volume as it was written down, also by a version that knew of one attachment only."""
    places = row.pop("attachments", None) or [place for place in (row.pop("attachment", None),) if place]
    change = row.pop("modification", None)
    if change is not None:
        original, target = Shape(**change.pop("original")), Shape(**change.pop("target"))
        change = Modification(original=original, target=target, **change)
    modified_s = tuple(row.pop("modified_s", ()))
    attachments = tuple(Attachment(**place) for place in places)
    return Volume(attachments=attachments, modification=change, modified_s=modified_s, **row)
