"""The commands as a user types them, on a real cell: misuse, Ctrl-C, kill -9, two harnesses at once, leaks."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import docker
import pytest

from harness.command import wait_for
from tests.integration.hosts import traces

pytestmark = [pytest.mark.integration, pytest.mark.alone, pytest.mark.timeout(240)]

CELL = "pbx-cli"
SLOT = "14"
HERE = ["--cell", CELL, "--slot", SLOT]
ALL_MOMENTS_S = (0.3, 1.5, 4.0, 7.0, 10.0, 13.0, 16.0, 19.0, 24.0, 34.0)


def command(argv: Sequence[str]) -> list[str]:
    return [sys.executable, "-c", "import harness.entry; harness.entry.main()", *argv]


def start(argv: Sequence[str]) -> subprocess.Popen[str]:
    """Started as from a terminal: a shell that runs the tests in the background has Ctrl-C ignored, and so have we."""
    return subprocess.Popen(
        command(argv), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def finish(argv: Sequence[str], *, timeout_s: float = 200) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(argv), capture_output=True, text=True, timeout=timeout_s)


def run_crash(out: Path, *more: str) -> list[str]:
    return ["run", "active-node-crash", "--policy", "tuned", *HERE, "--out", str(out), *more]


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "standing" not in request.fixturenames:
        finish(["down", "--cell", CELL])
        assert traces(CELL) == []


def test_a_busy_subnet_is_named_with_the_way_out() -> None:
    client = docker.from_env()
    pool = docker.types.IPAMPool(subnet="198.18.26.0/24")
    network = client.networks.create("pbx-cli-busy", ipam=docker.types.IPAMConfig(pool_configs=[pool]))
    try:
        done = finish(["up", "--cell", CELL, "--slot", "13"])
    finally:
        network.remove()
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert "198.18.26.0/24" in last
    assert "--slot" in last


def test_a_full_disk_is_named_before_anything_starts(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "pbx-cli-full", str(tmp_path)], check=True)
    try:
        done = finish(run_crash(tmp_path / "runs"))
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert done.returncode == 2
    assert "GiB free" in done.stderr


@pytest.mark.soak
def test_a_disk_that_fills_up_in_the_middle_ends_the_run_with_2_healed_and_cleaned_up(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2100m", "pbx-cli-fills", str(tmp_path)], check=True)
    try:
        process = start(run_crash(tmp_path))
        run_dir = tmp_path / "active-node-crash" / "latest"
        wait_for("the fault", lambda: '"landed"' in read(run_dir / "undo.jsonl"), timeout_s=120)
        subprocess.run(["sh", "-c", f"head -c 3G /dev/zero > {tmp_path}/ballast"], stderr=subprocess.DEVNULL)
        _, stderr = process.communicate(timeout=180)
        assert process.returncode == 2, stderr
        assert "full" in stderr.strip().splitlines()[-1] or "No space left" in stderr.strip().splitlines()[-1], stderr
        assert '"healed"' in read(run_dir / "undo.jsonl") or traces(CELL) == []
        assert read(run_dir / "history.d" / "options.jsonl").count("\n") > 100
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)
    assert traces(CELL) == []


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_no_fuse_device_is_named_before_anything_starts() -> None:
    without_devices = 'mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && exec "$@"'
    argv = ["unshare", "-m", "sh", "-c", without_devices, "sh", *command(["up", *HERE])]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "/dev/fuse can't be opened" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.fixture(scope="class")
def standing() -> Iterator[None]:
    assert finish(["up", "--policy", "tuned", *HERE]).returncode == 0
    yield
    finish(["down", "--cell", CELL])
    assert traces(CELL) == []


@pytest.mark.usefixtures("standing")
class TestACellThatStands:
    """One cell, brought up once; in the order of the class: looked at, used, and taken down by the last."""

    def test_it_is_looked_at_and_entered(self) -> None:
        again = finish(["up", "--policy", "tuned", *HERE, "--json"], timeout_s=20)  # it stands already
        assert json.loads(again.stdout)["cluster"]["online"] == ["pbx-1", "pbx-2", "pbx-3"]
        state = json.loads(finish(["status", "--cell", CELL, "--json"]).stdout)
        active = state["cluster"]["active"]
        assert {row["node"] for row in state["cluster"]["resources"] if row["id"] == "pbx"} == {active}
        inside = subprocess.run(
            command(["shell", "active", "--cell", CELL]), input="hostname\n", capture_output=True, text=True, timeout=20
        )
        assert inside.stdout.strip() == active
        assert finish(["shell", "pbx-9", "--cell", CELL]).returncode == 3
        other = finish(["run", "active-node-crash", "--policy", "default", *HERE])
        assert other.returncode == 3
        assert "is up with policy tuned" in other.stderr

    def test_abort_from_another_terminal_ends_the_run_with_2(self, tmp_path: Path) -> None:
        process = start(run_crash(tmp_path))
        journal = tmp_path / "active-node-crash" / "latest" / "undo.jsonl"
        wait_for("the fault", lambda: journal.exists() and '"landed"' in journal.read_text(), timeout_s=120)
        second = finish(run_crash(tmp_path))
        assert second.returncode == 2
        assert "in use by process" in second.stderr
        done = finish(["abort", "--cell", CELL])
        assert done.returncode == 0, done.stderr
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 2, stderr
        assert '"healed"' in journal.read_text()

    def test_it_is_taken_down(self) -> None:
        assert finish(["down", "--cell", CELL]).returncode == 0
        gone = finish(["status", "--cell", CELL])
        assert gone.returncode == 2
        assert "pbx-chaos up" in gone.stderr


def test_ctrl_c_in_the_middle_heals_keeps_the_evidence_and_exits_2(tmp_path: Path) -> None:
    process = start(run_crash(tmp_path))
    history = tmp_path / "active-node-crash" / "latest" / "history.d" / "options.jsonl"
    wait_for("the first answers", lambda: history.exists() and history.stat().st_size > 10_000, timeout_s=90)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 2, stderr
    assert "stopped by SIGINT" in stderr
    assert (history.parent.parent / "history.jsonl").stat().st_size > 10_000
    assert json.loads((history.parent.parent / "results.json").read_text())["verdict"] == "unknown"
    assert traces(CELL) == []


@pytest.mark.parametrize("after_s", [3.0, *(pytest.param(s, marks=pytest.mark.soak) for s in ALL_MOMENTS_S)])
def test_ctrl_c_at_any_moment_leaves_nothing_and_exits_2(after_s: float, tmp_path: Path) -> None:
    process = start(run_crash(tmp_path))
    try:
        process.wait(timeout=after_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 2, stderr
    assert len(stderr.strip().splitlines()) == 1, stderr
    assert traces(CELL) == []


def test_kill_9_then_clean_leaves_nothing(tmp_path: Path) -> None:
    process = start(run_crash(tmp_path))
    history = tmp_path / "active-node-crash" / "latest" / "history.d" / "options.jsonl"
    wait_for("the first answers", lambda: history.exists() and history.stat().st_size > 10_000, timeout_s=90)
    done, took_s = kill_then_clean(process)
    assert done.returncode == 0 or CELL not in done.stderr, done.stderr  # a cell of this very session is still in use
    assert traces(CELL) == []
    assert took_s < 60


@pytest.mark.soak
@pytest.mark.parametrize("after_s", ALL_MOMENTS_S)
def test_kill_9_at_any_moment_then_clean_leaves_nothing(after_s: float, tmp_path: Path) -> None:
    process = start(run_crash(tmp_path))
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=after_s)
    done, took_s = kill_then_clean(process)
    assert done.returncode == 0 or CELL not in done.stderr, done.stderr
    assert traces(CELL) == []
    assert took_s < 60


def kill_then_clean(process: subprocess.Popen[str]) -> tuple[subprocess.CompletedProcess[str], float]:
    """Kill a run that is under way, and clean up; what the clean-up said, and how many seconds it took."""
    process.kill()  # not one that has ended
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL, "the run ended before it could be killed"
    began = time.monotonic()
    done = finish(["clean"])
    return done, time.monotonic() - began


@pytest.mark.soak
@pytest.mark.timeout(1500)
def test_ten_runs_in_a_row_pass_and_leave_nothing(tmp_path: Path) -> None:
    done = finish(run_crash(tmp_path, "--repeat", "10", "--json"), timeout_s=1400)
    documents = json.loads(done.stdout)
    assert [document["verdict"] for document in documents] == ["pass"] * 10
    assert done.returncode == 0
    assert traces(CELL) == []
