"""What the cluster says of itself: `crm_mon --output-as=xml` as a frozen value.

Pure: XML in, `ClusterState` out. Which node is asked, and what if it does not answer, is the cell's business.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, ParseError, fromstring

from harness.command import Completed
from harness.errors import InfrastructureError

CRM_MON = ("crm_mon", "--one-shot", "--output-as=xml", "--fence-history=2")
"""Nodes, resources, failures and every fencing that the cluster remembers (0.1 s)."""


NORMAL_PROBES = ("0", "7", "8", "193")
"""OCF codes of probes that are fine: running, not running, running as promoted, and (193) still under way."""


@dataclass(frozen=True, kw_only=True)
class ResourceState:
    """One resource: `role` is Started, Stopped, Starting …; `node` where it is active, None where it is not.

    `where` is every node it is active on: more than one is a split cluster or a failed stop.
    """

    id: str
    role: str
    node: str | None
    where: tuple[str, ...] = ()
    failed: bool = False
    blocked: bool = False


@dataclass(frozen=True, kw_only=True)
class Fencing:
    """One fencing the cluster remembers. `completed` is the fencer's own stamp, None while pending."""

    target: str
    action: str
    status: str
    origin: str
    delegate: str | None
    completed: str | None


@dataclass(frozen=True, kw_only=True)
class ClusterState:
    """The cluster as one of its nodes sees it.

    `active` is the node on which *all* resources run that make a node the active one (volume, file system, PBX,
    address) and which is online and not unclean; None when there is no such node. `unclean` nodes have to be fenced.
    """

    online: tuple[str, ...]
    dc: str | None
    quorum: bool
    active: str | None
    resources: tuple[ResourceState, ...]
    failed_actions: tuple[str, ...]
    fencing: tuple[Fencing, ...]
    unclean: tuple[str, ...] = ()
    refused: tuple[tuple[str, str, str], ...] = ()
    """(resource, node, reason) of probes that say the resource can't run there: Pacemaker counts none as a failure."""

    held: bool = False
    """The cluster is told to run nothing (`stop-all-resources`)."""

    def describe(self) -> str:
        """One line for an error: who is there, what runs where, what failed."""
        parts = [f"online: {', '.join(self.online) or 'none'}", f"dc: {self.dc or 'none'}"]
        parts += [f"quorum: {'yes' if self.quorum else 'no'}"]
        parts += ["all resources are held"] if self.held else []
        parts += [f"{r.id} {r.role}{f' on {r.node}' if r.node else ''}" for r in self.resources]
        parts += [f"unclean: {', '.join(self.unclean)}"] if self.unclean else []
        parts += [f"failed: {', '.join(self.failed_actions)}"] if self.failed_actions else []
        parts += [f"{resource} can't run on {node}: {why}" for resource, node, why in self.refused]
        parts += [f"fencing of {f.target}: {f.status}" for f in self.fencing if f.status != "success"]
        return "; ".join(parts)


def parse_cluster(xml: str, *, owned: Sequence[str]) -> ClusterState:
    """`crm_mon`'s XML; `owned` are the ids of the resources that make a node the active one."""
    try:
        root = fromstring(xml)
    except ParseError as error:
        raise InfrastructureError(f"crm_mon printed no XML: {error}") from error
    resources = tuple(sorted(_resources(root), key=lambda resource: resource.id))
    nodes = root.findall("./nodes/node")
    online = tuple(sorted(_name(node) for node in nodes if _true(node, "online") and not _true(node, "pending")))
    unclean = tuple(sorted(_name(node) for node in nodes if _true(node, "unclean")))
    dc = root.find("./summary/current_dc")
    options = root.find("./summary/cluster_options")
    return ClusterState(
        online=online,
        dc=dc.get("name") if dc is not None else None,
        quorum=dc is not None and _true(dc, "with_quorum"),
        active=_active(resources, owned, sound=set(online) - set(unclean)),
        resources=resources,
        failed_actions=tuple(_failures(root)),
        fencing=tuple(_fencings(root)),
        unclean=unclean,
        refused=tuple(sorted(set(_refusals(root)))),
        held=options is not None and _true(options, "stop-all-resources"),
    )


def reason(done: Completed) -> str:
    """Why crm_mon gave no state, in its own words: it puts them into its XML."""
    told = re.findall(r"<error>(.*?)</error>", done.stdout, re.DOTALL)
    last = told[-1:] or (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
    return last[0].strip() if last else f"crm_mon ended with {done.code}"


def _resources(root: Element) -> Iterator[ResourceState]:
    """Primitives wherever they are (in groups, clones, alone), without the fence devices."""
    section = root.find("./resources")
    for element in section.iter("resource") if section is not None else ():
        if str(element.get("resource_agent", "")).startswith("stonith:"):
            continue
        where = tuple(sorted(_name(node) for node in element.findall("./node")))
        yield ResourceState(
            id=str(element.get("id")),
            role=str(element.get("role")),
            node=where[0] if where else None,
            where=where,
            failed=_true(element, "failed"),
            blocked=_true(element, "blocked"),
        )


def _active(resources: Sequence[ResourceState], owned: Sequence[str], *, sound: set[str]) -> str | None:
    """Until a lost node is fenced Pacemaker still lists its resources as started there: it is not active any more."""
    found = {resource.id: resource for resource in resources}
    if not owned or any(name not in found or found[name].role != "Started" for name in owned):
        return None
    places = {found[name].where for name in owned}
    only = places.pop()
    return only[0] if not places and len(only) == 1 and only[0] in sound else None


def _failures(root: Element) -> Iterator[str]:
    """`volume start on pbx-2: not running (timed out …)`, each once."""
    for failure in root.findall("./failures/failure"):
        operation = str(failure.get("op_key", failure.get("id", "?")))
        why = html.unescape(failure.get("exitreason") or failure.get("exitstatus") or "unknown")
        yield f"{operation} on {failure.get('node')}: {why}"


def node_of_failure(action: str) -> str:
    """Where an action of `ClusterState.failed_actions` failed."""
    return action.partition(" on ")[2].partition(":")[0]


def _refusals(root: Element) -> Iterator[tuple[str, str, str]]:
    for node in root.findall("./node_history/node"):
        for history in node.findall("./resource_history"):
            for done in history.findall("./operation_history[@task='probe']"):
                if done.get("rc") not in NORMAL_PROBES:
                    yield str(history.get("id")), _name(node), str(done.get("rc_text"))


def _fencings(root: Element) -> Iterator[Fencing]:
    for event in root.findall("./fence_history/fence_event"):
        yield Fencing(
            target=str(event.get("target")),
            action=str(event.get("action")),
            status=str(event.get("status")),
            origin=str(event.get("origin")),
            delegate=event.get("delegate"),
            completed=event.get("completed"),
        )


def _name(node: Element) -> str:
    return str(node.get("name"))


def _true(element: Element, key: str) -> bool:
    return element.get(key) == "true"
