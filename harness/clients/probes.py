"""What a scenario can ask to be watched: reachability clocks, and clients that live through the fault.

Each spec is frozen data that knows how its process is called; harness/clients/processes.py starts it. A new family is a
factory here and a module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from harness.clients import extensions
from harness.clients.companions import BackgroundCalls, HeldCalls, InFlight, PromptHeard, RegisteredClients
from harness.clients.offers import CellLike, not_offered, port_of, recording
from harness.results import TRANSPORTS, TransportName, clock_id

ClockName = Literal["options", "register", "new_call"]

MODULES: dict[ClockName, str] = {
    "options": "harness.clients.options",
    "register": "harness.clients.register",
    "new_call": "harness.clients.new_call",
}


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


def sip_options(
    *, period_s: float | None = None, deadline_s: float = 0.5, transport: TransportName = "udp"
) -> ProbeSpec:
    """OPTIONS to the public address: does a PBX answer that says it serves? Each 0.05 s on UDP, 0.5 s elsewhere."""
    return ProbeSpec(
        clock="options", period_s=_period_s(period_s, transport, udp=0.05), deadline_s=deadline_s, transport=transport
    )


def registrations(
    *, period_s: float | None = None, deadline_s: float = 0.5, transport: TransportName = "udp"
) -> ProbeSpec:
    """REGISTER of one extension: does the PBX accept it? Each 0.2 s on UDP, 0.5 s elsewhere."""
    return ProbeSpec(
        clock="register", period_s=_period_s(period_s, transport, udp=0.2), deadline_s=deadline_s, transport=transport
    )


def new_calls(*, period_s: float | None = None, deadline_s: float = 1.0, transport: TransportName = "udp") -> ProbeSpec:
    """A new call from one extension to another: set up, with audio both ways? Each 0.1 s on UDP, 0.5 s elsewhere."""
    return ProbeSpec(
        clock="new_call", period_s=_period_s(period_s, transport, udp=0.1), deadline_s=deadline_s, transport=transport
    )


def _period_s(asked: float | None, transport: TransportName, *, udp: float) -> float:
    """A handshake costs both ends some milliseconds: not as many of them as datagrams, unless that is asked for."""
    return asked if asked is not None else udp if transport == "udp" else 0.5


def held_calls(*, count: int, kind: str = "ip_phone") -> HeldCalls:
    """Calls held across the fault: what becomes of each of them?"""
    return HeldCalls(kind=kind, count=count)


def registered(*, count: int, kind: str = "ip_phone") -> RegisteredClients:
    """Clients that stay registered: the storm of their coming back."""
    return RegisteredClients(kind=kind, count=count)


def in_flight(*, kind: str = "ip_phone", count: int = 4) -> InFlight:
    """Transactions that are always under way: what becomes of those that the fault catches?"""
    return InFlight(kind=kind, count=count)


def prompt_heard() -> PromptHeard:
    """Calls of the extension that plays a prompt from the volume: is it recognised, before the fault and after it?"""
    return PromptHeard()


def background_calls(*, rate_cps: float, hold_s: float = 10.0, audio: bool = False) -> BackgroundCalls:
    """Calls that SIPp sets up, holds and ends all the time: what else a PBX is busy with."""
    return BackgroundCalls(rate_cps=rate_cps, hold_s=hold_s, audio=audio)
