"""Programs of the client image (Chromium, baresip, SIPp), each in a container in the network namespace that we are in.

A measuring process runs on the host's Python inside a client machine's network namespace; the program it drives shares
that namespace, so that both are one client to the network, and 127.0.0.1 leads from one to the other.
"""

from __future__ import annotations

import io
import os
import secrets
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from docker.errors import APIError, DockerException, NotFound
from requests.exceptions import RequestException

from harness import engine, images
from harness.errors import InfrastructureError
from harness.region.background import MARK
from harness.topology import CELL_LABEL, ROLE_LABEL

SHARED_MEMORY = "128m"
_OWN_NETWORK = Path("/proc/self/ns/net")


def unmet() -> str | None:
    """Why none of these programs can run here, in a few words; None when they can."""
    try:
        client = engine.connect()
        reference = images.wanted(programs=True).client
        built = reference not in images.missing(client, programs=True)
    except (InfrastructureError, DockerException, RequestException) as error:
        return str(error)
    return None if built else f"image {reference} is not built (`python -m harness.images --client`)"


class Program:
    """A running program. It ends with `stop`; after a crash of ours `pbx-chaos clean` finds it by the cell's label."""

    def __init__(self, container: Any) -> None:
        self._container = container

    @classmethod
    def start(
        cls,
        name: str,
        argv: Sequence[str],
        *,
        files: Mapping[str, bytes] | None = None,
        folders: Mapping[Path, str] | None = None,
    ) -> Program:
        """Run `argv` with `files` (absolute path -> content, readable by root only) put there before.

        `folders` of the host appear in it as the paths given. `InfrastructureError` when we are in no client's network.
        """
        if (why := unmet()) is not None:
            raise InfrastructureError(f"{name} can't run: {why}")
        api = engine.connect()
        machine = _own_machine(api)
        cell = str(machine.labels[CELL_LABEL])
        try:
            container = api.containers.create(
                images.wanted(programs=True).client,
                list(argv),
                name=f"{cell}-{name}-{secrets.token_hex(3)}",
                labels={CELL_LABEL: cell, ROLE_LABEL: "client"},
                network_mode=f"container:{machine.id}",
                shm_size=SHARED_MEMORY,
                volumes={str(host): {"bind": inside, "mode": "rw"} for host, inside in (folders or {}).items()},
            )
        except (APIError, RequestException) as error:
            raise InfrastructureError(f"{name} can't be started: {error}") from error
        program = cls(container)
        try:
            if files:
                container.put_archive("/", _archive(files))
            container.start()
        except (APIError, RequestException) as error:
            program.stop()
            raise InfrastructureError(f"{name} can't be started: {error}") from error
        return program

    @property
    def running(self) -> bool:
        try:
            self._container.reload()
        except NotFound:
            return False
        return bool(self._container.status == "running")

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs, or when it is gone."""
        with suppress(NotFound):
            self._container.reload()
            state = self._container.attrs["State"]
            return None if state["Running"] else int(state["ExitCode"])
        return None

    def said(self) -> str:
        """All that it has written to stdout and stderr."""
        try:
            return bytes(self._container.logs()).decode(errors="replace")
        except (APIError, RequestException):
            return ""

    def output(self) -> Iterator[bytes]:
        """What it writes, piece by piece as it comes, until it ends."""
        with suppress(APIError, RequestException, OSError):
            yield from self._container.logs(stream=True, follow=True)

    def last_words(self) -> str:
        """Its last line, for an error."""
        lines = self.said().strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def signal(self, name: str) -> None:
        """Send it a signal; nothing happens when it has ended."""
        with suppress(APIError, RequestException):
            self._container.kill(signal=name)

    def stop(self) -> None:
        """Gone at once; idempotent."""
        with suppress(APIError, RequestException):
            self._container.remove(force=True, v=True)


def _own_machine(client: Any) -> Any:
    """The container whose network namespace we are in."""
    own = _OWN_NETWORK.stat().st_ino
    cell = os.environ.get(MARK)
    label = CELL_LABEL if cell is None else f"{CELL_LABEL}={cell}"
    for container in client.containers.list(filters={"label": label}):
        pid = container.attrs["State"]["Pid"]
        with suppress(OSError):
            if Path(f"/proc/{pid}/ns/net").stat().st_ino == own and not _shares_network(container):
                return container
    raise InfrastructureError("this process is in no client machine's network namespace (`nsenter -t PID -n`)")


def _shares_network(container: Any) -> bool:
    return str(container.attrs["HostConfig"]["NetworkMode"]).startswith("container:")


def _archive(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, content in files.items():
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode = len(content), 0o600
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
