"""The Docker engine: connecting to it, or one line that says why that is not possible."""

from __future__ import annotations

from typing import Any

import docker
from docker.errors import DockerException
from requests.exceptions import RequestException

from harness.errors import InfrastructureError

HINT = "start Docker (`make setup` installs and starts Debian's), or point DOCKER_HOST at a running engine"


def connect() -> Any:
    """A docker SDK client whose engine answered; `InfrastructureError` otherwise."""
    try:
        client = docker.from_env(timeout=60)
        client.ping()
    except (DockerException, RequestException, ValueError) as error:  # the last: a DOCKER_HOST that is no address
        raise InfrastructureError(f"no Docker engine answers ({_cause(error)}): {HINT}") from error
    return client


def _cause(error: BaseException) -> str:
    """The innermost reason, in the system's own words: the SDK wraps it four times."""
    inner: BaseException = error
    while inner.__cause__ is not None or inner.__context__ is not None:
        inner = inner.__cause__ or inner.__context__ or inner
    return getattr(inner, "strerror", None) or (str(inner).splitlines() or [type(inner).__name__])[0]
