"""The folder of one run: what is written when, so that a crash loses nothing already observed.

scenario.json environment.json   before anything starts      history.d/*.jsonl   while it runs, a line per op
undo.jsonl                       before each injury          cib-*.xml, cluster-*.json, logs/, *.jsonl   collected
history.jsonl results.json summary.md capture.pcap           at the end; results.json can be made again
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.errors import InfrastructureError


@dataclass(frozen=True, kw_only=True)
class RunDir:
    path: Path

    @classmethod
    def create(cls, root: Path, *, scenario: str, seed: int, started: datetime | None = None) -> RunDir:
        """`<root>/<scenario>/<time>-<seed>/`, and a `latest` link beside it that points there."""
        stamp = (started or datetime.now(UTC)).strftime("%Y%m%dT%H%M%S")
        parent = root / scenario
        parent.mkdir(parents=True, exist_ok=True)
        path = parent / f"{stamp}-{seed}"
        for attempt in range(2, 100):
            try:
                path.mkdir()
                break
            except FileExistsError:
                path = parent / f"{stamp}-{seed}.{attempt}"
        else:
            raise FileExistsError(f"{parent} is full of runs of {stamp}")
        (path / "history.d").mkdir()
        (path / "logs").mkdir()
        link = parent / f".latest-{os.getpid()}"
        link.unlink(missing_ok=True)
        link.symlink_to(path.name)
        link.replace(parent / "latest")
        return cls(path=path)

    @property
    def parts(self) -> Path:
        return self.path / "history.d"

    @property
    def history(self) -> Path:
        return self.path / "history.jsonl"

    @property
    def journal(self) -> Path:
        return self.path / "undo.jsonl"

    def write_json(self, name: str, data: Any) -> None:
        """Write `name` so that a reader sees either the old file or the whole new one."""
        self.write_text(name, json.dumps(data, indent=1, sort_keys=False) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Like `write_json`, with text; a full disk is an `InfrastructureError` that says so."""
        target = self.path / name
        scratch = target.with_name(f".{target.name}.tmp")
        try:
            scratch.write_text(text, encoding="utf-8")
            scratch.replace(target)
        except OSError as error:
            raise InfrastructureError(f"can't write {name} of the run in {self.path}: {error.strerror}") from error

    def read_json(self, name: str) -> Any | None:
        """The content of `name`, or None where the run never got that far."""
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def read_rows(self, name: str) -> list[dict[str, Any]]:
        """The rows of a JSON-lines file; empty where it is missing. What a crash or a full disk tore is left out."""
        try:
            text = (self.path / name).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        rows = []
        for line in text.split("\n"):
            with suppress(ValueError):
                rows.append(json.loads(line))
        return rows
