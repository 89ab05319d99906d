"""From the samples of an account to a profile, and the ways in which a file of samples can be wrong."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from harness import catalogue
from harness.errors import UsageError
from harness.region.timing import BESIDE, OPERATIONS, read_timing
from harness.region.timing_fit import as_toml, fit, read_samples, show_or_fit, table

AWS = read_timing(catalogue.timing_path("aws"))


def csv_of(path: Path, *rows: str) -> Path:
    path.write_text("operation,seconds\n" + "".join(row + "\n" for row in rows))
    return path


def test_thirty_samples_make_a_measured_delay_and_fewer_an_assumed_one(tmp_path: Path) -> None:
    rows = [f"detach,{1 + n / 100:.2f}" for n in range(30)] + ["attach,2.5"] * 29
    samples = read_samples(csv_of(tmp_path / "s.csv", *rows))
    fitted = fit(samples, name="mine", source="eu-central-1, 2026-11", base=AWS)
    assert set(fitted.assumed) == set(OPERATIONS) - {"detach"}
    assert fitted.delay["attach"].told == "assumed (eu-central-1, 2026-11, n=29)"
    assert fitted.label == "mine (assumed)"
    assert fitted.delay["detach"].source == "eu-central-1, 2026-11, n=30"
    assert fitted.delay["detach"].p95 == pytest.approx(1.28)
    assert 1.0 <= fitted.delay["detach"].draw(Random(3)) <= 1.29


def test_what_was_fitted_is_a_file_that_can_be_read(tmp_path: Path) -> None:
    rows = [f"address,{2 + n / 10:.1f}" for n in range(40)]
    source, out = 'a "quoted" \\ place\n', tmp_path / "mine.toml"
    said = show_or_fit(str(csv_of(tmp_path / "s.csv", *rows)), name="mine", source=source, out=out)
    timing = read_timing(out)
    assert timing.label == "mine (assumed)"
    assert timing.delay["address"].samples_s == tuple(round(2 + n / 10, 1) for n in range(40))
    assert said[-1].endswith(f"--timing {out}")
    assert as_toml(timing) == out.read_text()


def test_what_was_not_sampled_takes_as_long_as_aws_is_assumed_to_take(tmp_path: Path) -> None:
    out = tmp_path / "mine.toml"
    show_or_fit(str(csv_of(tmp_path / "s.csv", *["attach,1.5"] * 30)), name="mine", source="here", out=out)
    timing = read_timing(out)
    assert {name: delay for name, delay in timing.delay.items() if name != "attach"} == {
        name: delay for name, delay in AWS.delay.items() if name != "attach"
    }
    assert timing.delay["attach"].told == "here, n=30"


def test_the_word_assumed_goes_when_all_is_measured(tmp_path: Path) -> None:
    rows = [f"{name},1" for name in OPERATIONS if name not in BESIDE for _ in range(30)]
    fitted = fit(read_samples(csv_of(tmp_path / "s.csv", *rows)), name="mine", source="here", base=AWS)
    assert (fitted.label, fitted.assumed) == ("mine", BESIDE)


def test_a_profile_is_shown_with_the_source_of_every_delay() -> None:
    said = show_or_fit("aws", name="mine", source="", out=None)
    assert said[0].startswith("aws (assumed): a limit is raised by ")
    assert all("assumed" in line for line in said)
    assert "as long as it takes here" in table(read_timing(Path("fixtures/timing/instant.toml")))[1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seconds,operation\n", "line 1 is not the header operation,seconds"),
        ("operation,seconds\n", "no samples"),
        ("operation,seconds\nattach,1\natach,1\n", "line 3: unknown operation 'atach'"),
        ("operation,seconds\nattach,fast\n", "line 2: 'fast' is not a number"),
        ("operation,seconds\nattach,nan\n", "line 2: nan is not between"),
        ("operation,seconds\nattach,-1\n", "line 2: -1 is not between"),
        ("operation,seconds\nattach\n", "line 2: 1 columns, not 2"),
    ],
)
def test_samples_that_are_wrong_are_told_by_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(UsageError, match=words):
        read_samples(tmp_path / "s.csv")


def test_a_fit_needs_a_source_and_a_name(tmp_path: Path) -> None:
    path = str(csv_of(tmp_path / "s.csv", "attach,1"))
    with pytest.raises(UsageError, match="--source"):
        show_or_fit(path, name="mine", source="", out=None)
    with pytest.raises(UsageError, match="--name My Own"):
        show_or_fit(path, name="My Own", source="x", out=None)
    with pytest.raises(UsageError, match="no timing profile file"):
        show_or_fit("none.toml", name="mine", source="", out=None)
