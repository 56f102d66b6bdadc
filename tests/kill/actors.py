"""What the survivors do: the peer of the victim, and two bystanders with a connection of their own. Python for `Actor.do`."""

from __future__ import annotations

# `received` is what the victim sent. After `begin` the connection is lifted, and the side that the operation needs is prepared.
PEER = """
def pattern(at, n): return bytes((i * 31 + i // 251) & 255 for i in range(at, at + n))
l = socket.create_server(('127.0.0.1', 0))
port = l.getsockname()[1]
received, sent, end = b'', 0, ''
def give(n):
    global sent
    c.sendall(pattern(sent, n)); sent += n
def take():
    global received, end
    try:
        piece = c.recv(1 << 16)
        received += piece
        end = '' if piece else 'end'
    except ConnectionResetError: end = 'reset'
def echo(n):
    for i in range(n):
        take()
        if end: return
        give(1)
def accept():
    global c, received, sent, end
    received, sent, end = b'', 0, ''
    c, _ = l.accept()
    c.settimeout(5)
def drain():
    while not end: take()
def finish():
    try: drain()
    except TimeoutError: return 'hangs', len(received), 0
    wrong = sum(a != b for a, b in zip(received, pattern(0, len(received))))
    c.close()
    return end, len(received), wrong
def datagrams(n):
    global at, u
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    u.bind(l.getsockname())
    u.settimeout(5)
    for i in range(n):
        _, at = u.recvfrom(100)
        u.sendto(b'a', at)
def finish_datagrams():
    u.settimeout(0.05)
    got, wrong = 0, 0
    try:
        while True:
            piece, _ = u.recvfrom(65536)
            got += 1
            wrong += piece != pattern(len(piece), len(piece))
    except TimeoutError: pass
    u.close()
    return 'end', got, wrong
"""

# A fixed workload: pieces there and back on the old connection, then a fresh one that is lifted and closed. All bytes are summed up by hash.
BYSTANDER = """
import hashlib, random
hashes = hashlib.sha256(), hashlib.sha256()
def pieces(seed):
    dice = random.Random(seed)
    return [dice.randbytes(dice.choice((1, 64, 700, 9000, 40000))) for _ in range(12)]
def exactly(s, n):
    got = b''
    while len(got) < n:
        piece = s.recv(n - len(got))
        if not piece: raise EOFError(f'ended after {len(got)} of {n} bytes')
        got += piece
    return got
def ask(s, seed):
    for piece in pieces(seed):
        s.sendall(piece)
        hashes[0].update(piece)
        hashes[1].update(exactly(s, len(piece)))
def reply(s, seed):
    for piece in pieces(seed):
        got = exactly(s, len(piece))
        hashes[0].update(got)
        hashes[1].update(piece)
        s.sendall(got)
def client_work(seed):
    ask(s, seed)
    with socket.create_connection(at) as fresh:
        ask(fresh, seed + 1)
    return [h.hexdigest() for h in hashes]
def server_work(seed):
    reply(c, seed)
    fresh, _ = l.accept()
    with fresh:
        reply(fresh, seed + 1)
        fresh.recv(1)
    return [h.hexdigest() for h in hashes]
"""
