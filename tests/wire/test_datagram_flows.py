"""How a socket's datagrams come to be an engine's, and the kernel's again: idleness, deaths, options, other sockets, errors."""

from __future__ import annotations

import json
import signal
import time

from wire.fix_datagrams import PROGRAM, PYTHON, ask, ready, reasons, serve, wired
from wire.fix_world import SEED, Side, wait_for


def test_an_idle_socket_is_the_kernels_again(fresh_sides: tuple[Side, Side]) -> None:
    here, there = fresh_sides
    _, port = serve(there, "epoll")
    ask(here, there.address, port, n=200)
    assert wired(there)
    wait_for(lambda: not wired(there), 15)
    assert reasons(there) == {"wire_idle"}
    assert ask(here, there.address, port, n=200)["lost"] == 0  # and an engine's when it is used again
    assert wired(there)


def test_programs_that_die_leave_nothing(fresh_sides: tuple[Side, Side]) -> None:
    here, there = fresh_sides
    server, port = serve(there, "blocking")
    ask(here, there.address, port, n=200)
    assert wired(there)
    server.kill()
    server.wait()
    wait_for(lambda: not there.inspect()["endpoints"])
    _, again = serve(there, "poll", ours=False, port=port)  # the port, and its peers, are the kernel's
    assert again == port
    assert ask(here, there.address, port, n=200, ours=False)["lost"] == 0


def test_a_helper_that_leaves_gives_all_back(fresh_sides: tuple[Side, Side]) -> None:
    here, there = fresh_sides
    server, port = serve(there, "epoll")
    ask(here, there.address, port, n=200)
    assert wired(there)
    there.stop_helper()
    assert ask(here, there.address, port, n=200)["lost"] == 0
    assert server.poll() is None


def test_a_stopped_reader_loses_no_more_than_its_ring_holds(fresh_sides: tuple[Side, Side]) -> None:
    """The helper takes what comes meanwhile."""
    here, there = fresh_sides
    server, port = serve(there, "blocking")
    ask(here, there.address, port, n=200)
    assert wired(there)
    server.send_signal(signal.SIGSTOP)
    client = here.start(PYTHON, PROGRAM, "ask", there.address, str(port), "sendto", str(SEED), "1")
    time.sleep(1.5)
    server.send_signal(signal.SIGCONT)
    assert client.stdout
    assert json.loads(client.stdout.readline())["lost"] == 0


def test_another_socket_on_the_port(fresh_sides: tuple[Side, Side]) -> None:
    """Only the kernel knows whose a datagram is: the one that came later has all of them."""
    here, there = fresh_sides
    script = (
        "import socket, sys\n"
        "both = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(2)]\n"
        "for s in both:\n"
        "    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n"
        "    s.bind((sys.argv[1], 7555))\n"
        "print('ready 7555', flush=True)\n"
        "while True:\n"
        "    both[1].sendto(*both[1].recvfrom(9000))\n"
    )
    program = there.start(PYTHON, "-c", script, there.address)
    port = ready(program)
    assert ask(here, there.address, port, n=300)["lost"] == 0
    assert "shared_port" in reasons(there)
    assert not wired(there)


def test_another_socket_that_comes_later(fresh_sides: tuple[Side, Side]) -> None:
    """Of a program that does not take part: found within seconds, and the kernel decides again."""
    here, there = fresh_sides
    bind = (
        "import socket, sys\n"
        "s = socket.socket(type=socket.SOCK_DGRAM)\n"
        "s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n"
        "s.bind((sys.argv[1], 7556))\n"
        "print('ready 7556', flush=True)\n"
        "while True:\n"
        "    s.sendto(*s.recvfrom(9000))\n"
    )
    port = ready(there.start(PYTHON, "-c", bind, there.address))
    asking = here.start(PYTHON, PROGRAM, "ask", there.address, str(port), "keep", str(SEED), "0")
    wait_for(lambda: wired(there))
    ready(there.start(PYTHON, "-c", bind, there.address, ours=False))
    wait_for(lambda: "shared_port" in reasons(there), 15)
    assert not wired(there)
    assert asking.poll() is None


def test_an_option_of_its_packets(fresh_sides: tuple[Side, Side]) -> None:
    """The engine's packets are plain: a socket whose packets are not stays with the kernel, and one that changes goes back."""
    here, there = fresh_sides
    script = (
        "import socket, sys\n"
        "s = socket.socket(type=socket.SOCK_DGRAM)\n"
        "s.bind((sys.argv[1], 0))\n"
        "print('ready', s.getsockname()[1], flush=True)\n"
        "n = 0\n"
        "while True:\n"
        "    data, peer = s.recvfrom(9000)\n"
        "    n += 1\n"
        "    if n == 300:\n"
        "        s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 9)\n"
        "    s.sendto(data, peer)\n"
    )
    program = there.start(PYTHON, "-c", script, there.address)
    port = ready(program)
    ask(here, there.address, port, n=200)
    assert wired(there)
    assert ask(here, there.address, port, n=400)["lost"] == 0
    assert not wired(there)
    assert "option" in reasons(there)


def test_a_port_that_nobody_has_any_more(fresh_sides: tuple[Side, Side]) -> None:
    """ICMP errors are the kernel's to tell, of what the engine sent too."""
    here, there = fresh_sides
    script = (
        "import socket, sys, time\n"
        "s = socket.socket(type=socket.SOCK_DGRAM)\n"
        "s.connect((sys.argv[1], int(sys.argv[2])))\n"
        "s.settimeout(3)\n"
        "for i in range(200):\n"
        "    s.send(b'x')\n"
        "    s.recv(10)\n"
        "print('ready 1', flush=True)\n"
        "sys.stdin.readline()\n"
        "try:\n"
        "    for i in range(100):\n"
        "        s.send(b'x')\n"
        "        time.sleep(0.01)\n"
        "except ConnectionRefusedError:\n"
        "    print('ready 111', flush=True)\n"
    )
    server, port = serve(there, "blocking", ours=False)
    client = here.start(PYTHON, "-c", script, there.address, str(port))
    ready(client)
    assert wired(here)
    server.kill()
    server.wait()
    assert client.stdin
    client.stdin.write("\n")
    client.stdin.flush()
    assert ready(client) == 111


def test_fork_is_the_kernels(fresh_sides: tuple[Side, Side]) -> None:
    here, there = fresh_sides
    script = (
        "import os, socket, sys\n"
        "s = socket.socket(type=socket.SOCK_DGRAM)\n"
        "s.bind((sys.argv[1], 0))\n"
        "print('ready', s.getsockname()[1], flush=True)\n"
        "for i in range(300):\n"
        "    s.sendto(*s.recvfrom(9000))\n"
        "if os.fork() == 0:\n"
        "    for i in range(200):\n"
        "        s.sendto(*s.recvfrom(9000))\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "for i in range(100):\n"
        "    s.sendto(*s.recvfrom(9000))\n"
    )
    program = there.start(PYTHON, "-c", script, there.address)
    port = ready(program)
    assert ask(here, there.address, port, n=600)["lost"] == 0
    assert program.wait(10) == 0
