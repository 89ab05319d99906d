"""Clients that live through a fault beside the clocks: calls that are held, clients that stay registered, transactions
that are always under way, background load. Frozen data that knows how its process is called.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
class HeldCalls(Companion):
    """`count` calls of one kind of client, set up before the fault and held until their fate is known."""

    kind: str
    count: int

    def __post_init__(self) -> None:
        kind(self.kind)
        if not 1 <= self.count <= MAX_HELD:
            raise ValueError(f"held calls of {self.kind}: count is 1-{MAX_HELD}, not {self.count}")

    @property
    def name(self) -> str:
        return f"calls_{self.kind}"

    @property
    def watch_s(self) -> float:
        return kind(self.kind).watch_s

    @property
    def stop_s(self) -> float:
        return 60.0 if kind(self.kind).is_real else 30.0

    def unmet(self, profile: Any) -> str | None:
        own = kind(self.kind)
        return not_offered(profile, own.transport) or (programs.unmet() if own.is_real else None)

    def arguments(self, cell: CellLike) -> list[str]:
        own = kind(self.kind)
        argv = ["-m", own.module, "--to", f"{cell.public_ip}:{port_of(cell.profile, own.transport)}"]
        argv += ["--domain", cell.profile.sip.domain, "--kind", self.kind, "--count", str(self.count)]
        first = extensions.of_held_calls(cell.profile.extensions, self.kind)
        argv += ["--first", str(first), "--process", self.name, "--cell", cell.topology.cell]
        return [*argv, *(recording(cell.profile) if own.module == kind("ip_phone").module else [])]


@dataclass(frozen=True, kw_only=True)
class RegisteredClients(Companion):
    """`count` clients of one kind that stay registered: how many lose their way, and when are they back?"""

    kind: str
    count: int

    def __post_init__(self) -> None:
        kind(self.kind)
        if not 1 <= self.count <= MAX_CLIENTS:
            raise ValueError(f"registered clients of {self.kind}: count is 1-{MAX_CLIENTS}, not {self.count}")

    @property
    def name(self) -> str:
        return f"clients_{self.kind}"

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
        return not_offered(profile, kind(self.kind).transport)

    def arguments(self, cell: CellLike) -> list[str]:
        argv = ["-m", "harness.clients.population", "--to"]
        argv += [f"{cell.public_ip}:{port_of(cell.profile, kind(self.kind).transport)}"]
        argv += ["--domain", cell.profile.sip.domain, "--kind", self.kind, "--count", str(self.count)]
        first = extensions.of_clients(cell.profile.extensions, self.kind).start
        return [*argv, "--first", str(first), "--process", self.name]


@dataclass(frozen=True, kw_only=True)
class InFlight(Companion):
    """Transactions of one kind of client that are always under way: calls that ring, CANCEL, hold, REFER; `count` of
    each at a time."""

    kind: str
    count: int

    def __post_init__(self) -> None:
        if kind(self.kind).is_real:
            raise ValueError(f"transactions in flight are made by user agents of ours, not by {self.kind}")
        if not 1 <= self.count <= MAX_SETS:
            raise ValueError(f"transactions in flight of {self.kind}: count is 1-{MAX_SETS}, not {self.count}")

    @property
    def name(self) -> str:
        return f"in_flight_{self.kind}"

    @property
    def watch_s(self) -> float:
        return IN_FLIGHT_WATCH_S

    @property
    def stop_s(self) -> float:
        return 20.0

    def unmet(self, profile: Any) -> str | None:
        return not_offered(profile, kind(self.kind).transport)

    def arguments(self, cell: CellLike) -> list[str]:
        argv = ["-m", "harness.clients.in_flight", "--kind", self.kind, "--domain", cell.profile.sip.domain]
        argv += ["--count", str(self.count)]
        argv += ["--to", f"{cell.public_ip}:{port_of(cell.profile, kind(self.kind).transport)}"]
        first = extensions.of_in_flight(cell.profile.extensions, self.kind)
        return [*argv, "--first", str(first), "--process", self.name]


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
