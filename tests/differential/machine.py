"""The Hypothesis machine: which step comes next, drawn from what makes sense. Its swarm testing leaves out some of the rules each time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from differential.datagrams import Play
from differential.model import Socket
from differential.play import Difference, OracleError
from differential.waits import EDGE, IN, ONESHOT, OUT, RDHUP
from differential.worlds import SLOTS, World
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

T = TypeVar("T")

SIZES = (1, 100, 7, 1000, 2, 4096, 1460, 0, 16000, 16384, 20000, 32768, 65536, 100_000, 300_000)
SMALL = SIZES[:9]
FLAGS = (0, 0, 0x40, 0x40, 0x4000, 0x4040, 0x8000)
RECV_FLAGS = (0, 0x40, 0x40, 0x42, 0x2, 0x100, 0x140, 0x20, 0x60, 0x102)
EVENTS = (IN, IN | OUT, IN | RDHUP, IN | EDGE, IN | OUT | EDGE, IN | RDHUP | EDGE, IN | ONESHOT, OUT | ONESHOT, IN | EDGE | ONESHOT, OUT, 0)
GETS = (
    (1, 4), (1, 3), (1, 2), (1, 9), (1, 13), (1, 18), (1, 20), (1, 30), (1, 38), (1, 39), (6, 1), (6, 3), (6, 4), (6, 18), (0, 1), (41, 26),
)  # fmt: skip
SETS = (
    ((1, 2), (1,)), ((1, 9), (1,)), ((1, 13), (1, 0)), ((1, 13), (0, 0)), ((1, 13), (1, 1)), ((1, 20), (0, 20000, 0)), ((1, 20), (0, 0, 0)),
    ((6, 1), (0,)), ((6, 1), (1,)), ((6, 3), (1,)), ((6, 3), (0,)), ((1, 7), (4608,)), ((1, 18), (5,)), ((1, 18), (1,)), ((6, 4), (60,)),
    ((6, 18), (5000,)), ((0, 1), (16,)), ((1, 10), (1,)), ((41, 26), (1,)), ((1, 15), (1,)), ((1, 2), (0,)),
)  # fmt: skip

index = cache(lambda n: st.integers(0, n - 1))


class Machine(RuleBasedStateMachine):
    """A class made of it has the worlds, and where to write the script of a play that failed."""

    worlds: Sequence[World] = ()
    failed_to: Path
    playing: type[Play] = Play
    gets: Sequence[tuple[int, int]] = GETS
    after: Callable[[Play], None] = staticmethod(lambda play: None)

    def __init__(self) -> None:
        super().__init__()
        self.play = self.playing(self.worlds)
        self.play.begin()

    def teardown(self) -> None:
        try:
            self.play.end()
        except Difference:
            self.play.save(self.failed_to)
            raise
        finally:
            self.after(self.play)

    def do(self, op: str, **arguments: Any) -> bool:
        try:
            return self.play.do({"op": op, **arguments})
        except (Difference, OracleError):
            self.play.save(self.failed_to)
            raise

    @staticmethod
    def one(data: st.DataObject, of: Sequence[T]) -> T:
        return of[data.draw(index(len(of)))] if len(of) > 1 else of[0]

    def sockets(self, *states: str, kind: str = "tcp") -> list[tuple[int, int, Socket]]:
        return self.play.model.sockets(*states, kind=kind)

    def connected(self) -> list[tuple[int, int, Socket]]:
        return self.sockets("connected")

    def pairs(self) -> list[tuple[int, int, int, int, Socket, Socket]]:
        """Two processes with the two ends of a connection: sender, receiver."""
        ends = self.connected()
        return [(p, fd, q, fd2, s, r) for p, fd, s in ends for q, fd2, r in ends if s.peer is r and p != q]

    def free_slot(self) -> int:
        return next((n for n in range(SLOTS) if n not in self.play.model.processes), -1)

    # the beginning

    @initialize(data=st.data())
    def start(self, data: st.DataObject) -> None:
        for _ in range(data.draw(index(3)) + 1):
            self.connection(data)
        for p in range(data.draw(index(3))):
            self.do("socket", p=p % 2, kind="udp", family=2, nonblock=False)
            self.do("bind", p=p % 2, fd=self.sockets(kind="udp")[-1][1], code=1)

    def connection(self, data: st.DataObject) -> None:
        """A connected pair, between two processes for the most part."""
        here, there = 0, int(data.draw(index(8)) != 7)
        if here not in self.play.model.processes or there not in self.play.model.processes:
            return
        family = (2, 2, 2, 10)[data.draw(index(4))]
        nodelay = data.draw(index(8)) != 7
        listener = self.play.model.free(there)
        if not self.do("socket", p=there, kind="tcp", family=family, nonblock=False, nodelay=nodelay):
            return
        self.do("bind", p=there, fd=listener, code=data.draw(index(2)))
        self.do("listen", p=there, fd=listener, backlog=4)
        client = self.play.model.free(here)
        if self.do("socket", p=here, kind="tcp", family=family, nonblock=False, nodelay=nodelay):
            self.do("connect", p=here, fd=client, q=there, fd2=listener)
            self.do("accept", p=there, fd=listener, flags=(-1, 0, 0o4000)[data.draw(index(3))])
        self.do("close", p=there, fd=listener)

    # talking

    def shape(self, data: st.DataObject) -> dict[str, Any]:
        """In how many pieces; seldom from or into a bad pointer."""
        return {"pieces": self.one(data, (1, 3, 7)), "bad": data.draw(index(40)) == 39}

    def send_some(self, data: st.DataObject, p: int, fd: int) -> None:
        n = self.one(data, SIZES)
        flags = self.one(data, FLAGS)
        self.do("send", p=p, fd=fd, n=n, how=data.draw(index(5)), flags=flags, **self.shape(data))

    def receive_some(self, data: st.DataObject, p: int, fd: int) -> None:
        n = self.one(data, (400_000, *SIZES))
        flags = self.one(data, RECV_FLAGS)
        self.do("recv", p=p, fd=fd, n=n, how=data.draw(index(5)), flags=flags, **self.shape(data))

    @precondition(lambda self: self.connected())
    @rule(data=st.data())
    def send(self, data: st.DataObject) -> None:
        p, fd, _ = self.one(data, self.connected())
        self.send_some(data, p, fd)

    @precondition(lambda self: self.connected())
    @rule(data=st.data())
    def receive(self, data: st.DataObject) -> None:
        p, fd, _ = self.one(data, self.connected())
        self.receive_some(data, p, fd)

    @precondition(lambda self: self.connected())
    @rule(data=st.data())
    def turns(self, data: st.DataObject) -> None:
        """Request and reply, for some rounds: what lifts a connection."""
        pairs = self.pairs()
        if not pairs:
            return
        p, fd, q, fd2, _, _ = self.one(data, pairs)
        n, m = self.one(data, SMALL), self.one(data, SMALL)
        for _ in range(data.draw(index(6)) + 1):
            self.do("send", p=p, fd=fd, n=n)
            self.do("recv", p=q, fd=fd2, n=n, flags=0x100)
            self.do("recv", p=q, fd=fd2, n=100, flags=0x40)
            self.do("send", p=q, fd=fd2, n=m)
            self.do("recv", p=p, fd=fd, n=m)
            self.do("recv", p=p, fd=fd, n=100, flags=0x40)

    @precondition(lambda self: self.connected())
    @rule(data=st.data())
    def empty(self, data: st.DataObject) -> None:
        """Read all there is, and what is said then."""
        p, fd, _ = self.one(data, self.connected())
        self.do("recv", p=p, fd=fd, n=400_000, flags=0x40)
        self.do("recv", p=p, fd=fd, n=1000, flags=0x40)

    @precondition(lambda self: self.pairs())
    @rule(data=st.data())
    def transfer(self, data: st.DataObject) -> None:
        p, fd, q, fd2, _, _ = self.one(data, self.pairs())
        self.do("transfer", p=p, fd=fd, q=q, fd2=fd2, n=self.one(data, SIZES), how=self.one(data, (0, 1, 2, 3)))

    @precondition(lambda self: self.pairs())
    @rule(data=st.data())
    def wait_for_it(self, data: st.DataObject) -> None:
        p, fd, q, fd2, _, r = self.one(data, self.pairs())
        n = self.one(data, SMALL)
        way = self.one(data, ("recv", "poll", "select", "recv"))
        end = self.one(data, ("", "", "", "", "", "", "shutdown", "close"))
        if r.into and r.into.most():
            self.do("recv", p=q, fd=fd2, n=400_000, flags=0x40)
        self.do("await", q=q, fd2=fd2, p=p, fd=fd, n=n, way=way, end=end, flags=self.one(data, (0, 0x100)) if way == "recv" else 0)

    # waiting for many

    @rule(data=st.data())
    def poll(self, data: st.DataObject) -> None:
        p = self.one(data, sorted(self.play.model.processes))
        fds = sorted(self.play.model.processes[p])
        if not fds:
            return
        events = (IN, IN | OUT, IN | RDHUP, OUT, 0, IN | OUT | RDHUP | 2)
        asked = [[self.one(data, fds), self.one(data, events)] for _ in range(data.draw(index(4)) + 1)]
        call = self.one(data, ("poll", "poll", "select"))
        if call == "select":
            asked = [list(pair) for pair in {fd: (fd, events & 7) for fd, events in asked}.values()]
        self.do("poll", p=p, asked=asked, call=call, timeout=self.one(data, (0, 0, 0, 1)))

    @rule(data=st.data())
    def epoll(self, data: st.DataObject) -> None:
        """Make a set with some members, change it, or ask it."""
        sets = self.play.model.sets()
        act = data.draw(index(10))
        if not sets or act == 9:
            p = self.one(data, sorted(self.play.model.processes))
            ep = self.play.model.free(p)
            if len(sets) < 4 and self.do("epoll", p=p):
                for fd in sorted(self.play.model.processes[p]):
                    if data.draw(index(4)) != 3:
                        self.do("ctl", p=p, ep=ep, what=1, fd=fd, events=self.one(data, EVENTS))
            return
        p, ep, _ = self.one(data, sets)
        if act < 3:
            fd = self.one(data, sorted(self.play.model.processes[p]))
            self.do("ctl", p=p, ep=ep, what=self.one(data, (1, 3, 3, 2)), fd=fd, events=self.one(data, EVENTS))
        else:
            self.do("wait", p=p, ep=ep, timeout=self.one(data, (0, 0, 0, 1)))

    @precondition(lambda self: self.play.model.sets())
    @rule(data=st.data())
    def wait_in_a_set(self, data: st.DataObject) -> None:
        q, ep, e = self.one(data, self.play.model.sets())
        towards = [(p, fd) for p, fd, _, _, s, r in self.pairs() if p != q and any(t is r for _, t in e.members)]
        if towards:
            p, fd = self.one(data, towards)
            end = "shutdown" if data.draw(index(12)) == 11 else ""
            self.do("await_set", q=q, ep=ep, p=p, fd=fd, n=self.one(data, SMALL), end=end)
            for (fd2, t), _ in list(e.members.items()):
                if isinstance(t, Socket) and t.into and t.into.most():
                    self.do("recv", p=q, fd=fd2, n=self.one(data, (400_000, 400_000, 10)), flags=0x40)

    # datagrams

    @rule(data=st.data())
    def datagram(self, data: st.DataObject) -> None:
        all_ = self.sockets(kind="udp")
        if not all_:
            return
        p, fd, s = self.one(data, all_)
        n, how, flags = self.one(data, SIZES[:12]), data.draw(index(5)), self.one(data, (0, 0, 0x40, 0x4000, 0x8000))
        pieces = (1, 3)[data.draw(index(2))]
        if s.towards:
            self.do("sendto", p=p, fd=fd, n=n, how=how, flags=flags, pieces=pieces, bad=data.draw(index(40)) == 39)
        else:
            q, fd2, _ = self.one(data, all_)
            self.do("sendto", p=p, fd=fd, n=n, q=q, fd2=fd2, how=3 + how % 2, flags=flags, pieces=pieces)

    @rule(data=st.data())
    def take_datagram(self, data: st.DataObject) -> None:
        all_ = self.sockets(kind="udp")
        if not all_:
            return
        p, fd, _ = self.one(data, all_)
        flags = self.one(data, (0x40, 0, 0x42, 0x20, 0x60, 0x62))
        self.do("recvfrom", p=p, fd=fd, n=self.one(data, (65536, *SIZES[:12])), how=data.draw(index(5)), flags=flags)

    @rule(data=st.data())
    def datagram_turns(self, data: st.DataObject) -> None:
        all_ = [(p, fd, s) for p, fd, s in self.sockets(kind="udp") if s.ports and not s.towards]
        if len(all_) < 2:
            return
        (p, fd, s), (q, fd2, r) = self.one(data, all_), self.one(data, all_)
        n = self.one(data, SMALL)
        if s is r:
            return
        for _ in range(data.draw(index(6)) + 1):
            self.do("sendto", p=p, fd=fd, n=n, q=q, fd2=fd2, how=4)
            self.do("recvfrom", p=q, fd=fd2, n=65536, flags=0x40)
            self.do("recvfrom", p=q, fd=fd2, n=65536, flags=0x40)

    @rule(data=st.data())
    def datagram_socket(self, data: st.DataObject) -> None:
        all_ = self.sockets(kind="udp")
        if len(all_) < 4:
            p = self.one(data, sorted(self.play.model.processes))
            fd = self.play.model.free(p)
            self.do("socket", p=p, kind="udp", family=(2, 2, 10)[data.draw(index(3))], nonblock=data.draw(index(3)) == 2)
            if data.draw(index(4)) != 3:
                self.do("bind", p=p, fd=fd, code=data.draw(index(2)))
        elif data.draw(index(3)) == 2:
            (p, fd, _), (q, fd2, _) = self.one(data, all_), self.one(data, all_)
            self.do("connect_udp", p=p, fd=fd, q=q, fd2=fd2)

    # lives

    @rule(data=st.data())
    def another_connection(self, data: st.DataObject) -> None:
        if len(self.connected()) < 4 or (len(self.connected()) < 10 and data.draw(index(4)) == 3):
            self.connection(data)

    @rule(data=st.data())
    def listen(self, data: st.DataObject) -> None:
        """Listeners and connections step by step."""
        fresh, listening = self.sockets("new", "bound", "failed"), self.sockets("listening")
        act = data.draw(index(8))
        p = self.one(data, sorted(self.play.model.processes))
        if act < 2 or not fresh:
            if len(fresh) < 3:
                self.do("socket", p=p, kind="tcp", family=(2, 10)[data.draw(index(2))], nonblock=data.draw(index(2)) == 1)
            return
        q, fd, _ = self.one(data, fresh)
        if act == 2:
            other = self.one(data, self.sockets())
            same = data.draw(index(3)) == 2
            self.do("bind", p=q, fd=fd, code=data.draw(index(2)), **({"q": other[0], "fd2": other[1]} if same else {}))
        elif act == 3 or not listening:
            self.do("listen", p=q, fd=fd, backlog=4)
        elif act == 4:
            self.do("connect_refused", p=q, fd=fd)
        else:
            r, fd2, _ = self.one(data, listening)
            self.do("await_accept" if act == 5 else "connect", p=q, fd=fd, q=r, fd2=fd2)

    @precondition(lambda self: self.sockets("listening"))
    @rule(data=st.data())
    def accept(self, data: st.DataObject) -> None:
        p, fd, _ = self.one(data, self.sockets("listening"))
        self.do("accept", p=p, fd=fd, flags=self.one(data, (-1, 0, 0o4000)))

    @precondition(lambda self: self.connected())
    @rule(data=st.data())
    def shutdown(self, data: st.DataObject) -> None:
        p, fd, _ = self.one(data, self.connected())
        self.do("shutdown", p=p, fd=fd, how=self.one(data, (1, 1, 0, 2)))

    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        p = self.one(data, sorted(self.play.model.processes))
        if fds := sorted(self.play.model.processes[p]):
            self.do("close", p=p, fd=self.one(data, fds))

    @rule(data=st.data())
    def share(self, data: st.DataObject) -> None:
        """dup, dup2, passing, fork, exec, exit."""
        p = self.one(data, sorted(self.play.model.processes))
        fds = sorted(self.play.model.processes[p])
        act = data.draw(index(10))
        if act == 0:
            self.do("fork", p=p, slot=self.free_slot())
        elif act == 1:
            self.do("exit", p=p)
        elif act == 2:
            self.do("exec", p=p)
        elif fds and act < 6:
            self.do("pass", p=p, fd=self.one(data, fds), q=self.one(data, sorted(self.play.model.processes)))
        elif fds:
            self.do("dup", p=p, fd=self.one(data, fds), new=self.one(data, (-1, -1, *fds, 20)))

    # odds and ends

    @rule(data=st.data())
    def ask(self, data: st.DataObject) -> None:
        all_ = [*self.sockets(), *self.sockets(kind="udp")]
        if not all_:
            return
        p, fd, _ = self.one(data, all_)
        act = data.draw(index(6))
        if act == 0:
            self.do("name", p=p, fd=fd, peer=data.draw(index(2)))
        elif act == 1:
            self.do("flags", p=p, fd=fd)
        elif act < 4:
            self.do("unread", p=p, fd=fd)
        else:
            level, name = self.one(data, self.gets)
            self.do("get", p=p, fd=fd, level=level, name=name)

    @rule(data=st.data())
    def change(self, data: st.DataObject) -> None:
        all_ = [*self.sockets(), *self.sockets(kind="udp")]
        if not all_:
            return
        p, fd, _ = self.one(data, all_)
        if data.draw(index(2)):
            self.do("nonblock", p=p, fd=fd, on=bool(data.draw(index(2))))
        else:
            (level, name), values = self.one(data, SETS)
            self.do("set", p=p, fd=fd, level=level, name=name, values=list(values))

    @rule(data=st.data())
    def unconnected(self, data: st.DataObject) -> None:
        """Sending and receiving where it cannot be done."""
        odd = [x for x in self.sockets("new", "bound", "listening", "failed")]
        if odd:
            p, fd, _ = self.one(data, odd)
            (self.send_some if data.draw(index(2)) else self.receive_some)(data, p, fd)
        elif ends := self.connected():
            p, fd, _ = self.one(data, ends)
            self.do("connect_again", p=p, fd=fd)
