"""The policy: what it denies stays on the kernel's path and says why, what it allows goes by ring, and a reload counts for both."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from compat.fix_lab import Actor, Lab, Namespace
from compat.fix_policy import Policed
from compat.test_lower import BUSY
from unit.fix_helper_daemon import wait_until

pytest_plugins = ["compat.fix_paths"]

PORT = 23999
DENY_PORT = f"""
[[rule]]
name = "not this port"
action = "deny"
port = {PORT}
"""
DENY_ALL = """
[[rule]]
name = "nothing"
action = "deny"
"""


@pytest.fixture
def policed(namespace: Namespace, tmp_path: Path) -> Iterator[Policed]:
    """A helper of one test's own, without any rule to begin with."""
    with Policed(namespace, "policy", tmp_path / "policy.toml") as made:
        yield made


@pytest.fixture(scope="session")
def other_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same Python under another path: another program, as far as a rule is concerned."""
    copy = tmp_path_factory.mktemp("other") / "python"
    shutil.copy(Path(sys.executable).resolve(), copy)
    return str(copy)


def deny_program(path: str, more: str = "") -> str:
    return f'[[rule]]\nname = "no such program"\naction = "deny"\nprogram = "{path}"\n{more}'


def connected(lab: Lab, mode: str, port: int = 0, address: str = "127.0.0.1") -> tuple[Actor, Actor]:
    """Server, whose end is `c`, and client, whose end is `s`."""
    server, client = lab.actor(mode), lab.actor(mode)
    family = "socket.AF_INET6" if ":" in address else "socket.AF_INET"
    port = server.do(f"l = socket.create_server(('{address}', {port}), family={family}); l.getsockname()[1]")
    client.do(f"s = socket.create_connection(('{address}', {port}))")
    server.do("c, _ = l.accept()")
    return server, client


def talk(server: Actor, client: Actor, count: int = 40) -> None:
    """Messages there and back; each end checks what it gets."""
    server.tell(f"for i in range({count}): assert c.recv(100, socket.MSG_WAITALL) == b'%100d' % i; c.sendall(b'%-100d' % i)")
    client.do(f"for i in range({count}): s.sendall(b'%100d' % i); assert s.recv(100, socket.MSG_WAITALL) == b'%-100d' % i")
    server.hear()


def shares(lab: Lab, server: Actor, client: Actor) -> float:
    """How much of a talk goes by ring."""
    before = lab.sent()
    talk(server, client)
    after = lab.sent() - before
    return after.local / (after.local + after.kernel) if after.local + after.kernel else 0


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_lowered_rule(policed: Policed, address: str) -> None:
    talk(*connected(policed, "kernel", PORT, address))  # as it is without us
    for actor in policed.actors:
        actor.end()
    policed.rules(DENY_PORT)
    server, client = connected(policed, "eager", PORT, address)
    talk(server, client)
    assert shares(policed, server, client) == 0
    assert policed.says(server, "c")[:2] == policed.says(client, "s")[:2] == ("lowered_rule", "lowered_rule")
    assert "not this port" in policed.says(client, "s")[2]
    assert policed.state().counters["denied"] >= 2
    others = connected(policed, "eager", 0, address)
    talk(*others)
    assert shares(policed, *others) > 0.9
    done = policed.inspect("--check")
    assert done.returncode == 0, done.stdout


def test_the_default_may_be_deny(policed: Policed) -> None:
    policed.rules('default = "deny"\n[[rule]]\nname = "this port"\naction = "allow"\nport = 23999\n')
    allowed, denied = connected(policed, "eager", PORT), connected(policed, "eager")
    talk(*allowed)
    talk(*denied)
    assert shares(policed, *allowed) > 0.9 and shares(policed, *denied) == 0
    assert "the default" in policed.says(denied[1], "s")[2]


def test_either_end_is_judged_by_its_own_program(policed: Policed, other_python: str) -> None:
    policed.rules(deny_program(other_python))
    server, client = policed.actor("eager"), policed.actor("eager")
    become(client, other_python)
    port = server.do("l = socket.create_server(('127.0.0.1', 0)); l.getsockname()[1]")
    client.do(f"s = socket.create_connection(('127.0.0.1', {port}))")
    server.do("c, _ = l.accept()")
    talk(server, client)
    assert shares(policed, server, client) == 0
    assert policed.says(client, "s")[2].endswith(": no such program")
    assert policed.says(server, "c")[2].endswith(": no such program, by which the other end is judged")


def become(actor: Actor, python: str, sockets: str = "[]") -> None:
    """The actor executes another Python, which goes on with these sockets: their descriptors are sys.argv[1:] there."""
    source = "print('up', flush=True)\n" + Actor.SOURCE
    argv = f"[{python!r}, '-u', '-c', {source!r}, *(str(s.fileno()) for s in {sockets})]"
    actor.tell(f"for s in {sockets}: s.set_inheritable(True)\nos.environ['PYTHONHOME'] = {sys.base_prefix!r}; os.execv({python!r}, {argv})")
    assert actor.process.stdout is not None and actor.process.stdout.readline() == "up\n"


def test_who_executes_another_program_is_judged_as_that(policed: Policed, other_python: str) -> None:
    """Also for a connection that was lifted before, and is the executed program's alone."""
    policed.rules(deny_program(other_python))
    server, client = connected(policed, "eager")
    talk(server, client)
    assert shares(policed, server, client) > 0.9
    become(client, other_python, "[s]")
    client.do("s = socket.socket(fileno=int(sys.argv[1]))")
    talk(server, client)
    assert shares(policed, server, client) == 0
    assert policed.says(client, "s")[0] == "lowered_rule"
    policed.rules("")
    talk(server, client)
    wait_until(lambda: shares(policed, server, client) > 0.9)


@pytest.mark.parametrize(
    ("rule", "unlike"),
    [
        ("uid = 0", "uid = 7"),
        ("uid = 'root'", "uid = '1-9'"),
        ("gid = ['root', 7]", "gid = 7"),
        ("address = '127.0.0.0/8'", "address = '10.0.0.0/8'"),
        ("local_address = '127.0.0.1'", "remote_address = '::1'"),
    ],
)
def test_what_a_rule_may_ask_for(policed: Policed, rule: str, unlike: str) -> None:
    if policed.namespace.uid:
        pytest.skip("allowed: the rules of this test are about root")
    policed.rules(DENY_ALL + rule)
    four = connected(policed, "eager")
    talk(*four)
    assert shares(policed, *four) == 0
    policed.rules(DENY_ALL + unlike)
    talk(*four)
    wait_until(lambda: shares(policed, *four) > 0.9)


def test_a_reload_counts_in_both_directions_with_traffic_under_way(policed: Policed) -> None:
    for mode in ("kernel", "eager"):
        busy = policed.start([sys.executable, "-c", BUSY], mode, stdin=subprocess.PIPE)
        for _ in range(3 if mode == "eager" else 0):
            policed.rules("")
            wait_until(lambda: moved(policed)[0] > 1000)
            policed.rules(DENY_ALL)
            wait_until(lambda: moved(policed) == (0, True))
        out, err = busy.communicate("end", timeout=30)
        assert (out, busy.returncode) == ("whole\n", 0), err


def moved(lab: Lab) -> tuple[int, bool]:
    """Bytes by ring in a while, and whether the kernel carried some."""
    before = lab.sent()
    wait_until(lambda: lab.sent() != before)
    before = lab.sent()
    wait_until(lambda: (lab.sent() - before).local + (lab.sent() - before).kernel > 20000)
    after = lab.sent() - before
    return after.local, after.kernel > 0


def test_what_cannot_be_understood_changes_nothing(policed: Policed) -> None:
    policed.rules(DENY_ALL)
    policed.file.write_text(DENY_ALL + "porte = 4")
    done = policed.reload()
    assert done.returncode == 1 and "did you mean port?" in done.stderr and str(policed.file) in done.stderr
    talkers = connected(policed, "eager")
    talk(*talkers)
    assert shares(policed, *talkers) == 0
    policed.file.unlink()
    assert "there is no such file" in policed.reload().stderr


def test_unjudged(policed: Policed) -> None:
    """Who comes while no helper runs stays in the kernel, if there is a policy, until one says whom its rules concern."""
    policed.rules(DENY_PORT)
    policed.daemon.end(signal.SIGKILL)
    policed.preloads = True  # `run` would start a helper
    talkers = connected(policed, "eager")
    talk(*talkers)
    assert shares(policed, *talkers) == 0
    assert policed.says(talkers[1], "s")[:2] == ("unjudged", "unjudged")
    policed.start_helper()
    wait_until(lambda: shares(policed, *talkers) > 0.9)


def test_who_comes_to_have_a_connection_while_no_helper_runs(policed: Policed, other_python: str) -> None:
    """It is not lifted any more, until one says that the new program may."""
    policed.rules(deny_program("/nowhere"))
    policed.preloads = True
    server, client = connected(policed, "eager")
    talk(server, client)
    assert shares(policed, server, client) > 0.9
    policed.daemon.end(signal.SIGKILL)
    become(client, other_python, "[s]")
    client.do("s = socket.socket(fileno=int(sys.argv[1]))")
    talk(server, client)
    assert shares(policed, server, client) == 0
    policed.start_helper()
    wait_until(lambda: shares(policed, server, client) > 0.9)


def test_a_policy_outlives_its_helper(policed: Policed) -> None:
    policed.rules(DENY_PORT)
    talkers, others = connected(policed, "eager", PORT), connected(policed, "eager")
    talk(*talkers)
    talk(*others)
    for _ in range(2):
        assert shares(policed, *talkers) == 0 and shares(policed, *others) > 0.9
        policed.daemon.end(signal.SIGKILL)
        assert shares(policed, *talkers) == 0 and shares(policed, *others) > 0.9
        policed.start_helper()


DATAGRAMS = """
def sends(to, count=40):
    for i in range(count):
        u.sendto(b'%d' % i, to)
        assert u.recv(100) == b'%d' % i
def answers(count=40):
    for _ in range(count):
        data, who = u.recvfrom(100)
        u.sendto(data, who)
"""


def test_datagrams(policed: Policed) -> None:
    def talked(server: Actor, client: Actor, port: int) -> float:
        before = policed.state().counters
        server.tell("answers()")
        client.do(f"sends(('127.0.0.1', {port}))")
        server.hear()
        after = policed.state().counters
        local, kernel = (after[name] - before[name] for name in ("tx_datagrams", "tx_kernel_datagrams"))
        return local / (local + kernel)

    def pair(port: int, mode: str) -> tuple[Actor, Actor]:
        server, client = policed.actor(mode), policed.actor(mode)
        for one, at in ((server, port), (client, 0)):
            one.do(DATAGRAMS)
            one.do(f"u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(('127.0.0.1', {at}))")
        return server, client

    server, client = pair(PORT, "kernel")
    server.tell("answers()")
    client.do(f"sends(('127.0.0.1', {PORT}))")
    server.hear()
    for one in (server, client):
        one.end()
    policed.rules(DENY_PORT)
    denied, allowed = pair(PORT, "eager"), pair(PORT + 1, "eager")
    for _ in range(3):
        assert talked(*denied, PORT) == 0
    wait_until(lambda: talked(*allowed, PORT + 1) > 0.9)
    assert policed.says(denied[1], "u")[0] == "lowered_rule" and "not this port" in policed.says(denied[1], "u")[2]
    policed.rules("")
    wait_until(lambda: talked(*denied, PORT) > 0.9)
    policed.rules(DENY_PORT)
    assert talked(*denied, PORT) == 0


def test_a_bad_policy_keeps_the_helper_from_starting(policed: Policed) -> None:
    policed.daemon.end()
    policed.file.write_text("defautl = 'deny'")
    done = subprocess.run(
        [*policed.namespace.prefix, sys.executable, "-m", "sharedstack_helper", "--stack", policed.stack, "--policy", str(policed.file)],
        capture_output=True,
        text=True,
        timeout=30,
        cwd="/",
    )
    assert done.returncode == 2 and "did you mean default?" in done.stderr


def test_the_process_that_shares_counts_too(policed: Policed, other_python: str) -> None:
    """A connection that a child executes with, and its parent keeps: as long as one of them is denied, it stays in the kernel."""
    policed.rules(deny_program(other_python))
    server, client = connected(policed, "eager")
    talk(server, client)
    code = "import socket, sys, time; s = socket.socket(fileno=int(sys.argv[1])); s.send(b''); print(1, flush=True); sys.stdin.read()"
    client.do(f"import subprocess; s.set_inheritable(True); os.environ['PYTHONHOME'] = {sys.base_prefix!r}")
    client.do(
        f"child = subprocess.Popen([{other_python!r}, '-c', {code!r}, str(s.fileno())], close_fds=False, stdin=subprocess.PIPE,"
        " stdout=subprocess.PIPE); child.stdout.readline()"
    )
    talk(server, client)
    assert shares(policed, server, client) == 0
    policed.rules(deny_program("/nowhere"))
    wait_until(lambda: policed.says(client, "s")[0] != "lowered_rule")
    policed.rules(deny_program(other_python))
    wait_until(lambda: policed.says(client, "s")[0] == "lowered_rule")
    client.do("child.communicate()[0]")
    wait_until(lambda: shares(policed, server, client) > 0.9)  # who was denied has gone


def test_who_is_judged_is_asked_of_the_kernel_for_each(policed: Policed) -> None:
    """Nobody is judged by what another process in the same slot was."""
    policed.rules(DENY_PORT)
    made: list[Callable[[], tuple[Actor, Actor]]] = [lambda: connected(policed, "eager", PORT), lambda: connected(policed, "eager")]
    for make, share in ((made[0], False), (made[1], True), (made[0], False)):
        talkers = make()
        talk(*talkers)
        assert (shares(policed, *talkers) > 0.9) == share
        for actor in talkers:
            actor.end()
        policed.settle()
