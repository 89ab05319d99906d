"""pytest's side of the contract: the options, which backends run, and the comparison of their verdicts at the end.

A row whose verdict differs between moto and LocalStack fails the session, whatever the row itself said, and so does a
row that was skipped on one of them: nobody knows whether they agree. With `--books` a session asks one of them only;
`python -m tests.contract` runs one such session for each, side by side, and compares what they wrote to `--verdicts`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypedDict

import pytest

from harness.region import localstack
from harness.region.books import Books
from tests.contract import guard
from tests.contract.promises import BACKENDS, LOCAL, of_agents, promise_of, row_name

Verdicts = dict[str, dict[str, str]]
"""By row (nodeid without the backend) the verdict of each backend that ran it."""

VERDICTS = pytest.StashKey[Verdicts]()
VERSIONS = pytest.StashKey[dict[str, str]]()
"""Of what kept the books, where only the books themselves can tell (`note`)."""

PACKAGE = "tests/contract/"


class Ran(TypedDict):
    """What a session found: the file of `--verdicts`."""

    verdicts: Verdicts
    promised: list[str]
    versions: dict[str, str]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("contract", "the contract with AWS (tests/contract)")
    group.addoption(guard.OPTION, action="store_true", help=f"also on real AWS; costs money, wants {guard.VARIABLE}")
    group.addoption("--books", choices=BACKENDS, metavar="KIND", help="only on this one: " + ", ".join(BACKENDS))
    group.addoption(
        "--verdicts", type=Path, metavar="FILE", help="write what each row said to FILE (JSON), to be merged"
    )
    group.addoption("--fidelity", type=Path, metavar="FILE", help="write the verdicts of the contract to FILE (JSON)")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[VERDICTS] = {}
    config.stash[VERSIONS] = {}
    refused = guard.refusal(asked=config.getoption(guard.OPTION), environment=os.environ)
    if config.getoption(guard.OPTION) and refused is not None:
        raise pytest.UsageError(refused)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what can't run on AWS, or may not, and what another session asks (`--books`)."""
    only = config.getoption("--books")
    allowed = guard.refusal(asked=config.getoption(guard.OPTION), environment=os.environ) is None
    out = {
        item
        for item in items
        if (backend := _backend(item)) is not None
        and ((backend == "aws" and not (allowed and _on_aws(item))) or only not in (None, backend))
    }
    if out:
        config.hook.pytest_deselected(items=list(out))
        items[:] = [item for item in items if item not in out]


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
    ran = Ran(
        verdicts=verdicts,
        promised=sorted({item.nodeid.partition("[")[0] for item in session.items if _is_row(item)}),
        versions=installed() | session.config.stash[VERSIONS],
    )
    if (target := session.config.getoption("--verdicts")) is not None:
        write_json(target, ran)
    if (target := session.config.getoption("--fidelity")) is not None:
        keep(target, ran)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    verdicts = config.stash[VERDICTS]
    if not verdicts:
        return
    terminalreporter.section("contract")
    for line in told(verdicts, asked=config.getoption(guard.OPTION)):
        terminalreporter.line(line)


def told(verdicts: Mapping[str, Mapping[str, str]], *, asked: bool, everywhere: bool = False) -> list[str]:
    """How many rows ran where, and a line per row on which the books do not agree."""
    counts = {name: sum(name in row for row in verdicts.values()) for name in BACKENDS}
    refused = guard.refusal(asked=asked, environment=os.environ)
    ran = ", ".join(f"{count} on {name}" for name, count in counts.items() if count) or "none"
    lines = [f"rows: {ran}" + (f"; real AWS: {refused}" if refused else "")]
    for row in differing(verdicts, everywhere=everywhere):
        by_backend = {name: "not run" for name in LOCAL if everywhere} | dict(verdicts[row])
        lines.append(
            f"DIFFERS {row}: " + ", ".join(f"{name} {verdict}" for name, verdict in sorted(by_backend.items()))
        )
    return lines


def row_of(nodeid: str, backend: str) -> str:
    """The nodeid without the backend: `test_x[moto-0]` and `test_x[localstack-0]` are one row."""
    name, bracket, parameters = nodeid.partition("[")
    kept = [part for part in parameters.rstrip("]").split("-") if part != backend]
    return f"{name}[{'-'.join(kept)}]" if bracket and kept else name


def differing(verdicts: Mapping[str, Mapping[str, str]], *, everywhere: bool = False) -> list[str]:
    """Rows on which moto and LocalStack do not agree, or that were skipped on one of them.

    A row that one of them was not asked for (`-k`, `--books`) is not compared, unless it shall have run `everywhere`.
    """
    found = []
    for row, by_backend in verdicts.items():
        said = [by_backend[name] for name in LOCAL if name in by_backend]
        absent = everywhere and len(said) < len(LOCAL)
        if absent or "skipped" in said or len(set(said)) > 1:
            found.append(row)
    return found


def merged(parts: Sequence[Ran]) -> Ran:
    """What several sessions found, each on books of its own."""
    whole = Ran(verdicts={}, promised=sorted({row for part in parts for row in part["promised"]}), versions={})
    for part in parts:
        whole["versions"] |= part["versions"]
        for row, by_backend in part["verdicts"].items():
            whole["verdicts"].setdefault(row, {}).update(by_backend)
    return whole


def results(ran: Ran) -> dict[str, Any]:
    """What is kept of a run: per row of the contract and backend the worst verdict of its variants."""
    order = ("failed", "xfailed", "skipped", "passed")
    found: dict[str, dict[str, str]] = {}
    for nodeid, by_backend in ran["verdicts"].items():
        whole = nodeid.partition("[")[0]
        if whole not in ran["promised"]:
            continue
        row = row_name(*whole.split("::", 1))
        for backend, verdict in by_backend.items():
            known = found.setdefault(row, {}).get(backend, verdict)
            found[row][backend] = min(known, verdict, key=order.index)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "versions": ran["versions"],
        "rows": dict(sorted(found.items())),
    }


def keep(target: Path, ran: Ran) -> None:
    """Write the verdicts to `target`: rows of the contract, and under `agents` those of the stock agents.

    They need other hosts and run in sessions of their own: what this one did not run at all stays as it is there.
    """
    found = results(ran)
    before = json.loads(target.read_text(encoding="utf-8")) if target.exists() else {}
    agents = {row: verdicts for row, verdicts in found["rows"].items() if of_agents(row)}
    rows = {row: verdicts for row, verdicts in found["rows"].items() if row not in agents}
    kept = {**found, "rows": rows} if rows else {key: before[key] for key in found if key in before}
    told = {**found, "rows": agents} if agents else before.get("agents")
    write_json(target, kept if told is None else {**kept, "agents": told})


def note(config: pytest.Config, books: Books | None) -> None:
    """Remember which LocalStack kept the books; of moto the version installed is the one that runs."""
    if books is not None and books.kind == "localstack":
        config.stash[VERSIONS]["localstack"] = localstack.version(books)


def installed() -> dict[str, str]:
    """Versions of what runs in this process."""
    return {name: _version(name) for name in ("moto", "boto3", "botocore")}


def write_json(target: Path, value: object) -> None:
    target.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def _backend(item: pytest.Item) -> str | None:
    spec = getattr(item, "callspec", None)
    if spec is None:
        return None
    if PACKAGE in item.nodeid:
        return spec.params.get("backend")
    return spec.params.get("region") if _is_row(item) else None


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
