"""What a cell and the profile of its PBX offer to clients: transports and their ports, how to be recorded."""

from __future__ import annotations

from typing import Any, Protocol

from harness.results import TransportName


class CellLike(Protocol):
    """What a client needs to know of a cell: `profile` is a PBX profile, `topology.cell` the cell's name."""

    @property
    def public_ip(self) -> str: ...

    @property
    def topology(self) -> Any: ...

    @property
    def profile(self) -> Any: ...


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
