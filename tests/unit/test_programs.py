"""Why a real client can't run here, in words; the programs themselves are in tests/integration/test_real_clients.py."""

from __future__ import annotations

import pytest

from harness.clients import browser, load, softphone
from harness.clients.programs import Program
from harness.errors import InfrastructureError


@pytest.mark.parametrize("client", [browser, softphone, load])
def test_without_an_engine_every_real_client_says_why_it_can_t_run(
    client: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    why = client.unmet()  # type: ignore[attr-defined]
    assert why is not None
    assert why.startswith("no Docker engine answers")


def test_a_program_that_can_t_run_is_refused_before_anything_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.clients.programs.unmet", lambda: "image x is not built")
    with pytest.raises(InfrastructureError, match="browser can't run: image x is not built"):
        Program.start("browser", ["true"])
