"""Access keys: they say who calls. The harness has one of its own, every instance has one; none opens anything real."""

from __future__ import annotations

import json
import secrets
import string
from dataclasses import asdict, dataclass, field
from pathlib import Path

from harness.errors import InfrastructureError
from harness.region.files import write_json

KEY_FILE = "harness-key.json"


@dataclass(frozen=True, kw_only=True)
class HarnessKey:
    """The key with which the harness calls the region; readable by root only."""

    access_key_id: str
    secret_access_key: str = field(repr=False)

    def write(self, folder: Path) -> None:
        write_json(folder / KEY_FILE, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> HarnessKey:
        """The key of a region that was started; `InfrastructureError` when there is none."""
        try:
            return cls(**json.loads((folder / KEY_FILE).read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise InfrastructureError(f"no region has been started in {folder.name!r}: is the cell up?") from None


def new_access_key_id() -> str:
    """Twenty characters in the form that AWS uses for long-term keys."""
    return "AKIA" + "".join(secrets.choice(string.ascii_uppercase + "234567") for _ in range(16))
