"""The rows of the contract: a test function each, marked with the call, what AWS promises of it, and where AWS says so.

Rows are found by looking (`rows`); the table of docs/fidelity.md and the comparison of the backends are made from them.
Rows of this package run on a data plane of dictionaries; stock agents are unmodified clients of AWS too, their rows run
on containers (tests/integration) and are called `agents.…`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

BACKENDS = ("moto", "localstack", "aws")
LOCAL = ("moto", "localstack")
"""What may keep the books of the local region."""

API = "https://docs.aws.amazon.com/AWSEC2/latest/APIReference/"
EC2_GUIDE = "https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/"
EBS_GUIDE = "https://docs.aws.amazon.com/ebs/latest/userguide/"
VPC_GUIDE = "https://docs.aws.amazon.com/vpc/latest/userguide/"
DEV_GUIDE = "https://docs.aws.amazon.com/ec2/latest/devguide/"
SSM_API = "https://docs.aws.amazon.com/systems-manager/latest/APIReference/"
STS_API = "https://docs.aws.amazon.com/STS/latest/APIReference/"
RESOURCE_AGENTS = "https://github.com/ClusterLabs/resource-agents/blob/main/heartbeat/"
FENCE_AWS = "https://github.com/ClusterLabs/fence-agents/blob/main/agents/aws/fence_aws.py"
ERRORS = f"{API}errors-overview.html"

AGENTS = "agents"
"""What the rows of the stock agents have in place of a module."""

AGENTS_PLACE = "tests.integration"
REAL_PLANE = "looks into the router and at the machines of the region"
DATA_PLANE = "looks into the data plane of dictionaries"
"""Why a row can't run on AWS."""

Test = TypeVar("Test", bound=Callable[..., object])


@dataclass(frozen=True, kw_only=True)
class Promise:
    """One row. `local_only` says why it can't run on AWS, None when it can."""

    call: str
    text: str
    source: str
    local_only: str | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """A promise and its test: `module.function`, without the package."""

    name: str
    promise: Promise


def promise(call: str, text: str, *, source: str, local_only: str | None = None) -> Callable[[Test], Test]:
    """Mark a test as a row of the contract: `text` is one sentence, `source` the address of AWS's document."""
    if not source.startswith("https://") or text.endswith("."):
        raise ValueError(f"{call}: a source is an address, a promise has no full stop")

    def mark(test: Test) -> Test:
        vars(test)["promise"] = Promise(call=call, text=text, source=source, local_only=local_only)
        return test

    return mark


def promise_of(test: object) -> Promise | None:
    """The promise that a test function stands for."""
    found = getattr(test, "promise", None)
    return found if isinstance(found, Promise) else None


def rows() -> list[Row]:
    """Every row of the contract, by module and as they are written, those of the agents at the end."""
    found = []
    for place in (__package__, AGENTS_PLACE):
        package = importlib.import_module(place)
        for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda info: info.name):
            if not info.name.startswith("test_"):
                continue
            module = importlib.import_module(f"{place}.{info.name}")
            for name, test in vars(module).items():
                its = promise_of(test)
                if its is not None and test.__module__ == module.__name__:
                    found.append(Row(name=row_name(f"{module.__name__.replace('.', '/')}.py", name), promise=its))
    return found


def row_name(path: str, test: str) -> str:
    """The name of the row that a test function of this file stands for."""
    place, _, file = path.rpartition("/")
    module = AGENTS if place == AGENTS_PLACE.replace(".", "/") else file.removesuffix(".py").removeprefix("test_")
    return f"{module}.{test.removeprefix('test_')}"


def of_agents(name: str) -> bool:
    """Whether this row is a stock agent's, on the region's own data plane."""
    return name.startswith(f"{AGENTS}.")
