"""The first answer of a PBX, asked for over a real socket on loopback."""

from __future__ import annotations

import socket
import threading

import pytest

from harness.cell.answer import wait_for_answer


@pytest.fixture
def responder() -> tuple[socket.socket, int]:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock, sock.getsockname()[1]


def serve(sock: socket.socket, replies: list[bytes]) -> threading.Thread:
    def answer() -> None:
        for reply in replies:
            request, sender = sock.recvfrom(4096)
            assert request.startswith(b"OPTIONS sip:127.0.0.1:")
            sock.sendto(reply, sender)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    return thread


def test_a_refusal_is_no_answer_but_the_2xx_after_it_is(responder: tuple[socket.socket, int]) -> None:
    sock, port = responder
    thread = serve(sock, [b"SIP/2.0 503 Service Unavailable\r\n\r\n", b"SIP/2.0 200 OK\r\n\r\n"])
    assert wait_for_answer("127.0.0.1", port, timeout_s=5) == (True, "SIP/2.0 200 OK")
    thread.join(timeout=1)
    sock.close()


def test_silence_is_told_apart_from_a_refusal(responder: tuple[socket.socket, int]) -> None:
    sock, port = responder
    assert wait_for_answer("127.0.0.1", port, timeout_s=0.01) == (False, "nothing came back")
    sock.close()
    answered, seen = wait_for_answer("127.0.0.1", port, timeout_s=0.01)
    assert (answered, "refused" in seen) == (False, True)
