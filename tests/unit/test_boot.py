"""Whom the harness believes when it asks a cluster for its state, on nodes that answer as the test says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.cell.boot import RELEASE, query_cib, query_cluster, wait_running
from harness.cell.node import File, shown
from harness.cell.traces import traces
from harness.command import CommandFailed, Completed
from harness.errors import InfrastructureError

SAMPLES = Path(__file__).parent / "samples" / "crm_mon"
OWNED = ("volume", "filesystem", "pbx", "address")
REFUSED = (
    '<pacemaker-result><status code="102" message="Not connected"><errors><error>error: no launcher</error>'
    "<error>crm_mon: Connection to cluster failed: Connection refused</error></errors></status></pacemaker-result>"
)


@dataclass(frozen=True, kw_only=True)
class ScriptedNode:
    """Answers every command with `stdout` and `code`; `hangs` runs into its time-out."""

    name: str
    stdout: str = ""
    code: int = 0
    hangs: bool = False
    instance_id: str = "i-1"
    private_ip: str = "198.18.0.11"

    def run(self, argv: Sequence[str], *, timeout_s: float, stdin: str | None = None, check: bool = True) -> Completed:
        if self.hangs:
            raise CommandFailed(f"{self.name}: {argv[0]} did not end within {timeout_s:g} s")
        out = f"<cib from='{self.name}'/>" if argv[0] == "cibadmin" else self.stdout
        return Completed(argv=tuple(argv), code=self.code, stdout=out, stderr="", took_s=0)

    def put(self, files: Mapping[str, File]) -> None:
        raise NotImplementedError

    def fetch(self, path: str) -> bytes:
        raise NotImplementedError


def sample(name: str) -> str:
    return (SAMPLES / f"{name}.xml").read_text(encoding="utf-8")


def without_quorum(xml: str) -> str:
    return xml.replace('with_quorum="true"', 'with_quorum="false"')


def test_the_first_node_with_quorum_is_believed() -> None:
    nodes = [
        ScriptedNode(name="pbx-1", hangs=True),
        ScriptedNode(name="pbx-2", stdout=without_quorum(sample("formed"))),
        ScriptedNode(name="pbx-3", stdout=sample("failed-over")),
    ]
    assert query_cluster(nodes, owned=OWNED).active == "pbx-3"
    assert query_cib(nodes) == "<cib from='pbx-3'/>"


def test_without_any_quorum_the_first_answer_counts() -> None:
    nodes = [
        ScriptedNode(name="pbx-1", stdout=REFUSED, code=102),
        ScriptedNode(name="pbx-2", stdout=without_quorum(sample("formed"))),
        ScriptedNode(name="pbx-3", stdout=without_quorum(sample("failed-over"))),
    ]
    seen = query_cluster(nodes, owned=OWNED)
    assert (seen.quorum, seen.active) == (False, "pbx-2")


def test_when_nobody_answers_the_error_has_every_reason() -> None:
    nodes = [ScriptedNode(name="pbx-1", stdout=REFUSED, code=102), ScriptedNode(name="pbx-2", hangs=True)]
    with pytest.raises(InfrastructureError) as error:
        query_cluster(nodes, owned=OWNED)
    assert "pbx-1: crm_mon: Connection to cluster failed: Connection refused" in str(error.value)
    assert "pbx-2: crm_mon did not end within 4 s" in str(error.value)


def test_a_wait_for_resources_ends_at_once_when_one_has_failed() -> None:
    nodes = [ScriptedNode(name="pbx-1", stdout=sample("monitor-failed"))]
    with pytest.raises(InfrastructureError, match=r"could not start its resources: .*pbx_monitor_1000 on pbx-2"):
        wait_running(nodes, owned=OWNED, timeout_s=60)


def test_a_wait_for_resources_ends_at_once_when_one_can_run_nowhere() -> None:
    nodes = [ScriptedNode(name=f"pbx-{n}", stdout=sample("probe-not-installed")) for n in (1, 2, 3)]
    with pytest.raises(InfrastructureError, match="filesystem can't run on pbx-1: not installed"):
        wait_running(nodes, owned=OWNED, timeout_s=60)


def test_a_hold_that_came_back_is_removed_again() -> None:
    asked: list[str] = []

    @dataclass(frozen=True, kw_only=True)
    class HeldNode(ScriptedNode):
        def run(
            self, argv: Sequence[str], *, timeout_s: float, stdin: str | None = None, check: bool = True
        ) -> Completed:
            asked.append(argv[-1])
            return super().run(argv, timeout_s=timeout_s, stdin=stdin, check=check)

    held = sample("formed").replace('stop-all-resources="false"', 'stop-all-resources="true"')
    with pytest.raises(InfrastructureError, match="all resources are held"):
        wait_running([HeldNode(name=f"pbx-{n}", stdout=held) for n in (1, 2, 3)], owned=OWNED, timeout_s=0)
    assert RELEASE in asked
    assert "admin_epoch" in RELEASE and "stop-all-resources" in RELEASE


def test_a_wait_that_is_over_says_what_was_there_instead() -> None:
    nodes = [ScriptedNode(name="pbx-1", stdout=sample("pbx-starting"))]
    with pytest.raises(InfrastructureError, match=r"all resources started did not happen .* pbx Starting on pbx-3"):
        wait_running(nodes, owned=OWNED, timeout_s=0)


def test_traces_name_their_node_and_a_node_that_hangs_is_one() -> None:
    nodes = [ScriptedNode(name="pbx-1", stdout="filter table inet x\n"), ScriptedNode(name="pbx-2", hangs=True)]
    first, second = traces(nodes)
    assert first == "pbx-1: filter table inet x"
    assert second.startswith("pbx-2: can't be asked")
    assert traces([ScriptedNode(name="pbx-3")]) == []


def test_a_script_is_shown_by_its_first_line() -> None:
    assert shown(["crm_mon", "-1"]) == "crm_mon -1"
    assert shown(["sh", "-c", "set -e\nmkfs"]) == "sh -c set -e …"
    assert len(shown(["x" * 200])) == 82
