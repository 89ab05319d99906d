"""What the stand-in PBX does with its files after a crash: torn lines are marked, cut recordings are set aside."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.cell.profile import PROFILES

LINE = " 3(98) NOTICE: {1 2 INVITE x} <script>: EVENT 1764061626.389652 started ad6b@x pbx-1 1000 1001 ."
EVENT = {
    "time": "1764061626.389652",
    "event": "started",
    "log": "ad6b@x",
    "node": "pbx-1",
    "caller": "1000",
    "callee": "1001",
}


@pytest.fixture(scope="module")
def data() -> Any:
    spec = importlib.util.spec_from_file_location("stand_in_data", PROFILES / "stand-in" / "data.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def site(tmp_path: Path) -> Any:
    for folder in ("pcaps", "metadata", "tmp", "kept"):
        (tmp_path / "recordings" / folder).mkdir(parents=True)
    return SimpleNamespace(path=lambda *parts: str(tmp_path.joinpath(*parts)))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b""),
        (b"one\n", b"one\n"),
        (b"one\ntw", b"one\ntw <torn>\n"),
        (b"one\ntw" + bytes(5000), b"one\ntw <torn>\n"),
        (b"one\n" + bytes(5000), b"one\n"),
    ],
)
def test_a_torn_line_is_marked_and_the_log_ends_with_a_line(
    data: Any, tmp_path: Path, before: bytes, after: bytes
) -> None:
    log = tmp_path / "log"
    log.write_bytes(before)
    assert data.mend_log(str(log)) == (before != after)
    assert log.read_bytes() == after
    assert not data.mend_log(str(log))


def test_a_log_that_is_not_there_yet_needs_no_mending(data: Any, tmp_path: Path) -> None:
    assert not data.mend_log(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("line", "row"),
    [
        (LINE, EVENT),
        (" 0(1) NOTICE: tls [tls_init.c:807]: something else", None),
        (LINE[:-20], {"torn": LINE[:-20]}),
        (LINE[:-20] + " <torn>", None),
        (LINE[:40] + "\0\0\0", {"torn": LINE[:40] + "\0\0\0"}),
    ],
)
def test_a_line_of_the_log_is_an_event_or_half_of_one_or_neither(data: Any, line: str, row: Any) -> None:
    assert data.event_of(line) == row


def test_recordings_of_the_last_life_are_out_of_the_way_and_told_apart(data: Any, site: Any) -> None:
    files = {
        "pcaps/cut%40x-1f.pcap": "half",
        "pcaps/whole-2f.pcap": "all",
        "metadata/rtpengine-meta-whole-2f.txt": "x",
        "tmp/rtpengine-meta-cut%40x-1f.tmp": "x",
        "kept/cut%40x-1f.cut.pcap": "half of an earlier life",
    }
    for name, text in files.items():
        Path(site.path("recordings", name)).write_text(text)
    data.set_recordings_aside(site)
    left = {p.name: p.read_text() for p in Path(site.path("recordings")).rglob("*") if p.is_file()}
    assert left == {
        "cut%40x-1f.cut.pcap": "half of an earlier life",
        "cut%40x-1f.cut.2.pcap": "half",
        "whole-2f.pcap": "all",
    }
    assert data.call_of("cut%40x-1f.cut.2.pcap") == "cut@x"
    assert data.call_of("whole-2f.2.pcap") == "whole"


def test_a_recording_that_has_ended_is_taken_over_with_its_digest(data: Any, site: Any) -> None:
    Path(site.path("recordings", "pcaps", "a-1f.pcap")).write_text("sound")
    Path(site.path("recordings", "pcaps", "b-2f.pcap")).write_text("going on")
    Path(site.path("recordings", "metadata", "rtpengine-meta-a-1f.txt")).write_text("x")
    ended = list(data.finished_recordings(site))
    assert [name for name, _ in ended] == ["a-1f.pcap"]
    assert data.take_over(site, *ended[0]) == "a-1f.pcap"
    assert data.digest(site.path("recordings", "kept", "a-1f.pcap"))[0] == 5
    assert not list(data.finished_recordings(site))
