"""Two processes that send to each other until told to stop: streams both ways, requests with replies; all bytes are compared."""

from __future__ import annotations

from compat.fix_lab import Actor, Lab

# `give` sends a pattern until told to stop, `take` checks it; `ask` and `reply` are requests and replies on another connection.
LOAD = """
import hashlib
stop = threading.Event()
pattern = bytes((i * 31 + i // 251) & 255 for i in range(65536)) * 2
totals = {'given': 0, 'taken': 0, 'asked': 0}
wrong = []
def give(s):
    try:
        while not stop.is_set():
            at = totals['given'] % 65536
            totals['given'] += s.send(pattern[at:at + 8000])
        s.shutdown(socket.SHUT_WR)
    except Exception as e: wrong.append(('give', repr(e)))
def take(s, how):
    try:
        p = select.poll() if how == 'poll' else select.epoll() if how == 'epoll' else None
        if p: p.register(s, select.POLLIN)
        while True:
            if p: p.poll()
            piece = s.recv(20000)
            if not piece: break
            at = totals['taken'] % 65536
            if piece != pattern[at:at + len(piece)]: wrong.append(('take', totals['taken'], len(piece)))
            totals['taken'] += len(piece)
    except Exception as e: wrong.append(('take', repr(e)))
def ask(s):
    try:
        while not stop.is_set():
            want = str(totals['asked']).encode()
            s.sendall(want)
            if s.recv(100) != want: wrong.append(('ask', want))
            totals['asked'] += 1
            time.sleep(0.0002)
        s.shutdown(socket.SHUT_WR)
    except Exception as e: wrong.append(('ask', repr(e)))
def reply(s):
    try:
        while piece := s.recv(100): s.sendall(piece)
    except Exception as e: wrong.append(('reply', repr(e)))
def begin(*jobs):
    global running
    running = [threading.Thread(target=f, args=a, daemon=True) for f, *a in jobs]
    for t in running: t.start()
def end():
    stop.set()
    for t in running: t.join(20)
    return [t.is_alive() for t in running], wrong, totals
"""


def under_load(lab: Lab, how: str, mode: str = "eager") -> tuple[Actor, Actor]:
    server, client = lab.actor(mode), lab.actor(mode)
    server.do(LOAD)
    client.do(LOAD)
    port = server.do("l = socket.create_server(('127.0.0.1', 0)); l.getsockname()[1]")
    client.do(f"c = [socket.create_connection(('127.0.0.1', {port})) for _ in range(2)]")
    server.do("c = [l.accept()[0] for _ in range(2)]")
    server.do(f"begin((give, c[0]), (take, c[0], {how!r}), (reply, c[1]))")
    client.do(f"begin((give, c[0]), (take, c[0], {how!r}), (ask, c[1]))")
    return server, client


def end_load(server: Actor, client: Actor) -> None:
    client.do("stop.set()")
    alive, wrong, served = server.do("end()", 30)
    assert (alive, wrong) == ([False] * 3, []), (alive, wrong, served)
    alive, wrong, asked = client.do("end()", 30)
    assert (alive, wrong) == ([False] * 3, []), (alive, wrong, served)
    assert (served["given"], served["taken"]) == (asked["taken"], asked["given"])
    assert asked["asked"] > 10
