"""Talking to a volume's server: typed requests over its control socket, each bounded in time."""

from __future__ import annotations

import json
import socket
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.errors import InfrastructureError
from harness.region.disk import Switches
from harness.region.write_cache import PowerLoss

TIMEOUT_S = 2.0


class ServerSilent(InfrastructureError):
    """The volume's server is dead or does not answer in time."""


class VolumeControl:
    """The server whose control socket is at `path`. Every method raises `ServerSilent` when it does not answer."""

    def __init__(self, path: Path, *, timeout_s: float = TIMEOUT_S) -> None:
        self._path = path
        self._timeout_s = timeout_s

    def status(self) -> dict[str, Any]:
        """Counters, switches, `open` and `dead` handles, `dirty_blocks`, `stalled_s` (age of the oldest that waits)."""
        return self._ask(do="status")

    def switch(self, switches: Switches) -> None:
        """Injure the volume; `Switches()` heals it."""
        self._ask(do="switch", switches=asdict(switches))

    def write_back(self) -> None:
        """Bring what is unflushed to the backing file."""
        self._ask(do="write_back")

    def grow(self, size_bytes: int) -> None:
        """Make the disk larger."""
        self._ask(do="grow", size_bytes=size_bytes)

    def power_loss(self, *, keep_ratio: float, seed: int, handle: int | None = None) -> PowerLoss:
        """Drop what is unflushed; the openings that exist, or that one, get nothing but EIO from now on."""
        return PowerLoss(**self._ask(do="power_loss", keep_ratio=keep_ratio, seed=seed, handle=handle))

    def _ask(self, **request: Any) -> dict[str, Any]:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(self._timeout_s)
                connection.connect(str(self._path))
                connection.sendall(json.dumps(request).encode() + b"\n")
                reply: dict[str, Any] = json.loads(connection.makefile("rb").readline())
        except (OSError, ValueError) as error:
            raise ServerSilent(f"the server of volume {self._path.parent.name} does not answer: {error}") from error
        if "error" in reply:
            raise InfrastructureError(f"volume {self._path.parent.name} refused {request['do']}: {reply['error']}")
        return reply
