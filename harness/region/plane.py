"""What every EC2 action works with: the gateway's memory, the books, the data plane, and threads for what takes time.

A call is decided and written down under `state.lock` and answered at once, as EC2 does; what the data plane needs
longer for runs in a worker. Workers that touch one instance take turns (`machine_lock`).
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import Any

from harness.region.addresses import Addresses
from harness.region.books import Books
from harness.region.calls import AwsError, Call
from harness.region.files import write_json
from harness.region.instances import Instances
from harness.region.journal import Journal
from harness.region.packet_filter import PacketFilter
from harness.region.semantics.addresses import Moves
from harness.region.semantics.instances import InstanceState, check_instance_id, instance_state
from harness.region.state import Instance, State, Tables
from harness.region.timing import Delays
from harness.region.volumes import Volumes
from harness.topology import Topology

LOG = logging.getLogger("pbx-chaos.gateway")
WORKERS = 32
RETRY_S = 0.1
"""How often a detach that waits for an unmount looks again."""


Action = Callable[["Plane", Call], bytes]
"""One API action: a body for the answer, or an AwsError. Each `ec2_*` module lists its own in ACTIONS."""


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
    moves: Moves = field(default_factory=Moves)
    closing: Event = field(default_factory=Event)
    _workers: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(WORKERS, "plane"))
    _machine_locks: defaultdict[str, Lock] = field(default_factory=lambda: defaultdict(Lock))
    _locks_lock: Lock = field(default_factory=Lock)

    def background(self, work: Callable[..., None], *arguments: Any) -> None:
        """Run `work` in a worker; a failure is journalled, never swallowed."""

        def guarded() -> None:
            try:
                work(*arguments)
            except Exception as error:
                LOG.exception("%s%r failed", work.__name__, arguments[1:])
                self.journal.record("operation_failed", operation=work.__name__, error=str(error))

        self._workers.submit(guarded)

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
        return self.state.as_of(self.delays.draw("consistency"))

    def machine_lock(self, instance_id: str) -> Lock:
        """Held by whoever switches, attaches to or detaches from this instance."""
        with self._locks_lock:
            return self._machine_locks[instance_id]

    def close(self) -> None:
        """Ends the waiting workers; those in the middle of something finish it."""
        self.closing.set()
        self._workers.shutdown(wait=True)

    def state_of(self, instance: Instance) -> InstanceState:
        """What EC2 says of an instance now."""
        if instance.terminated:
            return "terminated"
        if instance.transition is not None:
            return instance_state("on", instance.transition)
        return instance_state(self.instances.power(instance.instance_id), None)

    def instance(self, instance_id: str) -> Instance:
        """The record, or EC2's error."""
        check_instance_id(instance_id, self.state.instances)
        return self.state.instances[instance_id]

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
