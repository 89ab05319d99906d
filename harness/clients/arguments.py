"""What the processes of many clients of one kind are told on their command lines."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.clients.kinds import KINDS
from harness.clients.shooting import address


def parser(
    module: str, doc: str | None, *, first: str, count: str | None = None, kind: str | None = None
) -> argparse.ArgumentParser:
    """Where the PBX is, and which clients there are; `kind` is the one that the module is for, where there is one.

    `first` and `count` say in words which extensions are used and what is counted; without `count` nothing is.
    """
    made = argparse.ArgumentParser(prog=f"python -m {module}", description=doc)
    made.add_argument("--to", type=address, required=True, metavar="IP:PORT", help="where the clients connect")
    made.add_argument("--domain", required=True)
    made.add_argument("--kind", choices=list(KINDS), required=kind is None, default=kind)
    if count is not None:
        made.add_argument("--count", type=int, required=kind is None, default=1, help=count)
    made.add_argument("--first", type=int, required=True, help=first)
    made.add_argument("--local", metavar="IP", help="address to use (default: the route's)")
    made.add_argument("--cell", help="name of the cell, for clients that run in containers")
    made.add_argument("--process", default=kind or module.rpartition(".")[2])
    made.add_argument("--out", type=Path, default=Path("/dev/stdout"))
    return made
