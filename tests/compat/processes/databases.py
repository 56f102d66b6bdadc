"""Databases: a backend of PostgreSQL is killed under pgbench, and redis saves its keys in the background under redis-benchmark."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Callable

from compat.processes.stage import PATIENCE, Case, Said, Stage, until

CLIENTS = 8
ENDLESS = 3600  # seconds: until its server is killed


def _cluster(stage: Stage) -> str:
    """The folder of a new PostgreSQL database cluster: a copy of one that is made once."""
    made, own = stage.shared / "postgresql", stage.folder / "data"
    if not made.exists():
        stage.run("initdb", "-D", f"{made}.new", "-A", "trust", "-U", "test", "--no-sync", plain=True)
        os.rename(f"{made}.new", made)
    shutil.copytree(made, own)
    for folder, _, files in os.walk(own):
        for path in (folder, *(os.path.join(folder, name) for name in files)):
            os.chown(path, stage.lab.namespace.uid, stage.lab.namespace.uid)
    own.chmod(0o700)
    return str(own)


# what pgbench's script adds to all four tables it adds in one transaction
CONSISTENT = """
select (select sum(abalance) from pgbench_accounts) = (select sum(bbalance) from pgbench_branches),
       (select sum(abalance) from pgbench_accounts) = (select sum(tbalance) from pgbench_tellers),
       (select sum(abalance) from pgbench_accounts) = (select coalesce(sum(delta), 0) from pgbench_history)
"""


def postgresql_kill(stage: Stage) -> Said:
    """Half of the load until a backend is killed, by which PostgreSQL ends all of them, and so pgbench; the other half afterwards."""
    port = stage.port()
    options = ("-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "max_connections=20", "-c", "shared_buffers=32MB")
    server = stage.start("postgres", "-D", _cluster(stage), "-p", str(port), "-h", "127.0.0.1", *options, stop=signal.SIGINT)
    stage.listens(port)
    at = ("-h", "127.0.0.1", "-p", str(port), "-U", "test")

    def asked(sql: str) -> str:
        return stage.run("psql", *at, "-XAtc", sql, "postgres").strip()

    bench = ("pgbench", *at, "-n", "-c", str(CLIENTS), "-j", "2", "postgres")
    until(lambda: "ready to accept connections" in server.said(), "PostgreSQL is ready")
    stage.run("pgbench", *at, "-iq", "postgres")
    half = max(1, round(1.5 * stage.seconds))
    first = stage.start(*bench, "-T", str(ENDLESS))
    time.sleep(half)
    stage.look()
    victim = int(asked("select pid from pg_stat_activity where application_name = 'pgbench' order by pid limit 1"))
    os.kill(victim, signal.SIGKILL)
    status = first.process.wait(PATIENCE)
    until(lambda: server.said().count("ready to accept connections") == 2, "PostgreSQL has recovered")
    second = stage.run(*bench, "-T", str(half))
    done, failed = (re.search(pattern, second) for pattern in (r"actually processed: (\d+)", r"failed transactions: (\d+)"))
    assert done and failed, second
    output = {
        "status of the first half": status,
        "clients that lost their server": len(re.findall(r"client \d+ aborted", first.said())),
        "tables consistent": asked(CONSISTENT),
        "backends killed": len(re.findall(r"was terminated by signal 9", server.said())),
    }
    return Said(output, int(done[1]), int(failed[1]))


KEYS = 1000


def _redis(stage: Stage, port: int) -> Callable[..., str]:
    """redis-server on the case's folder, with what is saved there; and redis-cli for it."""
    options = ("--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(stage.folder), "--enable-debug-command", "yes")
    server = stage.start("redis-server", "--port", str(port), *options)
    until(lambda: "Ready to accept connections" in server.said(), "redis has loaded its keys")  # it answers before
    return lambda *words: stage.run("redis-cli", "-p", str(port), *words).strip()


def redis_bgsave(stage: Stage) -> Said:
    """Keys that the load leaves alone are in what was saved, as another server finds that loads it."""
    port = stage.port()
    ask = _redis(stage, port)
    ask("debug", "populate", str(KEYS), "kept", "100")
    wanted = ask("debug", "digest-value", *(f"kept:{i}" for i in range(KEYS)))
    seconds = max(1, round(stage.seconds))
    # as many as nobody can do in that time: it is ended by a signal
    load = stage.start("redis-benchmark", "-p", str(port), "-t", "set", "-r", "100000", "-d", "200", "-c", "10", "-n", "100000000", "-q")
    time.sleep(seconds / 2)
    stage.look()
    began = ask("bgsave")
    until(lambda: "rdb_bgsave_in_progress:0" in ask("info", "persistence"), "saved")
    saved = ask("info", "persistence")
    time.sleep(seconds / 2)
    assert load.process.poll() is None, load.said()
    done = int(re.findall(r"cmdstat_set:calls=(\d+)", ask("info", "commandstats"))[0])
    failed = re.findall(r"errorstat_\w+:count=(\d+)", ask("info", "errorstats"))
    load.process.send_signal(signal.SIGKILL)
    load.process.wait()
    ask("shutdown", "nosave")
    again = _redis(stage, stage.port())
    output = {
        "began": began,
        "status": re.findall(r"rdb_last_bgsave_status:(\w+)", saved),
        "the same keys": again("debug", "digest-value", *(f"kept:{i}" for i in range(KEYS))) == wanted,
        "some were set": done > 0,
    }
    return Said(output, done, sum(map(int, failed)))


CASES = [
    Case("postgresql-kill", ("initdb", "postgres", "pgbench", "psql"), postgresql_kill, other_user=True),
    Case("redis-bgsave", ("redis-server", "redis-benchmark", "redis-cli"), redis_bgsave),
]
