"""`sharedstack lower`: what is lifted is the kernel's for now, every byte in order, and the programs notice nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from compat.fix_lab import Lab, program

from sharedstack.declare.messages import MOST_ENDS

pytest_plugins = ["compat.fix_paths"]

# what is looked at must not have gone idle meanwhile, however busy the machine is
HELPER = ("--cool-every", "60")

# Both ends at once: 32-bit counters, each end checks what comes. The accepting end goes on until its standard input ends.
BUSY = """
import array, os, select, socket, sys
listener = socket.create_server(('127.0.0.1', 0))
child = os.fork()
s = listener.accept()[0] if child else socket.create_connection(listener.getsockname())
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
i = 0
while True:
    data = array.array('I', range(16 * i, 16 * i + 16)).tobytes()
    if child and i % 1000 == 0 and select.select([0], [], [], 0)[0]:
        s.shutdown(socket.SHUT_WR)
        assert s.recv(128, socket.MSG_WAITALL) == data  # the other end's turn, and its end
        break
    s.sendall(data)
    got = s.recv(64, socket.MSG_WAITALL)
    if not got and not child:
        os._exit(0)
    assert got == data, i
    i += 1
assert os.wait()[1] == 0
print('whole')
"""

ASK = """
import json, sys
from sharedstack import ask
answers = []
with ask.connected(sys.argv[1], int(sys.argv[2])) as helper:
    for ends in json.loads(sys.argv[3]):
        try:
            answers.append(helper.ask('unlift', ends=ends)['results'])
        except RuntimeError as error:
            answers.append(str(error))
print(json.dumps(answers))
"""


def lower(lab: Lab, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*lab.namespace.prefix, program("sharedstack"), "lower", "--stack", lab.stack, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def lowered(lab: Lab, *arguments: str) -> list[dict[str, Any]]:
    done = lower(lab, "--format", "json", *arguments)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout)["lowered"])


def open_rings(lab: Lab) -> int:
    return sum(e.tx.path == "local" for e in lab.state().endpoints)


def test_unread_bytes_stay_in_order(own_lab: Lab) -> None:
    server, client = own_lab.connected("eager")
    client.do("s.sendall(b'before'); s.sendall(b' and ')")
    assert open_rings(own_lab) > 0
    (first, *_) = found = lowered(own_lab)
    assert sum(one["rings"] for one in found) > 0 and not any(one["wire"] or one["why"] for one in found)
    assert first["processes"]
    assert open_rings(own_lab) == 0
    before = own_lab.sent()
    client.do("s.sendall(b'after')")
    assert (own_lab.sent() - before).kernel == 5 and (own_lab.sent() - before).local == 0
    assert server.do("c.recv(16, socket.MSG_WAITALL)") == b"before and after"


def test_one_end_or_one_process(own_lab: Lab) -> None:
    server, client = own_lab.connected("eager")
    others = own_lab.connected("eager")
    rings = open_rings(own_lab)
    assert rings >= 4
    pid = client.do("os.getpid()")
    (one,) = lowered(own_lab, "--pid", str(pid))
    assert one["rings"] == 2 and open_rings(own_lab) == rings - 2
    text = lower(own_lab).stdout
    assert "2 rings shut" in text and text.splitlines()[-1].endswith("lowered")
    assert lower(own_lab).stdout.splitlines() == [f"0 of {len(own_lab.state().endpoints)} lowered"]
    some = own_lab.state().endpoints[0].index
    assert lower(own_lab, str(some)).stdout == "0 of 1 lowered\n"
    assert lower(own_lab, "--pid", "1").stdout == "nothing is registered there\n"
    for a, b in ((server, client), others):
        b.do("s.sendall(b'x')")
        assert a.do("c.recv(1)") == b"x"


def asked(lab: Lab, *messages: list[list[int]]) -> list[Any]:
    """The helper's answers to `unlift` of these ends, or what it says is wrong."""
    uid = str(lab.namespace.uid)
    done = lab.direct([sys.executable, "-c", ASK, lab.stack, uid, json.dumps(messages)], lab.environ("kernel"))
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def test_many_ends_at_once(own_lab: Lab) -> None:
    """Each has its own result, whatever is wrong with another one."""
    connections = [own_lab.connected("eager") for _ in range(2)]
    good = [[end.index, end.cookie] for end in {end.pair: end for end in own_lab.state().endpoints if end.tx.path == "local"}.values()]
    assert len(good) >= 2
    wrong = [[99999, 7], [(1 << 32) + good[0][0], good[0][1]], [good[0][0], good[0][1] + 1]]
    ends = [*wrong, *(end for one in good for end in (one, *wrong))]
    results, again, empty, too_many = asked(own_lab, ends, [good[0]] * MOST_ENDS, [], [good[0]] * (MOST_ENDS + 1))
    assert results == [[2 if end in good else 0, False, 0] for end in ends]
    assert open_rings(own_lab) == 0
    assert (again, empty) == ([[0, False, 0]] * MOST_ENDS, [])
    assert too_many == f"message unlift: the field ends must be list of at most {MOST_ENDS} [u64, u64]"
    for a, b in connections:
        b.do("s.sendall(b'x')")
        assert a.do("c.recv(1)") == b"x"


def test_while_both_ends_send(own_lab: Lab) -> None:
    """Again and again, under way: every counter comes, in order."""
    busy = own_lab.start([sys.executable, "-c", BUSY], "eager", stdin=subprocess.PIPE)
    shut = rounds = 0
    while rounds < 5 or shut <= 4 or own_lab.sent().local < 1 << 20:
        assert busy.poll() is None
        shut += sum(one["rings"] for one in lowered(own_lab))
        rounds += 1
    assert busy.communicate()[0] == "whole\n"


def test_without_a_helper(own_lab: Lab) -> None:
    done = lower(own_lab, "--uid", "12345")
    assert done.returncode == 1 and "12345" in done.stderr
    done = lower(own_lab, "99999")
    assert (done.returncode, done.stderr) == (1, "sharedstack: there is no endpoint 99999: see `sharedstack inspect`\n")
    own_lab.connected("eager")
    assert own_lab.daemon.process
    own_lab.daemon.process.kill()
    own_lab.daemon.process.wait()
    try:
        done = lower(own_lab)
        assert done.returncode == 1 and "has no helper" in done.stderr
    finally:
        own_lab.start_helper()
