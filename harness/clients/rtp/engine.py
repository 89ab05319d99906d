"""The media engine: a process that is the audio of many held calls. Driven by `control.MediaEngine`, never by hand.

    python -m harness.clients.rtp.engine --out FILE     (standard input is the control channel, a socket)

It wakes when a slot of the wheel is due, sends the slot's frames, then reads all that the sockets hold: the kernel has
stamped each packet, so that reading late costs no truth. What it writes into the history:

* `media_gap` {call, side, from_ns, to_ns, gap_ms, lost, ssrc_changed, held}: a silence of 60 ms or more between two
  right packets, when it has ended. `side` is where it was received; `lost` null where it can't be known; `held` when
  the other end was on hold in between.
* `media_second`, once a second: {legs: {"<call>/<side>": [received, right, lost, max_gap_ms, since_last_ms,
  jitter_ms]}, pauses_ms: {"<ms>": count}, longest_ms, late_ms: worst send}. `pauses_ms` counts the times between right
  packets, all of 999 ms and more as 999; `longest_ms` is the longest of them as it was.
* `media_leg`, when a leg is closed: everything about it (`leg.End.whole`).

SIGTERM or a control channel that ends closes all legs, writes their `media_leg`, and ends the process.
"""

from __future__ import annotations

import argparse
import gc
import json
import select
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.clients.open_loop import be_punctual
from harness.clients.recorder import Recorder
from harness.clients.rtp import marks
from harness.clients.rtp.leg import End, PortPairs
from harness.clients.rtp.stamps import Stamps
from harness.clients.rtp.stats import PAUSE_BUCKET_NS, Gap, Histogram
from harness.clients.rtp.wheel import Wheel
from harness.clock import NS_PER_S, ms, now_ns
from harness.errors import HarnessError

LONGEST_WAIT_S = 0.1
READ_ROUNDS = 8
"""How often one wake-up goes back for more when the next slot is due: a flood must not keep the frames in."""

REPORTS_EVERY_NS = 100_000_000
OTHER = {"caller": "callee", "callee": "caller"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Listener:
    """A request that is answered when its leg has heard so many right frames."""

    id: int
    end: End
    frames: int


class Engine:
    def __init__(self, control: socket.socket, recorder: Recorder) -> None:
        control.setblocking(False)
        self._control = control
        self._recorder = recorder
        self._stamps = Stamps()
        self._wheel: Wheel[End] = Wheel()
        self._ends: dict[str, End] = {}
        self._readers: dict[int, tuple[End, bool]] = {}
        self._epoll = select.epoll()
        self._ports = PortPairs()
        self._pauses = Histogram(width_ns=PAUSE_BUCKET_NS)
        self._listeners: list[Listener] = []
        self._buffer = bytearray(65536)
        self._asked = b""
        self._answers = b""
        self._late_ns = 0
        self._second_ns = now_ns() + NS_PER_S
        self._reports_ns = 0
        self._over = False

    def stop(self, *_: object) -> None:
        self._over = True

    def run(self) -> None:
        """Until `stop`, or until nobody controls it any more."""
        while not self._over:
            self._wait()
            self._send_due()
            self._read()
            at_ns = now_ns()
            if self._listeners:
                self._tell_listeners()
            if at_ns >= self._reports_ns:
                self._reports_ns = at_ns + REPORTS_EVERY_NS
                for end in self._ends.values():
                    if end.exchange.due(at_ns):
                        end.report(at_ns, self._stamps)
            if at_ns >= self._second_ns:
                self._tell_second(at_ns)
        self._tell_second(now_ns())
        for key in list(self._ends):
            self._close(key)

    # -- time ---------------------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        """Until the next slot is due, a command came, or (when nobody sends) a packet did."""
        due_ns = self._wheel.next_ns()
        wait_s = LONGEST_WAIT_S if due_ns is None else min(max(due_ns - now_ns(), 0) / NS_PER_S, LONGEST_WAIT_S)
        watched: list[Any] = [self._control] if due_ns is not None else [self._control, self._epoll]
        ready, writable, _ = select.select(watched, [self._control] if self._answers else [], [], wait_s)
        if writable:
            self._flush()
        if self._control in ready:
            self._obey_all()

    def _send_due(self) -> None:
        for due_ns, slot in self._wheel.due(now_ns()):
            for end in slot:
                end.send_frame(due_ns)
            self._late_ns = max(self._late_ns, now_ns() - due_ns)

    def _read(self) -> None:
        self._stamps.refresh()
        rounds = 0
        while ready := self._epoll.poll(0, 4096):
            for number, _events in ready:
                end, audio = self._readers[number]
                if audio:
                    gap = end.read_audio(self._buffer, self._stamps)
                    if gap is not None:
                        self._tell_gap(end, gap)
                else:
                    end.read_reports(self._buffer, self._stamps)
            rounds += 1
            due_ns = self._wheel.next_ns()
            if rounds >= READ_ROUNDS and (due_ns is None or now_ns() >= due_ns):
                return

    # -- the history --------------------------------------------------------------------------------------------------

    def _tell_gap(self, end: End, gap: Gap) -> None:
        value = {
            "call": end.call,
            "side": end.side,
            "from_ns": gap.from_ns,
            "to_ns": gap.to_ns,
            "gap_ms": ms(gap.length_ns),
            "lost": gap.lost,
            "ssrc_changed": gap.ssrc_changed,
            "held": end.held(gap.from_ns, gap.to_ns),
        }
        self._recorder.note("media_gap", gap.to_ns, value)

    def _tell_second(self, at_ns: int) -> None:
        legs = {end.key: end.row(at_ns) for end in self._ends.values()}
        pauses, longest_ns = self._pauses.take()
        value = {"legs": legs, "pauses_ms": pauses, "longest_ms": ms(longest_ns), "late_ms": ms(self._late_ns)}
        self._recorder.note("media_second", at_ns, value)
        self._late_ns = 0
        self._second_ns = at_ns + NS_PER_S

    def _tell_listeners(self) -> None:
        waiting = []
        for listener in self._listeners:
            if listener.end.key not in self._ends:
                self._answer(listener.id, {"error": f"{listener.end.key} was closed"})
            elif listener.end.reception.right >= listener.frames:
                self._answer(listener.id, {"first_ns": listener.end.reception.first_ns})
            else:
                waiting.append(listener)
        self._listeners = waiting

    # -- control ------------------------------------------------------------------------------------------------------

    def _obey_all(self) -> None:
        try:
            data = self._control.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._over = True
            return
        *lines, self._asked = (self._asked + data).split(b"\n")
        for line in lines:
            asked = json.loads(line)
            try:
                answer = self._obey(asked)
            except (OSError, ValueError, KeyError) as error:
                answer = {"error": f"{asked['do']} {asked.get('leg', '')}: {error!r}"}
            if answer is not None:
                self._answer(asked["id"], answer)

    def _obey(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        """The answer; None when it comes later."""
        do = asked["do"]
        if do == "stop":
            self._over = True
            return {}
        if do == "open":
            return self._open(asked)
        end = self._ends[asked["leg"]]
        if do == "close":
            return self._close(end.key)
        if do == "heard":
            self._listeners.append(Listener(id=asked["id"], end=end, frames=asked["frames"]))
            return None
        if do == "send":
            began, end.remote = end.remote is not None, (asked["to"][0], asked["to"][1])
            if asked["codec"]:
                end.use(asked["codec"])
            if not began:
                self._begin(end)
        elif do == "hold":
            self._hold(end)
        elif do == "resume":
            self._resume(end)
        elif do != "state":
            raise ValueError("no such command")
        return end.whole(now_ns())

    def _open(self, asked: dict[str, Any]) -> dict[str, Any]:
        call, _, side = asked["leg"].rpartition("/")
        if asked["leg"] in self._ends or side not in OTHER:
            raise ValueError("is open already" if side in OTHER else "a side is caller or callee")
        end = End(
            call,
            side,
            mark=marks.from_json(asked["mark"]),
            codec=asked["codec"],
            host=asked["local_ip"],
            ports=self._ports,
            pauses=self._pauses,
        )
        self._ends[end.key] = end
        for source, audio in ((end.rtp, True), (end.rtcp, False)):
            self._readers[source.fileno()] = (end, audio)
            self._epoll.register(source.fileno(), select.EPOLLIN)
        return {"at": end.local}

    def _close(self, key: str) -> dict[str, Any]:
        end = self._ends[key]
        at_ns = now_ns()
        self._read()
        self._wheel.remove(end)
        if end.sent:
            end.report(at_ns, self._stamps, bye=True)
        for source in (end.rtp, end.rtcp):
            self._epoll.unregister(source.fileno())
            del self._readers[source.fileno()]
        del self._ends[key]
        whole = end.whole(at_ns)
        self._recorder.note("media_leg", at_ns, whole)
        end.close()
        return whole

    def _begin(self, end: End) -> None:
        end.begin()
        self._wheel.add(end, at_ns=now_ns())

    def _hold(self, end: End) -> None:
        if end.sending:
            end.sending = False
            self._wheel.remove(end)
            other = self._ends.get(f"{end.call}/{OTHER[end.side]}")
            if other is not None:
                other.other_holds(now_ns())

    def _resume(self, end: End) -> None:
        if end.remote is not None and not end.sending:
            self._begin(end)
            other = self._ends.get(f"{end.call}/{OTHER[end.side]}")
            if other is not None:
                other.other_resumes(now_ns())

    def _answer(self, number: int, value: dict[str, Any]) -> None:
        self._answers += json.dumps({"id": number, **value}).encode() + b"\n"
        self._flush()

    def _flush(self) -> None:
        try:
            sent = self._control.send(self._answers)
        except BlockingIOError:
            return
        except OSError:
            self._over = True
            return
        self._answers = self._answers[sent:]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m harness.clients.rtp.engine", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--process", default="media")
    args = parser.parse_args()
    be_punctual()
    recorder = Recorder(args.out, process=args.process, f="media")
    engine = Engine(socket.socket(fileno=sys.stdin.fileno()), recorder)
    signal.signal(signal.SIGTERM, engine.stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    try:
        engine.run()
    except HarnessError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    finally:
        recorder.close()


if __name__ == "__main__":
    main()
