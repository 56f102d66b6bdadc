"""A lab whose helper has a policy, and programs of two kinds that talk there."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from compat.fix_lab import Actor, Lab, Namespace, program

# what is looked at must not have gone idle meanwhile, however busy the machine is
HELPER = ("--cool-every", "60")


class Policed(Lab):
    """A lab with a policy's file; `rules` writes it, and has the helper read it. `preloads`: programs are started without `run`."""

    preloads = False

    def __init__(self, namespace: Namespace, suite: str, file: Path) -> None:
        super().__init__(namespace, suite, *HELPER, "--policy", str(file))
        self.file = file
        file.write_text("")

    def command(self, argv: Sequence[str], mode: str) -> list[str]:
        if not self.preloads:
            return super().command(argv, mode)
        return [*self.namespace.prefix, "env", f"LD_PRELOAD={self.library}", f"SHAREDSTACK_STACK={self.stack}", *argv]

    def reload(self) -> subprocess.CompletedProcess[str]:
        """`sharedstack policy reload`."""
        command = [*self.namespace.prefix, program("sharedstack"), "policy", "reload", "--stack", self.stack]
        return subprocess.run(command, capture_output=True, text=True, timeout=30)

    def rules(self, text: str) -> None:
        """This is the policy from now on."""
        self.file.write_text(text)
        done = self.reload()
        assert done.returncode == 0, done.stderr

    def says(self, actor: Actor, name: str) -> tuple[str, str, str]:
        """Of a socket of an actor: the reasons (sends, receives), and the text."""
        fd = actor.do(f"{name}.fileno()")
        (line,) = (line for line in self.why(actor.pid) if fd in line["fds"])
        return line["tx"], line["rx"], line["text"]
