"""The process behind one volume: a FUSE file that is a disk (`harness.region.disk`), and a control socket.

The file is mounted over `--mount` (itself a file); a loop device on it is what a guest sees. The mount is up when the
control socket answers. The process ends when the file is unmounted; killed, it takes the unflushed blocks with it.

`python -m harness.region.volume_server --backing FILE --mount FILE --control SOCKET`
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import socket
import sys
import threading
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mfusepy

from harness.region.disk import CACHE_LIMIT_BYTES, Disk, Switches

REQUEST_BYTES = 65536


class FuseFile(mfusepy.Operations):  # type: ignore[misc]  # the library has no types
    """The root of the file system is the disk, a regular file."""

    use_ns = True

    def __init__(self, disk: Disk, *, on_mount: Any) -> None:
        self._disk = disk
        self._on_mount = on_mount

    def init(self, path: str) -> None:
        self._on_mount()

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        return {"st_mode": 0o100600, "st_nlink": 1, "st_size": self._disk.size_bytes, "st_blksize": 4096}

    def open(self, path: str, flags: int) -> int:
        return self._disk.open()

    def release(self, path: str, fh: int) -> int:
        self._disk.release(fh)
        return 0

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return self._disk.read(fh, offset, size)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        return self._disk.write(fh, offset, data)

    def flush(self, path: str, fh: int) -> int:
        """close(2) of a file descriptor: no flush of a disk."""
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        self._disk.flush(fh)
        return 0

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        return 0


def answer(disk: Disk, request: dict[str, Any]) -> dict[str, Any]:
    """Carry out one control request; what can't be done comes back as {"error"}."""
    try:
        match request.get("do"):
            case "status":
                return disk.status()
            case "switch":
                disk.switch(Switches(**request["switches"]))
                return disk.status()
            case "write_back":
                disk.write_back()
                return disk.status()
            case "grow":
                disk.grow(int(request["size_bytes"]))
                return disk.status()
            case "power_loss":
                keep_ratio, seed = float(request["keep_ratio"]), int(request["seed"])
                return asdict(disk.power_loss(keep_ratio=keep_ratio, seed=seed, handle=request.get("handle")))
            case other:
                return {"error": f"unknown request {other!r}"}
    except (ValueError, TypeError, KeyError, OSError) as error:
        return {"error": f"{type(error).__name__}: {error}"}


def serve_control(disk: Disk, path: Path) -> None:
    """Answer one JSON object per connection, for ever."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(8)
        while True:
            connection, _ = listener.accept()
            with connection, suppress(OSError, ValueError):
                connection.settimeout(2)
                request = json.loads(connection.makefile("rb").readline(REQUEST_BYTES))
                connection.sendall(json.dumps(answer(disk, request)).encode() + b"\n")


def main() -> int:
    parser = argparse.ArgumentParser(prog="harness.region.volume_server")
    parser.add_argument("--backing", type=Path, required=True)
    parser.add_argument("--mount", type=Path, required=True)
    parser.add_argument("--control", type=Path, required=True)
    parser.add_argument("--shared", action="store_true", help="several openings at a time, and no volatile cache")
    parser.add_argument("--cache-bytes", type=int, default=CACHE_LIMIT_BYTES)
    args = parser.parse_args()
    with args.backing.open("rb") as backing:
        try:
            fcntl.flock(backing, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{args.backing} has a server already", file=sys.stderr)
            return 1
        disk = Disk(args.backing, cache_limit_bytes=args.cache_bytes, shared=args.shared)
        control = threading.Thread(target=serve_control, args=(disk, args.control), daemon=True)
        mfusepy.FUSE(
            FuseFile(disk, on_mount=control.start),
            str(args.mount),
            foreground=True,
            fsname="pbx-chaos-volume",
            attr_timeout=0,  # a disk that has grown is seen as large as it is at once
        )
    return 0


if __name__ == "__main__":
    os.chdir("/")
    sys.exit(main())
