"""What a scenario can ask to be watched: reachability clocks, and clients that live through the fault.

Each spec is frozen data that knows how its process is called; harness/clients/processes.py starts it. A new family is a
factory here and a module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from harness.clients import extensions, programs
from harness.clients.extensions import MAX_HELD
from harness.clients.kinds import kind
from harness.results import TRANSPORTS, TransportName, clock_id

ClockName = Literal["options", "register", "new_call"]

MODULES: dict[ClockName, str] = {
    "options": "harness.clients.options",
    "register": "harness.clients.register",
    "new_call": "harness.clients.new_call",
}
MAX_CPS = 5000
"""Background calls a second at most."""

MAX_CLIENTS = 10_000
"""Registered clients of one kind at most, in one process."""


class CellLike(Protocol):
    """What a client needs to know of a cell: `profile` is a PBX profile, `topology.cell` the cell's name."""

    @property
    def public_ip(self) -> str: ...

    @property
    def topology(self) -> Any: ...

    @property
    def profile(self) -> Any: ...


class Spec(Protocol):
    """Anything in `Scenario.probes`. `name` is unique in a scenario: the process, its history part, its log.

    `timing` makes it a reachability clock. `returns`: it is well again once the system is, and is waited for. `watch_s`
    is how long it wants to watch after everything is well again, `stop_s` how long its process may take to end.
    """

    @property
    def name(self) -> str: ...

    @property
    def timing(self) -> dict[str, float] | None: ...

    @property
    def returns(self) -> bool: ...

    @property
    def watch_s(self) -> float: ...

    @property
    def stop_s(self) -> float: ...

    def unmet(self, profile: Any) -> str | None:
        """Why it can't run against a PBX of this profile, on this host; None when it can."""

    def arguments(self, cell: CellLike) -> list[str]: ...


@dataclass(frozen=True, kw_only=True)
class ProbeSpec:
    """One reachability probe: sent each `period_s`, an answer after `deadline_s` is not ok."""

    clock: ClockName
    period_s: float
    deadline_s: float
    transport: TransportName = "udp"

    def __post_init__(self) -> None:
        if self.clock not in MODULES:
            raise ValueError(f"no probe measures {self.clock!r}; there are {', '.join(MODULES)}")
        if self.transport not in TRANSPORTS:
            raise ValueError(f"{self.clock}: no transport {self.transport!r}; there are {', '.join(TRANSPORTS)}")
        if not 0.002 <= self.period_s <= 60:
            raise ValueError(f"{self.clock}: period_s is 0.002-60 s, not {self.period_s}")
        if not 0 < self.deadline_s <= 32:
            raise ValueError(f"{self.clock}: deadline_s is above 0 and at most 32 s (64*T1), not {self.deadline_s}")

    @property
    def name(self) -> str:
        return clock_id(self.clock, self.transport)

    @property
    def timing(self) -> dict[str, float]:
        return {"period_s": self.period_s, "deadline_s": self.deadline_s}

    @property
    def returns(self) -> bool:
        return True

    @property
    def watch_s(self) -> float:
        return 0.0

    @property
    def stop_s(self) -> float:
        return self.deadline_s + 5

    def unmet(self, profile: Any) -> str | None:
        callee = not_offered(profile, "udp") if self.clock == "new_call" else None
        return not_offered(profile, self.transport) or callee

    def arguments(self, cell: CellLike) -> list[str]:
        """How Python is called for this probe."""
        sip = cell.profile.sip
        argv = ["-m", MODULES[self.clock], "--to", f"{cell.public_ip}:{port_of(cell.profile, self.transport)}"]
        argv += ["--domain", sip.domain, "--period-s", str(self.period_s), "--deadline-s", str(self.deadline_s)]
        argv += ["--process", self.name]
        if self.transport != "udp":
            argv += ["--transport", self.transport]
        caller, callee, user = extensions.of_probes(cell.profile.extensions, self.transport)
        if self.clock == "new_call":
            argv += ["--caller", str(caller), "--callee", str(callee), *recording(cell.profile)]
            if self.transport != "udp":
                argv += ["--callee-to", f"{cell.public_ip}:{port_of(cell.profile, 'udp')}"]
        elif self.clock == "register":
            argv += ["--user", str(user)]
        return argv


@dataclass(frozen=True, kw_only=True)
class HeldCalls:
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
    def timing(self) -> None:
        return None

    @property
    def returns(self) -> bool:
        """Some calls never come back."""
        return False

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
class RegisteredClients:
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
    def timing(self) -> None:
        return None

    @property
    def returns(self) -> bool:
        return True

    @property
    def watch_s(self) -> float:
        return 0.0

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
class InFlight:
    """Transactions of one kind of client that are always under way: calls that ring, CANCEL, hold, REFER."""

    kind: str

    def __post_init__(self) -> None:
        if kind(self.kind).is_real:
            raise ValueError(f"transactions in flight are made by user agents of ours, not by {self.kind}")

    @property
    def name(self) -> str:
        return f"in_flight_{self.kind}"

    @property
    def timing(self) -> None:
        return None

    @property
    def returns(self) -> bool:
        """Calls that stand may be lost."""
        return False

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
        argv += ["--to", f"{cell.public_ip}:{port_of(cell.profile, kind(self.kind).transport)}"]
        first = extensions.of_in_flight(cell.profile.extensions, self.kind)
        return [*argv, "--first", str(first), "--process", self.name]


IN_FLIGHT_WATCH_S = 34.0
"""A request that was sent into an outage may wait for its timer, 64*T1 = 32 s (RFC 3261 17.1.2.2)."""


@dataclass(frozen=True, kw_only=True)
class BackgroundCalls:
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
    def timing(self) -> None:
        return None

    @property
    def returns(self) -> bool:
        return False

    @property
    def watch_s(self) -> float:
        return 0.0

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


def sip_options(*, period_s: float = 0.05, deadline_s: float = 0.5, transport: TransportName = "udp") -> ProbeSpec:
    """OPTIONS to the public address: is it answered by a PBX that says it serves?"""
    return ProbeSpec(clock="options", period_s=period_s, deadline_s=deadline_s, transport=transport)


def registrations(*, period_s: float = 0.2, deadline_s: float = 0.5, transport: TransportName = "udp") -> ProbeSpec:
    """REGISTER of one extension: does the PBX accept it?"""
    return ProbeSpec(clock="register", period_s=period_s, deadline_s=deadline_s, transport=transport)


def new_calls(*, period_s: float = 0.1, deadline_s: float = 1.0, transport: TransportName = "udp") -> ProbeSpec:
    """A new call from one extension to another: is it set up, with audio both ways?"""
    return ProbeSpec(clock="new_call", period_s=period_s, deadline_s=deadline_s, transport=transport)


def held_calls(*, count: int, kind: str = "ip_phone") -> HeldCalls:
    """Calls held across the fault: what becomes of each of them?"""
    return HeldCalls(kind=kind, count=count)


def registered(*, count: int, kind: str = "ip_phone") -> RegisteredClients:
    """Clients that stay registered: the storm of their coming back."""
    return RegisteredClients(kind=kind, count=count)


def in_flight(*, kind: str = "ip_phone") -> InFlight:
    """Transactions that are always under way: what becomes of those that the fault catches?"""
    return InFlight(kind=kind)


def background_calls(*, rate_cps: float, hold_s: float = 10.0, audio: bool = False) -> BackgroundCalls:
    """Calls that SIPp sets up, holds and ends all the time: what else a PBX is busy with."""
    return BackgroundCalls(rate_cps=rate_cps, hold_s=hold_s, audio=audio)


def recording(profile: Any) -> list[str]:
    """How a client is told to have some of its calls recorded; nothing where the profile does not say how."""
    recordings = getattr(getattr(profile, "data", None), "recordings", None)
    return ["--record", recordings.header] if recordings is not None and recordings.header else []


def not_offered(profile: Any, transport: TransportName) -> str | None:
    """Why a transport can't be used: the profile has no port for it."""
    return None if getattr(profile.sip, f"{transport}_port") else f"PBX {profile.name} offers no {transport}"


def port_of(profile: Any, transport: TransportName) -> int:
    """The port on which the PBX serves a transport; `ValueError` when its profile offers none."""
    port = getattr(profile.sip, f"{transport}_port")
    if port is None:
        raise ValueError(f"PBX {profile.name} offers no {transport}")
    return int(port)
