"""A running baresip: its configuration, its commands and events (ctrl_tcp), and the SIP messages that it prints.

ctrl_tcp speaks netstrings of JSON: `{"command", "params", "token"}` is answered with `{"response", "ok", "data",
"token"}`, `{"event", "class", "type", "param", …}` comes by itself (baresip, modules/ctrl_tcp).
"""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Thread
from typing import Any

from harness.clients.programs import Program
from harness.clients.sip.transport import Address
from harness.clock import now_ns
from harness.errors import InfrastructureError

START_S = 10.0
ASK_S = 5.0
HOME = "/etc/baresip"
FIRST_PORT, LAST_PORT = 32000, 32760
"""Between the media engine's ports and the kernel's own."""

PORTS = 8
"""For one baresip: a call has two, a new one begins before the old one's are free."""

_LONGEST_NETSTRING = 1 << 20

_CONFIG = """\
poll_method epoll
sip_listen {local_ip}:0
call_local_timeout 120
call_max_calls 4
audio_source ausine,{tone_hz}
ausrc_srate 48000
ausrc_channels 2
auplay_srate 8000
auplay_channels 1
audio_txmode poll
rtp_ports {first}-{last}
rtcp_mux no
rtp_timeout 0
module_path /usr/lib/baresip/modules
module g711.so
module ausine.so
module_tmp uuid.so
module_tmp account.so
module_app ctrl_tcp.so
module_app menu.so
ctrl_tcp_listen 127.0.0.1:{control}
"""


@dataclass(frozen=True, kw_only=True)
class Account:
    """An extension at the PBX's public address."""

    user: str
    password: str = field(repr=False)
    domain: str
    transport: str
    to: Address
    register_s: int = 600

    def line(self) -> str:
        """As baresip's accounts file has it: calls are answered at once, G.711 mu-law is all it offers."""
        proxy = f"sip:{self.to[0]}:{self.to[1]};transport={self.transport}"
        return (
            f"<sip:{self.user}@{self.domain};transport={self.transport}>;auth_user={self.user};"
            f'auth_pass={self.password};outbound="{proxy}";answermode=auto;regint={self.register_s};ptime=20;'
            "audio_codecs=pcmu\n"
        )


def config(*, local_ip: str, tone_hz: int, ports: range, control: int) -> str:
    """baresip's configuration: no sound card, a tone for a microphone, RTP on these ports."""
    return _CONFIG.format(local_ip=local_ip, tone_hz=tone_hz, first=ports.start, last=ports.stop - 1, control=control)


class Netstrings:
    """Cuts a stream into netstrings (`LENGTH:BYTES,`); `ValueError` for what is none."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[bytes]:
        self._buffer += data
        found = []
        while b":" in self._buffer[:8]:
            head, _, rest = self._buffer.partition(b":")
            if not head.isdigit() or (size := int(head)) > _LONGEST_NETSTRING:
                raise ValueError(f"not a netstring: {self._buffer[:20]!r}")
            if len(rest) <= size:
                break
            if rest[size : size + 1] != b",":
                raise ValueError(f"not a netstring: {self._buffer[:20]!r}")
            found.append(rest[:size])
            self._buffer = rest[size + 1 :]
        if len(self._buffer) >= 8 and b":" not in self._buffer[:8]:
            raise ValueError(f"not a netstring: {self._buffer[:20]!r}")
        return found


def netstring(data: bytes) -> bytes:
    return b"%d:%s," % (len(data), data)


class Baresip:
    """Once it has died, commands raise `InfrastructureError`."""

    def __init__(
        self, program: Program, *, on_event: Callable[[dict[str, Any], int], None], on_output: Callable[[bytes], None]
    ) -> None:
        self._program = program
        self._on_event = on_event
        self._on_output = on_output
        self._asked = 0
        self._pending: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._listening: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls,
        account: Account,
        *,
        local_ip: str,
        tone_hz: int,
        ports: range,
        on_event: Callable[[dict[str, Any], int], None],
        on_output: Callable[[bytes], None],
    ) -> Baresip:
        """Start it in our network namespace; from then on it registers by itself.

        `on_event(row, at_ns)` gets its events, `on_output(bytes)` what it prints, both on the running loop.
        """
        control = _free_port()
        files = {
            f"{HOME}/config": config(local_ip=local_ip, tone_hz=tone_hz, ports=ports, control=control).encode(),
            f"{HOME}/accounts": account.line().encode(),
            f"{HOME}/contacts": b"",
        }
        argv = ["stdbuf", "-oL", "-eL", "baresip", "-4", "-s", "-f", HOME]
        program = await asyncio.to_thread(Program.start, "softphone", argv, files=files)
        phone = cls(program, on_event=on_event, on_output=on_output)
        try:
            loop = asyncio.get_running_loop()
            Thread(target=phone._follow, args=(loop,), name="baresip's output", daemon=True).start()
            await phone._connect(control)
        except BaseException:
            await phone.close()
            raise
        return phone

    @property
    def dead(self) -> bool:
        return self._listening is None or self._listening.done()

    async def command(self, command: str, parameters: str = "") -> str:
        """What it answers; `InfrastructureError` when it refuses, or does not answer."""
        if self._writer is None or self.dead:
            raise InfrastructureError("baresip is gone")
        self._asked += 1
        token = str(self._asked)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._pending[token] = answer
        row = {"command": command, "token": token} | ({"params": parameters} if parameters else {})
        self._writer.write(netstring(json.dumps(row).encode()))
        try:
            told = await asyncio.wait_for(answer, ASK_S)
        except TimeoutError:
            raise InfrastructureError(f"baresip did not answer {command!r} within {ASK_S:g} s") from None
        if not told.get("ok"):
            raise InfrastructureError(f"baresip: {command}: {told.get('data')}")
        return str(told.get("data", ""))

    async def close(self) -> None:
        """Killed, as one whose machine is switched off; idempotent."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait({self._listening})
        if self._writer is not None:
            self._writer.close()
        await asyncio.to_thread(self._program.stop)

    async def _connect(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + START_S
        while True:
            try:
                reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
                break
            except OSError:
                running = await asyncio.to_thread(lambda: self._program.running)
                if not running or loop.time() > deadline_s:
                    words = await asyncio.to_thread(self._program.last_words)
                    raise InfrastructureError(f"baresip did not start: {words}") from None
                await asyncio.sleep(0.05)
        self._listening = asyncio.create_task(self._listen(reader))

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        netstrings = Netstrings()
        try:
            while data := await reader.read(1 << 16):
                at_ns = now_ns()
                for text in netstrings.feed(data):
                    self._take(json.loads(text), at_ns)
        finally:
            for answer in self._pending.values():
                if not answer.done():
                    answer.set_exception(InfrastructureError("baresip is gone"))

    def _take(self, row: dict[str, Any], at_ns: int) -> None:
        if row.get("event"):
            self._on_event(row, at_ns)
        elif (answer := self._pending.pop(str(row.get("token")), None)) is not None and not answer.done():
            answer.set_result(row)

    def _follow(self, loop: asyncio.AbstractEventLoop) -> None:
        for piece in self._program.output():
            with suppress(RuntimeError):  # the loop has been closed
                loop.call_soon_threadsafe(self._on_output, piece)


def free_ports() -> range:
    """UDP ports in a row, the first even, that nobody has right now; `InfrastructureError` when there are none."""
    for _ in range(100):
        first = FIRST_PORT + 2 * secrets.randbelow((LAST_PORT - FIRST_PORT) // 2)
        ports = range(first, first + PORTS)
        if all(_is_free(port) for port in ports):
            return ports
    raise InfrastructureError(f"no {PORTS} UDP ports in a row are free in {FIRST_PORT}-{LAST_PORT}")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
