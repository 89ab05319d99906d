"""The planted defects of the stand-in PBX, as far as they are no daemon's: whom they mean, and that data comes back."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.cell.profile import PROFILES

FOLDER = PROFILES / "stand-in"


@pytest.fixture
def variants(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module as it runs on a node, without a database."""
    monkeypatch.syspath_prepend(str(FOLDER))
    module = importlib.import_module("variants")
    monkeypatch.setattr(module, "_query", lambda *statements: [])
    yield module
    for name in [name for name, m in sys.modules.items() if str(getattr(m, "__file__", "")).startswith(str(FOLDER))]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("on", "meant"),
    [
        ({}, []),
        ({"wipe-dialogs": "1000"}, []),
        ({"wipe-media": ""}, []),
        ({"wipe-media": "1000,1002"}, ["1000", "1002"]),
        ({"wipe-media": "1000", "reinvite": "1002"}, ["1000", "1002"]),
        ({"wipe-media": "1000", "reinvite": ""}, []),
    ],
)
def test_the_extensions_whose_media_alone_are_lost(variants: Any, on: dict[str, str], meant: list[str]) -> None:
    assert variants.of_some(on) == meant


def test_calls_are_those_that_the_extensions_made(variants: Any) -> None:
    assert variants.calls_of([]) == "true"
    assert variants.calls_of(["1000", "1'2"]) == "from_uri LIKE 'sip:1000@%' OR from_uri LIKE 'sip:1''2@%'"


def test_lost_data_is_gone_and_the_prompt_comes_back_when_it_is_over(variants: Any, tmp_path: Path) -> None:
    site = SimpleNamespace(path=lambda *parts: str(tmp_path.joinpath(*parts)))
    prompt, log, kept = tmp_path / "prompts/900.wav", tmp_path / "log/kamailio.log", tmp_path / "recordings/kept"
    for folder in (prompt.parent, log.parent, kept):
        folder.mkdir(parents=True)
    prompt.write_bytes(b"RIFF and so on")
    log.write_text("a line\n")
    (kept / "a.pcap").touch()
    for _ in "start", "start again":
        variants.lose_data(site)
        assert prompt.read_bytes() == b"RIFF and so oo"
    assert (log.read_text(), list(kept.iterdir())) == ("", [])
    variants.clear(site)
    variants.clear(site)
    assert prompt.read_bytes() == b"RIFF and so on"
    assert list(prompt.parent.iterdir()) == [prompt]
