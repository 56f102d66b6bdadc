"""Programs that run another one for each connection: socat, tcpserver, inetd, systemd-socket-activate, sshd."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from compat.fix_lab import Builder
from compat.processes.load import echo
from compat.processes.stage import PYTHON, SCRIPTS, Case, Said, Stage

STREAMS = "the service's connection is its standard input and output"


def _static(stage: Stage) -> str:
    """A static program that does as cat does."""
    made = stage.shared / "cat-static"
    return str(made) if made.exists() else Builder(stage.shared)("cat", "-static")


def socat(name: str, address: str, exempt: str = "") -> Case:
    """`address`: what socat joins each connection with; {static} is a static program."""

    def play(stage: Stage) -> Said:
        port = stage.port()
        listen = f"TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr"
        stage.start("socat", listen, address.format(static=_static(stage)))
        stage.listens(port)
        return echo(stage, port)

    return Case(f"socat-{name}", ("socat", "cc"), play, exempt)


def _echoed(stage: Stage, port: int, accelerated: bool) -> Said:
    """What an echo of the service said, which has to be preloaded or not, as is meant."""
    stage.listens(port)
    said = echo(stage, port)
    wanted, found = "preloaded" if accelerated and stage.mode != "kernel" else "plain", (stage.folder / "service").read_text()
    assert found == wanted, f"the service is {found}, and should be {wanted}"
    return said


def _service(stage: Stage) -> tuple[str, ...]:
    return PYTHON, str(SCRIPTS / "service.py"), str(stage.folder / "service")


def _kind(accelerated: bool) -> str:
    return "accelerated" if accelerated else "plain"


def tcpserver(accelerated: bool) -> Case:
    """A service for each connection, run by tcpserver."""

    def play(stage: Stage) -> Said:
        port, plain = stage.port(), () if accelerated else ("env", "LD_PRELOAD=")
        stage.start("tcpserver", "-HRl0", "127.0.0.1", str(port), *plain, *_service(stage))
        return _echoed(stage, port, accelerated)

    return Case(f"tcpserver-{_kind(accelerated)}", ("tcpserver",), play, STREAMS)


REFUSED = ("env", "SHAREDSTACK_FOLLOW=0")


def inetd(accelerated: bool, *options: str) -> Case:
    """The same by inetd, whose services have the environment only with -E: without it the library follows, unless that is refused."""

    def play(stage: Stage) -> Said:
        port, file, python = stage.port(), stage.folder / "inetd.conf", _service(stage)
        file.write_text(f"127.0.0.1:{port} stream tcp nowait root {python[0]} {' '.join(python)}\n")
        stage.start(*(() if accelerated else REFUSED), "inetd", "-i", *options, str(file), own_run=True)
        return _echoed(stage, port, accelerated)

    return Case("".join((f"inetd-{_kind(accelerated)}", *options)), ("inetd",), play, STREAMS)


def activate(name: str, *options: str, accelerated: bool, exempt: str = "") -> Case:
    """By systemd-socket-activate: the service gets a listener (or, with --accept, a connection), and nothing of the environment."""

    def play(stage: Stage) -> Said:
        port = stage.port()
        refused = () if accelerated else REFUSED
        stage.start(*refused, "systemd-socket-activate", f"--listen=127.0.0.1:{port}", *options, *_service(stage))
        return _echoed(stage, port, accelerated)

    return Case(f"activate-{name}", ("systemd-socket-activate",), play, exempt)


SSHD = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
"""
SSH = """
Host *
  IdentityFile {folder}/user
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known
  StrictHostKeyChecking accept-new
  BatchMode yes
"""
MEBIBYTE = 1 << 20


def sshd_scp(stage: Stage) -> Said:
    """A file there and back: 10 MiB for each second that a load is to last."""
    port, folder = stage.port(), stage.folder
    for key in ("host", "user"):
        stage.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key), plain=True)
    for name, text in (("sshd", SSHD), ("ssh", SSH)):
        (folder / name).write_text(text.format(port=port, folder=folder))
    sent, there, back = folder / "sent", folder / "there", folder / "back"
    size = max(1, round(10 * stage.seconds)) * MEBIBYTE
    with sent.open("wb") as file:
        for i in range(size // MEBIBYTE):
            file.write(hashlib.shake_128(b"%d" % i).digest(MEBIBYTE))
    stage.start("sshd", "-D", "-e", "-f", str(folder / "sshd"), own_run=True)
    stage.listens(port)
    copy = ("scp", "-q", "-F", str(folder / "ssh"), "-P", str(port))
    up = stage.start(*copy, str(sent), f"root@127.0.0.1:{there}")
    time.sleep(min(0.3, stage.seconds / 2))
    stage.look()
    up.result(60)
    stage.run(*copy, f"root@127.0.0.1:{there}", str(back))
    wanted = _hash(sent)
    return Said({"up": _hash(there) == wanted, "down": _hash(back) == wanted, "size": back.stat().st_size}, done=2)


def _hash(file: Path) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


CASES = [
    socat("exec", "EXEC:cat"),
    socat("nofork", "EXEC:cat,nofork", STREAMS),
    socat("static", "EXEC:{static}"),
    socat("static-nofork", "EXEC:{static},nofork", STREAMS),
    tcpserver(accelerated=True),
    tcpserver(accelerated=False),
    inetd(True),
    inetd(True, "-E"),
    inetd(False),
    activate("accelerated", accelerated=True),
    activate("plain", accelerated=False, exempt="the service is not preloaded"),
    activate("accept", "--accept", accelerated=True),
    activate("inetd", "--accept", "--inetd", accelerated=True, exempt=STREAMS),
    Case("sshd-scp", ("sshd", "scp", "ssh-keygen"), sshd_scp, "sshd seals itself by seccomp, and shares its connection by fork before"),
]
