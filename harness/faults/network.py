"""Injuries of a node's network, in its own packet filter: cut off from some, one way only, lossy, a black hole for
large packets.

`others` says from whom: `peers` (the other nodes), `clients` (whoever comes from outside the subnet), `api` (the EC2
API), or one node by name. Security groups could cut as well, but not what they let in once, nor one direction of it.
What is cut in the guest is cut for SSM too: on EC2 such a fault needs to end by itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from harness.clock import WallOffset
from harness.faults.on_node import OnNode
from harness.faults.targets import ROLES, resolve
from harness.faults.types import Landed

if TYPE_CHECKING:
    from harness.cell.cell import Cell

Direction = Literal["both", "in", "out"]

GROUPS = ("peers", "clients", "api")
LAND_TIMEOUT_S = 5
HERE_ONLY = "127.0.0.0/8, 169.254.0.0/16"
"""Never part of an injury: loopback, and the instance metadata (a fault of its own)."""

CUT = 'nft -f - && nft list table inet "$1" >/dev/null && date +%s%N'
MEND = 'nft delete table inet "$1" 2>/dev/null; ! nft list table inet "$1" 2>/dev/null'


@dataclass(frozen=True, kw_only=True)
class Cut(OnNode):
    """Packets between the node and `others` are lost: all, a share of them, or those above a size in bytes.

    `in`: what comes to the node, `out`: what it sends.
    """

    observable: ClassVar[str] = "a table of the guest's packet filter with its own name, which counts what it drops"
    healed_by: ClassVar[str] = "the table is removed; a node that was fenced is started"
    on_ec2: ClassVar[str] = "by SSM, but one that cuts SSM off must end by itself: not yet"

    others: str = "peers"
    direction: Direction = "both"
    loss_ratio: float = 1.0
    above_bytes: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.loss_ratio <= 1:
            raise ValueError(f"loss_ratio is above 0 and at most 1, not {self.loss_ratio}")
        if self.direction not in ("both", "in", "out"):
            raise ValueError(f"direction is both, in or out, not {self.direction!r}")
        if self.above_bytes is not None and not 0 < self.above_bytes < 65536:
            raise ValueError(f"above_bytes is the size of a packet (1-65535), not {self.above_bytes}")

    @property
    def name(self) -> str:
        what = "cut" if self.loss_ratio == 1 else f"{self.loss_ratio:.0%} loss"
        size = f" of packets above {self.above_bytes} bytes" if self.above_bytes else ""
        way = "" if self.direction == "both" else f", {self.direction} only"
        return f"{what}{size} between {self.target} and {self.others}{way}"

    def resolved(self, cell: Cell) -> Self:
        """Both ends become names: `others` may be a role, too."""
        found = super().resolved(cell)
        if self.others not in ROLES:
            return found
        state = cell.cluster()
        names = [node.name for node in cell.nodes]
        return replace(found, others=resolve(self.others, nodes=names, active=state.active, dc=state.dc))

    def unmet(self, cell: Cell) -> str | None:
        if self.others in (*GROUPS, *ROLES, *(node.name for node in cell.nodes)):
            return None
        return f"{self.others!r} is nobody to cut a node off from; there are: {', '.join(GROUPS)}, and the nodes"

    @contextmanager
    def inject(self, cell: Cell) -> Iterator[Landed]:
        offset = WallOffset.measure()
        try:
            argv = ["sh", "-c", CUT, "sh", self.table]
            done = self.node(cell).run(argv, timeout_s=LAND_TIMEOUT_S, stdin=self.rules(cell))
            at_ns = int(done.stdout) - offset.offset_ns
            yield Landed(target=self.target, at_ns=at_ns, observed_by=f"guest: filter {self.table} in force")
        finally:
            self.heal(cell)

    def heal(self, cell: Cell) -> None:
        self.heal_in_guest(cell, ["sh", "-c", MEND, "sh", self.table])

    @property
    def table(self) -> str:
        """Its name follows from what the fault says, so that any process can remove it."""
        fields = json.dumps(asdict(self), sort_keys=True)
        return f"cut_{hashlib.sha256(fields.encode()).hexdigest()[:12]}"

    def rules(self, cell: Cell) -> str:
        """The packet filter, before everything else that looks at packets (and outside connection tracking)."""
        lost = "" if self.loss_ratio == 1 else f"numgen random mod 10000 < {round(self.loss_ratio * 10000)} "
        size = f"meta length > {self.above_bytes} " if self.above_bytes else ""
        chains = []
        for way, hook, end in (("in", "prerouting", "saddr"), ("out", "output", "daddr")):
            if self.direction in ("both", way):
                rule = f"ip {end} {self._addresses(cell)} {size}{lost}counter drop"
                chains.append(f"chain {way}ward {{ type filter hook {hook} priority -500; {rule}; }}")
        return "\n".join([f"table inet {self.table} {{", *chains, "}\n"])

    def _addresses(self, cell: Cell) -> str:
        if self.others == "clients":
            return f"!= {{ {cell.topology.vpc_subnet}, {cell.topology.public_endpoint_address}, {HERE_ONLY} }}"
        if self.others == "api":
            return f"{{ {cell.topology.endpoint_address}, {cell.topology.public_endpoint_address} }}"
        peers = [node for node in cell.nodes if node.name != self.target and self.others in ("peers", node.name)]
        return f"{{ {', '.join(node.private_ip for node in peers)} }}"


def partition(target: str, others: str = "peers", *, direction: Direction = "both") -> Cut:
    """Cut a node off from its `peers`, from `clients`, from the `api`, or from one other node; both ways or one."""
    return Cut(target=target, others=others, direction=direction)


def loss(target: str, ratio: float, others: str = "peers", *, direction: Direction = "both") -> Cut:
    """A share of the packets between a node and others is lost."""
    return Cut(target=target, others=others, direction=direction, loss_ratio=ratio)


def black_hole(target: str, above_bytes: int, others: str = "peers") -> Cut:
    """Packets above a size vanish without a word, as behind a path with a smaller MTU that sends no ICMP."""
    return Cut(target=target, others=others, above_bytes=above_bytes)
