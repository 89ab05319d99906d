"""A gateway in this process, for the tests of its front."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import topology as topologies
from harness.region.books import Books
from tests.fronts import Front, front
from tests.in_process import moto


@pytest.fixture(scope="module")
def books() -> Iterator[Books]:
    with moto() as books:
        yield books


@pytest.fixture
def site(books: Books, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Front]:
    monkeypatch.setattr(topologies, "STATE_ROOT", tmp_path)
    with front(books, tmp_path) as made:
        yield made
