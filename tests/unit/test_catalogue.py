"""What there is to run is found by looking, and an unknown name gets the nearest one as an answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import catalogue
from harness.errors import UsageError


def test_policies_and_always_on_checkers_are_found() -> None:
    assert catalogue.policy_path("tuned").name == "tuned.toml"
    assert {"single_owner", "settled", "phases_explained"} <= {c.name for c in catalogue.always_on()}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tunde", "unknown policy 'tunde': did you mean 'tuned'"),
        ("zzz", "unknown policy 'zzz': known: default, tuned"),
        ("nowhere.toml", "there is no policy file nowhere.toml"),
    ],
)
def test_an_unknown_policy(name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        catalogue.policy_path(name)


def test_a_policy_of_one_s_own(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text("")
    assert catalogue.policy_path(str(mine)) == mine


def test_a_scenario_file_that_breaks_says_how(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("1 / 0")
    with pytest.raises(UsageError, match="can't be loaded: ZeroDivisionError"):
        catalogue.scenario(str(broken))
    with pytest.raises(UsageError, match="there is no scenario file"):
        catalogue.scenario(str(tmp_path / "none.py"))


def test_a_file_holds_one_scenario(tmp_path: Path) -> None:
    text = "from types import SimpleNamespace as N\nfrom harness.scenario import Scenario\n"
    text += "A = Scenario(name='mine', probes=[N(name='options', timing=dict(), watch_s=0)], timeline=[])\n"
    path = tmp_path / "mine.py"
    path.write_text(text)
    assert catalogue.scenario(str(path)).name == "mine"
    path.write_text("")
    with pytest.raises(UsageError, match="holds 0 scenarios"):
        catalogue.scenario(str(path))


def test_two_scenarios_of_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = "from types import SimpleNamespace as N\nfrom harness.scenario import Scenario\n"
    for number in (1, 2):
        probe = "N(name='options', timing=dict(), watch_s=0)"
        text = f"A = Scenario(name='same', probes=[{probe}], timeline=[], seed={number})\n"
        (tmp_path / f"s{number}.py").write_text(head + text)
    monkeypatch.setattr(catalogue, "SCENARIOS", tmp_path)
    with pytest.raises(UsageError, match="two scenarios are called 'same'"):
        catalogue.scenarios()
