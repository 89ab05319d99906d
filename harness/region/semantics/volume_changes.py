"""Volumes that are changed while they are in use, and whether they are well: ModifyVolume, DescribeVolumeStatus."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.region.calls import AwsError

ModificationState = Literal["modifying", "optimizing", "completed", "failed"]

MOST_PER_DAY = 4
DAY_S = 24 * 3600.0
"""API reference, ModifyVolume: four modifications within a rolling 24 hours, one after the other. (Its older editions,
and the pages that quote them, have a pause of six hours after each.)"""

STALLED_AFTER_S = 60.0
"""How long a request waits before the volume counts as stalled. AWS: `impaired` within 120 s of driving I/O to a volume
whose I/O is paused, and VolumeStalledIOCheck after 60 s ("Pause I/O fault injection"); the moment is ours."""

LARGEST_GIB = {"standard": 1024, "gp3": 65536, "io2": 65536}
"""Volume types that are not 16384 GiB at most (API reference, CreateVolume)."""

IOPS_TYPES = ("gp3", "io1", "io2")
THROUGHPUT_TYPES = ("gp3",)
TYPES = ("standard", "gp2", "gp3", "io1", "io2", "st1", "sc1")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What can be modified of a volume. `iops` and `throughput` (MiB/s) are None where the books have no figure."""

    size_gib: int
    volume_type: str = "gp2"
    iops: int | None = None
    throughput: int | None = None


@dataclass(frozen=True, kw_only=True)
class Modification:
    """The latest modification of a volume; times are ISO 8601, UTC."""

    state: ModificationState
    original: Shape
    target: Shape
    started: str
    ended: str | None = None
    reason: str = ""

    @property
    def progress(self) -> int:
        """Percent. AWS counts up while `optimizing`; here it is all or nothing."""
        return 100 if self.state == "completed" else 0

    @property
    def going_on(self) -> bool:
        return self.state in ("modifying", "optimizing")


@dataclass(frozen=True, kw_only=True)
class Wish:
    """The parameters of a ModifyVolume call, as text; None where there is none."""

    size: str | None = None
    volume_type: str | None = None
    iops: str | None = None
    throughput: str | None = None


def check_size(size: str, volume_type: str) -> int:
    """GiB, or EC2's error. The smallest is 1 GiB whatever the type (ours: io1 and io2 begin at 4 GiB on AWS)."""
    largest = LARGEST_GIB.get(volume_type, 16384)
    if not re.fullmatch(r"[1-9][0-9]{0,5}", size) or int(size) > largest:
        raise AwsError(
            "InvalidParameterValue", f"Invalid value '{size}' for Size. {volume_type} volumes have 1 to {largest} GiB."
        )
    return int(size)


def decide_modify(
    volume_id: str,
    shape: Shape,
    wish: Wish,
    *,
    going_on: Modification | None,
    creating: bool,
    modified_s: Sequence[float],
    now_s: float,
) -> Shape:
    """ModifyVolume: the shape that the volume shall have. Sizes only grow.

    `modified_s` are the times (seconds since the epoch, like `now_s`) of the modifications before this one.
    """
    if creating:
        raise AwsError("IncorrectState", f"The volume '{volume_id}' is 'creating'.")
    if wish == Wish():
        raise AwsError("InvalidParameterValue", "At least one of size, type, iops or throughput must be given.")
    target = _target(volume_id, shape, wish)
    if going_on is not None and going_on.going_on:
        raise AwsError(
            "IncorrectModificationState",
            f"Cannot modify volume {volume_id}: its modification state is {going_on.state.upper()}",
        )
    if len(recent(modified_s, now_s)) >= MOST_PER_DAY:
        raise AwsError(
            "VolumeModificationRateExceeded",
            f"Volume {volume_id} has reached the limit of {MOST_PER_DAY} modifications within 24 hours.",
        )
    return target


def recent(modified_s: Sequence[float], now_s: float) -> tuple[float, ...]:
    """Those of the last 24 hours."""
    return tuple(time_s for time_s in modified_s if time_s > now_s - DAY_S)


VolumeHealth = Literal["ok", "impaired", "insufficient-data"]


@dataclass(frozen=True, kw_only=True)
class Status:
    """DescribeVolumeStatus: the status and its two checks (user guide, "Amazon EBS volume status checks")."""

    status: VolumeHealth
    io_enabled: Literal["passed", "failed", "insufficient-data"]
    io_performance: Literal["normal", "stalled", "not-applicable", "insufficient-data"]


def volume_status(stalled_s: float | None, *, volume_type: str) -> Status:
    """`stalled_s` is the age of the oldest request that waits, None when the volume's server does not say.

    Performance is checked for volumes with provisioned IOPS only (ours: what stalls is `impaired` whatever its type).
    """
    if stalled_s is None:
        return Status(status="insufficient-data", io_enabled="insufficient-data", io_performance="insufficient-data")
    if stalled_s >= STALLED_AFTER_S:
        return Status(status="impaired", io_enabled="passed", io_performance="stalled")
    performance: Literal["normal", "not-applicable"] = "normal" if volume_type in IOPS_TYPES else "not-applicable"
    return Status(status="ok", io_enabled="passed", io_performance=performance)


def _target(volume_id: str, shape: Shape, wish: Wish) -> Shape:
    volume_type = wish.volume_type or shape.volume_type
    if volume_type not in TYPES:
        raise AwsError("InvalidParameterValue", f"Invalid value '{volume_type}' for VolumeType.")
    size_gib = shape.size_gib if wish.size is None else check_size(wish.size, volume_type)
    if size_gib < shape.size_gib:
        raise AwsError("InvalidParameterValue", f"New size cannot be smaller than existing size: {volume_id}")
    iops = _figure("Iops", wish.iops, volume_type, IOPS_TYPES)
    throughput = _figure("Throughput", wish.throughput, volume_type, THROUGHPUT_TYPES)
    return Shape(
        size_gib=size_gib,
        volume_type=volume_type,
        iops=(iops or shape.iops) if volume_type in IOPS_TYPES else None,
        throughput=(throughput or shape.throughput) if volume_type in THROUGHPUT_TYPES else None,
    )


def _figure(name: str, value: str | None, volume_type: str, types: Sequence[str]) -> int | None:
    if value is None:
        return None
    if volume_type not in types:
        raise AwsError(
            "InvalidParameterCombination", f"The parameter {name} is not supported for {volume_type} volumes."
        )
    if not re.fullmatch(r"[1-9][0-9]{0,6}", value):
        raise AwsError("InvalidParameterValue", f"Invalid value '{value}' for {name}.")
    return int(value)
