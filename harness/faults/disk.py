"""Injuries of the volume: I/O that fails, stalls, is slow, or lies about having reached the disk.

Played by the volume's own server, below the guest's kernel, which is why they look to the guest as a sick EBS volume
does. EC2 has only the pause ("Actions for AWS FIS": aws:ebs:pause-volume-io); the others run on the local region alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar

from harness.clock import now_ns
from harness.errors import InfrastructureError
from harness.faults.on_node import OnCell
from harness.faults.types import Landed
from harness.region.control import Control
from harness.region.disk import Switches

if TYPE_CHECKING:
    from harness.cell.cell import Cell


@dataclass(frozen=True, kw_only=True)
class SickVolume(OnCell):
    """The data volume behaves so while it is held, wherever it is attached (`Switches` has units and bounds)."""

    holds: ClassVar[str] = "the volume"
    observable: ClassVar[str] = "what the volume's server says it does"
    healed_by: ClassVar[str] = "its switches are off again"
    on_ec2: ClassVar[str] = "no: it can pause I/O (FIS), no more"

    what: str
    read_error_ratio: float = 0.0
    write_error_ratio: float = 0.0
    flush_error_ratio: float = 0.0
    corrupt_read_ratio: float = 0.0
    hang: bool = False
    latency_ms: float = 0.0
    throughput_bytes_s: float = 0.0
    lying_flush: bool = False

    def __post_init__(self) -> None:
        self.switches  # noqa: B018 – what can't be is refused where it is written down

    @property
    def name(self) -> str:
        return f"volume: {self.what}"

    @property
    def switches(self) -> Switches:
        """As the volume's server takes it."""
        fields = asdict(self)
        del fields["what"]
        return Switches(**fields)

    @contextmanager
    def inject(self, cell: Cell) -> Iterator[Landed]:
        wanted = asdict(self.switches)
        try:
            told = _switch(cell, self.switches)
            if told["switches"] != wanted:
                raise InfrastructureError(f"{self.name}: the volume's server does {told['switches']}")
            yield Landed(target=cell.volume_id, at_ns=now_ns(), observed_by="volume server: switches in force")
        finally:
            self.heal(cell)

    def heal(self, cell: Cell) -> None:
        _switch(cell, Switches())


def _switch(cell: Cell, switches: Switches) -> dict[str, dict[str, object]]:
    what = {"volume_id": cell.volume_id, "switches": asdict(switches)}
    return dict(Control(cell.topology).set(disk=what)["disk"])


def volume_hangs() -> SickVolume:
    """No request is answered any more, none fails: the disk that hangs instead of dying."""
    return SickVolume(what="hangs", hang=True)


def volume_errors(*, read: float = 0.0, write: float = 0.0, flush: float = 0.0) -> SickVolume:
    """A share (0-1) of reads, writes or flushes fails with EIO."""
    shares = {"reads": read, "writes": write, "flushes": flush}
    words = ", ".join(f"{share:.0%} of {what}" for what, share in shares.items() if share)
    if not words:
        raise ValueError("say what fails: a share above 0 of read, write or flush")
    return SickVolume(what=f"EIO on {words}", read_error_ratio=read, write_error_ratio=write, flush_error_ratio=flush)


def volume_slow(*, latency_ms: float = 0.0, throughput_bytes_s: float = 0.0) -> SickVolume:
    """Each request takes so much longer, or all together move so many bytes a second at most."""
    if not latency_ms and not throughput_bytes_s:
        raise ValueError("say how slow: latency_ms or throughput_bytes_s above 0")
    words = [f"+{latency_ms:g} ms"] if latency_ms else []
    words += [f"{throughput_bytes_s:g} bytes/s"] if throughput_bytes_s else []
    return SickVolume(what=f"slow, {', '.join(words)}", latency_ms=latency_ms, throughput_bytes_s=throughput_bytes_s)


def volume_corrupts(ratio: float) -> SickVolume:
    """A share of reads returns something else than what was written, without an error."""
    return SickVolume(what=f"{ratio:.0%} of reads corrupted", corrupt_read_ratio=ratio)


def volume_lies() -> SickVolume:
    """Flushes are acknowledged and not carried out: a power cut then loses what was acknowledged."""
    return SickVolume(what="lying flushes", lying_flush=True)
