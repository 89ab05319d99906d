"""What every EC2 action works with: the gateway's memory, the books, the data plane, and threads for what takes time.

A call is decided and written down under `state.lock` and answered at once, as EC2 does; what the data plane needs
longer for runs in a worker. Workers that touch one instance take turns (`machine_lock`), and so do those that touch one
volume (`volume_lock`).
"""

from __future__ import annotations

import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import Any

from harness.region import api_faults, commands, idempotency
from harness.region.addresses import Addresses
from harness.region.api_faults import ApiFaults
from harness.region.books import Books
from harness.region.calls import AwsError, Call
from harness.region.commands import Commands
from harness.region.files import write_json
from harness.region.guest import ContainerGuests, Guests
from harness.region.idempotency import Made, Tokens
from harness.region.instances import Instances
from harness.region.journal import Journal
from harness.region.packet_filter import PacketFilter
from harness.region.past import Past
from harness.region.semantics.addresses import Moves
from harness.region.semantics.instances import (
    TERMINATED_VISIBLE_S,
    InstanceState,
    check_instance_id,
    instance_state,
    seen_state,
)
from harness.region.state import Instance, State, Tables
from harness.region.timing import Delays
from harness.region.volumes import Volumes
from harness.region.workers import Workers
from harness.topology import Topology

LOG = logging.getLogger("pbx-chaos.gateway")
RETRY_S = 0.1
"""How often a detach that waits for an unmount looks again."""


Action = Callable[["Plane", Call], bytes]
"""One API action: a body for the answer, or an AwsError. Each `ec2_*` module lists its own in ACTIONS."""

Control = Callable[["Plane", Any], object]
"""One thing that the harness can set by POST /_region/control: it takes the JSON value of its key, and raises
ValueError, in words, for one that it can't. Modules list theirs in CONTROLS; what is set is told by SHOWN."""

Shown = Callable[["Plane"], Any]

Found = Callable[["Plane", Call, str], Made | None]
"""What the records hold of the client token of a call. Modules list theirs in MADE, by the action's name."""


@dataclass(kw_only=True)
class Plane:
    """The region behind the gateway. `shut_down_timeout_s` bounds the orderly shutdown of a guest (AWS: minutes).

    Without `filters` nothing is filtered.
    """

    topology: Topology
    state: State
    books: Books
    journal: Journal
    instances: Instances
    volumes: Volumes
    addresses: Addresses
    filters: PacketFilter | None = None
    shut_down_timeout_s: float = 10.0
    delays: Delays = field(default_factory=Delays)
    wall_s: Callable[[], float] = time.time
    """Seconds since the epoch, for promises about hours; a test moves it."""
    guests: Guests | None = None
    moves: Moves = field(default_factory=Moves)
    closing: Event = field(default_factory=Event)
    api_faults: ApiFaults = field(init=False)
    tokens: Tokens = field(init=False)
    commands: Commands = field(init=False)
    past_routes: Past = field(init=False)
    past_groups: Past = field(init=False)
    _workers: Workers = field(default_factory=lambda: Workers("plane"))
    _locks: defaultdict[str, Lock] = field(default_factory=lambda: defaultdict(Lock))
    _locks_lock: Lock = field(default_factory=Lock)
    _checked_s: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        folder = self.topology.state_dir
        guests = self.guests or ContainerGuests(topology=self.topology, machines=self.instances)
        self.api_faults = ApiFaults.read(folder / api_faults.FILE)
        self.tokens = Tokens.read(folder / idempotency.FILE)
        clock = self.state.clock
        self.past_routes = Past("DescribeRouteTables", "routeTableSet", "routeTableId", clock=clock)
        self.past_groups = Past("DescribeSecurityGroups", "securityGroupInfo", "groupId", clock=clock)
        self.commands = Commands(path=folder / commands.FILE, journal=self.journal, guests=guests)

    def background(self, work: Callable[..., None], *arguments: Any) -> None:
        """Run `work` in a worker; a failure is journalled, never swallowed."""

        def guarded() -> None:
            try:
                work(*arguments)
            except Exception as error:
                LOG.exception("%s%r failed", work.__name__, arguments[1:])
                self.journal.record("operation_failed", operation=work.__name__, error=str(error))

        self._workers.begin(guarded)

    def until_done(self, work: Callable[..., None], *arguments: Any) -> None:
        """Worker: run `work`, which can be done again, until it succeeds or the gateway ends. For what has been
        decided and answered and can't be taken back; its first failure is journalled."""
        told = False
        while True:
            try:
                return work(*arguments)
            except Exception as error:
                if not told:
                    LOG.exception("%s%r failed, and is tried again", work.__name__, arguments[1:])
                    self.journal.record("operation_failed", operation=work.__name__, error=str(error), again=True)
                told = True
                if self.closing.wait(RETRY_S):
                    return None

    def take(self, operation: str) -> None:
        """Worker, no lock held: let the time pass that AWS takes for it beyond what it takes here (timing.OPERATIONS).

        Returns early when the gateway ends: what is in the middle of something finishes it.
        """
        delay_s = self.delays.draw(operation)
        if delay_s > 0:
            self.closing.wait(delay_s)

    def seen(self) -> Tables:
        """The tables as a Describe call sees them: of now, or some moments old where the timing says so.

        AWS: "Amazon EC2 eventual consistency".
        """
        return self.state.as_of(self.age_s())

    def age_s(self) -> float:
        """How old what the next Describe call says may be; drawn once for each."""
        return self.delays.draw("consistency")

    def machine_lock(self, instance_id: str) -> Lock:
        """Held by whoever switches or attaches to this instance; never while time passes that only AWS takes."""
        with self._locks_lock:
            return self._locks[instance_id]

    def volume_lock(self, volume_id: str) -> Lock:
        """Held by whoever gives this volume to a machine or takes it away; after the machine's, if both are held."""
        return self.machine_lock(volume_id)

    def close(self) -> None:
        """Ends the waiting workers; those in the middle of something finish it."""
        self.closing.set()
        self.commands.close()
        self._workers.close()

    def state_of(self, instance: Instance) -> InstanceState:
        """What EC2 says of an instance now, or of a record as a Describe call saw it some moments ago."""
        if instance.terminated:
            return "terminated"
        if instance.transition is not None:
            return instance_state("on", instance.transition)
        now = self.state.instances.get(instance.instance_id, instance).transition
        return seen_state(self.instances.power(instance.instance_id), seen=None, now=now)

    def instance(self, instance_id: str) -> Instance:
        """The record, or EC2's error."""
        check_instance_id(instance_id, self.visible(self.state.instances))
        return self.state.instances[instance_id]

    def visible(self, instances: Mapping[str, Instance]) -> dict[str, Instance]:
        """Without those that have been terminated for so long that EC2 has forgotten them."""
        since_s = self.wall_s() - TERMINATED_VISIBLE_S
        return {i: record for i, record in instances.items() if not record.terminated or record.terminated_s > since_s}

    def noticed(self, instance_id: str, now_s: float, *, failing: bool) -> bool:
        """Whether a status check notices that the machine fails: it is asked when somebody asks, and takes time."""
        if not failing:
            self._checked_s.pop(instance_id, None)
            return False
        noticed_s = self._checked_s.setdefault(instance_id, now_s + self.delays.draw("status_checks"))
        return now_s >= noticed_s

    def refresh_metadata(self, instance_id: str) -> None:
        """Put what moves (its addresses, the interface's id) into the file that feeds the metadata service."""
        path = self.topology.state_dir / "metadata" / f"{instance_id}.json"
        with self.state.lock:  # one after the other: what is written last is what is true last
            if not path.exists():
                return
            record, tables = self.state.instances[instance_id], self.state.now()
            publics = {private: tables.public_at(record, private) for private in record.private_ips}
            facts = json.loads(path.read_text(encoding="utf-8"))
            facts["public_ip"] = publics[record.private_ip]
            facts["private_ips"] = list(record.private_ips)
            facts["associations"] = {public: private for private, public in publics.items() if public}
            facts["interface_id"] = record.interface_id
            write_json(path, facts)


def refuse_dry_run(call: Call) -> None:
    """EC2 answers a dry run that would have succeeded with this error."""
    if call.flag("DryRun"):
        raise AwsError("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412)
