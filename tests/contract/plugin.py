"""pytest's side of the contract: the options, which backends run, and the comparison of their verdicts at the end.

A row whose verdict differs between moto and LocalStack fails the session, whatever the row itself said.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest

from tests.contract import guard
from tests.contract.promises import LOCAL, promise_of

Verdicts = dict[str, dict[str, str]]
"""By row (nodeid without the backend) the verdict of each backend that ran it."""

VERDICTS = pytest.StashKey[Verdicts]()
PACKAGE = "tests/contract/"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("contract", "the contract with AWS (tests/contract)")
    group.addoption(guard.OPTION, action="store_true", help=f"also on real AWS; costs money, wants {guard.VARIABLE}")
    group.addoption("--fidelity", type=Path, metavar="FILE", help="write the verdicts of the contract to FILE (JSON)")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[VERDICTS] = {}
    refused = guard.refusal(asked=config.getoption(guard.OPTION), environment=os.environ)
    if config.getoption(guard.OPTION) and refused is not None:
        raise pytest.UsageError(refused)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what can't run on AWS, or may not."""
    allowed = guard.refusal(asked=config.getoption(guard.OPTION), environment=os.environ) is None
    out = [item for item in items if _backend(item) == "aws" and not (allowed and _on_aws(item))]
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in set(out)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Iterator[None]:
    report: Any = yield
    backend = _backend(item)
    if backend is not None and (verdict := _verdict(report)) is not None:
        rows = item.config.stash[VERDICTS]
        rows.setdefault(row_of(item.nodeid, backend), {})[backend] = verdict
    return report


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    verdicts = session.config.stash[VERDICTS]
    if differing(verdicts) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    target = session.config.getoption("--fidelity")
    if target is not None:
        promised = {item.nodeid.partition("[")[0] for item in session.items if _is_row(item)}
        target.write_text(json.dumps(results(verdicts, promised), indent=1) + "\n", encoding="utf-8")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    verdicts = config.stash[VERDICTS]
    if not verdicts:
        return
    terminalreporter.section("contract")
    counts = {name: sum(name in row for row in verdicts.values()) for name in (*LOCAL, "aws")}
    refused = guard.refusal(asked=config.getoption(guard.OPTION), environment=os.environ)
    told = ", ".join(f"{count} on {name}" for name, count in counts.items() if count)
    terminalreporter.line(f"rows: {told}" + (f"; real AWS: {refused}" if refused else ""))
    for row in differing(verdicts):
        terminalreporter.line(f"DIFFERS {row}: " + ", ".join(f"{k} {v}" for k, v in sorted(verdicts[row].items())))


def row_of(nodeid: str, backend: str) -> str:
    """The nodeid without the backend: `test_x[moto-0]` and `test_x[localstack-0]` are one row."""
    name, bracket, parameters = nodeid.partition("[")
    kept = [part for part in parameters.rstrip("]").split("-") if part != backend]
    return f"{name}[{'-'.join(kept)}]" if bracket and kept else name


def differing(verdicts: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Rows on which moto and LocalStack do not agree; a row that one of them did not run is not compared."""
    found = []
    for row, by_backend in verdicts.items():
        compared = {by_backend[name] for name in LOCAL if by_backend.get(name, "skipped") != "skipped"}
        if len(compared) > 1:
            found.append(row)
    return found


def results(verdicts: Mapping[str, Mapping[str, str]], promised: set[str]) -> dict[str, Any]:
    """What is kept of a run: per row of the contract and backend the worst verdict of its variants."""
    order = ("failed", "xfailed", "skipped", "passed")
    found: dict[str, dict[str, str]] = {}
    for nodeid, by_backend in verdicts.items():
        whole = nodeid.partition("[")[0]
        if whole not in promised:
            continue
        path, _, test = whole.partition("::")
        row = f"{Path(path).stem.removeprefix('test_')}.{test.removeprefix('test_')}"
        for backend, verdict in by_backend.items():
            known = found.setdefault(row, {}).get(backend, verdict)
            found[row][backend] = min(known, verdict, key=order.index)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {name: _version(name) for name in ("moto", "boto3", "botocore")},
        "rows": dict(sorted(found.items())),
    }


def _backend(item: pytest.Item) -> str | None:
    spec = getattr(item, "callspec", None)
    return None if spec is None or PACKAGE not in item.nodeid else spec.params.get("backend")


def _is_row(item: pytest.Item) -> bool:
    return promise_of(getattr(item, "function", None)) is not None


def _on_aws(item: pytest.Item) -> bool:
    promise = promise_of(getattr(item, "function", None))
    return promise is not None and promise.local_only is None


def _verdict(report: Any) -> str | None:
    """Of the report that decides: the call's, or an earlier or later phase's that did not pass."""
    if report.when == "call" or report.outcome != "passed":
        return "xfailed" if hasattr(report, "wasxfail") and report.skipped else str(report.outcome)
    return None


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
