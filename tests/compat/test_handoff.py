"""A server is restarted by handoff while its clients go on: listener and established connections are stored, and nothing is lost.

On the plain kernel (without the library, by the same helper) first; then both ends accelerated.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
from compat.fix_lab import Lab

pytest_plugins = ["compat.fix_paths"]

ROUNDS = 3
SERVER = """
import select, socket, sys
from sharedstack import fdstore
stack, most = sys.argv[1], int(sys.argv[2])  # bytes that it echoes before it stores what it has
listening, talking = fdstore.get('listening', stack=stack), fdstore.get('talking', stack=stack)
if not listening:
    listening = [socket.create_server(('127.0.0.1', 0))]
    print(listening[0].getsockname()[1], flush=True)
poller = select.poll()
for s in listening + talking:
    poller.register(s, select.POLLIN)
stop = False
echoed = 0
while not stop:
    for fd, _ in poller.poll():
        if fd == listening[0].fileno():
            talking.append(listening[0].accept()[0])
            talking[-1].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            poller.register(talking[-1], select.POLLIN)
            continue
        s = next(s for s in talking if s.fileno() == fd)
        data = s.recv(1000)
        s.sendall(data)
        echoed += len(data)
        stop = stop or echoed > most
        if not data:
            poller.unregister(s)
            talking.remove(s)
            s.close()
            stop = stop or not talking
if talking:
    fdstore.put('listening', *listening, stack=stack)
    fdstore.put('talking', *talking, stack=stack)
print('over' if not talking else 'stored', len(talking), flush=True)
"""
# Each checks that what comes back is what it sent, in order.
CLIENT = """
import array, socket, sys
s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
for i in range(int(sys.argv[2])):
    data = array.array('I', range(16 * i, 16 * i + 16)).tobytes()
    s.sendall(data)
    assert s.recv(64, socket.MSG_WAITALL) == data, i
print('whole')
"""
MESSAGES, CLIENTS, EACH = 4000, 3, 200_000


def server(lab: Lab, mode: str) -> subprocess.Popen[str]:
    return lab.start([sys.executable, "-c", SERVER, lab.stack, str(EACH)], mode, stderr=None)


@pytest.mark.parametrize("mode", ["kernel", "default", "eager"])
def test_restarted_under_load(own_lab: Lab, mode: str) -> None:
    lab = own_lab
    running = server(lab, mode)
    assert running.stdout
    port = running.stdout.readline().strip()
    clients = [lab.start([sys.executable, "-c", CLIENT, port, str(MESSAGES)], mode, stderr=None) for _ in range(CLIENTS)]
    said, restarts = running.communicate(timeout=60)[0], 0
    while said.startswith("stored"):
        running, restarts = server(lab, mode), restarts + 1
        said = running.communicate(timeout=60)[0]
    assert said == "over 0\n"
    assert [client.communicate(timeout=60)[0] for client in clients] == ["whole\n"] * CLIENTS
    assert restarts >= ROUNDS
    lab.settle()
    sent = lab.sent()
    assert mode == "kernel" or sent.local > 0
    print(f"{mode}: {restarts} restarts, local {sent.local >> 10} KiB, kernel {sent.kernel >> 10} KiB")
    lab.assert_clean()
