"""A made-up run in which everything went well: the clean control of every checker, and what their tests spoil.

The active node loses its power 5 s after the steady state and is back 30 s later; the PBX answers again after 11.6 s.
`clean()` is the run as evidence, `write(path)` the same run as a folder. Times are in seconds after the steady state.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.checkers.types import Evidence
from harness.evidence import fault_records, outages_of
from harness.history import Op
from harness.rundir import RunDir

STEADY_NS = 1_000_000_000_000
NODES = ("pbx-1", "pbx-2", "pbx-3")
END_S = 48.0
BACK_S = 11.6
ROLES = {"volume": "volume", "filesystem": "filesystem", "pbx": "pbx", "address": "address"}
TIMINGS = {"options": {"period_s": 0.1, "deadline_s": 0.5}, "new_call": {"period_s": 1.0, "deadline_s": 2.0}}


def at(seconds: float) -> int:
    """Nanoseconds of the run's clock, `seconds` after the steady state."""
    return STEADY_NS + round(seconds * 1e9)


def op(seconds: float, f: str, kind: Any, value: dict[str, Any], *, process: str = "", error: str | None = None) -> Op:
    return Op(time_ns=at(seconds), process=process or f, f=f, type=kind, value=value, error=error)


def clean() -> Evidence:
    """The whole run."""
    return evidence_of(clean_ops())


def evidence_of(ops: Iterable[Op], **changes: Any) -> Evidence:
    """A run with other ops: numbered, with the outages and faults that follow from them; `changes` are other fields."""
    ordered = [replace(o, index=i) for i, o in enumerate(sorted(ops, key=lambda o: (o.time_ns, o.process)))]
    evidence = Evidence(
        ops=ordered,
        clocks=tuple(TIMINGS),
        faults=fault_records(ordered),
        steady_ns=STEADY_NS,
        end_ns=at(END_S),
        outages={clock: outages_of(ordered, clock, timing) for clock, timing in TIMINGS.items()},
        cluster={"before": cluster("pbx-1"), "after": cluster("pbx-2", fenced=["pbx-1"])},
        cloud_calls=cloud_calls(),
        alerts=alerts(),
        left_behind=(),
        expected_nodes=NODES,
        expected_faults=1,
        roles=ROLES,
        limits={"outage_limit_s": 15.0},
        data=data(),
    )
    return replace(evidence, **changes)


def spoiled(change: Callable[[Op], Op | None]) -> Evidence:
    """The clean run with every op passed through `change`; None drops it."""
    return evidence_of([new for old in clean_ops() if (new := change(old)) is not None])


def clean_ops() -> list[Op]:
    return [
        *probe_ops("options", latency_s=0.004),
        *probe_ops("new_call", latency_s=0.3),
        *ownership_ops(),
        *metronome_ops(),
        *nemesis_ops(),
        *acknowledgements(),
    ]


def probe_ops(clock: str, *, latency_s: float, down: tuple[float, float] = (5.0, BACK_S - 0.05)) -> list[Op]:
    """Answers of one clock from 6 s before the steady state on; nothing sent while down is answered."""
    period_s, deadline_s = TIMINGS[clock]["period_s"], TIMINGS[clock]["deadline_s"]
    ops = []
    for n in range(round((END_S + 6.0) / period_s)):
        sent = -6.0 + n * period_s
        lost = down[0] <= sent < down[1]
        ops.append(op(sent, clock, "invoke", {"n": n}))
        if lost:
            ops.append(op(sent + deadline_s, clock, "info", {"n": n}, error="nothing came back"))
        else:
            ops.append(op(sent + latency_s, clock, "ok", {"n": n}))
    return ops


def ownership(seconds: float, mounted: list[str], pbx: list[str], address: str | None, powered: list[str]) -> Op:
    value = {"mounted": mounted, "pbx": pbx, "address": address, "powered": powered}
    return op(seconds, "ownership", "ok", value)


def ownership_ops() -> list[Op]:
    ops = []
    for n in range(round((END_S + 6.0) * 5)):
        t = -6.0 + n / 5
        old, new, rest, everyone = ["pbx-1"], ["pbx-2"], ["pbx-2", "pbx-3"], list(NODES)
        if t < 5.02:
            ops.append(ownership(t, old, old, "pbx-1", everyone))
        elif t < 5.3:  # its container is still there, without power
            ops.append(ownership(t, old, old, "pbx-1", rest))
        elif t < 10.2:
            ops.append(ownership(t, [], [], "pbx-1", rest))
        elif t < 11.5:
            ops.append(ownership(t, new, [] if t < 10.5 else new, "pbx-1" if t < 10.6 else "pbx-2", rest))
        else:
            ops.append(ownership(t, new, new, "pbx-2", rest if t < 35 else everyone))
    return ops


def acknowledgements() -> list[Op]:
    """Two registrations, two calls that ended before the fault, one of them recorded, and one after it."""
    return [
        op(-7.0, "registration", "ok", {"user": "9999", "expires_s": 3600}, process="new_call"),
        op(-6.5, "ack", "ok", {"kind": "registration", "id": "1000", "expires_s": 120}, process="phones"),
        op(-2.0, "new_call_bye", "ok", {**bye(10), "recorded": True}, process="new_call"),
        op(4.0, "new_call_bye", "ok", bye(16), process="new_call"),
        op(20.0, "new_call_bye", "ok", bye(32), process="new_call"),
    ]


def bye(n: int) -> dict[str, Any]:
    return {"n": n, "call_id": f"call-{n}", "code": 200, "sdd_ms": 4.0, "sdt_ms": 300.0}


def data() -> list[dict[str, Any]]:
    """data.jsonl of the run: everything that was acknowledged, and a recording that the fault cut off."""
    declared = {"database": 0.0, "recordings": 2.0, "logs": 0.5, "prompts": 0.0}
    rows: list[dict[str, Any]] = [{"declared": declared, "node": "pbx-2", "read_ns": at(END_S + 1)}]
    rows += [{"kind": "database", "registration": user} for user in ("1000", "9999")]
    for call_id in ("call-10", "call-16", "call-32"):
        rows.append({"kind": "database", "call": call_id})
        rows += [{"kind": "logs", "log": call_id, "event": event} for event in ("started", "ended")]
    rows.append({"kind": "recordings", "recording": "a", "call": "call-10", "state": "finished", "intact": True})
    rows.append({"kind": "recordings", "recording": "b", "call": "call-17", "state": "interrupted", "intact": True})
    rows.append({"kind": "prompts", "prompt": "900", "intact": True})
    return rows


def metronome_ops(*, late_ms: float = 2.0) -> list[Op]:
    value = {"max_late_ms": late_ms, "psi_cpu_some_ratio": 0.1}
    return [op(t, "metronome", "ok", {"n": t + 7, **value}) for t in range(-6, round(END_S) + 1)]


def nemesis_ops() -> list[Op]:
    landed = {"target": "pbx-1", "landed_ns": at(5.02), "observed_by": "region journal: links cut"}
    named = {"n": 0, "name": "power off active"}
    return [
        op(5.0, "fault", "invoke", named, process="nemesis"),
        op(5.2, "fault", "ok", {**named, **landed}, process="nemesis"),
        op(35.02, "heal", "invoke", {"n": 0, "name": "power off pbx-1"}, process="nemesis"),
        op(36.0, "heal", "ok", {"n": 0, "name": "power off pbx-1"}, process="nemesis"),
    ]


def cluster(active: str | None, *, fenced: Iterable[str] = ()) -> dict[str, Any]:
    """A cluster at rest, as cluster-before.json has it."""
    resources = [{"id": name, "role": "Started", "node": active} for name in (*ROLES, "fencing")]
    history = [{"target": t, "action": "off", "status": "success", "completed": "01:02:03"} for t in fenced]
    state = {"online": list(NODES), "dc": "pbx-3", "active": active, "unclean": []}
    return {**state, "resources": resources, "failed_actions": [], "fencing": history}


def alert(seconds: float, kind: str, node: str, **fields: Any) -> dict[str, Any]:
    row = {"time_ns": at(seconds), "reporter": "pbx-2", "kind": kind, "node": node}
    return {**row, "task": "", "rsc": "", "desc": "", "rc": 0, "exec_ms": 0, **fields}


def action(begin: float, end: float, task: str, rsc: str, *, node: str = "pbx-2", rc: int = 0) -> dict[str, Any]:
    """The alert of an agent's action that ran from `begin` to `end`."""
    desc = "ok" if rc == 0 else "error"
    return alert(end, "resource", node, task=task, rsc=rsc, desc=desc, rc=rc, exec_ms=round((end - begin) * 1000))


def alerts() -> list[dict[str, Any]]:
    """A failover with the address beside the PBX; node and fencing alerts come from both survivors."""
    return [
        alert(-20.0, "node", "pbx-1", desc="member"),
        action(-15.0, -14.0, "start", "pbx", node="pbx-1"),
        alert(7.200, "node", "pbx-1", desc="lost"),
        alert(7.212, "node", "pbx-1", desc="lost", reporter="pbx-3"),
        alert(8.300, "fence_requested", "pbx-1", task="off", desc="requested", reporter="pbx-3"),
        alert(9.000, "fencing", "pbx-1", task="off", desc="Operation off of pbx-1: OK"),
        alert(9.008, "fencing", "pbx-1", task="off", desc="Operation off of pbx-1: OK", reporter="pbx-3"),
        action(9.1, 10.0, "start", "volume"),
        action(10.02, 10.2, "start", "filesystem"),
        action(10.25, 10.6, "start", "address"),
        action(10.25, 11.5, "start", "pbx"),
        alert(36.0, "node", "pbx-1", desc="member"),
    ]


def call(seconds: float, action: str, who: str = "pbx-2", *, error: str | None = None) -> dict[str, Any]:
    row = {"time_ns": at(seconds), "took_ms": 5.0, "who": who, "service": "ec2", "action": action}
    return {**row, "status": 200, "error": error}


def cloud_calls() -> list[dict[str, Any]]:
    return [
        call(5.0, "StopInstances", "harness"),
        call(8.5, "DescribeInstances", "pbx-3"),
        call(9.4, "DetachVolume"),
        call(9.7, "AttachVolume"),
        call(10.5, "AssociateAddress"),
    ]


def meta() -> dict[str, Any]:
    """scenario.json"""
    return {
        "scenario": "active-node-crash",
        "policy": "tuned",
        "cloud": "moto",
        "timing": "instant",
        "seed": 7,
        "started_at": "2026-11-25T01:02:03.000+00:00",
        "system": "stand-in@local/instant",
        "clocks": TIMINGS,
        "timeline": [
            {"at_s": 5, "hold_s": 30, "fault": "harness.faults.node:PowerOff", "fields": {"target": "active"}}
        ],
        "limits": {"outage_limit_s": 15.0},
        "roles": ROLES,
        "nodes": list(NODES),
        "environment": {"cpus": 2},
    }


def write(path: Path) -> RunDir:
    """The run as the folder a real one leaves."""
    run = RunDir(path=path)
    run.parts.mkdir(parents=True)
    (path / "logs").mkdir()
    for process in sorted({o.process for o in clean_ops()}):
        lines = [o.to_json() + "\n" for o in clean_ops() if o.process == process]
        (run.parts / f"{process}.jsonl").write_text("".join(lines), encoding="utf-8")
    run.write_json("scenario.json", meta())
    run.write_json("stages.json", {"steady_ns": STEADY_NS, "end_ns": at(END_S)})
    run.write_json("cluster-before.json", cluster("pbx-1"))
    run.write_json("cluster-after.json", cluster("pbx-2", fenced=["pbx-1"]))
    run.write_json("left-behind.json", [])
    for name, rows in (("alerts.jsonl", alerts()), ("cloud-calls.jsonl", cloud_calls()), ("data.jsonl", data())):
        run.write_text(name, "".join(json.dumps(row) + "\n" for row in rows))
    return run
