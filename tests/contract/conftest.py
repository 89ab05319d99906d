"""A site per row, on every backend; nothing else than a local region can be talked to (guard.py)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import boto3
import botocore.session
import pytest
from botocore.httpsession import URLLib3Session

from harness import topology as topologies
from harness.region.books import Books
from tests.contract import guard, plugin
from tests.contract.aws import AwsAccount, aws_account
from tests.contract.local import TOPOLOGY, local_site
from tests.contract.promises import BACKENDS
from tests.contract.site import Site
from tests.in_process import books_of


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.integration)
            item.add_marker(pytest.mark.timeout(60))


@pytest.fixture(scope="session", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """Which of them a row runs on; what may not run is deselected (plugin.py), and refused here once more."""
    if request.param == "aws":
        refused = guard.refusal(asked=request.config.getoption("--aws", default=False), environment=os.environ)
        if refused is not None:
            pytest.fail(f"real AWS: {refused}")
    return str(request.param)


@pytest.fixture(scope="session", autouse=True)
def no_aws(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every botocore client of this process stays on this host, unless AWS was asked for and paid."""
    asked = request.config.getoption("--aws", default=False)
    if guard.refusal(asked=asked, environment=os.environ) is None:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(URLLib3Session, "send", guard.guarded(URLLib3Session.send))
        yield


@pytest.fixture(scope="session")
def nobodys_session() -> boto3.session.Session:
    """boto3 without the profile and the files of whoever runs the tests; one for all, its models are read once."""
    variables = {"profile": (None, None, None, None), "config_file": (None, None, os.devnull, None)}
    variables["credentials_file"] = (None, None, os.devnull, None)
    return boto3.session.Session(botocore_session=botocore.session.Session(session_vars=variables))  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def books(backend: str, pytestconfig: pytest.Config) -> Iterator[Books | None]:
    if backend == "aws":
        yield None
        return
    with books_of(backend, TOPOLOGY) as found:
        plugin.note(pytestconfig, found)
        yield found


@pytest.fixture(scope="session")
def account(backend: str) -> Iterator[AwsAccount | None]:
    if backend != "aws":
        yield None
        return
    with aws_account(boto3.session.Session(region_name=guard.region(os.environ))) as made:
        yield made


@pytest.fixture
def site(
    books: Books | None,
    account: AwsAccount | None,
    nobodys_session: boto3.session.Session,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Site]:
    if account is not None:
        with account.site() as made:
            yield made
        return
    assert books is not None
    monkeypatch.setattr(topologies, "STATE_ROOT", tmp_path)
    with local_site(books, nobodys_session) as made:
        yield made


@pytest.fixture
def two(site: Site) -> tuple[str, str]:
    """Two running instances, named a and b, at .11 and .12 of the subnet."""
    return site.two()
