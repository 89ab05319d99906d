"""Clients that live through a fault beside the clocks: calls that are held, clients that stay registered, transactions
that are always under way, background load. Frozen data that knows how its process is called.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from harness.clients import extensions, programs
from harness.clients.extensions import MAX_HELD, MAX_SETS
from harness.clients.kinds import kind
from harness.clients.offers import CellLike, not_offered, port_of, recording

MAX_CLIENTS = 10_000
"""Registered clients of one kind at most, in one process."""

MAX_CPS = 5000
"""Background calls a second at most."""

IN_FLIGHT_WATCH_S = 34.0
"""A request that was sent into an outage may wait for its timer, 64*T1 = 32 s (RFC 3261 17.1.2.2)."""


class Companion:
    """What they have in common: no clock. `returns`: whether they are well again once the system is; many a call is
    never."""

    @property
    def timing(self) -> None:
        return None

    @property
    def returns(self) -> bool:
        return False

    @property
    def watch_s(self) -> float:
        return 0.0


@dataclass(frozen=True, kw_only=True)
class OfOneKind(Companion):
    """`count` of something that one kind of client does; the name says what of which kind."""

    prefix: ClassVar[str]
    what: ClassVar[str]
    most: ClassVar[int]

    kind: str
    count: int

    def __post_init__(self) -> None:
        kind(self.kind)
        if not 1 <= self.count <= self.most:
            raise ValueError(f"{self.what} of {self.kind}: count is 1-{self.most}, not {self.count}")

    @property
    def name(self) -> str:
        return f"{self.prefix}_{self.kind}"

    def unmet(self, profile: Any) -> str | None:
        return not_offered(profile, kind(self.kind).transport)

    def _argv(self, cell: CellLike, module: str, *, first: int) -> list[str]:
        to = f"{cell.public_ip}:{port_of(cell.profile, kind(self.kind).transport)}"
        argv = ["-m", module, "--to", to, "--domain", cell.profile.sip.domain, "--kind", self.kind]
        return [*argv, "--count", str(self.count), "--first", str(first), "--process", self.name]


@dataclass(frozen=True, kw_only=True)
class HeldCalls(OfOneKind):
    """`count` calls of one kind of client, set up before the fault and held until their fate is known."""

    prefix: ClassVar[str] = "calls"
    what: ClassVar[str] = "held calls"
    most: ClassVar[int] = MAX_HELD

    @property
    def watch_s(self) -> float:
        return kind(self.kind).watch_s

    @property
    def stop_s(self) -> float:
        return 60.0 if kind(self.kind).is_real else 30.0

    def unmet(self, profile: Any) -> str | None:
        return super().unmet(profile) or (programs.unmet() if kind(self.kind).is_real else None)

    def arguments(self, cell: CellLike) -> list[str]:
        own = kind(self.kind)
        argv = self._argv(cell, own.module, first=extensions.of_held_calls(cell.profile.extensions, self.kind))
        argv += ["--cell", cell.topology.cell]
        return [*argv, *(recording(cell.profile) if own.module == kind("ip_phone").module else [])]


@dataclass(frozen=True, kw_only=True)
class RegisteredClients(OfOneKind):
    """`count` clients of one kind that stay registered: how many lose their way, and when are they back?"""

    prefix: ClassVar[str] = "clients"
    what: ClassVar[str] = "registered clients"
    most: ClassVar[int] = MAX_CLIENTS

    @property
    def returns(self) -> bool:
        return True

    @property
    def stop_s(self) -> float:
        return 15.0

    def unmet(self, profile: Any) -> str | None:
        room = len(extensions.of_clients(profile.extensions, self.kind))
        if self.count > room:
            return f"PBX {profile.name} has extensions for {room} registered clients of a kind"
        return super().unmet(profile)

    def arguments(self, cell: CellLike) -> list[str]:
        first = extensions.of_clients(cell.profile.extensions, self.kind).start
        return self._argv(cell, "harness.clients.population", first=first)


@dataclass(frozen=True, kw_only=True)
class InFlight(OfOneKind):
    """Transactions of one kind of client that are always under way: calls that ring, CANCEL, hold, REFER; `count` of
    each at a time."""

    prefix: ClassVar[str] = "in_flight"
    what: ClassVar[str] = "transactions in flight"
    most: ClassVar[int] = MAX_SETS

    def __post_init__(self) -> None:
        if kind(self.kind).is_real:
            raise ValueError(f"transactions in flight are made by user agents of ours, not by {self.kind}")
        super().__post_init__()

    @property
    def watch_s(self) -> float:
        return IN_FLIGHT_WATCH_S

    @property
    def stop_s(self) -> float:
        return 20.0

    def arguments(self, cell: CellLike) -> list[str]:
        first = extensions.of_in_flight(cell.profile.extensions, self.kind)
        return self._argv(cell, "harness.clients.in_flight", first=first)


@dataclass(frozen=True, kw_only=True)
class BackgroundCalls(Companion):
    """SIPp sets up `rate_cps` calls a second on UDP, each held for `hold_s`: load, and no judge of anything."""

    rate_cps: float
    hold_s: float
    audio: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.rate_cps <= MAX_CPS:
            raise ValueError(f"background calls: rate_cps is above 0 and at most {MAX_CPS}, not {self.rate_cps}")
        if not 0 < self.hold_s <= 3600:
            raise ValueError(f"background calls: hold_s is above 0 and at most 3600 s, not {self.hold_s}")

    @property
    def name(self) -> str:
        return "load"

    @property
    def stop_s(self) -> float:
        return 30.0

    def unmet(self, profile: Any) -> str | None:
        return not_offered(profile, "udp") or programs.unmet()

    def arguments(self, cell: CellLike) -> list[str]:
        callers, callee = extensions.of_load(cell.profile.extensions)
        argv = ["-m", "harness.clients.load", "--to", f"{cell.public_ip}:{port_of(cell.profile, 'udp')}"]
        argv += ["--domain", cell.profile.sip.domain]
        argv += ["--callers", f"{callers[0]}-{callers[-1]}", "--callee", str(callee)]
        argv += ["--rate-cps", f"{self.rate_cps:g}", "--hold-s", f"{self.hold_s:g}", "--process", self.name]
        return [*argv, *(["--audio"] if self.audio else [])]


@dataclass(frozen=True, kw_only=True)
class PromptHeard(Companion):
    """Somebody calls the extension that plays a prompt, over and over: is it there, and still what it was?"""

    @property
    def name(self) -> str:
        return "prompt"

    @property
    def returns(self) -> bool:
        return True

    @property
    def stop_s(self) -> float:
        return 15.0

    def unmet(self, profile: Any) -> str | None:
        prompts = getattr(getattr(profile, "data", None), "prompts", None)
        if prompts is None or prompts.extension is None:
            return f"PBX {profile.name} declares no prompt extension"
        if not prompts.tones_hz:
            return f"PBX {profile.name} does not declare by which tones its prompt is recognised"
        return not_offered(profile, "udp")

    def arguments(self, cell: CellLike) -> list[str]:
        prompts = cell.profile.data.prompts
        argv = ["-m", "harness.clients.prompt", "--to", f"{cell.public_ip}:{port_of(cell.profile, 'udp')}"]
        argv += ["--domain", cell.profile.sip.domain, "--first", str(extensions.of_prompt(cell.profile.extensions))]
        argv += ["--extension", str(prompts.extension), "--tone-hz", *map(str, prompts.tones_hz)]
        return [*argv, "--process", self.name]
