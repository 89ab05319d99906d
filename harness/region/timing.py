"""How long AWS takes: a delay per operation, each with where it comes from.

A *timing profile* is a file (fixtures/timing/, or the user's own): `instant` adds nothing to what the operation takes
on this host, `aws` adds delays drawn from distributions. A delay without 30 samples was measured by nobody, whatever
its source says: it is *assumed*, and so is the 0 s of an operation that a profile leaves out. A profile with an assumed
delay that matters says so in every headline. `pbx-chaos timing` makes a profile from the samples of a real account.
Draws are seeded: the same seed and the same order of calls give the same delays.
"""

from __future__ import annotations

import json
import math
import statistics
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from threading import Lock
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.errors import UsageError
from harness.quantiles import nearest_rank
from harness.topology import Topology

ASSUMED = "assumed"
MIN_SAMPLES = 30
"""With fewer real samples a distribution stays assumed."""

OPERATIONS: Mapping[str, str] = {
    "api": "answering any call",
    "status_checks": "DescribeInstanceStatus: from running until ok, from frozen until impaired",
    "launch": "RunInstances: pending until running",
    "start": "StartInstances: pending until running",
    "stop": "StopInstances: until stopped, after the guest has shut down",
    "power_off": "StopInstances with SkipOsShutdown: until stopped, after the power is gone",
    "reboot": "RebootInstances: from the guest's end until it boots again",
    "recover": "automatic recovery: from another host's being there until the instance boots on it",
    "terminate": "TerminateInstances: until terminated, after the power is gone",
    "attach": "AttachVolume: attaching until attached",
    "device": "AttachVolume: attached until the guest has the device",
    "detach": "DetachVolume: from the guest's letting go until available",
    "force_detach": "DetachVolume with Force: until available",
    "create": "CreateVolume: creating until available",
    "modify": "ModifyVolume: modifying until the new size can be used",
    "optimize": "ModifyVolume: optimizing until completed",
    "associate": "AssociateAddress: until answered",
    "address": "an address: from the answer until packets follow",
    "consistency": "how old what a Describe call says may be",
}
"""Every delay there is, and what it covers."""

FAILOVER = ("power_off", "detach", "attach", "device", "associate", "address")
"""What a failover waits for, one after the other."""

BESIDE = ("create", "optimize")
"""What no run waits for: the volume is made before it begins, and can be used while it is optimized."""

NAME = r"^[a-z0-9][a-z0-9.-]{0,31}$"
Seconds = Annotated[float, Field(ge=0, le=600, allow_inf_nan=False)]
Z95 = 1.6448536269514722
"""Standard normal quantile of 0.95."""


class Delay(BaseModel):
    """One distribution, in seconds: log-normal by its median and 95th percentile, or the samples themselves."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    median_s: Seconds = 0.0
    p95_s: Seconds | None = None
    max_s: Seconds = 600.0
    source: str = Field(min_length=1)
    samples_s: tuple[Seconds, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Delay:
        if self.p95_s is not None and self.p95_s < self.median_s:
            raise ValueError("p95_s is smaller than median_s")
        return self

    @property
    def assumed(self) -> bool:
        """Too few samples to be called measured, however the source is spelled."""
        return len(self.samples_s) < MIN_SAMPLES or self.source.strip().casefold() == ASSUMED

    @property
    def told(self) -> str:
        """Where it comes from, with the word "assumed" where that is due."""
        bare = self.source.strip().casefold() == ASSUMED
        return ASSUMED if bare else f"{ASSUMED} ({self.source})" if self.assumed else self.source

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.samples_s) if self.samples_s else self.median_s

    @property
    def p95(self) -> float:
        """95th percentile, seconds."""
        if self.samples_s:
            return nearest_rank(sorted(self.samples_s), 0.95)
        return self.median_s if self.p95_s is None else self.p95_s

    def draw(self, random: Random) -> float:
        """Seconds, never more than `max_s`."""
        if self.samples_s:
            return min(random.choice(self.samples_s), self.max_s)
        if self.median_s == 0 or self.p95_s is None:
            return min(self.median_s, self.max_s)
        sigma = math.log(self.p95_s / self.median_s) / Z95
        return min(self.median_s * math.exp(sigma * random.gauss(0, 1)), self.max_s)


class Timing(BaseModel):
    """A timing profile: delays by operation; an operation it does not name takes no longer than on this host."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=NAME)
    summary: str = ""
    delay: Mapping[str, Delay] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Timing:
        unknown = sorted(set(self.delay) - set(OPERATIONS))
        if unknown:
            raise ValueError(f"unknown delay {unknown[0]!r}; there are: {', '.join(OPERATIONS)}")
        return self

    @property
    def assumed(self) -> tuple[str, ...]:
        """Operations whose delay nobody measured, those of which it says nothing too; none where it adds nothing."""
        if not self.delay:
            return ()
        return tuple(name for name in sorted(OPERATIONS) if name not in self.delay or self.delay[name].assumed)

    @property
    def label(self) -> str:
        """As it stands in a headline: `instant`, `aws (assumed)`, or the name alone once what matters is measured."""
        return f"{self.name} ({ASSUMED})" if set(self.assumed) - set(BESIDE) else self.name

    @property
    def allowance_s(self) -> float:
        """Seconds that a limit is raised by under this profile: the 95th percentiles of what a failover waits for."""
        return sum(self.delay[name].p95 for name in FAILOVER if name in self.delay)


INSTANT = Timing(
    name="instant", summary="nothing is added to what an operation takes on this host; no evidence about AWS seconds"
)


def read_timing(path: Path) -> Timing:
    """The profile in a TOML file; `UsageError`, one line, for one that is not a profile."""
    try:
        return Timing.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UsageError(f"--timing {path}: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"--timing {path}: not TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"--timing {path}: {where}: {first['msg']}" if where else f"{path}: {first['msg']}") from error


@dataclass(kw_only=True)
class Delays:
    """Draws of one region, seeded; safe to use from several threads. `hold` sets one for a while (a fault does)."""

    timing: Timing = INSTANT
    seed: int = 0
    _held: dict[str, float] = field(default_factory=dict)
    _random: dict[str, Random] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def draw(self, operation: str) -> float:
        """Seconds that this operation shall take more than it does here."""
        with self._lock:
            if operation in self._held:
                return self._held[operation]
            delay = self.timing.delay.get(operation)
            if delay is None:
                return 0.0
            random = self._random.setdefault(operation, Random(f"{self.seed}/{operation}"))
            return delay.draw(random)

    def hold(self, delays_s: Mapping[str, float]) -> None:
        """From now on these operations take exactly so long; an empty mapping ends that."""
        unknown = sorted(set(delays_s) - set(OPERATIONS))
        if unknown:
            raise ValueError(f"unknown delay {unknown[0]!r}; there are: {', '.join(OPERATIONS)}")
        with self._lock:
            self._held = dict(delays_s)

    def held(self) -> dict[str, float]:
        with self._lock:
            return dict(self._held)


def timing_file(topology: Topology) -> Path:
    """Where the timing of a region that is up is written down, for the gateway and those that start it again."""
    return topology.state_dir / "timing.json"


def read_delays(path: Path) -> Delays:
    """The delays of the region whose `timing_file` this is; none when it has no such file."""
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Delays()
    return Delays(timing=Timing.model_validate(row["timing"]), seed=row["seed"])
