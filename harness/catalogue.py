"""What there is to run: scenarios, policies, PBX profiles, faults, probes, checkers; found by looking, not by a list.

A new scenario is a file under scenarios/ that holds a `Scenario`; a new fault, probe or checker a public class in its
folder; a new policy or profile a TOML file. `pbx-chaos list` prints what this module finds.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import cast

from harness.checkers.types import Checker
from harness.errors import UsageError
from harness.region.timing import read_timing
from harness.scenario import Scenario

ROOT = Path(__file__).resolve().parent.parent
SCENARIOS = ROOT / "scenarios"
POLICIES = ROOT / "fixtures" / "policies"
PROFILES = ROOT / "fixtures" / "pbx"
TIMINGS = ROOT / "fixtures" / "timing"


def scenarios() -> dict[str, Scenario]:
    """Every scenario shipped, by name."""
    found: dict[str, Scenario] = {}
    for path in sorted(SCENARIOS.rglob("*.py")):
        for scenario in _scenarios_in(path):
            if scenario.name in found and found[scenario.name] != scenario:
                raise UsageError(f"two scenarios are called {scenario.name!r}; one is in {path.name}")
            found[scenario.name] = scenario
    return found


def scenario(name: str) -> Scenario:
    """The scenario with this name or in this file; otherwise a `UsageError` with the nearest name."""
    path = Path(name)
    if path.suffix == ".py":
        if not path.exists():
            raise UsageError(f"there is no scenario file {name}")
        inside = list(_scenarios_in(path))
        if len(inside) != 1:
            raise UsageError(f"{name} holds {len(inside)} scenarios; run one by keeping one per file")
        return inside[0]
    known = scenarios()
    if name not in known:
        raise UsageError(unknown("scenario", name, list(known)))
    return known[name]


def policy_path(name: str) -> Path:
    """The file of a shipped policy, or `name` itself when it is a TOML file."""
    return _toml(name, "policy", {path.stem: path for path in POLICIES.glob("*.toml")})


def profile_path(name: str) -> Path:
    """The file of a shipped PBX profile, or `name` itself when it is a TOML file."""
    return _toml(name, "PBX profile", {path.parent.name: path for path in PROFILES.glob("*/profile.toml")})


def timing_path(name: str) -> Path:
    """The file of a shipped timing profile, or `name` itself when it is a TOML file."""
    return _toml(name, "timing profile", {path.stem: path for path in TIMINGS.glob("*.toml")})


def unknown(kind: str, name: str, known: list[str]) -> str:
    """One line for a name nobody knows: the nearest one, or all of them."""
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known)) or 'none'}"
    return f"unknown {kind} {name!r}: {hint}"


def always_on() -> list[Checker]:
    """The checkers that judge every run."""
    modules = _modules("harness.checkers")
    return [cast(Checker, module.ALWAYS_ON) for module in modules if hasattr(module, "ALWAYS_ON")]


def listing() -> dict[str, list[dict[str, str]]]:
    """Everything, each with its name and one line: the shape of `pbx-chaos list --json`."""
    return {
        "scenarios": [{"name": s.name, "summary": s.summary} for s in scenarios().values()],
        "faults": _builders("harness.faults", "inject"),
        "probes": _builders("harness.clients.probes", None),
        "checkers": _checker_lines(),
        "policies": [{"name": p.stem, "summary": _summary(p)} for p in sorted(POLICIES.glob("*.toml"))],
        "profiles": [{"name": p.parent.name, "summary": _summary(p)} for p in sorted(PROFILES.glob("*/profile.toml"))],
        "timings": [{"name": t.name, "summary": t.summary} for t in map(read_timing, sorted(TIMINGS.glob("*.toml")))],
        "defects": [],
    }


def _scenarios_in(path: Path) -> Iterator[Scenario]:
    name = f"_scenario_{abs(hash(path.resolve()))}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UsageError(f"{path} can't be loaded: {type(error).__name__}: {error}") from error
    yield from (value for value in vars(module).values() if isinstance(value, Scenario))


def _toml(name: str, kind: str, known: dict[str, Path]) -> Path:
    if name.endswith(".toml"):
        path = Path(name)
        if not path.exists():
            raise UsageError(f"there is no {kind} file {name}")
        return path
    if name not in known:
        raise UsageError(unknown(kind, name, list(known)))
    return known[name]


def _summary(path: Path) -> str:
    try:
        return str(tomllib.loads(path.read_text(encoding="utf-8")).get("summary", ""))
    except tomllib.TOMLDecodeError as error:
        return f"can't be read: {error}"


def _modules(package: str) -> list[ModuleType]:
    root = importlib.import_module(package)
    paths = getattr(root, "__path__", None)
    if paths is None:
        return [root]
    return [importlib.import_module(f"{package}.{info.name}") for info in pkgutil.iter_modules(paths)]


def fault_factories() -> list[tuple[str, type, Callable[..., object]]]:
    """Every fault by the name that users write: the name, the class that is made, and the factory."""
    return _factories("harness.faults", "inject")


def _builders(package: str, needs: str | None) -> list[dict[str, str]]:
    """What the factories of a package make, under the names that users write."""
    return [{"name": name, "summary": _first_line(factory)} for name, _, factory in _factories(package, needs)]


def _factories(package: str, needs: str | None) -> list[tuple[str, type, Callable[..., object]]]:
    """Functions of a package that return a dataclass, one that has `needs` where that is given."""
    found: list[tuple[str, type, Callable[..., object]]] = []
    for module in _modules(package):
        classes = {v.__name__: v for v in vars(module).values() if inspect.isclass(v) and is_dataclass(v)}
        for name, value in vars(module).items():
            if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_"):
                made = classes.get(str(inspect.signature(value, eval_str=False).return_annotation))
                if made is not None and (needs is None or hasattr(made, needs)):
                    found.append((name, made, value))
    return sorted(found, key=lambda row: row[0])


def _checker_lines() -> list[dict[str, str]]:
    rows = []
    for module in _modules("harness.checkers"):
        for value in vars(module).values():
            if (
                inspect.isclass(value)
                and value.__module__ == module.__name__
                and is_dataclass(value)
                and hasattr(value, "check")
            ):
                default = value.__dataclass_fields__.get("name")
                name = getattr(default, "default", None) or module.__name__.rsplit(".", 1)[-1]
                rows.append({"name": str(name), "summary": _first_line(module)})
    return sorted(rows, key=lambda row: row["name"])


def _first_line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").split("\n", 1)[0]
