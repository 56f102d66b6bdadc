"""Steps on connections: bytes each way, ends of streams, and receives that wait for what another process does."""

from __future__ import annotations

import errno

from differential.model import MOST, Socket, Stream, checksum
from differential.play import Difference, Lives, OracleError, require
from differential.worlds import Answer

SEND, WRITE, WRITEV, SENDMSG, SENDTO = range(5)
RECV, READ, READV, RECVMSG, RECVFROM = range(5)
PEEK, DONTWAIT, WAITALL, TRUNC, NOSIGNAL, MORE = 0x2, 0x40, 0x100, 0x20, 0x4000, 0x8000


class Streams(Lives):
    """TCP."""

    def op_send(self, p: int, fd: int, n: int, how: int = SEND, flags: int = 0, pieces: int = 1, bad: bool = False) -> None:
        s = self.socket(p, fd, "tcp")
        if how in (WRITE, WRITEV):
            flags = 0
        waits_not = s.nonblock or bool(flags & DONTWAIT)
        out = s.out if s.state == "connected" else None
        live = out is not None and not s.shut_wr and not s.reset
        if live:
            assert out
            require(n <= s.limit_left or waits_not)
            require(out.most() + n <= MOST and (not bad or n <= s.limit_left))
            require(not (out.deep and (flags & MORE or s.cork)))
            # what nobody will take is answered by an RST, when it goes out: by Nagle's algorithm that may be later
            heard = s.peer and not s.peer.gone and not (s.peer.shut_rd and s.peer.shut_wr)
            require(heard or (s.nodelay and not s.cork and not flags & MORE))
        fits = n <= s.limit_left and (out is None or not out.deep)
        start = [-1] * len(self.worlds) if bad else [self.place(out, w) for w in self.every]
        answers = self.ask(p, *(f"send {fd} {how} {at} {n} {flags} {pieces} 0 0 0" for at in start))
        if not live or fits:
            self.same(answers)
        else:
            # how much a socket takes that is nearly full depends on buffers and windows, which the kernel tunes as it goes; a ring is more
            # room beside them
            self.same([(a.errno in (0, errno.EAGAIN), a.pipes) for a in answers], raw=answers)
        if live:
            assert out
            self.sent(s, out, answers, bool(flags & MORE) or s.cork)

    def place(self, stream: Stream | None, world: int) -> int:
        return stream.key + stream.sent[world] if stream else 1

    def sent(self, s: Socket, out: Stream, answers: list[Answer], holding: bool) -> None:
        if s.peer is None or s.peer.gone:
            # nobody will read it: the answer is an RST
            s.reset = s.reset or any(a.result > 0 for a in answers)
            return
        if s.peer.shut_rd and s.peer.shut_wr:
            # as after close: the kernel aborts such a connection when more comes
            if any(a.result > 0 for a in answers):
                self.model.reset(s)
                self.model.reset(s.peer)
            return
        for w, a in enumerate(answers):
            out.sent[w] += max(0, a.result)
        if all(a.result <= 0 for a in answers):
            return
        s.peer.happened += 1
        out.held = holding
        out.note(s.limit)
        if not s.nodelay and not holding:
            out.late = True
        if out.late and not holding:
            self.settle(s)

    def op_recv(self, p: int, fd: int, n: int, how: int = RECV, flags: int = 0, pieces: int = 1, bad: bool = False) -> None:
        s = self.socket(p, fd, "tcp")
        if how in (READ, READV):
            flags = 0
        waits_not = s.nonblock or bool(flags & DONTWAIT)
        into = s.into if s.state == "connected" else None
        require(waits_not or s.readable or (s.timed and into) or (how in (READ, READV) and n == 0))
        if into is None:
            require(s.state != "connecting")
            self.same(self.ask(p, f"recv {fd} {how} {n} {flags} {pieces} 0 0"))
            return
        if flags & WAITALL and not waits_not:
            require(into.least() >= n or into.fin or s.reset or s.shut_rd)
            require(into.exact and not s.timed)
        if not into.exact:
            # what the kernel holds back or has no window for is waited for: when it comes is its affair. (A remainder held by MSG_MORE
            # comes after 200 ms, too long to wait for.)
            require(not into.held and not flags & (PEEK | TRUNC | WAITALL) and not bad and s.lowat <= 1 and not s.shut_rd)
        if s.lowat > 1:
            require(not into.deep and (waits_not or n <= into.least()))
        if bad:
            require(n > 0 and how in (RECV, READ, RECVFROM) and flags in (0, DONTWAIT))
            self.same([a._replace(more=()) for a in self.ask(p, f"recv {fd} {how} {-n} {flags} {pieces} 0 0")])
            return
        peek = bool(flags & PEEK)
        # where one call's bytes end is open on a stream: a call gives those of the ring, or those of the kernel, so it is repeated until
        # all is there that one call of the kernel gives. Not with MSG_WAITALL, which promises it, nor MSG_PEEK, which would repeat itself
        wanted = [0 if peek or flags & WAITALL else min(n, into.left(w)) for w in self.every]
        patient = int(not into.exact)
        answers = self.ask(p, *(f"recv {fd} {how} {n} {flags} {pieces} {want} {patient}" for want in wanted))
        self.received(s, into, n, flags, answers)

    def received(self, s: Socket, into: Stream, n: int, flags: int, answers: list[Answer]) -> None:
        """Compare, check the bytes, and count them."""
        peek, dues = bool(flags & PEEK), [min(n, into.left(w)) for w in self.every]
        even = into.exact and into.least() == into.most()
        told: list[object] = []
        for w, (a, due) in enumerate(zip(answers, dues, strict=True)):
            got = max(0, a.result)
            if got > 0 and not flags & TRUNC and int(a.more[0]) != checksum(into.key + into.taken[w], got):
                raise (Difference if w else OracleError)(f"other bytes in {self.worlds[w].mode}: {a} at {into.taken[w]}")
            if w == 0 and 0 < got != due and s.lowat <= 1:
                raise OracleError(f"the kernel gave {a}, not {due}")
            self.short_receives += int(a.more[1]) > 1
            if not peek:
                into.taken[w] += got
            elif w and 0 < got < due:
                got = due  # it shows those of the ring, or those of the kernel: docs/differences.md
            # the flags of a message and its source are there as well: of a stream, none
            told.append((got if even else got == due, a.errno, a.pipes, a.more[2:]))
        self.same(told, raw=answers)
        into.note(s.peer.limit if s.peer else s.limit)

    def op_unread(self, p: int, fd: int) -> None:
        """FIONREAD."""
        s = self.socket(p, fd)
        if s.into:
            # the kernel's queue ends where its window did; bytes that are held back are not there yet
            require(s.into.exact and s.into.least() == s.into.most())
        require(s.kind == "tcp" or all(len({d.sender.number for d in queue}) <= 1 for queue in s.queues))
        self.both(p, f"unread {fd}")

    def op_transfer(self, p: int, fd: int, q: int, fd2: int, n: int, how: int = RECV) -> None:
        """More than there is room for: one process sends all of it, while the other one receives it."""
        s, r = self.socket(p, fd, "tcp", "connected"), self.socket(q, fd2, "tcp", "connected")
        require(p != q and s.peer is r and not s.nonblock and n > 0)
        require(not (s.reset or r.reset or s.shut_wr or r.shut_rd or r.timed or r.lowat > 1 or s.cork))
        out = s.out
        assert out
        require(out.most() + n <= MOST and not out.held)
        places = [out.key + out.sent[w] for w in self.every]
        due = [out.left(w) + n for w in self.every]
        self.tell(q, *(f"recv {fd2} {how} {d} 0 1 {d} 1" for d in due))
        self.tell(p, *(f"sendall {fd} {place} {n}" for place in places))
        sent, answers = self.hear(p), self.hear(q)
        self.same(sent, "sent")
        for w in self.every:
            out.sent[w] += n
        r.happened += 1
        out.deep = True  # where the single calls' bytes end is open
        self.received(r, out, max(due), 0, answers)

    def op_await(self, q: int, fd2: int, p: int, fd: int, n: int, way: str, end: str = "", flags: int = 0) -> None:
        """A process waits, by that call, for what another one does: sends n bytes, or ends the stream by shutdown or close."""
        s, r = self.socket(p, fd, "tcp", "connected"), self.socket(q, fd2, "tcp", "connected")
        require(p != q and s.peer is r and not s.reset and not r.reset and not s.shut_wr and not r.shut_rd)
        out, back = s.out, s.into
        assert out and back
        require(out.most() == 0 and out.exact and not out.fin and r.lowat <= 1)
        require(end or (0 < n <= s.limit_left and s.nodelay and not s.cork))
        if end == "close":
            require(back.most() == 0 and not back.held and s.linger != 0 and sum(1 for _ in self.model.holders(s)) == 1)
        if way == "recv":
            require(not r.nonblock and not r.timed)
            self.tell(q, f"recv {fd2} 0 {max(n, 1)} {flags} 1 {max(n, 1)} 0")
        else:
            # waits for 3 s, far longer than it takes
            self.tell(q, f"{way} 3000 {fd2} {8193 if way == 'poll' else 1}")
        if end:
            done = self.ask(p, f"shutdown {fd} 1" if end == "shutdown" else f"close {fd}")
        else:
            done = self.ask(p, *(f"send {fd} 0 {self.place(out, w)} {n} {flags & DONTWAIT} 1 0 0 0" for w in self.every))
        answers = self.hear(q)
        self.same(done, "the other's call")
        if end:
            s.shut_wr = out.fin = True
            r.happened += 1
            if end == "close":
                self.forget(p, fd)
        else:
            self.sent(s, out, done, False)
        if way == "recv":
            self.received(r, out, max(n, 1), flags, answers)
        else:
            self.same(answers)

    def op_await_accept(self, q: int, fd2: int, p: int, fd: int) -> None:
        """A process waits in accept until another one connects."""
        s, to = self.socket(p, fd, "tcp", "new", "bound"), self.socket(q, fd2, "tcp", "listening")
        require(p != q and not to.pending and not to.nonblock)
        code = self.code_towards(s, to)
        self.tell(q, f"accept {fd2} -1")
        done = self.ask(p, *(f"connect {fd} {s.family} {code} {port}" for port in to.ports))
        self.same(done, "connect")
        answers = self.hear(q)
        self.model.join(s, to)
        self.learn_port(p, fd, s)
        self.accepted(q, fd2, to, -1, answers)

    def op_shutdown(self, p: int, fd: int, how: int) -> None:
        s = self.socket(p, fd, "tcp")
        if s.out and s.into:
            require(not s.out.held and not s.out.deep and not s.into.held and not s.into.deep)
        require(s.state != "listening")
        answer = self.both(p, f"shutdown {fd} {how}")
        if s.out and s.into and answer.result == 0:
            s.shut_rd = s.shut_rd or how in (0, 2)
            if how in (1, 2):
                s.shut_wr = s.out.fin = True
                if s.peer:
                    s.peer.happened += 1
