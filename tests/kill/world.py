"""The survivors of a kill, and what they must see: a lab with the victim's peer and two bystanders, and the judge of all of it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from compat.fix_lab import LIBRARY_SEAM, Builder, Lab, state_of
from kill import rebuilt
from kill.actors import BYSTANDER, PEER
from kill.operations import Operation
from kill.trace import Run, Tracer

from sharedstack.inspection import snapshot
from sharedstack.inspection.check import check_live

WORK_BOUND = 2.0  # seconds for what the bystanders do in some 20 ms
# with `rep movsb` each byte is a step
TUNABLE = "GLIBC_TUNABLES=glibc.cpu.x86_rep_movsb_threshold=1000000000"
GONE_BOUND = 12.0  # seconds until what the dead held is given back: the helper spends a twentieth of its time on that at most
# What is in use at most when nobody is left but the helper, the peer and the bystanders. Ring memory: see rebuilt.py.
OURS = {"participants": 4, "endpoints_used": 2, "pairs_used": 1, "links_used": 0}


@dataclass
class Judged:
    """What was wrong behind one kill, in words; nothing where all is well."""

    run: Run
    wrong: list[str] = field(default_factory=list)


class World:
    """A stack with a helper, and who goes on when a victim is killed."""

    def __init__(self, lab: Lab, build: Builder) -> None:
        self.lab, self.build = lab, build
        self.victim = build("victim")
        self.tracer = Tracer(lab, build("tracer"), os.environ.get(LIBRARY_SEAM) or lab.library)
        self.peer = lab.actor("eager")
        self.server, self.client = lab.actor("eager"), lab.actor("eager")
        self.works = 0
        self._begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.tracer.close()
        for actor in (self.peer, self.server, self.client):
            actor.end()

    def _begin(self) -> None:
        self.port = self.peer.do(f"{PEER}\nport")
        at = self.server.do(f"{BYSTANDER}\nl = socket.create_server(('127.0.0.1', 0)); l.getsockname()")
        self.client.do(f"{BYSTANDER}\nat = {at!r}; s = socket.create_connection(at)")
        self.server.do("c, _ = l.accept()")
        for _ in range(3):
            failed = self.work()
            assert not failed, failed

    def kill(self, operation: Operation, point: str) -> Judged:
        """One victim, killed at `point` of the operation, and all that must be so afterwards."""
        self.peer.tell(operation.prepare)
        argv = ["env", TUNABLE, *operation.env, self.victim, operation.name, str(self.port)]
        told = False

        def ready() -> None:
            nonlocal told
            self.peer.hear()
            if operation.during:
                self.peer.tell(operation.during)
                self._until_waits()
                told = True

        def asleep() -> None:
            if operation.wake:
                self.peer.do(operation.wake)

        judged = Judged(self.tracer.run(point, argv, ready, asleep))
        if told:
            self.peer.hear()
        self.judge(judged, operation)
        return judged

    def judge(self, judged: Judged, operation: Operation | None) -> None:
        """All that must be so after a kill; `operation`: what the peer of who died must see."""
        wrong = judged.wrong
        if operation:
            wrong += self._seen_by_peer(operation)
        if failed := self.work():
            wrong.append(failed)
        if left := self._left():
            wrong.append(f"left behind: {left}")
        wrong += [f"inspect --check: {f}" for f in check_live(lambda: snapshot.take(self.lab.name, bulk=True))]
        wrong += [f"rebuild: {d}" for d in rebuilt.differences(self.lab)]

    def _seen_by_peer(self, operation: Operation) -> Iterator[str]:
        end, got, bad = self.peer.do(operation.finish)
        if end == "hangs":
            yield f"the peer hangs, after {got} bytes"
        if bad:
            yield f"{bad} wrong of what the peer received, {got}"
        if not operation.accepted <= got <= operation.most:
            yield f"the peer received {got}, of {operation.accepted} to {operation.most}"

    def work(self) -> str:
        """The fixed workload of the bystanders; what was wrong with it."""
        self.works += 1
        began = time.monotonic()
        self.server.tell(f"server_work({self.works})")
        self.client.tell(f"client_work({self.works})")
        try:
            hashes = self.client.hear(WORK_BOUND), self.server.hear(WORK_BOUND)
        except AssertionError as error:
            return f"bystanders: {error}, {time.monotonic() - began:.1f} s after they began"
        return "" if hashes[0] == hashes[1] else f"bystanders: hashes differ: {hashes}"

    def _used(self) -> dict[str, int]:
        state = self.lab.state()
        return {name: len(state.participants) if name == "participants" else state.memory[name] for name in OURS}

    def _left(self) -> dict[str, Any]:
        """What is in use, and was not before: after a while, in which the helper has cleaned up."""
        until = time.monotonic() + GONE_BOUND
        while True:
            now = self._used()
            left: dict[str, Any] = {name: now[name] for name in now if now[name] > OURS[name]}
            if not left or time.monotonic() > until:
                return left and {
                    **left,
                    "records": [(e.index, e.proto, e.local, e.remote, e.slot, e.flags, e.pair) for e in self.lab.state().endpoints],
                }
            time.sleep(0.002)

    def _until_waits(self) -> None:
        """Until the peer sleeps: it has opened its ring by then."""
        seen, until = 0, time.monotonic() + 2
        while seen < 3 and time.monotonic() < until:
            seen = seen + 1 if state_of(self.peer.pid) == "S" else 0
            time.sleep(0.0003)
