"""Our agents as modules: they have no .py name and find the module they share beside themselves."""

from __future__ import annotations

import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree.ElementTree import Element, fromstring

import pytest

AGENTS = Path(__file__).resolve().parents[2] / "fixtures" / "agents"


def load_agent(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The agent with this file name, leaving no byte code beside it and sys.path as it was."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "path", list(sys.path))
    loader = SourceFileLoader(name.removesuffix(".py"), str(AGENTS / name))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


class Clock:
    """Takes the place of the module `time`: a sleep passes at once, and a look at the clock costs a millisecond."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        self.now_s += 0.001
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


class ScriptedEc2:
    """EC2 that gives prepared answers: per action a list of XML texts or exceptions, the last one for ever."""

    me = "i-0me"

    def __init__(self, **answers: list[Any]) -> None:
        self._answers = answers
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def call(self, action: str, *, timeout_s: float = 5.0, **params: Any) -> Element:
        self.calls.append((action, params))
        prepared = self._answers[action]
        answer = prepared.pop(0) if len(prepared) > 1 else prepared[0]
        if isinstance(answer, Exception):
            raise answer
        return fromstring(answer)

    @property
    def actions(self) -> list[str]:
        return [action for action, _ in self.calls]
