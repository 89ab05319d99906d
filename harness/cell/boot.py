"""The steps of bringing a cell up, each bounded, each with an error that says what was last seen.

Used by `harness.cell.cell.up`, which says in which order and what runs side by side.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from harness.cell.cib import ADMIN_EPOCH, cib_xml
from harness.cell.cluster import CRM_MON, ClusterState, parse_cluster, reason
from harness.cell.corosync import corosync_conf
from harness.cell.facts import CellFacts
from harness.cell.guest import BOOT, agent_files, cluster_files, profile_files, system_files
from harness.cell.node import File, Node
from harness.cell.policy import Policy
from harness.cell.profile import Profile
from harness.command import CommandFailed, run, wait_for
from harness.errors import InfrastructureError

A = TypeVar("A")
R = TypeVar("R")

POLL_S = 0.2
"""Each look costs the host about 0.05 s of CPU, which the cluster needs for forming."""

HOLD = "stop-all-resources"
"""Cluster property that is set until the volume is ready: the cluster forms meanwhile and starts nothing."""

DEVICE_TIMEOUT_S = 30
"""A volume may be `attached` for some time before the guest has its device."""

RELEASE = f"""cibadmin --modify --xml-text '<cib admin_epoch="{ADMIN_EPOCH + 1}"/>' &&
crm_attribute --type crm_config --name {HOLD} --delete"""


def side_by_side(work: Callable[[A], R], items: Iterable[A]) -> list[R]:
    """`work` on all items at once; the first error is raised when all have ended."""
    items = list(items)
    with ThreadPoolExecutor(max(1, len(items))) as pool:
        return list(pool.map(work, items))


def node_files(
    policy: Policy, profile: Profile, facts: CellFacts, *, endpoint_url: str | None
) -> list[dict[str, File]]:
    """All files of each node, in the order of `facts.nodes`."""
    held = replace(policy, properties=policy.properties | {HOLD: True})
    cib = cib_xml(held, facts, pbx_agent=profile.agent, pbx_params=profile.params)
    common = cluster_files(corosync_conf=corosync_conf(policy.corosync, facts), cib=cib)
    common |= agent_files() | profile_files(profile.name, profile.folder)
    return [common | system_files(facts, node, endpoint_url=endpoint_url) for node in facts.nodes]


def start_cluster(nodes: Sequence[Node]) -> None:
    """Run the boot script of nodes that have just got it, as their init does at each later start."""
    command = f"setsid {BOOT} >>/var/log/pbx-node/boot.log 2>&1 </dev/null &"
    side_by_side(lambda node: node.run(["sh", "-c", command], timeout_s=20), nodes)


def prepare_volume(node: Node, *, device: str, profile: Profile, facts: CellFacts, timeout_s: float = 120) -> None:
    """Make the file system on a fresh volume and let the profile create its data, on the node it is attached to."""
    command = profile.command("init", node=node.name, private_ip=node.private_ip, public_ip=facts.public_ip)
    script = f"""set -e
for _ in $(seq {DEVICE_TIMEOUT_S * 10}); do [ -b {device} ] && break; sleep 0.1; done
[ -b {device} ] || {{ echo 'it is attached, but there is no {device}' >&2; exit 1; }}
mkfs.xfs -q {device}
mkdir -p {facts.data_dir}
mount -t xfs {device} {facts.data_dir}
{shlex.join(command)} || {{ code=$?; umount -l {facts.data_dir}; exit $code; }}
umount {facts.data_dir}
"""
    done = node.run(["sh", "-c", script], timeout_s=timeout_s, check=False)
    if not done.ok:
        last = (done.stderr.strip() or done.stdout.strip() or f"code {done.code}").splitlines()[-1]
        raise InfrastructureError(f"{node.name}: the volume could not be prepared: {last}")


def release(node: Node, *, timeout_s: float) -> None:
    """Let the cluster start its resources, as soon as it takes a change of its configuration (there is a DC); from then
    on the CIB is what policy and profile say, nothing else.

    While nodes join, the newest of their configurations wins, and that may be one which still has the hold (seen once
    in some fifty cells): `admin_epoch`, which only administrators change, makes the one without it the newest for good.
    """
    seen = ["nothing"]

    def released() -> bool:
        done = node.run(["sh", "-c", RELEASE], timeout_s=20, check=False)
        seen[0] = reason(done)
        return done.ok

    wait_for("a cluster with a DC", released, timeout_s=timeout_s, every_s=POLL_S, last_seen=lambda: seen[0])


def wait_running(nodes: Sequence[Node], *, owned: Sequence[str], timeout_s: float) -> ClusterState:
    """Wait until all nodes are online, every resource is started and the owned ones are on one node; a failed action
    ends the wait, and a hold that came back is removed again."""

    def running(state: ClusterState) -> bool:
        if state.failed_actions or _nowhere(state, len(nodes)):
            raise InfrastructureError(f"the cluster could not start its resources: {state.describe()}")
        formed = len(state.online) == len(nodes) and state.dc is not None and state.quorum
        if formed and state.held:
            nodes[0].run(["sh", "-c", RELEASE], timeout_s=20, check=False)
        started = all(resource.role == "Started" for resource in state.resources)
        return formed and state.active is not None and started and not state.held

    return _wait_state("all resources started", nodes, running, owned=owned, timeout_s=timeout_s)


def _nowhere(state: ClusterState, nodes: int) -> bool:
    """Whether some resource was refused by every node: Pacemaker leaves it stopped and calls that no failure."""
    refused = [resource for resource, _, _ in state.refused]
    return any(refused.count(resource) == nodes for resource in refused)


def wait_answer(client_pid: int, *, address: str, port: int, timeout_s: float) -> None:
    """Wait until the PBX answers SIP OPTIONS over UDP at its public address, asked from the client's side."""
    argv = ["nsenter", "-t", str(client_pid), "-n", sys.executable, "-m", "harness.cell.answer"]
    argv += ["--to", f"{address}:{port}", "--timeout-s", f"{timeout_s:g}"]
    done = run(argv, timeout_s=timeout_s + 10, check=False)
    if not done.ok:
        seen = (done.stdout.strip() or done.stderr.strip() or "nothing").splitlines()[-1]
        raise InfrastructureError(f"no answer to OPTIONS at {address} within {timeout_s:g} s; last seen: {seen}")


def query_cluster(nodes: Sequence[Node], *, owned: Sequence[str]) -> ClusterState:
    """Ask the nodes one after the other until one answers with quorum; without any, the first that answered.

    A node that was cut off has its own, stale view: what the majority says counts.
    """
    return _asked(nodes, owned=owned)[1]


def query_cib(nodes: Sequence[Node]) -> str:
    """The CIB with its status section, from the node that `query_cluster` would believe."""
    return spokesman(nodes).run(["cibadmin", "--query"], timeout_s=10).stdout


def spokesman(nodes: Sequence[Node]) -> Node:
    """The node that `query_cluster` would believe: one with quorum where there is one."""
    return _asked(nodes, owned=())[0]


def _asked(nodes: Sequence[Node], *, owned: Sequence[str]) -> tuple[Node, ClusterState]:
    heard: tuple[Node, ClusterState] | None = None
    refused: list[str] = []
    for node in nodes:
        try:
            done = node.run(CRM_MON, timeout_s=4, check=False)
        except CommandFailed as error:
            refused.append(str(error))
            continue
        if not done.ok:
            refused.append(f"{node.name}: {reason(done)}")
            continue
        answer = node, parse_cluster(done.stdout, owned=owned)
        if answer[1].quorum:
            return answer
        heard = heard or answer
    if heard is None:
        raise InfrastructureError(f"no node tells the state of the cluster ({'; '.join(refused)})")
    return heard


def _wait_state(
    what: str, nodes: Sequence[Node], good: Callable[[ClusterState], bool], *, owned: Sequence[str], timeout_s: float
) -> ClusterState:
    seen = ["no node has answered"]

    def reached() -> ClusterState | None:
        try:
            state = query_cluster(nodes, owned=owned)
        except InfrastructureError as error:
            seen[0] = str(error)
            return None
        seen[0] = state.describe()
        return state if good(state) else None

    return wait_for(what, reached, timeout_s=timeout_s, every_s=POLL_S, last_seen=lambda: seen[0])
