"""The functions of libc that the preload library takes over, each declared once.

From a declaration come the exported wrapper, the pointer to libc's own function, a native caller that returns
-errno, the prototype of the handler that the library implements (`shs_i_<name>`, also -errno), and a row of the coverage
table in the docs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Intercept:
    """One function.

    `params` are C declarations; `error` is what the wrapper returns on failure ("-1", "NULL" or "" for none);
    `cancel`: a cancellation point; `vfork`: may be called in a vfork child, where it goes straight to libc, but for those that
    end it (`ends`), whose handlers run there too.
    `twin`: what 32-bit programs with 64-bit time call in place of that function, and there alone; `alias`: libc has one function for both.
    `same`: another name that libc has for that function.
    """

    name: str
    ret: str
    params: tuple[str, ...]
    area: str
    cancel: bool = False
    vfork: bool = False
    ends: bool = False
    error: str = "-1"
    note: str = ""
    twin: str = ""
    alias: bool = False
    same: str = ""

    @property
    def args(self) -> tuple[str, ...]:
        """The parameters' names."""
        return tuple(p.replace("*", " ").replace("[2]", "").split()[-1] for p in self.params)


def _rx(name: str, *params: str, **kw: object) -> Intercept:
    return Intercept(name, "ssize_t", params, "receive", cancel=True, **kw)  # type: ignore[arg-type]


def _tx(name: str, *params: str, **kw: object) -> Intercept:
    return Intercept(name, "ssize_t", params, "send", cancel=True, **kw)  # type: ignore[arg-type]


def _int(area: str, name: str, *params: str, **kw: object) -> Intercept:
    return Intercept(name, "int", params, area, **kw)  # type: ignore[arg-type]


def _again(name: str, of: Intercept) -> Intercept:
    return replace(of, name=name, same=of.name, note=f"as {of.name}")


_TS = "const struct timespec *timeout"
_SPAWN = (
    "pid_t *pid",
    "const char *path",
    "const posix_spawn_file_actions_t *actions",
    "const posix_spawnattr_t *attributes",
    "char *const *argv",
    "char *const *envp",
)
_SET = "const sigset_t *sigmask"
_TS64 = "const struct shs_timespec64 *timeout"
_MESSAGES = ("int fd", "struct mmsghdr *vec", "unsigned int vlen", "int flags")
_SETS = ("int n", "fd_set *rd", "fd_set *wr", "fd_set *ex")
_PRCTL = ("int option", "unsigned long a", "unsigned long b", "unsigned long c", "unsigned long d")
_EXEC = ("char *const *argv",)
_REOPEN = ("const char *path", "const char *mode", "FILE *stream")
_PTY = ("int *master", "char *name", "const struct termios *settings", "const struct winsize *size")
_HANDLER = ("int sig", "sighandler_t handler")
_ENDS: dict[str, bool] = {"vfork": True, "ends": True}

_FIRST: tuple[Intercept, ...] = (
    _rx("read", "int fd", "void *buf", "size_t len", vfork=True),
    _rx("__read_chk", "int fd", "void *buf", "size_t len", "size_t room", note="fortified read"),
    _rx("readv", "int fd", "const struct iovec *iov", "int iovcnt"),
    _rx("recv", "int fd", "void *buf", "size_t len", "int flags"),
    _rx("__recv_chk", "int fd", "void *buf", "size_t len", "size_t room", "int flags", note="fortified recv"),
    _rx("recvfrom", "int fd", "void *buf", "size_t len", "int flags", "struct sockaddr *addr", "socklen_t *addrlen"),
    _rx(
        "__recvfrom_chk",
        "int fd",
        "void *buf",
        "size_t len",
        "size_t room",
        "int flags",
        "struct sockaddr *addr",
        "socklen_t *addrlen",
        note="fortified recvfrom",
    ),
    _rx("recvmsg", "int fd", "struct msghdr *msg", "int flags"),
    _int("receive", "recvmmsg", "int fd", "struct mmsghdr *vec", "unsigned int vlen", "int flags", "struct timespec *timeout", cancel=True),
    _rx("preadv2", "int fd", "const struct iovec *iov", "int iovcnt", "off_t offset", "int flags"),
    _rx("preadv64v2", "int fd", "const struct iovec *iov", "int iovcnt", "off64_t offset", "int flags"),
    _tx("write", "int fd", "const void *buf", "size_t len", vfork=True),
    _tx("writev", "int fd", "const struct iovec *iov", "int iovcnt"),
    _tx("send", "int fd", "const void *buf", "size_t len", "int flags"),
    _tx("sendto", "int fd", "const void *buf", "size_t len", "int flags", "const struct sockaddr *addr", "socklen_t addrlen"),
    _tx("sendmsg", "int fd", "const struct msghdr *msg", "int flags"),
    _int("send", "sendmmsg", "int fd", "struct mmsghdr *vec", "unsigned int vlen", "int flags", cancel=True),
    _tx("pwritev2", "int fd", "const struct iovec *iov", "int iovcnt", "off_t offset", "int flags"),
    _tx("pwritev64v2", "int fd", "const struct iovec *iov", "int iovcnt", "off64_t offset", "int flags"),
    _int("send", "vdprintf", "int fd", "const char *format", "va_list args", cancel=True),
    _int("send", "__vdprintf_chk", "int fd", "int check", "const char *format", "va_list args", cancel=True, note="fortified vdprintf"),
    _tx("sendfile", "int out", "int in", "off_t *offset", "size_t count"),
    _tx("sendfile64", "int out", "int in", "off64_t *offset", "size_t count"),
    _tx("splice", "int in", "off64_t *offin", "int out", "off64_t *offout", "size_t len", "unsigned int flags"),
    _int("descriptor", "socket", "int domain", "int type", "int protocol"),
    _int("descriptor", "accept", "int fd", "struct sockaddr *addr", "socklen_t *addrlen", cancel=True),
    _int("descriptor", "accept4", "int fd", "struct sockaddr *addr", "socklen_t *addrlen", "int flags", cancel=True),
    _int("descriptor", "bind", "int fd", "const struct sockaddr *addr", "socklen_t addrlen"),
    _int("descriptor", "connect", "int fd", "const struct sockaddr *addr", "socklen_t addrlen", cancel=True),
    _int("descriptor", "shutdown", "int fd", "int how"),
    _int("descriptor", "close", "int fd", cancel=True, vfork=True),
    _int("descriptor", "close_range", "unsigned int first", "unsigned int last", "int flags", vfork=True),
    Intercept("closefrom", "void", ("int first",), "descriptor", vfork=True, error=""),
    _int("descriptor", "dup", "int fd", vfork=True),
    _int("descriptor", "dup2", "int fd", "int to", vfork=True),
    _int("descriptor", "dup3", "int fd", "int to", "int flags", vfork=True),
    Intercept(
        "fdopen",
        "FILE *",
        ("int fd", "const char *mode"),
        "descriptor",
        error="NULL",
        note="the socket stays on the kernel path from then on",
    ),
    _int("descriptor", "fclose", "FILE *stream", cancel=True, note="closes a descriptor inside libc"),
    _int("descriptor", "posix_spawn", *_SPAWN, note="a program that will not be preloaded: lifted sockets are handed over first"),
    _int("descriptor", "posix_spawnp", *_SPAWN, note="as posix_spawn"),
    _int(
        "descriptor",
        "posix_spawn_file_actions_adddup2",
        "posix_spawn_file_actions_t *actions",
        "int fd",
        "int to",
        note="the child will get that one",
    ),
    _int("descriptor", "execve", "const char *path", *_EXEC, "char *const *envp", **_ENDS, note="as posix_spawn"),
    _int("descriptor", "execv", "const char *path", *_EXEC, **_ENDS, note="as posix_spawn"),
    _int("descriptor", "execvp", "const char *file", *_EXEC, **_ENDS, note="as posix_spawn"),
    _int("descriptor", "execvpe", "const char *file", *_EXEC, "char *const *envp", **_ENDS, note="as posix_spawn"),
    _int("descriptor", "fexecve", "int fd", *_EXEC, "char *const *envp", **_ENDS, note="as posix_spawn"),
    _int(
        "descriptor", "execveat", "int dirfd", "const char *path", *_EXEC, "char *const *envp", "int flags", **_ENDS, note="as posix_spawn"
    ),
    _int("descriptor", "system", "const char *command", cancel=True, note="a shell that will not be preloaded: as posix_spawn"),
    Intercept("popen", "FILE *", ("const char *command", "const char *mode"), "descriptor", error="NULL", note="as system"),
    Intercept("freopen", "FILE *", _REOPEN, "descriptor", error="NULL", note="closes a descriptor inside libc"),
    Intercept("freopen64", "FILE *", _REOPEN, "descriptor", error="NULL", note="as freopen"),
    _int("descriptor", "daemon", "int nochdir", "int noclose", note="replaces descriptors inside libc"),
    _int("descriptor", "login_tty", "int fd", note="replaces descriptors inside libc"),
    _int("descriptor", "forkpty", *_PTY, note="as login_tty, in the child"),
    _int("descriptor", "pidfd_getfd", "int pidfd", "int fd", "unsigned int flags", note="takes a copy of a process's descriptor"),
    _int("aside", "aio_read", "struct aiocb *request"),
    _int("aside", "aio_write", "struct aiocb *request"),
    _int("aside", "aio_read64", "struct aiocb64 *request"),
    _int("aside", "aio_write64", "struct aiocb64 *request"),
    _int("aside", "lio_listio", "int mode", "struct aiocb *const *list", "int n", "struct sigevent *event"),
    _int("aside", "lio_listio64", "int mode", "struct aiocb64 *const *list", "int n", "struct sigevent *event"),
    _int("option", "getsockopt", "int fd", "int level", "int name", "void *value", "socklen_t *len"),
    _int("option", "setsockopt", "int fd", "int level", "int name", "const void *value", "socklen_t len"),
    _int("option", "sockatmark", "int fd", note="an ioctl inside libc"),
    _int("option", "fcntl", "int fd", "int cmd", "void *arg", vfork=True, note="variadic in libc"),
    _int("option", "fcntl64", "int fd", "int cmd", "void *arg", vfork=True, note="variadic in libc"),
    _int("option", "ioctl", "int fd", "unsigned long request", "void *arg", vfork=True, note="variadic in libc"),
    _int(
        "signal",
        "sigaction",
        "int sig",
        "const struct sigaction *act",
        "struct sigaction *old",
        vfork=True,
        note="handlers run through one of ours, so that a wait of ours knows that it was interrupted",
    ),
    _int("signal", "siginterrupt", "int sig", "int flag", vfork=True, note="as sigaction"),
    Intercept("signal", "sighandler_t", ("int sig", "sighandler_t handler"), "signal", vfork=True, error="SIG_ERR", note="as sigaction"),
    Intercept("sysv_signal", "sighandler_t", _HANDLER, "signal", vfork=True, error="SIG_ERR", note="as sigaction"),
    Intercept("sigset", "sighandler_t", _HANDLER, "signal", vfork=True, error="SIG_ERR", note="as sigaction"),
    _int("wait", "poll", "struct pollfd *fds", "nfds_t n", "int timeout", cancel=True),
    _int("wait", "__poll_chk", "struct pollfd *fds", "nfds_t n", "int timeout", "size_t room", cancel=True, note="fortified poll"),
    _int("wait", "ppoll", "struct pollfd *fds", "nfds_t n", _TS, _SET, cancel=True),
    _int("wait", "__ppoll_chk", "struct pollfd *fds", "nfds_t n", _TS, _SET, "size_t room", cancel=True, note="fortified ppoll"),
    _int("wait", "select", "int n", "fd_set *rd", "fd_set *wr", "fd_set *ex", "struct timeval *timeout", cancel=True),
    _int("wait", "pselect", "int n", "fd_set *rd", "fd_set *wr", "fd_set *ex", _TS, _SET, cancel=True),
    _int("identity", "setuid", "uid_t uid"),
    _int("identity", "setreuid", "uid_t real", "uid_t effective"),
    _int("identity", "setresuid", "uid_t real", "uid_t effective", "uid_t saved"),
    _int("identity", "unshare", "int flags"),
    _int("identity", "setns", "int fd", "int type"),
    _int("identity", "prctl", *_PRCTL, note="variadic in libc"),
    Intercept(
        "syscall",
        "long",
        ("long number", "long a", "long b", "long c", "long d", "long e", "long f"),
        "identity",
        note="variadic in libc",
    ),
    _int("epoll", "epoll_create", "int size"),
    _int("epoll", "epoll_create1", "int flags"),
    _int("epoll", "epoll_ctl", "int epfd", "int op", "int fd", "struct epoll_event *event"),
    _int("epoll", "epoll_wait", "int epfd", "struct epoll_event *events", "int max", "int timeout", cancel=True),
    _int("epoll", "epoll_pwait", "int epfd", "struct epoll_event *events", "int max", "int timeout", _SET, cancel=True),
    _int("epoll", "epoll_pwait2", "int epfd", "struct epoll_event *events", "int max", _TS, _SET, cancel=True),
    _rx("__recvmsg64", "int fd", "struct msghdr *msg", "int flags", twin="recvmsg"),
    _int("receive", "__recvmmsg64", *_MESSAGES, "struct shs_timespec64 *timeout", cancel=True, twin="recvmmsg"),
    _tx("__sendmsg64", "int fd", "const struct msghdr *msg", "int flags", twin="sendmsg", alias=True),
    _int("send", "__sendmmsg64", *_MESSAGES, cancel=True, twin="sendmmsg", alias=True),
    _int("option", "__getsockopt64", "int fd", "int level", "int name", "void *value", "socklen_t *len", twin="getsockopt", alias=True),
    _int(
        "option", "__setsockopt64", "int fd", "int level", "int name", "const void *value", "socklen_t len", twin="setsockopt", alias=True
    ),
    _int("option", "__fcntl_time64", "int fd", "int cmd", "void *arg", vfork=True, twin="fcntl64", alias=True),
    _int("option", "__ioctl_time64", "int fd", "unsigned long request", "void *arg", vfork=True, twin="ioctl", alias=True),
    _int("identity", "__prctl_time64", *_PRCTL, twin="prctl", alias=True),
    _int("wait", "__ppoll64", "struct pollfd *fds", "nfds_t n", _TS64, _SET, cancel=True, twin="ppoll"),
    _int("wait", "__select64", *_SETS, "struct shs_timeval64 *timeout", cancel=True, twin="select"),
    _int("wait", "__pselect64", *_SETS, _TS64, _SET, cancel=True, twin="pselect"),
    _int(
        "epoll",
        "__epoll_pwait2_time64",
        "int epfd",
        "struct epoll_event *events",
        "int max",
        _TS64,
        _SET,
        cancel=True,
        twin="epoll_pwait2",
    ),
)

# nothing but moving bytes: with a descriptor that is no business of ours these go straight to libc (preload/direct.h)
DIRECT = frozenset(("read", "readv", "recv", "recvfrom", "write", "writev", "send", "sendto", "__read_chk", "__recv_chk", "__recvfrom_chk"))

# other names under which libc has them, which old programs, and code beside libc, call
SAME: dict[str, str] = {
    "__read": "read",
    "__write": "write",
    "__send": "send",
    "__connect": "connect",
    "__close": "close",
    "__dup2": "dup2",
    "__fcntl": "fcntl",
    "__poll": "poll",
    "__select": "select",
    "__sigaction": "sigaction",
    "bsd_signal": "signal",
    "ssignal": "signal",
    "__sysv_signal": "sysv_signal",
}

INTERCEPTS: tuple[Intercept, ...] = (*_FIRST, *(_again(name, of) for name, same in SAME.items() for of in _FIRST if of.name == same))

# variadic: parameters, and the intercepted function that is given the arguments as a va_list
FORWARDED: dict[str, tuple[str, str]] = {
    "dprintf": ("int fd, const char *format", "vdprintf(fd, format, args)"),
    "__dprintf_chk": ("int fd, int check, const char *format", "__vdprintf_chk(fd, check, format, args)"),
    "execl": ("const char *path, const char *arg", "shs_exec_list(path, arg, args, false, false)"),
    "execlp": ("const char *file, const char *arg", "shs_exec_list(file, arg, args, true, false)"),
    "execle": ("const char *path, const char *arg", "shs_exec_list(path, arg, args, false, true)"),
}

# of a shape of their own, in C or assembly
OWN_SHAPE = ("_Fork", "vfork", "__vfork")

# libraries that have a function where it is in no library of the start: those that libc took in with 2.34, or libc, if it is new enough
LATE: dict[str, str] = {
    "login_tty": "libutil.so.1",
    "forkpty": "libutil.so.1",
    "aio_read": "librt.so.1",
    "aio_write": "librt.so.1",
    "aio_read64": "librt.so.1",
    "aio_write64": "librt.so.1",
    "lio_listio": "librt.so.1",
    "lio_listio64": "librt.so.1",
    "execveat": "libc.so.6",
    "pidfd_getfd": "libc.so.6",
}

# taken over without a wrapper of the common shape
SPECIAL: dict[str, str] = {
    "fork": "by pthread_atfork: the child takes a slot of its own when it next needs one",
    "dprintf": "as vdprintf",
    "__dprintf_chk": "as __vdprintf_chk",
    "execl": "as execv",
    "execlp": "as execvp",
    "execle": "as execve",
    "_Fork": "as fork, but that it runs no handlers of pthread_atfork",
    "vfork": "in assembly: until the child executes or exits, every wrapper goes straight to libc",
    "__vfork": "as vfork",
}
