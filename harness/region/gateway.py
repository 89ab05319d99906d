"""The region's front door: an EC2 endpoint whose answers are true, in front of books that only keep records.

Listens on the cell's VPC endpoint address. Calls that touch machines, volumes or addresses are decided here and carried
out on the data plane; everything else passes to the books untouched. Every call becomes a line in cloud-calls.jsonl.
`GET /_region/health` and `GET /_region/state` are for the harness.

Run as `python -m harness.region.gateway --cell NAME --slot N --books PATH`; ends on SIGTERM. Started again,
it finds its state (region.json), its machines (labels), its volumes and the router's table, and finishes what was half
done.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import uuid
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout, web
from aiohttp.typedefs import Handler

from harness.clock import now_ns
from harness.command import wait_for
from harness.region import (
    ec2_addresses,
    ec2_filters,
    ec2_instances,
    ec2_interfaces,
    ec2_network_acls,
    ec2_routes,
    ec2_volumes,
)
from harness.region.addresses import TABLE_FILE, Addresses
from harness.region.api_path import Api, hosts, read_api, serves
from harness.region.books import TIMEOUT_S, Books
from harness.region.calls import (
    XML_TYPE,
    AwsError,
    Call,
    CallLog,
    error_answer,
    error_code,
    parse,
    upstream_authorization,
)
from harness.region.credentials import HarnessKey
from harness.region.instances import Instances
from harness.region.journal import Journal
from harness.region.packet_filter import PacketFilter
from harness.region.plane import LOG, Action, Plane
from harness.region.router import docker_client
from harness.region.state import Instance, State
from harness.region.timing import Delays, read_delays, timing_file
from harness.region.volumes import Volumes
from harness.topology import GATEWAY_PORT, Topology

THREADS = 32
START_TIMEOUT_S = 30.0
BOOKS_TIMEOUT_S = 60.0
"""LocalStack takes seconds, more on a busy host."""

CONNECTION_HEADERS = {
    "connection",
    "keep-alive",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "content-length",
    "content-encoding",
}

ACTIONS: Mapping[str, Action] = {
    **ec2_instances.ACTIONS,
    **ec2_volumes.ACTIONS,
    **ec2_addresses.ACTIONS,
    **ec2_interfaces.ACTIONS,
    **ec2_routes.ACTIONS,
    **ec2_filters.ACTIONS,
    **ec2_network_acls.ACTIONS,
}
"""What is answered here; all of it is EC2."""


class Gateway:
    """The HTTP side: read, authenticate, dispatch, log."""

    def __init__(self, *, plane: Plane, harness_key: str, api: Api = "endpoint") -> None:
        self._plane = plane
        self._api: Api = api
        self._harness_key = harness_key
        self._log = CallLog(path=plane.topology.state_dir / "cloud-calls.jsonl")
        self._threads = ThreadPoolExecutor(THREADS, "call")

    def app(self) -> web.Application:
        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            if serves(self._plane.topology, self._api, request.remote or ""):
                return await handler(request)
            return _hung_up(request)

        app = web.Application(client_max_size=16 << 20, middlewares=[guard])
        app.router.add_get("/_region/health", self._health)
        app.router.add_get("/_region/state", self._state)
        app.router.add_route("*", "/{path:.*}", self._handle)
        app.cleanup_ctx.append(self._lifetime)
        return app

    async def _lifetime(self, _: web.Application) -> AsyncIterator[None]:
        timeout = ClientTimeout(total=TIMEOUT_S)
        async with ClientSession(timeout=timeout, auto_decompress=True) as self._session:
            yield
        await asyncio.get_running_loop().run_in_executor(self._threads, self._plane.close)
        self._threads.shutdown(wait=False)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        started = now_ns()
        call = parse(
            path=request.path_qs,
            headers=request.headers,
            body=await request.read(),
            source=request.remote or "",
            request_id=str(uuid.uuid4()),
        )
        who = self._who(call)
        if who is None:
            message = "AWS was not able to validate the provided access credentials"
            response = _failed(call, AwsError("AuthFailure", message, 401))
        elif call.service == "ec2" and call.action in ACTIONS:
            response = await self._answer(call)
        else:
            response = await self._pass_on(call, request)
        body = bytes(response.body) if isinstance(response.body, bytes) else b""
        self._log.write(
            call,
            who=who or "unknown",
            time_ns=started,
            took_ms=(now_ns() - started) / 1e6,
            status=response.status,
            error=error_code(body) if response.status >= 400 else None,
        )
        return response

    def _who(self, call: Call) -> str | None:
        """The caller's name by access key; None when the key is nobody's. Signatures are not checked."""
        if call.access_key_id and call.access_key_id == self._harness_key:
            return "harness"
        instance = self._plane.state.instance_with_key(call.access_key_id)
        return instance.name if instance else None

    async def _answer(self, call: Call) -> web.Response:
        """Run one of ACTIONS in a thread."""
        loop = asyncio.get_running_loop()
        try:
            body = await loop.run_in_executor(self._threads, ACTIONS[call.action], self._plane, call)
        except AwsError as error:
            return _failed(call, error)
        except Exception as error:
            LOG.exception("%s failed", call.action)
            self._plane.journal.record("operation_failed", operation=call.action, error=str(error))
            return _failed(call, AwsError("InternalError", "An internal error has occurred", 500))
        return web.Response(body=body, headers={"Content-Type": XML_TYPE, "x-amzn-RequestId": call.request_id})

    async def _pass_on(self, call: Call, request: web.Request) -> web.Response:
        """What the region has no opinion on goes to the books as it came."""
        headers = {k: v for k, v in request.headers.items() if k.lower() not in CONNECTION_HEADERS}
        headers["Authorization"] = upstream_authorization(headers.get("Authorization", ""))
        try:
            async with self._session.request(
                request.method,
                self._plane.books.url + request.path_qs,
                headers=headers,
                data=await request.read(),
                allow_redirects=False,
            ) as response:
                kept = {k: v for k, v in response.headers.items() if k.lower() not in CONNECTION_HEADERS}
                return web.Response(status=response.status, body=await response.read(), headers=kept)
        except (ClientError, TimeoutError) as error:
            return _failed(call, AwsError("Unavailable", f"The service is unavailable ({error})", 503))

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "cell": self._plane.topology.cell})

    async def _state(self, _: web.Request) -> web.Response:
        loop = asyncio.get_running_loop()
        return web.json_response(await loop.run_in_executor(self._threads, describe, self._plane))


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
    place = plane.volumes.attachment(volume_id)
    if place is None:
        return {"attached_to": None, "loop": None, "device": None}
    return {"attached_to": place.instance_id, "loop": place.loop, "device": place.device}


def _hung_up(request: web.Request) -> web.Response:
    """The connection is closed without an answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=444)


def _failed(call: Call, error: AwsError) -> web.Response:
    headers = {"Content-Type": XML_TYPE, "x-amzn-RequestId": call.request_id}
    return web.Response(status=error.status, body=error_answer(call, error), headers=headers)


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
    ec2_addresses.resume(plane)
    ec2_interfaces.resume(plane)
    ec2_routes.resume(plane)
    ec2_filters.resume(plane)
    ec2_network_acls.resume(plane)
    ec2_instances.resume(plane)
    ec2_volumes.resume(plane)
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
        shutdown_timeout=1,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
