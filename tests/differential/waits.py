"""Steps that wait for several descriptors: poll, select, and epoll sets by level, by edge and for one shot."""

from __future__ import annotations

import time

from differential.model import Epoll, Member, Socket, Thing
from differential.play import Difference, NoSenseError, OracleError, require
from differential.streams import Streams
from differential.worlds import Answer

IN, OUT, ERR, HUP, RDHUP = 0x1, 0x4, 0x8, 0x10, 0x2000
ONESHOT, EDGE = 1 << 30, 1 << 31
ADD, DEL, MOD = 1, 2, 3


class Waits(Streams):
    """Readiness."""

    def open_bits(self, t: Thing) -> int:
        """What the kernel leaves open: room in a socket that is nearly full, and the arrival of what is held back."""
        bits = 0
        if isinstance(t, Socket) and t.kind == "tcp":
            if t.out and (t.out.deep or t.out.most() > t.limit // 2):
                bits |= OUT
            if t.into and not t.into.exact:
                bits |= IN | RDHUP
            if t.into and t.lowat > 1 and t.into.least() != t.into.most():
                bits |= IN
        if isinstance(t, Epoll):
            for _, member in t.members:
                bits |= IN if self.open_bits(member) else 0
        return bits

    def op_poll(self, p: int, asked: list[list[int]], call: str = "poll", timeout: int = 0) -> None:
        """[[fd, events], …]; closed descriptors are allowed, as they are in poll."""
        require(p in self.model.processes and (call == "poll" or len({fd for fd, _ in asked}) == len(asked)))
        fds = self.model.processes[p]
        require(call == "poll" or all(fd in fds for fd, _ in asked))
        open_ = [self.open_bits(fds[fd]) if fd in fds else 0 for fd, _ in asked]
        answers = self.ask(p, f"{call} {timeout} " + " ".join(f"{fd} {events}" for fd, events in asked))
        told = []
        for a in answers:
            bits = [int(b) & ~o for b, o in zip(a.more, open_, strict=True)]
            told.append((a.result if not any(open_) else min(a.result, 0), a.errno, a.pipes, bits))
        self.same(told, raw=answers)

    def op_epoll(self, p: int) -> None:
        require(p in self.model.processes and len(self.model.processes[p]) < 24)
        fd = self.both(p, "epoll").result
        self.model.processes[p][fd] = Epoll(next(self.model.numbers))

    def epoll(self, p: int, ep: int) -> Epoll:
        found = self.thing(p, ep)
        require(isinstance(found, Epoll))
        assert isinstance(found, Epoll)
        return found

    def op_ctl(self, p: int, ep: int, what: int, fd: int, events: int = 0) -> None:
        e, t = self.epoll(p, ep), self.thing(p, fd)
        require(not isinstance(t, Epoll) or t is e)
        number = next(self.model.numbers)
        answer = self.both(p, f"ctl {ep} {what} {fd} {events} {number}")
        if answer.result == 0:
            assert isinstance(t, Socket)
            if what == DEL:
                e.members.pop((fd, t), None)
            else:
                e.members[fd, t] = Member(events, number)

    def op_wait(self, p: int, ep: int, timeout: int = 0) -> None:
        e = self.epoll(p, ep)
        require(len(e.members) < 16)
        self.reported(p, ep, e, self.patiently(p, ep, e, self.ask(p, f"wait {ep} 16 {timeout}")))

    def patiently(self, p: int, ep: int, e: Epoll, answers: list[Answer]) -> list[Answer]:
        """A wait that reports something of rings may report later what the kernel has, by look_busy_us at most (docs/differences.md)."""
        for w, a in enumerate(answers):
            if not (answers[0].result > a.result > 0) or not any(isinstance(t, Socket) for _, t in e.members):
                continue
            found = dict(zip(a.more[::2], map(int, a.more[1::2]), strict=True))
            time.sleep(0.001)
            self.worlds[w].tell(p, f"wait {ep} 16 0")
            later = self.worlds[w].hear(p)
            for data, events in zip(later.more[::2], map(int, later.more[1::2]), strict=True):
                found[data] = found.get(data, 0) | events
            answers[w] = a._replace(result=len(found), more=tuple(str(x) for pair in found.items() for x in pair))
        return answers

    def reported(self, p: int, ep: int, e: Epoll, answers: list[Answer]) -> None:
        """Compare what epoll_wait reported: as a set, since the kernel's order is that of arrival."""
        found = [dict(zip(map(int, a.more[::2]), map(int, a.more[1::2]), strict=True)) for a in answers]
        self.same([(min(a.result, 0), a.errno, a.pipes) for a in answers])
        for (fd, t), member in list(e.members.items()):
            events = [f.pop(member.data, 0) for f in found]
            open_ = self.open_bits(t)
            bits = [b & ~open_ for b in events]
            if not member.events & EDGE:
                self.same(bits, f"member {fd}", answers)
            else:
                # extra edges are allowed, the kernel itself gives them (when its peer acknowledges a FIN, say); what one says must be so.
                # None may be missing: of what happened since the last report, and of room for writing when it was armed
                assert isinstance(t, Socket)
                due = bits[0] & (~OUT if member.seen >= 0 else ~0) if t.happened > member.seen else 0
                for w in self.every:
                    extra = bits[w] & ~bits[0]
                    if due & ~bits[w]:
                        raise Difference(f"member {fd}: an edge is missing in {self.worlds[w].mode}: {answers}")
                    if extra:
                        self.extra_edges += 1
                        self.surely(p, fd, t, extra, w, answers)
            if all(events) and isinstance(t, Socket):
                member.seen = t.happened
            if member.events & ONESHOT and any(events) and not all(events):
                # armed in some of them only, by what is left open: armed again in all
                self.both(p, f"ctl {ep} {MOD} {fd} {member.events} {member.data}")
                if self.model.processes[p].get(fd) is not t:
                    raise NoSenseError
        if any(found):
            raise Difference(f"reported, but not of the set: {found}")

    def surely(self, p: int, fd: int, t: Thing, bits: int, world: int, answers: list[Answer]) -> None:
        """A reported edge speaks the truth."""
        if self.model.processes[p].get(fd) is not t:
            return
        self.worlds[world].tell(p, f"poll 0 {fd} {bits}")
        now = int(self.worlds[world].hear(p).more[0])
        if bits & ~now:
            raise Difference(f"member {fd}: {self.worlds[world].mode} reported {bits:#x} that is not so, but {now:#x}: {answers}")

    def op_await_set(self, q: int, ep: int, p: int, fd: int, n: int, end: str = "") -> None:
        """A process waits in its set until another one sends, ends a stream, or connects."""
        e, s = self.epoll(q, ep), self.socket(p, fd, "tcp", "connected")
        r, out = s.peer, s.out
        assert r and out and s.into
        require(p != q and len(e.members) < 16 and not s.reset and not r.reset and not s.shut_wr and not r.shut_rd and r.lowat <= 1)
        require(any(t is r and m.events & IN and not (m.events & ONESHOT) for (_, t), m in e.members.items()))
        require(out.most() == 0 and out.exact and 0 < n <= s.limit_left and s.nodelay and not s.cork)
        require(all(not self.open_bits(t) for _, t in e.members))
        before = self.ask(q, f"wait {ep} 16 0")
        self.reported(q, ep, e, before)
        if any(a.result for a in before):
            return
        self.tell(q, f"wait {ep} 16 3000")
        if end:
            done = self.ask(p, f"shutdown {fd} 1")
            s.shut_wr = out.fin = True
            r.happened += 1
        else:
            done = self.ask(p, *(f"send {fd} 0 {self.place(out, w)} {n} 0 1 0 0 0" for w in self.every))
        answers = self.hear(q)
        self.same(done, "the other's call")
        if not end:
            self.sent(s, out, done, False)
        if answers[0].result <= 0:
            raise OracleError(f"the kernel's wait ended by itself: {answers}")
        self.reported(q, ep, e, answers)
