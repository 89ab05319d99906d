"""A replacement for a node whose instance is terminated: a new instance that takes its name, address and place.

What an operator does on AWS: launch an instance with the private address that has become free, give it the node's
files, tell the cluster which instance the node is now, start the cluster stack. Corosync's configuration names
addresses only and stays as it is on the others; Pacemaker's names the instance (fencing), and is changed through a
surviving node before the new one joins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from xml.etree.ElementTree import Element, fromstring, tostring

from harness.cell import boot
from harness.cell.cell import FORM_TIMEOUT_S, LAUNCH_TIMEOUT_S, Cell, cell_facts, container_node, save
from harness.cell.guest import CIB_FILE
from harness.cell.node import Node
from harness.clock import NS_PER_S, now_ns
from harness.command import wait_for
from harness.errors import InfrastructureError

TERMINATE_TIMEOUT_S = 60.0
LOSS_TIMEOUT_S = 150.0
"""A fence agent that gets no answer it knows tries until its own time-out."""

CONFIRM_AGAIN_S = 5
POLL_S = 0.2


def replace_node(cell: Cell, name: str) -> Cell:
    """The cell with another instance as this node, once it is online; `InfrastructureError` says which step failed.

    The node's instance has been terminated by the caller (it may still be shutting down). The new one is written down
    in cell.json before anything is started on it, so that nothing of it is lost on a failure.
    """
    old = cell.node(name)
    state = cell.cloud.instance_state(old.instance_id)
    if state not in ("shutting-down", "terminated"):
        raise InfrastructureError(f"{name} is {state}: only a node whose instance is terminated can be replaced")
    cell.cloud.wait_state(old.instance_id, "terminated", timeout_s=TERMINATE_TIMEOUT_S)
    survivors = [node for node in cell.nodes if node.name != name]
    _bury(survivors, name)
    instance_id = cell.cloud.launch_like(
        survivors[0].instance_id, name=name, private_ip=old.private_ip, timeout_s=LAUNCH_TIMEOUT_S
    )
    new = container_node(name, instance_id, old.private_ip)
    made = replace(cell, nodes=tuple(new if node.name == name else node for node in cell.nodes))
    save(made)
    files = boot.node_files(made.policy, made.profile, cell_facts(made), endpoint_url=made.topology.endpoint_url)[
        made.nodes.index(new)
    ]
    new.put({path: file for path, file in files.items() if path != CIB_FILE})  # it gets the cluster's own when it joins
    _introduce(survivors, old=old.instance_id, new=instance_id)
    boot.start_cluster([new])
    _wait_online(made, name)
    return made


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One name-value pair of the CIB, by its id."""

    id: str
    name: str
    value: str

    @property
    def xml(self) -> str:
        return tostring(Element("nvpair", id=self.id, name=self.name, value=self.value), encoding="unicode")


def parameters_that_name(cib: str, instance_id: str, new: str) -> Iterator[Parameter]:
    """Every name-value pair of the configuration that names the instance, with `new` in its place."""
    configuration = fromstring(cib).find("configuration")
    for pair in configuration.iter("nvpair") if configuration is not None else ():
        value = pair.get("value", "")
        if instance_id in value:
            yield Parameter(id=str(pair.get("id")), name=str(pair.get("name")), value=value.replace(instance_id, new))


def _bury(survivors: Sequence[Node], name: str) -> None:
    """Wait until the cluster knows that the node is gone, and tell it that it is down, if it has to be sure of that.

    A terminated instance can be neither stopped nor started, so that no fence agent gets an answer that it knows: the
    word of the operator, who saw it `terminated`, has to do (`stonith_admin --confirm`). All this, and the end of every
    fencing under way, before there is another instance of that name, which the cluster would fence instead.
    """
    seen, confirmed = "nothing", 0

    def settled() -> bool:
        nonlocal seen, confirmed
        state = boot.query_cluster(survivors, owned=())
        seen = state.describe()
        if name in state.unclean and now_ns() - confirmed > CONFIRM_AGAIN_S * NS_PER_S:
            boot.spokesman(survivors).run(["stonith_admin", "--confirm", name], timeout_s=30, check=False)
            confirmed = now_ns()
        under_way = any(fencing.target == name and fencing.status == "pending" for fencing in state.fencing)
        return name not in state.online and name not in state.unclean and not under_way

    what = f"the cluster to give {name} up"
    wait_for(what, settled, timeout_s=LOSS_TIMEOUT_S, every_s=POLL_S, last_seen=lambda: seen)


def _introduce(survivors: Sequence[Node], *, old: str, new: str) -> None:
    """Tell the cluster which instance the node is now."""
    speaker = boot.spokesman(survivors)
    for parameter in parameters_that_name(boot.query_cib(survivors), old, new):
        where = f"//nvpair[@id='{parameter.id}']"
        speaker.run(["cibadmin", "--modify", "--xpath", where, "--xml-text", parameter.xml], timeout_s=10)


def _wait_online(cell: Cell, name: str) -> None:
    seen = "nothing"

    def online() -> bool:
        nonlocal seen
        state = cell.cluster()
        seen = state.describe()
        return name in state.online and state.quorum

    wait_for(f"{name} online", online, timeout_s=FORM_TIMEOUT_S, every_s=POLL_S, last_seen=lambda: seen)
