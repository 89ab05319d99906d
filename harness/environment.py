"""What a run ran on: enough to tell whether two runs may be compared, nothing that names a machine or a secret."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from harness import __version__


def describe() -> dict[str, Any]:
    """Stable facts of the host and of the harness; the fingerprint of an environment is made from these."""
    return {
        "pbx_chaos": __version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "memory_bytes": _memory_bytes(),
        "distribution": _distribution(),
        "libraries": {name: _version(name) for name in ("boto3", "moto", "docker", "aiohttp", "mfusepy")},
        "command": [Path(sys.argv[0]).name, *(_unplaced(word) for word in sys.argv[1:])],
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _unplaced(word: str) -> str:
    """A word of the command line without the folders of this machine: `--out=/home/me/runs` becomes `--out=runs`."""
    option, equals, value = word.rpartition("=")
    return f"{option}{equals}{Path(value).name}" if value.startswith(("/", "~")) else word


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "unknown")
    except OSError:
        return "unknown"
