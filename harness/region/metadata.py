"""Instance metadata, version 2 only, as software on EC2 finds it: http://169.254.169.254 inside each guest.

One small server per running guest, in the guest's network namespace, ended by the guest's end. It reads
`state_dir/metadata/<instance id>.json` at each request; whoever changes what is true rewrites that file.
AWS: "Instance metadata and user data", "Use IMDSv2" (a token by PUT, 401 without one).

It can be made to fail (`switch`): `refused` (nothing listens), `silent` (connections are taken, nothing is answered),
`throttled` (503 to everything; AWS: "Query throttling", "Errors returned by the instance metadata service").
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import select
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, cast, get_args

from harness.command import wait_for
from harness.errors import InfrastructureError
from harness.region import background
from harness.region.calls import BOOKS_ACCOUNT, number
from harness.region.files import write_json
from harness.topology import Topology

ADDRESS = "169.254.169.254"
PORT = 80
READY = b"ready\n"
START_TIMEOUT_S = 10
MAX_TTL_S = 21600
TOKEN_HEADER = "X-aws-ec2-metadata-token"
TTL_HEADER = "X-aws-ec2-metadata-token-ttl-seconds"

Mode = Literal["on", "refused", "silent", "throttled"]
MODES: tuple[Mode, ...] = get_args(Mode)
LOOK_S = 0.05
"""How often the service looks at its switch."""

SWITCH_TIMEOUT_S = 5.0

Facts = Mapping[str, Any]
"""instance_id, private_ip, public_ip (or None), mac, interface_id, zone, region, hostname, role, access_key_id,
secret_access_key, user_data; private_ips (all, the primary one first) and associations ({public: private})."""


def facts_path(topology: Topology, instance_id: str) -> Path:
    """The file that feeds the service of one instance; it holds its secret and is readable by root only."""
    return topology.state_dir / "metadata" / f"{instance_id}.json"


def write_facts(topology: Topology, facts: Facts) -> None:
    """Replace the facts of an instance, whole."""
    path = facts_path(topology, str(facts["instance_id"]))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, dict(facts))


def read_facts(topology: Topology, instance_id: str) -> dict[str, Any]:
    """The facts of an instance, empty when there are none."""
    try:
        return dict(json.loads(facts_path(topology, instance_id).read_text(encoding="utf-8")))
    except OSError:
        return {}


def switch(topology: Topology, instance_id: str, mode: Mode) -> None:
    """Make the service of an instance fail from now on, or work again (`on`); a machine that is off finds it so."""
    path = _switch_path(facts_path(topology, instance_id))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"mode": mode})


def switched(topology: Topology, instance_id: str) -> Mode:
    """How the service of an instance is meant to be."""
    return _mode(_switch_path(facts_path(topology, instance_id)))


def wait_switched(topology: Topology, instance_id: str) -> None:
    """Until a service that runs is as its switch says; `TimedOut` when it does not follow."""
    path = facts_path(topology, instance_id)
    wanted = _mode(_switch_path(path))
    wait_for(
        f"the metadata service of {instance_id} to be {wanted}",
        lambda: _mode(_is_path(path)) == wanted,
        timeout_s=SWITCH_TIMEOUT_S,
        every_s=LOOK_S / 2,
        last_seen=lambda: _mode(_is_path(path)),
    )


def start(topology: Topology, *, instance_id: str, guest_pid: int) -> subprocess.Popen[bytes]:
    """Start the service of a running guest; returns when it accepts connections. 169.254.169.254 must be on its lo."""
    server = background.start(
        "harness.region.metadata",
        ["--facts", str(facts_path(topology, instance_id)), "--guest-pid", str(guest_pid)],
        cell=topology.cell,
        log=topology.state_dir / "metadata.log",
        netns_pid=guest_pid,
        stdout=subprocess.PIPE,
    )
    assert server.stdout is not None
    with server.stdout as out:
        ready = select.poll()  # select() itself knows no descriptor above 1023
        ready.register(out, select.POLLIN)
        if not ready.poll(START_TIMEOUT_S * 1000) or out.readline() != READY:
            server.kill()
            server.wait(timeout=5)
            raise InfrastructureError(f"no metadata service for {instance_id}: see metadata.log of the cell")
    return server


def tree(facts: Facts, *, now: datetime) -> dict[str, str]:
    """All leaves of the service below /latest/: path -> text. A leaf without a value does not exist (404)."""
    nic = f"meta-data/network/interfaces/macs/{facts['mac']}"
    associations: Mapping[str, str] = facts.get("associations") or {}
    leaves = {
        "meta-data/instance-id": facts["instance_id"],
        "meta-data/local-ipv4": facts["private_ip"],
        "meta-data/public-ipv4": facts["public_ip"],
        "meta-data/mac": facts["mac"],
        "meta-data/hostname": facts["hostname"],
        "meta-data/local-hostname": facts["hostname"],
        "meta-data/placement/availability-zone": facts["zone"],
        "meta-data/placement/region": facts["region"],
        "meta-data/services/domain": "amazonaws.com",
        "meta-data/services/partition": "aws",
        f"{nic}/mac": facts["mac"],
        f"{nic}/device-number": "0",
        f"{nic}/interface-id": facts["interface_id"],
        f"{nic}/local-ipv4s": "\n".join(facts.get("private_ips") or [facts["private_ip"]]),
        f"{nic}/local-hostname": facts["hostname"],
        f"{nic}/public-ipv4s": "\n".join(associations) or facts["public_ip"],
        **{f"{nic}/ipv4-associations/{public}": private for public, private in associations.items()},
        f"meta-data/iam/security-credentials/{facts['role']}": json.dumps(_credentials(facts, now), indent=2),
        "dynamic/instance-identity/document": json.dumps(_identity(facts), indent=2),
        "user-data": facts.get("user_data"),
    }
    return {path: str(value) for path, value in leaves.items() if value}


def lookup(leaves: Mapping[str, str], path: str) -> str | None:
    """A leaf, or the names in a folder (folders end in "/"), or None. `path` is what follows /latest/."""
    wanted = "/".join(part for part in path.split("/") if part)  # awseip asks for macs/<mac>//local-ipv4s; AWS answers
    if wanted in leaves:
        return leaves[wanted]
    inside = [leaf.removeprefix(f"{wanted}/" if wanted else "") for leaf in leaves if _is_below(leaf, wanted)]
    names = sorted({first + ("/" if rest else "") for first, rest, _ in (leaf.partition("/") for leaf in inside)})
    return "\n".join(names) or None


class Tokens:
    """The tokens handed out, each good for its time to live. `clock` in seconds."""

    def __init__(self, clock: Any = time.monotonic) -> None:
        self._clock = clock
        self._good_until_s: dict[str, float] = {}

    def issue(self, ttl: str | None) -> str | None:
        """A new token, None when the time to live is not a number from 1 to 21600 seconds."""
        ttl_s = number(ttl or "")
        if ttl_s is None or not 1 <= ttl_s <= MAX_TTL_S:
            return None
        token = secrets.token_urlsafe(32)
        now_s = self._clock()
        self._good_until_s = {t: until for t, until in self._good_until_s.items() if until > now_s}
        self._good_until_s[token] = now_s + ttl_s
        return token

    def good(self, token: str | None) -> bool:
        return bool(self._good_until_s.get(token or "", 0.0) > self._clock())


class Server(ThreadingHTTPServer):
    daemon_threads = True
    mode: Mode = "on"

    def __init__(self, facts: Path, tokens: Tokens | None = None) -> None:
        self.facts = facts
        self.tokens = tokens or Tokens()
        super().__init__((ADDRESS, PORT), Handler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": LOOK_S}, daemon=True).start()

    def server_bind(self) -> None:
        """Without the reverse look-up that HTTPServer does: there is no name service here."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = ADDRESS, PORT

    def end(self) -> None:
        """Nothing listens any more: connections are refused."""
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_PUT(self) -> None:
        if self._failing():
            return None
        if self.path != "/latest/api/token":
            return self._reply(404)
        token = self.server.tokens.issue(self.headers.get(TTL_HEADER))
        return self._reply(400) if token is None else self._reply(200, token, {TTL_HEADER: self.headers[TTL_HEADER]})

    def do_GET(self) -> None:
        if self._failing():
            return None
        if not self.server.tokens.good(self.headers.get(TOKEN_HEADER)):
            return self._reply(401)
        version, _, path = self.path.partition("?")[0].lstrip("/").partition("/")
        if version != "latest":
            return self._reply(404)
        facts = json.loads(self.server.facts.read_text(encoding="utf-8"))
        text = lookup(tree(facts, now=datetime.now(UTC)), path)
        return self._reply(404) if text is None else self._reply(200, text)

    def _failing(self) -> bool:
        """Fail as the switch says; False when the service is on."""
        mode = self.server.mode
        if mode == "throttled":
            self._reply(503)
        else:
            while self.server.mode == "silent":
                time.sleep(LOOK_S)
            self.close_connection = mode != "on"
        return mode != "on"

    def _reply(self, status: int, text: str = "", headers: Mapping[str, str] | None = None) -> None:
        body = text.encode()
        self.send_response(status)
        for name, value in {"Content-Type": "text/plain", "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """No access log: the requests of agents are no fact about the region."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="harness.region.metadata")
    parser.add_argument("--facts", type=Path, required=True)
    parser.add_argument("--guest-pid", type=int, required=True)
    args = parser.parse_args()
    guest = os.pidfd_open(args.guest_pid)
    service = Service(args.facts)
    service.follow()
    sys.stdout.buffer.write(READY)
    sys.stdout.flush()
    end = select.poll()
    end.register(guest, select.POLLIN)
    while not end.poll(LOOK_S * 1000):  # the guest's end is ours
        service.follow()
    return 0


class Service:
    """The server of one guest, as its switch says."""

    def __init__(self, facts: Path) -> None:
        self._facts = facts
        self._tokens = Tokens()
        self._server: Server | None = None
        self._looked: int | None = None
        self._is: Mode | None = None

    def follow(self) -> None:
        """Look at the switch; tell what the service is once it is so."""
        path = _switch_path(self._facts)
        try:
            stamp = path.stat().st_mtime_ns
        except FileNotFoundError:
            stamp = 0
        if stamp == self._looked:
            return
        self._looked = stamp
        mode = _mode(path)
        if self._server is not None:
            self._server.mode = mode
            if mode == "refused":
                self._server.end()
                self._server = None
        elif mode != "refused":
            self._server = Server(self._facts, self._tokens)
            self._server.mode = mode
        if mode != self._is:
            self._is = mode
            write_json(_is_path(self._facts), {"mode": mode})


def _switch_path(facts: Path) -> Path:
    return facts.with_suffix(".switch")


def _is_path(facts: Path) -> Path:
    return facts.with_suffix(".switched")


def _mode(path: Path) -> Mode:
    try:
        return cast(Mode, json.loads(path.read_text(encoding="utf-8"))["mode"])
    except FileNotFoundError:
        return "on"


def _credentials(facts: Facts, now: datetime) -> dict[str, str]:
    """Keys of the instance's role, as an EC2 instance gets them: good for six hours, renewed at each request."""
    return {
        "Code": "Success",
        "LastUpdated": _stamp(now),
        "Type": "AWS-HMAC",
        "AccessKeyId": facts["access_key_id"],
        "SecretAccessKey": facts["secret_access_key"],
        "Token": f"session-of-{facts['instance_id']}",
        "Expiration": _stamp(now + timedelta(hours=6)),
    }


def _identity(facts: Facts) -> dict[str, str]:
    return {
        "version": "2017-09-30",
        "accountId": BOOKS_ACCOUNT,
        "instanceId": facts["instance_id"],
        "privateIp": facts["private_ip"],
        "region": facts["region"],
        "availabilityZone": facts["zone"],
        "architecture": "x86_64",
    }


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _is_below(leaf: str, folder: str) -> bool:
    return not folder or leaf.startswith(f"{folder}/")


if __name__ == "__main__":
    sys.exit(main())
