"""The region's front door: an EC2 endpoint whose answers are true, in front of books that only keep records.

Listens on the cell's VPC endpoint address. Calls that touch machines, volumes or addresses are decided here and carried
out on the data plane; SSM and STS are answered here too. Of the rest, what only reads, and a few records that nothing
follows from, go to the books; everything else is refused, never silently done. Every call becomes a line in
cloud-calls.jsonl. `GET /_region/health`, `GET /_region/state` and `/_region/control` are for the harness.

Run as `python -m harness.region.gateway --cell NAME --slot N --books PATH`; ends on SIGTERM. Started again,
it finds its state (region.json), its machines (labels), its volumes and the router's table, and finishes what was half
done.
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import logging
import socket
import struct
import sys
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from harness.clock import NS_PER_S, now_ns
from harness.command import wait_for
from harness.errors import UsageError
from harness.region import (
    control,
    ec2_addresses,
    ec2_filters,
    ec2_instances,
    ec2_interfaces,
    ec2_launch,
    ec2_network_acls,
    ec2_routes,
    ec2_volume_changes,
    ec2_volumes,
    instance_agreement,
    passed,
    recovery,
    request_form,
)
from harness.region.actions import CONTROLS, MADE, SERVICES, SHOWN
from harness.region.addresses import TABLE_FILE, Addresses
from harness.region.api_faults import Fault
from harness.region.api_path import Api, hosts, read_api, serves
from harness.region.books import Books, BooksFailed
from harness.region.calls import AwsError, Call, CallLog, error_code, parse
from harness.region.credentials import HarnessKey
from harness.region.instances import Instances
from harness.region.journal import Journal
from harness.region.packet_filter import PacketFilter
from harness.region.plane import LOG, Plane, refuse_dry_run
from harness.region.protocols import (
    MAX_BODY_BYTES,
    TYPES,
    defect,
    failure,
    internal_error,
    model,
    operations,
    refusal,
    stranger,
    too_large,
)
from harness.region.router import docker_client
from harness.region.state import Instance, State
from harness.region.timing import Delays, read_delays, timing_file
from harness.region.volumes import Volumes
from harness.topology import GATEWAY_PORT, Topology

THREADS = 32
"""For calls that only read, and as many again for those that change something: those never wait behind the others."""

BACKLOG = 1024
"""Connections that may wait to be taken: a thousand callers at once are all answered."""

START_TIMEOUT_S = 30.0
BOOKS_TIMEOUT_S = 60.0
"""LocalStack takes seconds, more on a busy host."""

LOOK_S = 0.05
"""How often is looked whether a caller who gets no answer has given up."""

PACED = {"AssociateAddress": "associate"}
"""Actions that take their time before they are answered, and the delay (timing.OPERATIONS) that says how much."""


class Gateway:
    """The HTTP side: read, authenticate, injure, dispatch, log."""

    def __init__(self, *, plane: Plane, harness_key: str, api: Api = "endpoint") -> None:
        self._plane = plane
        self._api: Api = api
        self._harness_key = harness_key
        self._log = CallLog(path=plane.topology.state_dir / "cloud-calls.jsonl")
        self._readers = ThreadPoolExecutor(THREADS, "reading")
        self._changers = ThreadPoolExecutor(THREADS, "changing")

    def app(self) -> web.Application:
        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            if serves(self._plane.topology, self._api, request.remote or ""):
                return await handler(request)
            return _cut(request, reset=False)

        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[guard])
        app.router.add_get("/_region/health", self._health)
        app.router.add_get("/_region/state", self._state)
        app.router.add_get(control.PATH, self._control)
        app.router.add_post(control.PATH, self._control)
        app.router.add_route("*", "/{path:.*}", self._handle)
        app.cleanup_ctx.append(self._lifetime)
        return app

    async def _lifetime(self, _: web.Application) -> AsyncIterator[None]:
        yield
        await asyncio.get_running_loop().run_in_executor(self._changers, self._plane.close)
        self._changers.shutdown(wait=False)
        self._readers.shutdown(wait=False)
        self._log.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        started = now_ns()
        body = await _body(request)
        call = parse(
            path=request.path_qs,
            headers=request.headers,
            body=body or b"",
            source=request.remote or "",
            request_id=str(uuid.uuid4()),
        )
        who = self._who(call)
        wrong = defect(call, method=request.method, headers=request.headers) if body is not None else too_large()
        wrong = wrong or (stranger(call.protocol) if who is None else None)
        if wrong is not None:
            response = _failed(call, wrong)
            if body is None:
                response.force_close()  # the rest of it is not read
            self._written(call, response, who=who, started=started)
            return response
        fault = self._plane.api_faults.decide(call, who or "", started / NS_PER_S)
        if fault is None:
            response = await self._answer(call)
            self._written(call, response, who=who, started=started)
        else:
            response = await self._injured(call, fault, request, who=who, started=started)
        await self._take()
        return response

    async def _injured(
        self, call: Call, fault: Fault, request: web.Request, *, who: str | None, started: int
    ) -> web.Response:
        """A call that a fault struck. What gets no answer is written down at once, with the status 0."""
        if fault.kind in ("time_out", "reset"):
            self._written(call, None, who=who, started=started, fault=fault)
            if fault.kind == "time_out":
                await _until_given_up(request)
            return _cut(request, reset=fault.kind == "reset")
        error = fault.error(call.protocol)
        if error is not None:
            response = _failed(call, error)
        else:
            if fault.kind == "latency":
                await asyncio.sleep(fault.rule.latency_s)
            response = await self._answer(call)
        self._written(call, response, who=who, started=started, fault=fault)
        return _cut(request, reset=False) if fault.kind == "lost_reply" else response

    async def _take(self) -> None:
        """The time that AWS takes to answer any call."""
        delay_s = self._plane.delays.draw("api")
        if delay_s > 0:
            await asyncio.sleep(delay_s)

    def _written(
        self, call: Call, response: web.Response | None, *, who: str | None, started: int, fault: Fault | None = None
    ) -> None:
        body = response.body if response is not None and isinstance(response.body, bytes) else b""
        status = response.status if response is not None else 0
        self._log.write(
            call,
            who=who or "unknown",
            time_ns=started,
            took_ms=(now_ns() - started) / 1e6,
            status=status,
            error=error_code(body) if status >= 400 else None,
            fault=fault.label if fault is not None else None,
        )

    def _who(self, call: Call) -> str | None:
        """The caller's name by access key; None when the key is nobody's. Signatures are not checked."""
        if call.access_key_id and call.access_key_id == self._harness_key:
            return "harness"
        instance = self._plane.state.instance_with_key(call.access_key_id)
        return instance.name if instance else None

    async def _answer(self, call: Call) -> web.Response:
        """Carry the call out, in a thread; the time that it takes on AWS passes before, in none."""
        loop = asyncio.get_running_loop()
        if call.service == "ec2" and call.action in PACED:
            await asyncio.sleep(self._plane.delays.draw(PACED[call.action]))
        threads = self._readers if passed.reads(call.action) else self._changers
        try:
            body = await loop.run_in_executor(threads, carry_out, self._plane, call)
        except BooksFailed as error:
            LOG.warning("%s: %s", call.action, error)
            return _failed(call, passed.broken(call))
        except AwsError as error:
            return _failed(call, error)
        except Exception as error:
            LOG.exception("%s failed", call.action)
            self._plane.journal.record("operation_failed", operation=call.action, error=str(error))
            return _failed(call, internal_error(call.protocol))
        return web.Response(body=body, headers=_headers(call))

    async def _control(self, request: web.Request) -> web.Response:
        """What is set, or set it: for whoever has the harness's key."""
        key = request.headers.get(control.KEY_HEADER, "").encode()
        if not hmac.compare_digest(key, self._harness_key.encode()):
            return web.json_response({"error": "this takes the harness's key"}, status=403)
        loop = asyncio.get_running_loop()
        if request.method == "GET":
            shown = await loop.run_in_executor(self._readers, lambda: {k: f(self._plane) for k, f in SHOWN.items()})
            return web.json_response(shown)
        body = await _body(request)
        try:
            if body is None:
                raise UsageError(f"larger than {MAX_BODY_BYTES} bytes")
            return web.json_response(
                await loop.run_in_executor(self._changers, control.apply, self._plane, CONTROLS, body)
            )
        except UsageError as error:
            return web.json_response({"error": str(error)}, status=400)

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "cell": self._plane.topology.cell})

    async def _state(self, _: web.Request) -> web.Response:
        loop = asyncio.get_running_loop()
        return web.json_response(await loop.run_in_executor(self._readers, describe, self._plane))


def describe(plane: Plane) -> dict[str, Any]:
    """The data plane as it is: instances, addresses, volumes."""
    with plane.state.lock:
        instances, volumes = dict(plane.state.instances), dict(plane.state.volumes)
    living = {i: record for i, record in instances.items() if not record.terminated}
    return {
        "instances": {i: _instance(plane, record) for i, record in living.items()},
        "addresses": {str(public): str(private) for public, private in plane.addresses.table().items()},
        "volumes": {v: _volume(plane, v) for v in volumes},
    }


def _instance(plane: Plane, record: Instance) -> dict[str, Any]:
    power, pid = plane.instances.power(record.instance_id), plane.instances.pid(record.instance_id)
    return {"name": record.name, "power": power, "pid": pid, "state": plane.state_of(record)}


def _volume(plane: Plane, volume_id: str) -> dict[str, Any]:
    """Where it is; all places of a shared volume are in `attachments`, the first of them is beside it."""
    rows = [
        {"attached_to": place.instance_id, "loop": place.loop, "device": place.device}
        for place in plane.volumes.attachments(volume_id)
    ]
    return {**(rows[0] if rows else {"attached_to": None, "loop": None, "device": None}), "attachments": rows}


def carry_out(plane: Plane, call: Call) -> bytes:
    """The answer to a call that can be read, from a caller that is known; `AwsError` otherwise."""
    action = SERVICES.get(call.service, {}).get(call.action)
    if call.service != "ec2":
        if action is None:
            raise refusal(call)
        if call.protocol == "json":
            request_form.check_json(call)
        return action(plane, call)
    if action is None and not (passed.to_books(call.action) and call.action in operations(call.service)):
        raise refusal(call)
    request_form.check(call)
    refuse_dry_run(call)
    if action is None:
        return plane.tokens.once(call, lambda: passed.ask_books(plane, call))
    found = MADE.get(call.action)
    return plane.tokens.once(
        call,
        lambda: action(plane, call),
        gone=lambda body: _terminated(plane, body),
        made=lambda token: found(plane, call, token) if found is not None else None,
    )


def _terminated(plane: Plane, body: bytes) -> bool:
    """Whether the instances launched by the call with this answer are terminated."""
    return any(
        f"<instanceId>{r.instance_id}<".encode() in body and r.terminated for r in list(plane.state.instances.values())
    )


async def _body(request: web.Request) -> bytes | None:
    """The body, None for one that is larger than any call's."""
    if (request.content_length or 0) > MAX_BODY_BYTES:
        return None
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        return None


async def _until_given_up(request: web.Request) -> None:
    while request.transport is not None and not request.transport.is_closing():
        await asyncio.sleep(LOOK_S)


def _cut(request: web.Request, *, reset: bool) -> web.Response:
    """The connection ends without an answer: with a RST, or as if the other side had gone."""
    transport = request.transport
    if transport is not None:
        connection = transport.get_extra_info("socket")
        if reset and connection is not None:
            with suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response(status=444)  # nobody gets it


def _headers(call: Call) -> dict[str, str]:
    return {"Content-Type": TYPES[call.protocol], "x-amzn-RequestId": call.request_id}


def _failed(call: Call, error: AwsError) -> web.Response:
    return web.Response(status=error.status, body=failure(call, error), headers=_headers(call))


def build(topology: Topology, *, books: Books, shut_down_timeout_s: float, delays: Delays) -> Plane:
    """The plane, with everything a gateway before this one left half done taken up again."""
    journal = Journal(topology=topology)
    volumes = Volumes(topology=topology, journal=journal)
    plane = Plane(
        topology=topology,
        state=State(topology.state_dir),
        books=books,
        journal=journal,
        volumes=volumes,
        instances=Instances(topology=topology, journal=journal, volumes=volumes, docker_client=docker_client()),
        addresses=Addresses(topology=topology, journal=journal),
        filters=PacketFilter(topology=topology, journal=journal),
        shut_down_timeout_s=shut_down_timeout_s,
        delays=delays,
    )
    control.restore_delays(plane)
    instance_agreement.restore(plane)
    ec2_addresses.resume(plane)
    ec2_interfaces.resume(plane)
    ec2_routes.resume(plane)
    ec2_filters.resume(plane)
    ec2_network_acls.resume(plane)
    ec2_volumes.resume(plane)
    ec2_launch.resume(plane)
    ec2_instances.resume(plane)
    recovery.resume(plane)
    ec2_volume_changes.resume(plane)
    return plane


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m harness.region.gateway", description="the EC2 endpoint of a cell")
    parser.add_argument("--cell", required=True)
    parser.add_argument("--slot", type=int, required=True)
    parser.add_argument("--books", type=Path, required=True, help="the file in which their place is written")
    parser.add_argument("--shut-down-timeout-s", type=float, default=10.0)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    topology = Topology(cell=options.cell, slot=options.slot)
    books = wait_for("the books", lambda: Books.read(options.books), timeout_s=BOOKS_TIMEOUT_S, every_s=0.02)
    table = topology.state_dir / TABLE_FILE
    wait_for("the router's rules", table.exists, timeout_s=START_TIMEOUT_S, every_s=0.02)
    model("ec2")  # read once, now, and not while the first call waits for it
    delays = read_delays(timing_file(topology))
    plane = build(topology, books=books, shut_down_timeout_s=options.shut_down_timeout_s, delays=delays)
    api = read_api(topology)
    gateway = Gateway(plane=plane, harness_key=HarnessKey.read(topology.state_dir).access_key_id, api=api)
    web.run_app(
        gateway.app(),
        host=hosts(topology, api),
        port=GATEWAY_PORT,
        print=None,
        access_log=None,
        backlog=BACKLOG,
        shutdown_timeout=1,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
