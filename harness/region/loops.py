"""Loop devices: one per attachment, made over a volume's file, and gone when the last mount of it is gone.

Freeing a loop device that is still mounted only asks for it: the kernel frees it at the last unmount.
"""

from __future__ import annotations

from pathlib import Path

from harness.command import run
from harness.errors import InfrastructureError

TIMEOUT_S = 10
SYS_BLOCK = Path("/sys/block")


def make(file: Path) -> str:
    """A new loop device over `file`, e.g. /dev/loop7, past the page cache: only then does a flush mean what it says."""
    loop = run(["losetup", "--direct-io=on", "--show", "-f", str(file)], timeout_s=TIMEOUT_S).stdout.strip()
    if (SYS_BLOCK / Path(loop).name / "loop" / "dio").read_text().strip() != "1":
        ask_to_free(loop)
        raise InfrastructureError(
            f"{loop} can't do direct I/O on {file}: this kernel would hide what a power cut loses"
        )
    return loop


def ask_to_free(loop: str) -> None:
    """Free `loop` now, or at its last unmount. A device that is free already is fine."""
    run(["losetup", "-d", loop], timeout_s=TIMEOUT_S, check=False)


def take_new_size(loop: str) -> None:
    """Let `loop` be as large as its file is now, while it is in use: the guest sees a larger device at once."""
    run(["losetup", "-c", loop], timeout_s=TIMEOUT_S)


def backing_file(loop: str) -> str | None:
    """The file behind `loop` as the kernel names it (" (deleted)" removed), None when the device is free."""
    try:
        name = (SYS_BLOCK / Path(loop).name / "loop" / "backing_file").read_text()
    except OSError:
        return None
    return name.rstrip("\n").removesuffix(" (deleted)")


def nameless(loop: str) -> bool:
    """Whether the file behind `loop` has lost its place in the file tree: its FUSE server has unmounted and gone."""
    return backing_file(loop) == "/"


def below(folder: Path) -> dict[str, str]:
    """All loop devices whose file lies below `folder`: device -> file."""
    found = {}
    for entry in SYS_BLOCK.glob("loop*"):
        file = backing_file(f"/dev/{entry.name}")
        if file is not None and Path(file).is_relative_to(folder):
            found[f"/dev/{entry.name}"] = file
    return found
