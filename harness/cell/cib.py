"""The CIB, Pacemaker's configuration, as a pure function of policy, PBX profile and cell.

It is put on a node *before* the first start, because Pacemaker reads `dc-deadtime` only then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from harness.cell.facts import CellFacts
from harness.cell.policy import Fencing, Policy, Resource, Scalar
from harness.errors import UsageError

FEATURE_SET = "3.16.1"
"""crm_feature_set of Pacemaker 2.1.5. With a newer one in the file the cluster never forms and says nothing."""

SCHEMA = "pacemaker-3.9"
ADMIN_EPOCH = 1
"""The number by which the newest of several CIBs is found before all others; only administrators change it."""

SHARED_LOAD = "0%"
"""load-threshold where nodes are containers, unless the policy sets it: off. Pacemaker runs one action at a time on a
node with a high load average (80 % per core); a container is shown the host's, that of all nodes and of the clients."""

GROUP_ID = "pbx-group"
FENCING_ID = "fencing"
ALERT_AGENT = "/usr/local/lib/pbx-node/alert"
ALERTS_FILE = "/var/log/pbx-node/alerts.jsonl"


def cib_xml(policy: Policy, facts: CellFacts, *, pbx_agent: str, pbx_params: Mapping[str, Scalar]) -> str:
    """The whole file. `pbx_agent` and `pbx_params` are the profile's; the policy's own params win over them."""
    cib = Element("cib", crm_feature_set=FEATURE_SET, epoch="1", num_updates="0", admin_epoch=str(ADMIN_EPOCH))
    cib.set("validate-with", SCHEMA)
    configuration = SubElement(cib, "configuration")
    _properties(SubElement(configuration, "crm_config"), policy, facts)
    nodes = SubElement(configuration, "nodes")
    for node in facts.nodes:
        SubElement(nodes, "node", id=str(node.node_id), uname=node.name)
    resources = SubElement(configuration, "resources")
    if policy.fencing.enabled:
        resources.append(_fencing_device(policy.fencing, facts))
    primitives = [
        _primitive(_of_profile(resource, pbx_agent, pbx_params), resource, facts) for resource in policy.resource
    ]
    _arrange(resources, SubElement(configuration, "constraints"), policy, primitives)
    if policy.defaults:
        _attributes(SubElement(configuration, "rsc_defaults"), "meta_attributes", "rsc-defaults", policy.defaults)
    alert = SubElement(SubElement(configuration, "alerts"), "alert", id="alerts", path=ALERT_AGENT)
    SubElement(alert, "recipient", id="alerts-file", value=ALERTS_FILE)
    SubElement(cib, "status")
    indent(cib)
    return tostring(cib, encoding="unicode") + "\n"


def _properties(parent: Element, policy: Policy, facts: CellFacts) -> None:
    fencing = policy.fencing
    own: dict[str, Scalar] = {"cluster-name": facts.cluster_name, "stonith-enabled": fencing.enabled}
    if fencing.enabled:
        own["stonith-action"] = fencing.action
    if fencing.timeout_s is not None:
        own["stonith-timeout"] = seconds(fencing.timeout_s)
    if facts.containers:
        own["load-threshold"] = SHARED_LOAD
    _attributes(parent, "cluster_property_set", "cib-bootstrap-options", own | policy.properties)


def _fencing_device(fencing: Fencing, facts: CellFacts) -> Element:
    """One device for all nodes: which instance is which node is in its host map."""
    device = Element("primitive", {"class": "stonith"}, id=FENCING_ID, type=fencing.agent)
    host_map = ";".join(f"{node.name}:{node.instance_id}" for node in facts.nodes)
    params: dict[str, Scalar] = {"pcmk_host_map": host_map}
    if fencing.timeout_s is not None:
        params |= {f"pcmk_{action}_timeout": seconds(fencing.timeout_s) for action in ("off", "reboot")}
    if fencing.monitor_timeout_s is not None:
        params["pcmk_monitor_timeout"] = seconds(fencing.monitor_timeout_s)
    filled = {key: facts.fill(_text(value)) for key, value in fencing.params.items()}
    _attributes(device, "instance_attributes", f"{FENCING_ID}-params", params | filled)
    operations = SubElement(device, "operations")
    _operation(operations, FENCING_ID, "monitor", fencing.monitor_interval_s, fencing.monitor_timeout_s)
    _operation(operations, FENCING_ID, "start", 0, fencing.monitor_timeout_s)
    return device


def _of_profile(resource: Resource, pbx_agent: str, pbx_params: Mapping[str, Scalar]) -> tuple[str, dict[str, Scalar]]:
    """Agent and params of a resource: a PBX takes what it does not say itself from the profile."""
    if resource.role == "pbx" and resource.agent is None:
        return pbx_agent, {**pbx_params, **resource.params}
    if resource.agent is None:
        raise UsageError(f"resource {resource.id}: agent is missing")
    return resource.agent, dict(resource.params)


def _primitive(run: tuple[str, Mapping[str, Scalar]], resource: Resource, facts: CellFacts) -> Element:
    agent, params = run
    standard, provider, kind = agent.split(":")
    element = Element("primitive", {"class": standard}, id=resource.id, provider=provider, type=kind)
    filled = {key: facts.fill(_text(value)) for key, value in params.items()}
    if filled:
        _attributes(element, "instance_attributes", f"{resource.id}-params", filled)
    if resource.meta:
        _attributes(element, "meta_attributes", f"{resource.id}-meta", resource.meta)
    operations = SubElement(element, "operations")
    monitor = _operation(operations, resource.id, "monitor", resource.monitor_interval_s, resource.monitor_timeout_s)
    if monitor is not None and resource.check_level is not None:
        level = {"OCF_CHECK_LEVEL": resource.check_level}
        _attributes(monitor, "instance_attributes", f"{resource.id}-monitor-params", level)
    _operation(operations, resource.id, "start", 0, resource.start_timeout_s)
    _operation(operations, resource.id, "stop", 0, resource.stop_timeout_s)
    return element


def _arrange(resources: Element, constraints: Element, policy: Policy, primitives: Sequence[Element]) -> None:
    """Serial: one group. Parallel: the address beside the group, after the file system and on its node."""
    beside = {r.id for r in policy.of_role("address")} if policy.ordering == "parallel-address" else set()
    group = SubElement(resources, "group", id=GROUP_ID)
    group.extend(element for element in primitives if element.get("id") not in beside)
    resources.extend(element for element in primitives if element.get("id") in beside)
    for name in sorted(beside):
        anchor = policy.of_role("filesystem")[-1].id
        SubElement(
            constraints,
            "rsc_colocation",
            {"id": f"{name}-with-{anchor}", "rsc": name, "with-rsc": anchor, "score": "INFINITY"},
        )
        SubElement(
            constraints,
            "rsc_order",
            {"id": f"{name}-after-{anchor}", "first": anchor, "then": name, "kind": "Mandatory"},
        )


def _operation(
    parent: Element, owner: str, name: str, interval_s: float | None, timeout_s: float | None
) -> Element | None:
    """An `<op>`; a monitor without an interval and a start or stop without a time-out keep the default: none at all."""
    if interval_s is None or (interval_s == 0 and timeout_s is None):
        return None
    operation = SubElement(parent, "op", id=f"{owner}-{name}", name=name, interval=seconds(interval_s))
    if timeout_s is not None:
        operation.set("timeout", seconds(timeout_s))
    return operation


def _attributes(parent: Element, tag: str, set_id: str, values: Mapping[str, Scalar]) -> None:
    element = SubElement(parent, tag, id=set_id)
    for key, value in values.items():
        SubElement(element, "nvpair", id=f"{set_id}-{key}", name=key, value=_text(value))


def _text(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def seconds(value_s: float) -> str:
    """A duration as Pacemaker reads it: `1s`, `500ms`, `0`."""
    if value_s == 0:
        return "0"
    return f"{value_s:g}s" if float(value_s).is_integer() else f"{round(value_s * 1000)}ms"
