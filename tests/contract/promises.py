"""The rows of the contract: a test function each, marked with the call, what AWS promises of it, and where AWS says so.

Rows are found by looking (`rows`); the table of docs/fidelity.md and the comparison of the backends are made from them.
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
ERRORS = f"{API}errors-overview.html"

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
    """Every row of the contract, by module and in the order in which they are written."""
    found = []
    package = importlib.import_module(__package__)
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda info: info.name):
        if not info.name.startswith("test_"):
            continue
        module = importlib.import_module(f"{__package__}.{info.name}")
        for name, test in vars(module).items():
            its = promise_of(test)
            if its is not None:
                found.append(Row(name=f"{info.name.removeprefix('test_')}.{name.removeprefix('test_')}", promise=its))
    return found
