"""Gateway and books in the process of the test: what every test of a gateway without Docker needs."""

from __future__ import annotations

import asyncio
import itertools
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from aiohttp import web
from moto.server import ThreadedMotoServer

from harness.region import localstack
from harness.region.books import Books, place_file
from harness.region.cleanup import cleanup
from harness.region.gateway import Gateway
from harness.region.plane import Plane
from harness.topology import Topology
from tests.integration.data_plane import localstack_image

KEY = "harness-key"
"""The access key by which these gateways know the harness."""

TESTS_PER_BOOK = 10
"""Empty books take a tenth of a second to make; books that are never emptied get slower."""

_USES = {kind: itertools.count() for kind in ("moto", "localstack")}


@contextmanager
def moto() -> Iterator[Books]:
    """Books that moto keeps in this process."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield Books(host="127.0.0.1", port=server.get_host_and_port()[1])
    server.stop()


@contextmanager
def books_of(kind: str, topology: Topology) -> Iterator[Books]:
    """Books of either kind; LocalStack's in a container of `topology` (skips where its image is not built)."""
    if kind == "moto":
        with moto() as books:
            yield books
        return
    image = localstack_image()
    topology.state_dir.mkdir(parents=True, exist_ok=True)
    try:
        localstack.start(topology, image)
        yield localstack.wait(topology, place_file(topology))
    finally:
        cleanup(topology)


def fresh(books: Books) -> Books:
    """The same books, without what earlier tests left there whenever TESTS_PER_BOOK of them have used them."""
    number = next(_USES[books.kind])
    if books.kind == "localstack":
        return replace(books, account=f"{100_000_000_000 + number // TESTS_PER_BOOK:012d}")
    if number % TESTS_PER_BOOK == 0:
        reset = urllib.request.Request(f"{books.url}/moto-api/reset", method="POST")
        urllib.request.urlopen(reset, timeout=10).close()
    return books


def serve(plane: Plane) -> tuple[str, Callable[[], None]]:
    """The gateway on a free port of the loopback, in a thread of its own; its URL, and what ends it."""
    loop = asyncio.new_event_loop()

    async def start() -> tuple[web.AppRunner, str]:
        runner = web.AppRunner(Gateway(plane=plane, harness_key=KEY).app(), shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"

    runner, url = loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def stop() -> None:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(15)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()

    return url, stop
