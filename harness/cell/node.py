"""A node of the cell as the harness reaches it: commands, files in, files out. Everything is bounded in time.

What happens *in a guest* goes through here: `docker exec` locally, SSM on AWS. The view is the guest's own (its mounts,
its users, its processes); the infrastructure below it is not reachable this way.
"""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import docker
import docker.errors
import requests.exceptions

from harness.command import CommandFailed, Completed, run
from harness.errors import InfrastructureError

COPY_TIMEOUT_S = 20
"""Bound for one copy into or out of a node."""


@dataclass(frozen=True, kw_only=True)
class File:
    """Content of one file on a node, with mode and owner (numeric, as on Debian 12)."""

    content: bytes
    mode: int = 0o644
    uid: int = 0
    gid: int = 0


class Node(Protocol):
    """One node. `run` raises `CommandFailed` on a failure when `check`, and always when it does not end in time."""

    @property
    def name(self) -> str: ...
    @property
    def instance_id(self) -> str: ...
    @property
    def private_ip(self) -> str: ...

    def run(
        self, argv: Sequence[str], *, timeout_s: float, stdin: str | None = None, check: bool = True
    ) -> Completed: ...

    def put(self, files: Mapping[str, File]) -> None:
        """Write these files (absolute path → content), with the folders above them; all in one call."""

    def fetch(self, path: str) -> bytes:
        """Content of one file; `InfrastructureError` when it is not there or the node can't be reached."""


@dataclass(frozen=True, kw_only=True)
class ContainerNode:
    """A node that is a container of this host. Files can be fetched even while it is off."""

    name: str
    instance_id: str
    private_ip: str
    container: str
    """Id of the container; it stays the same over stop and start."""

    def run(self, argv: Sequence[str], *, timeout_s: float, stdin: str | None = None, check: bool = True) -> Completed:
        """Bounded twice: in the guest, so that nothing of it stays, and 2 s later here, should the guest hang."""
        guest = ["timeout", "-k", "1", f"{timeout_s:g}", *argv]
        keep_stdin = ["-i"] if stdin is not None else []
        done = run(
            ["docker", "exec", *keep_stdin, self.container, *guest], timeout_s=timeout_s + 2, input=stdin, check=False
        )
        if done.code in (124, 137):
            raise CommandFailed(f"{self.name}: {shown(argv)} did not end within {timeout_s:g} s")
        if check and not done.ok:
            last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
            raise CommandFailed(f"{self.name}: {shown(argv)} ended with {done.code}: {last}")
        return done

    def put(self, files: Mapping[str, File]) -> None:
        with self._copying(f"put {len(files)} files"):
            self._api.put_archive(self.container, "/", archive(files))

    def fetch(self, path: str) -> bytes:
        with self._copying(f"fetch {path}"):
            chunks, _ = self._api.get_archive(self.container, path)
            return unpacked(b"".join(chunks))

    @cached_property
    def _api(self) -> Any:
        return docker.from_env(timeout=COPY_TIMEOUT_S).api

    @contextmanager
    def _copying(self, what: str) -> Iterator[None]:
        try:
            yield
        except docker.errors.NotFound as error:
            raise InfrastructureError(f"{self.name}: {what}: not found") from error
        except (docker.errors.APIError, requests.exceptions.RequestException, tarfile.TarError) as error:
            raise InfrastructureError(f"{self.name}: {what}: {error}") from error


def shown(argv: Sequence[str]) -> str:
    """A command line for an error message: its first line, at most 80 characters of it."""
    text = " ".join(argv).strip()
    first = text.splitlines()[0] if text else ""
    return first if first == text and len(first) <= 80 else f"{first[:80]} …"


def archive(files: Mapping[str, File]) -> bytes:
    """A tar archive that holds `files` under their absolute paths."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, file in files.items():
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode, entry.uid, entry.gid = len(file.content), file.mode, file.uid, file.gid
            entry.mtime = int(time.time())  # Python takes byte code for fresh by the source's time and size
            tar.addfile(entry, io.BytesIO(file.content))
    return buffer.getvalue()


def unpacked(data: bytes) -> bytes:
    """The content of the one file in a tar archive."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for entry in tar:
            content = tar.extractfile(entry)
            if content is not None:
                return content.read()
    raise tarfile.TarError("no regular file")
