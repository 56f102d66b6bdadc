"""Steps on UDP sockets."""

from __future__ import annotations

from differential.model import Datagram, Socket, checksum
from differential.play import Difference, OracleError, require
from differential.streams import DONTWAIT, MORE, PEEK, READ, READV, RECVFROM, RECVMSG, TRUNC, WRITE, WRITEV
from differential.waits import Waits
from differential.worlds import Answer

ROOM = 120_000  # of a receive buffer as the kernel counts, surely less than it has
EACH = 1400  # what it counts for a datagram beside its bytes, at most


class Datagrams(Waits):
    """UDP."""

    def op_connect_udp(self, p: int, fd: int, q: int, fd2: int) -> None:
        s, to = self.socket(p, fd, "udp"), self.socket(q, fd2, "udp")
        require(to.ports and s is not to and not s.corked and not s.refused)
        code = self.code_towards(s, to)
        require(s.family == to.family)
        answers = self.ask(p, *(f"connect {fd} {s.family} {code} {port}" for port in to.ports))
        self.same(answers)
        if answers[0].result == 0:
            s.towards = to
            if not s.ports:
                self.learn_port(p, fd, s)

    def op_sendto(
        self, p: int, fd: int, n: int, q: int = -1, fd2: int = -1, how: int = 0, flags: int = 0, pieces: int = 1, bad: bool = False
    ) -> None:
        """To that socket; without one, to the socket that it is connected to."""
        s = self.socket(p, fd, "udp")
        named = q >= 0
        to = self.socket(q, fd2, "udp") if named else s.towards
        require(n <= 60000 and not s.refused and not s.shut_wr)
        if named:
            require(to and to.ports and how in (3, 4) and not s.towards)
        if how in (WRITE, WRITEV):
            flags = 0
        require(not (bad and (flags & MORE or s.corked or n == 0)))
        require(not s.corked or to is s.towards)
        require(not flags & MORE or (to is not None and to is s.towards))
        size = n + s.corked
        require(size <= 60000)
        accepted = to is not None and not to.gone and (to.towards is None or to.towards is s) and not to.shut_rd
        if accepted:
            assert to
            require(all(sum(d.size * 2 + EACH for d in queue) + size * 2 + EACH <= ROOM for queue in to.queues))
        place = -1 if bad else s.place
        if named:
            assert to
            code = self.code_towards(s, to)
            answers = self.ask(p, *(f"send {fd} {how} {place} {n} {flags} {pieces} {s.family} {code} {port}" for port in to.ports))
        else:
            answers = self.ask(p, f"send {fd} {how} {place} {n} {flags} {pieces} 0 0 0")
        self.same(answers)
        if answers[0].result < 0:
            return
        s.place += n
        if not s.ports:
            self.learn_port(p, fd, s)
        if flags & MORE:
            s.corked = size
            return
        s.corked = 0
        if accepted:
            assert to
            to.happened += 1
            made = Datagram(s, s.place - size, size, next(self.model.numbers))
            for queue in to.queues:
                queue.append(made)
        elif s.towards is not None:
            # told by whatever call comes next; a send by ring does not tell it (docs/differences.md), so it is asked for here
            self.both(p, f"get {fd} 1 4")

    def op_recvfrom(self, p: int, fd: int, n: int, how: int = RECVFROM, flags: int = 0, pieces: int = 1) -> None:
        s = self.socket(p, fd, "udp")
        if how in (READ, READV):
            flags = 0
        require(s.nonblock or flags & DONTWAIT or all(s.queues) or (s.timed and not any(s.queues)))
        require(all(s.queues) or not any(s.queues))
        require(not (how in (READ, READV) and n == 0))
        senders = {d.sender.number for queue in s.queues for d in queue}
        require(len(senders) <= 1 or how in (RECVFROM, RECVMSG))
        answers = self.ask(p, f"recv {fd} {how} {n} {flags} {pieces} 0 0")
        if not any(s.queues):
            self.same(answers)
            return
        self.arrived(s, n, how, flags, answers)

    def arrived(self, s: Socket, n: int, how: int, flags: int, answers: list[Answer]) -> None:
        """Which one it was: between those of different senders there is no order but that of each."""
        told: list[object] = []
        which: list[Datagram] = []
        for w, a in enumerate(answers):
            queue = s.queues[w]
            heads = {d.sender.number: d for d in reversed(queue)}
            if w == 0:
                heads = {0: queue[0]}
            if (seen := s.peeked[w]) is not None:
                heads = {0: seen}
            for d in heads.values():
                got = min(n, d.size)
                if a.result != (d.size if flags & TRUNC else got) or int(a.more[0]) != self.sum_of(d, got, a):
                    continue
                if how in (RECVFROM, RECVMSG) and int(a.more[-1]) != d.sender.ports[w]:
                    continue
                break
            else:
                due = [(d.sender.number, d.size) for d in heads.values()]
                raise (Difference if w else OracleError)(f"{self.worlds[w].mode}: {a} is none of those that are due: {due}")
            s.peeked[w] = d if flags & PEEK else None
            if not flags & PEEK:
                queue.remove(d)
            told.append((a.errno, a.pipes, bool(int(a.more[2]) & TRUNC) == (how == RECVMSG and d.size > n), a.result))
            which.append(d)
        if all(d is which[0] for d in which):
            self.same(told, raw=answers)

    @staticmethod
    def sum_of(d: Datagram, got: int, a: Answer) -> int:
        """The executor sums up as many bytes as the call's result, of its buffer; beyond what was copied there is something else."""
        return checksum(d.place, got) if a.result == got else int(a.more[0])


class Play(Datagrams):
    """Everything."""
