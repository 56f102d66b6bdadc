"""Web servers that are reloaded, replaced and restarted while wrk asks them: nginx, haproxy, apache2, gunicorn, node's cluster."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from compat.processes.load import http
from compat.processes.stage import SCRIPTS, Case, Said, Stage, until

NGINX = """
daemon on; user root; worker_processes 2;
pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{ access_log off; {temporary}
  server {{ listen 127.0.0.1:{port}; location / {{ return 200 "{answer}"; }} }} }}
"""


class Nginx:
    """A daemon, as nginx replaces its binary only where it is one; its process is known by the pid file. Of the environment it gives a new
    binary no more than the configuration names, and that is nothing: the library follows.
    """

    def __init__(self, stage: Stage, answer: str = "one") -> None:
        self.port, self.folder = stage.port(), stage.folder / f"nginx-{answer}"
        self.folder.mkdir()
        self.file = self.folder / "pid"
        self.configure(answer)
        stage.run("nginx", "-c", str(self.folder / "nginx.conf"), "-e", str(self.folder / "error.log"))
        stage.listens(self.port)

    def __enter__(self) -> Nginx:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            os.kill(self.pid, signal.SIGTERM)

    @property
    def pid(self) -> int:
        """Of the master that is in office."""
        return int(self.file.read_text())

    def configure(self, answer: str) -> None:
        temporary = " ".join(f"{kind}_temp_path {self.folder};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        text = NGINX.format(folder=self.folder, port=self.port, answer=answer, temporary=temporary)
        (self.folder / "nginx.conf").write_text(text)


def nginx_reload(stage: Stage) -> Said:
    with Nginx(stage) as server:

        def event() -> None:
            server.configure("two")
            os.kill(server.pid, signal.SIGHUP)

        return http(stage, server.port, event)


def nginx_upgrade(stage: Stage) -> Said:
    with Nginx(stage) as server:
        old, aside = server.pid, Path(f"{server.file}.oldbin")

        def event() -> None:
            server.configure("two")
            os.kill(old, signal.SIGUSR2)
            until(lambda: aside.exists() and server.file.exists() and server.file.read_text(), "the new master has written its pid")
            os.kill(old, signal.SIGQUIT)

        said = http(stage, server.port, event)
        until(lambda: not Path(f"/proc/{old}").exists(), "the old master has ended")
        return said


HAPROXY = """
global
  nbthread {threads}
  stats socket {folder}/control mode 600 level admin expose-fd listeners
defaults
  mode http
  timeout connect 5s
  timeout client 20s
  timeout server 20s
frontend web
  bind 127.0.0.1:{port}
  default_backend behind
backend behind
  server nginx 127.0.0.1:{behind}
"""


def haproxy_reload(stage: Stage) -> Said:
    """Master and worker; the new configuration names another server behind."""
    with Nginx(stage, "one") as one, Nginx(stage, "two") as two:
        port, file = stage.port(), stage.folder / "haproxy.cfg"
        file.write_text(HAPROXY.format(folder=stage.folder, port=port, behind=one.port, threads=2))
        master = stage.start("haproxy", "-W", "-db", "-f", str(file))
        stage.listens(port)

        def event() -> None:
            file.write_text(HAPROXY.format(folder=stage.folder, port=port, behind=two.port, threads=2))
            master.send(signal.SIGUSR2)

        return http(stage, port, event)


def haproxy_takeover(stage: Stage) -> Said:
    """A second process gets the first one's listeners from its control socket (-x), and has it finish (-sf)."""
    with Nginx(stage, "one") as one, Nginx(stage, "two") as two:
        port, files = stage.port(), [stage.folder / f"haproxy-{name}.cfg" for name in ("one", "two")]
        for file, server in zip(files, (one, two), strict=True):
            file.write_text(HAPROXY.format(folder=stage.folder, port=port, behind=server.port, threads=1))
        first = stage.start("haproxy", "-db", "-f", str(files[0]))
        stage.listens(port)

        def event() -> None:
            stage.start("haproxy", "-db", "-f", str(files[1]), "-x", str(stage.folder / "control"), "-sf", str(first.pid))

        said = http(stage, port, event)
        first.result()
        return said


APACHE = """
ServerRoot {folder}
ServerName localhost
DefaultRuntimeDir {folder}
PidFile {folder}/pid
ErrorLog {folder}/error.log
LoadModule mpm_prefork_module /usr/lib/apache2/modules/mod_mpm_prefork.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
DirectoryIndex index.html
DocumentRoot {folder}/{answer}
Listen 127.0.0.1:{port}
KeepAlive On
MaxKeepAliveRequests 0
StartServers 12
MinSpareServers 2
MaxRequestWorkers 24
"""


def apache_prefork(stage: Stage) -> Said:
    """A graceful restart with another root of documents."""
    port, file = stage.port(), stage.folder / "apache.conf"
    for answer in ("one", "two"):
        (stage.folder / answer).mkdir()
        (stage.folder / answer / "index.html").write_text(answer)
    file.write_text(APACHE.format(folder=stage.folder, port=port, answer="one"))
    server = stage.start("apache2", "-DFOREGROUND", "-f", str(file))
    stage.listens(port)

    def event() -> None:
        file.write_text(APACHE.format(folder=stage.folder, port=port, answer="two"))
        server.send(signal.SIGUSR1)

    return http(stage, port, event)


GUNICORN = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "3")])
    return [{answer!r}]
"""


def gunicorn(kind: str, *options: str, kept: bool, exempt: str = "") -> Case:
    """Four workers, which are replaced by such that have the new application."""

    def play(stage: Stage) -> Said:
        port, file = stage.port(), stage.folder / "application.py"
        file.write_text(GUNICORN.format(answer=b"one"))
        where = ("--bind", f"127.0.0.1:{port}", "--worker-tmp-dir", str(stage.folder))
        server = stage.start("gunicorn", "--workers", "4", "--worker-class", kind, *options, *where, "application:app")
        stage.listens(port)

        def event() -> None:
            file.write_text(GUNICORN.format(answer=b"two"))
            server.send(signal.SIGHUP)

        return http(stage, port, event, kept=kept)

    return Case(f"gunicorn-{kind}", ("gunicorn", "wrk"), play, exempt)


def node_cluster(policy: str) -> Case:
    """Workers are replaced by new ones; `policy` says who accepts: the primary, which passes connections on, or the workers."""

    def play(stage: Stage) -> Said:
        port = stage.port()
        server = stage.start("node", str(SCRIPTS / "cluster.js"), policy, str(port))
        stage.listens(port)
        return http(stage, port, lambda: server.send(signal.SIGHUP))

    return Case(f"node-{policy}", ("node", "wrk"), play)


CASES = [
    Case("nginx-reload", ("nginx", "wrk"), nginx_reload),
    Case("nginx-upgrade", ("nginx", "wrk"), nginx_upgrade),
    Case("haproxy-reload", ("haproxy", "nginx", "wrk"), haproxy_reload, "its threads take connections from each other's epoll sets"),
    Case("haproxy-takeover", ("haproxy", "nginx", "wrk"), haproxy_takeover),
    Case("apache-prefork", ("apache2", "wrk"), apache_prefork, other_user=True),
    gunicorn("sync", kept=False, exempt="each connection carries one request, and is too short-lived"),
    gunicorn("gthread", "--threads", "4", "--keep-alive", "5", kept=True),
    node_cluster("rr"),
    node_cluster("none"),
]
