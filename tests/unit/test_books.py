"""Whose books a region is on: written down for other processes, and asked for by name."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import DockerException, ImageNotFound

from harness import images, session
from harness import topology as topologies
from harness.errors import UsageError
from harness.region.books import Books, place_file
from harness.session import Request, resolve


@pytest.fixture(autouse=True)
def state_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topologies, "STATE_ROOT", tmp_path)


def test_books_are_found_by_what_they_wrote(tmp_path: Path) -> None:
    assert Books.read(tmp_path / "books.json") is None
    books = Books(host="198.19.7.2", port=4566, kind="localstack")
    books.write(tmp_path / "books.json")
    assert Books.read(tmp_path / "books.json") == books


@pytest.mark.parametrize(("standing", "asked"), [("moto", "localstack"), ("localstack", "moto")])
def test_a_standing_cell_on_other_books_is_a_usage_error(
    standing: Any, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = resolve(Request(cloud=asked))
    cell: Any = SimpleNamespace(policy=resolved.policy, profile=resolved.profile, topology=resolved.topology)
    monkeypatch.setattr("harness.cell.cell.load", lambda _: cell)
    resolved.topology.state_dir.mkdir()
    session.stand(cell)
    Books(host="127.0.0.1", port=1, kind=standing).write(place_file(resolved.topology))
    with pytest.raises(UsageError, match=f"up on {standing}, not {asked}"):
        session.standing_cell(resolved, died=None)
    assert session.standing_cell(resolve(Request(cloud=standing)), died=None) is cell


class Engine:
    """A Docker engine as `images` asks it; `pulls` tells whether a registry is reachable."""

    def __init__(self, *, has: set[str], pulls: bool) -> None:
        self.images = SimpleNamespace(get=self._get)
        self._has = has
        self._pulls = pulls

    def _get(self, reference: str) -> None:
        if reference not in self._has:
            raise ImageNotFound(reference)

    def pull(self, repository: str, *, tag: str) -> None:
        if not self._pulls:
            raise DockerException("no registry")
        self._has.add(f"{repository}:{tag}")


@pytest.mark.parametrize(
    ("token", "pulls", "public"), [(None, True, False), ("secret-token", True, True), ("secret-token", False, False)]
)
def test_localstacks_public_image_needs_a_token_and_a_registry(
    token: str | None, pulls: bool, public: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = images.wanted(localstack=True)
    engine = Engine(has={ours.node, ours.net, str(ours.localstack)}, pulls=pulls)
    monkeypatch.delenv(images.LOCALSTACK_TOKEN, raising=False)
    if token:
        monkeypatch.setenv(images.LOCALSTACK_TOKEN, token)
    monkeypatch.setattr("docker.APIClient", lambda **_: engine)
    said: list[str] = []
    built = images.ensure(engine, say=said.append, localstack=True)
    assert built.localstack == (images.PUBLIC_LOCALSTACK if public else ours.localstack)
    assert images.localstack_here(engine) == built.localstack, "tests take the same"
    assert images.localstack_here(Engine(has=set(), pulls=False)) is None
    assert "secret-token" not in "".join(said)
    assert images.ensure(engine, say=said.append).localstack is None
