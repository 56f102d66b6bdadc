"""Blocking receivers that sleep behind their doorbell alone are woken by whatever a stream may bring.

The kernel is the oracle, as in test_semantics; the scenes print whether waits were as long as they should be. A nap that nobody ended would
be a second long here (SHAREDSTACK_NAP_MS), two hundred times as long as the silence in the scenes.
"""

from __future__ import annotations

import pytest
from compat.fix_lab import PROGRAMS, Builder, Lab

pytest_plugins = ["compat.fix_paths"]

SCENES = [
    part.partition('"')[0]
    for part in (PROGRAMS / "naps.c").read_text().rpartition("static const struct scene scenes[]")[2].partition("};")[0].split('{"')[1:]
]


# what nobody rings for ends with the nap
UNRUNG = ("child_sends",)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("mode", ["default", "eager"])
@pytest.mark.parametrize("call", [(), ("poll",)], ids=["recv", "poll"])
@pytest.mark.parametrize("scene", SCENES)
def test_woken_as_by_the_kernel(lab: Lab, build: Builder, scene: str, call: tuple[str, ...], mode: str) -> None:
    command = [build("naps"), scene, *call]
    wanted = lab.run(command, "kernel").ok().out
    before = lab.state().counters["naps"]
    ran = lab.run(command, mode, env={} if scene in UNRUNG else {"SHAREDSTACK_NAP_MS": "1000"})
    assert (ran.out, ran.err, ran.status) == (wanted, "", 0)
    assert lab.state().counters["naps"] - before >= 50


def test_none_if_not_wanted(lab: Lab, build: Builder) -> None:
    """nap_ms 0: everybody sleeps where the kernel sees it."""
    before = lab.state().counters["naps"]
    wanted = lab.run([build("naps"), "sent"], "kernel").ok().out
    assert lab.run([build("naps"), "sent"], "eager", env={"SHAREDSTACK_NAP_MS": "0"}).ok().out == wanted
    assert lab.state().counters["naps"] == before


def test_bursts_some_milliseconds_apart_go_by_ring(lab: Lab) -> None:
    """A set that waits for them dozes: one bell wakes it, and what the others of the burst send meets open rings."""
    server, client = lab.actor("default"), lab.actor("default")
    port = server.do("l = socket.create_server(('127.0.0.1', 0)); l.getsockname()[1]")
    client.do(f"many = [socket.create_connection(('127.0.0.1', {port})) for _ in range(20)]")
    server.do(
        "ours = {c.fileno(): c for c in (l.accept()[0] for _ in range(20))}; e = select.epoll()\n"
        "for n in ours: e.register(n, select.EPOLLIN)\n"
        "def serve():\n"
        "    while ours:\n"
        "        for n, _ in e.poll():\n"
        "            got = ours[n].recv(100)\n"
        "            if not got: e.unregister(n); ours.pop(n)\n"
        "            else: ours[n].sendall(got)"
    )
    client.do(
        "def bursts(n):\n"
        "    for _ in range(n):\n"
        "        for s in many: s.sendall(b'x' * 100)\n"
        "        for s in many: s.recv(100)\n"
        "        time.sleep(0.002)"
    )
    server.tell("serve()")
    client.do("bursts(50)")
    before = lab.sent()
    client.do("bursts(200)", timeout=20)
    sent = lab.sent() - before
    client.do("for s in many: s.close()")
    server.hear()
    assert sent.local + sent.kernel == 2 * 200 * 20 * 100
    assert sent.local > 0.9 * (sent.local + sent.kernel), f"{sent}"
