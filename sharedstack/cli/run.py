"""`sharedstack run`: start a program with the library preloaded, and a helper if there is none.

Replaces itself by the program (same pid, nothing stays behind). This path has a budget of 60 ms, start of the interpreter
included: it parses its arguments by hand and imports next to nothing.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import MutableMapping, Sequence

from ..declare.names import DEFAULT_STACK, MAX_STACK_NAME

FAILED, CANNOT_EXECUTE, NOT_FOUND = 125, 126, 127

HELP = """\
usage: sharedstack run [-p PROFILE] [--stack NAME] [--require] [--] COMMAND [ARGUMENT]...

Run COMMAND with its sockets accelerated where that pays.

  -p, --profile NAME  set the options of a profile; variables that are set already win (see: sharedstack options)
  --stack NAME        use another stack than "main"
  --require           fail rather than run COMMAND without a helper or without the library
  -h, --help          show this

Exit status: that of COMMAND; 125 if sharedstack fails, 126 if COMMAND cannot be executed, 127 if it is not found.
"""


class UsageError(Exception):
    """The command line cannot be understood; the message says what is wrong."""


class Request:
    """A parsed command line."""

    __slots__ = ("command", "help", "profile", "require", "stack")

    def __init__(self) -> None:
        self.profile = ""
        self.stack = ""
        self.require = False
        self.help = False
        self.command: list[str] = []


def parse(argv: Sequence[str]) -> Request:
    """Options end at `--` or at the first other word: the rest is the program's. UsageError if it makes no sense."""
    request, rest = Request(), list(argv)
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        if word == "--":
            break
        name, equals, value = word.partition("=") if word.startswith("--") else (word[:2], word[2:], word[2:])
        if name in ("-p", "--profile", "--stack"):
            if not equals and not rest:
                raise UsageError(f"{name} needs a value")
            value = value if equals else rest.pop(0)
            if name == "--stack":
                request.stack = _stack_name(value)
            else:
                request.profile = value
        elif word == "--require":
            request.require = True
        elif word in ("-h", "--help"):
            request.help = True
        else:
            raise UsageError(f"unknown option {word}")
    request.command = rest
    if not request.command and not request.help:
        raise UsageError("no command given")
    return request


def _stack_name(name: str) -> str:
    if not 0 < len(name) <= MAX_STACK_NAME or not all(c.isascii() and (c.isalnum() or c in "_-") for c in name):
        raise UsageError(f"--stack {name!r}: a name has 1 to {MAX_STACK_NAME} letters, digits, - or _")
    return name


def profile_settings(name: str) -> dict[str, str]:
    """The variables that a profile sets; UsageError if there is no such profile."""
    from ..declare.options import OPTIONS, PROFILES

    if name not in PROFILES:
        raise UsageError(f"no profile {name!r}: there are {', '.join(PROFILES)}")
    variables = {o.name: o.env for o in OPTIONS}
    return {variables[option]: str(value) for option, value in PROFILES[name].items()}


def find_library() -> tuple[str, str]:
    """Path of the preload library, or what is wrong with it; the other one is empty."""
    try:
        from ..paths import library

        path = str(library())
    except (FileNotFoundError, ImportError) as e:
        return "", str(e)
    if " " in path or ":" in path:
        return "", f"{path}: LD_PRELOAD cannot name a path with a space or a colon"
    return path, ""


def _word(path: str) -> str:
    from ..paths import for_all_architectures

    return for_all_architectures(path)


def preload(environ: MutableMapping[str, str], path: str) -> None:
    """Put the library first in LD_PRELOAD, before what is there; by whatever path, there is one of it."""
    words = environ.get("LD_PRELOAD", "").replace(" ", ":").split(":")
    others = [p for p in words if p and p != path and not p.endswith("/libsharedstack.so")]
    environ["LD_PRELOAD"] = ":".join([path, *others])


def main(argv: Sequence[str]) -> int:
    """Run; returns only where the program could not be started."""
    try:
        request = parse(argv)
        if request.help:
            sys.stdout.write(HELP)
            return 0
        stack = request.stack or _stack_name(os.environ.get("SHAREDSTACK_STACK") or DEFAULT_STACK)
        settings = profile_settings(request.profile) if request.profile else {}
    except UsageError as e:
        return _say(f"{e} (see: sharedstack run --help)")
    _restore_locale()
    # the helper gets the environment as it was, so what is set here is set after it
    path, problem = find_library()
    problem = problem or _helper(stack, path)
    if path:
        preload(os.environ, _word(path))
    if request.stack:
        os.environ["SHAREDSTACK_STACK"] = request.stack
    for variable, value in settings.items():
        os.environ.setdefault(variable, value)
    if problem:
        if request.require:
            return _say(f"{problem}; not started, as --require was given")
        _say(f"{problem}; {request.command[0]} runs on the kernel's path")
    return execute(request.command)


def _helper(stack: str, library: str) -> str:
    from . import launch

    return launch.ensure(os.getuid(), stack) or launch.mismatch(os.getuid(), stack, library)


def _say(text: str) -> int:
    one_line = " ".join(text.split())
    sys.stderr.write(f"sharedstack: {one_line}\n")
    sys.stderr.flush()
    return FAILED


def _restore_locale() -> None:
    """Undo what Python's start did to the environment: LC_CTYPE in the C locale (PEP 538)."""
    if os.environ.get("LC_CTYPE", "").upper() in ("C.UTF-8", "C.UTF8", "UTF-8"):
        try:
            with open("/proc/self/environ", "rb") as file:
                given = b"\0LC_CTYPE=" in b"\0" + file.read()
        except OSError:
            return
        if not given:
            del os.environ["LC_CTYPE"]


def execute(command: Sequence[str]) -> int:
    """execvp(3): become the program, or return the exit code that says why not."""
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and what is ignored stays so over exec
        signal.signal(ignored, signal.SIG_DFL)
    words = list(command)
    error = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    denied: OSError | None = None
    for path in _candidates(command[0]):
        try:
            os.execv(path, words)
        except (FileNotFoundError, NotADirectoryError) as e:
            if "/" in command[0] and isinstance(e, NotADirectoryError):
                denied = e
        except ValueError as e:
            denied = OSError(errno.EINVAL, str(e))
        except OSError as e:
            if e.errno == errno.ENOEXEC:  # a script without an interpreter line is the shell's, as in execvp(3)
                denied = _shell(path, command)
                break
            denied = denied or e
            if e.errno not in (errno.EACCES, errno.ENODEV, errno.ETIMEDOUT, errno.ESTALE):
                break
    _say(f"cannot run {command[0]}: {(denied or error).strerror}")
    return CANNOT_EXECUTE if denied else NOT_FOUND


def _shell(path: str, command: Sequence[str]) -> OSError:
    try:
        os.execv("/bin/sh", ["/bin/sh", path, *command[1:]])
    except OSError as e:
        return e


def _candidates(name: str) -> list[str]:
    if "/" in name or not name:
        return [name]
    return [os.path.join(folder or ".", name) for folder in os.environ.get("PATH", os.defpath).split(os.pathsep)]
