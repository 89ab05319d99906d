"""The four kinds of data of the stand-in PBX, read back where it was written and on the next node."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.command import wait_for
from tests.integration.namespaces import socket_in
from tests.integration.pbx_bench import PROFILE, PUBLIC, TOPOLOGY, Bench, heard_both_ways, pbx_bench

pytestmark = pytest.mark.integration

RECORD = (("X-Record", "yes"),)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with pbx_bench(tmp_path_factory.mktemp("volume")) as bench:
        bench.start(bench.nodes[0])
        yield bench


def volume(bench: Bench) -> Path:
    """The volume's folder on this host."""
    mounts = bench.client.client.containers.get(bench.nodes[0].container).attrs["Mounts"]
    return Path(next(mount["Source"] for mount in mounts if mount["Destination"] == PROFILE.data_dir))


def finished(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["call"]: row for row in rows if row["state"] == "finished"}


def test_every_transport_answers(bench: Bench) -> None:
    local = (str(TOPOLOGY.node_address(9)), 0)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for port, secured in ((PROFILE.sip.tcp_port, False), (PROFILE.sip.tls_port, True)):
        with socket_in(bench.client_pid, socket.SOCK_STREAM, bind=local) as plain:
            plain.settimeout(3)
            plain.connect((PUBLIC, port))
            flow = context.wrap_socket(plain) if secured else plain
            flow.sendall(options("TLS" if secured else "TCP").encode())
            assert flow.recv(4096).startswith(b"SIP/2.0 200 "), port
    with socket_in(bench.client_pid, socket.SOCK_STREAM, bind=local) as plain:
        plain.settimeout(3)
        plain.connect((PUBLIC, PROFILE.sip.wss_port))
        flow = context.wrap_socket(plain)
        flow.sendall(UPGRADE.encode())
        assert flow.recv(4096).startswith(b"HTTP/1.1 101 ")
        payload = options("WSS").encode()
        mask = bytes(4)  # a mask of zeros is a mask (RFC 6455, 5.3)
        flow.sendall(bytes([0x81, 0x80 | 126]) + len(payload).to_bytes(2) + mask + payload)
        assert b"SIP/2.0 200 " in flow.recv(4096)


UPGRADE = (
    f"GET / HTTP/1.1\r\nHost: {PUBLIC}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: sip\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def options(transport: str) -> str:
    return (
        f"OPTIONS sip:{PUBLIC} SIP/2.0\r\nVia: SIP/2.0/{transport} x.invalid;branch=z9hG4bK{transport}1;rport\r\n"
        f"From: <sip:t@pbx.test>;tag=1\r\nTo: <sip:{PUBLIC}>\r\nCall-ID: {transport}\r\nCSeq: 1 OPTIONS\r\n"
        "Max-Forwards: 5\r\nContent-Length: 0\r\n\r\n"
    )


def test_of_two_contacts_of_an_extension_the_newest_rings(bench: Bench) -> None:
    old, new, caller = bench.phone(9998), bench.phone(9998), bench.phone(9999)
    for phone in (old, new, caller):
        registered = phone.register()
        assert registered is not None and registered.code == 200
    _, call = caller.call("9998")
    assert call is not None
    assert call.call_id in new.calls
    assert not old.calls
    ended = caller.hang_up(call)
    assert ended is not None and ended.code == 200


def test_a_prompt_is_played_until_the_caller_hangs_up(bench: Bench) -> None:
    caller = bench.phone(1002)
    answered, call = caller.call("900")
    assert answered is not None and call is not None, answered
    wait_for("a second of the prompt", lambda: call.media.received > 50, timeout_s=3)
    assert {host for host, _ in call.media.sources} == {PUBLIC}
    ended = caller.hang_up(call)
    assert ended is not None and ended.code == 200


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_a_damaged_prompt_is_not_played(bench: Bench, damage: str) -> None:
    prompt = volume(bench) / "prompts" / "900.wav"
    whole = prompt.read_bytes()
    try:
        if damage == "gone":
            prompt.unlink()
        else:
            prompt.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
            assert [row["intact"] for row in bench.read(bench.nodes[0], "prompts")] == [False]
        answered, _ = bench.phone(1003).call("900")
        assert answered is not None and answered.code == 480
    finally:
        prompt.write_bytes(whole)


def test_an_unknown_dialog_is_answered_with_481(bench: Bench) -> None:
    caller, callee = bench.phone(1004), bench.phone(1005)
    callee.register()
    _, call = caller.call("1005")
    assert call is not None
    call.call_id, right = "nobody-knows-this-one", call.call_id
    ended = caller.hang_up(call)
    assert ended is not None and ended.code == 481
    call.call_id = right
    ended = caller.hang_up(call)
    assert ended is not None and ended.code == 200


def test_all_four_kinds_of_data_are_there_on_the_next_node(bench: Bench) -> None:
    first, second = bench.nodes
    caller, callee = bench.phone(1000), bench.phone(1001)
    caller.register()
    callee.register()
    _, done = caller.call("1001", extra=RECORD)
    _, held = caller.call("1001", extra=RECORD)
    assert done is not None and held is not None
    heard_both_ways(done, held)
    ended = caller.hang_up(done)
    assert ended is not None and ended.code == 200
    wait_for("the recording in the index", lambda: finished(bench.read(first, "recordings")), timeout_s=2)
    before = finished(bench.read(first, "recordings"))[done.call_id]
    assert before["bytes"] > 1000

    bench.crash(first)
    with (volume(bench) / "log" / "kamailio.log").open("ab") as log:
        log.write(b" 1(2) NOTICE: {1 1 INVITE} <script>: EVENT 1764.5 star" + bytes(300))
    bench.start(second)
    heard_both_ways(held, callee.calls[held.call_id])
    database = bench.read(second, "database")
    registered = {row["registration"]: row for row in database if "registration" in row}
    assert registered["1000"]["expires_at"] > time.time()
    assert {"1000", "1001"} <= registered.keys()
    assert done.call_id in {row.get("call") for row in database}
    assert held.call_id not in {row.get("call") for row in database}
    logged = bench.read(second, "logs")
    assert not [row for row in logged if "torn" in row]
    events = [row["event"] for row in logged if row["log"] == done.call_id]
    assert events == ["started", "ended"]
    wait_for("the cut recording in the index", lambda: cut_of(bench, held.call_id), timeout_s=2)
    assert finished(bench.read(second, "recordings"))[done.call_id] == before
    assert [row["intact"] for row in bench.read(second, "prompts")] == [True]

    ended = callee.hang_up(callee.calls[held.call_id])
    assert ended is not None and ended.code == 200
    assert held.ended, "BYE of a restored dialog reaches the caller"
    wait_for("the rest of it", lambda: held.call_id in finished(bench.read(second, "recordings")), timeout_s=2)
    assert all(row["intact"] for row in bench.read(second, "recordings"))


def cut_of(bench: Bench, call_id: str) -> bool:
    rows = bench.read(bench.nodes[1], "recordings")
    return any(row["call"] == call_id and row["state"] == "interrupted" and row["intact"] for row in rows)
