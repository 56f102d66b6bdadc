/*
 * Other ways to a lifted connection than the usual functions: other names that libc has for them, asynchronous I/O, descriptors that libc closes
 * or replaces by itself, or that are taken from a process, old ways to install handlers, io_uring.
 *
 *     beside SCENE
 *
 * Without a scene it lists them. On the kernel and through the library the lines must be the same.
 */
#include "pairs.h"

#include <aio.h>
#include <linux/aio_abi.h>
#include <linux/io_uring.h>
#include <pty.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <utmp.h>

static uint8_t buf[1 << 16], in[1 << 16];

extern ssize_t __read(int, void *, size_t);
extern ssize_t __write(int, const void *, size_t);
extern ssize_t __send(int, const void *, size_t, int);
extern int __connect(int, const struct sockaddr *, socklen_t);
extern int __close(int);
extern int __dup2(int, int);
extern int __fcntl(int, int, ...);
extern int __poll(struct pollfd *, nfds_t, int);
extern int __select(int, fd_set *, fd_set *, fd_set *, struct timeval *);
extern int __sigaction(int, const struct sigaction *, struct sigaction *);
extern pid_t __vfork(void);

static void wait_for(pid_t child)
{
    int status = -1;
    if (waitpid(child, &status, 0) != child)
        fail("waitpid");
    say("child: %s %d", WIFSIGNALED(status) ? "signal" : "exit", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

static void other_names(void)
{
    struct sockaddr_in at;
    int l = listener(&at), e[2] = {socket(AF_INET, SOCK_STREAM, 0), -1};
    fd_set rd;
    struct timeval tv = {1, 0};
    show("connect", __connect(e[0], (struct sockaddr *)&at, sizeof at));
    e[1] = accept(l, NULL, NULL);
    no_delay(e[0]);
    no_delay(e[1]);
    warm(e);
    fill(buf, 400, 0);
    show("send", send(e[0], buf, 100, 0));
    show("write", __write(e[0], buf + 100, 100));
    show("send", __send(e[0], buf + 200, 100, 0));
    show("send", send(e[0], buf + 300, 100, 0));
    struct pollfd p = {.fd = e[1], .events = POLLIN};
    show("poll", __poll(&p, 1, 1000));
    FD_ZERO(&rd);
    FD_SET(e[1], &rd);
    show("select", __select(e[1] + 1, &rd, NULL, NULL, &tv));
    show("recv", recv(e[1], in, 50, MSG_WAITALL));
    show("read", __read(e[1], in + 50, 30));
    show("recv", recv(e[1], in + 80, 320, MSG_WAITALL));
    say("right: %d", !memcmp(buf, in, 400));
    show("fcntl", __fcntl(e[1], F_SETFL, O_NONBLOCK));
    show("read", __read(e[1], in, 10));
    show("dup2", __dup2(e[1], 100) == 100);
    put(e[0], 10);
    show("read", __read(100, in, 30));
    show("close", __close(e[1]));
    put(e[0], 10);
    show("close", __close(100));
    show("recv", recv(e[0], in, 10, 0));
    pid_t child = __vfork();
    if (child == 0)
        _exit(7);
    wait_for(child);
}

static void finished(struct aiocb *one, const char *what)
{
    const struct aiocb *list[] = {one};
    while (aio_error(one) == EINPROGRESS)
        aio_suspend(list, 1, NULL);
    int error = aio_error(one);
    if (error)
        say("%s: %s", what, strerrorname_np(error));
    else
        say("%s: %ld", what, (long)aio_return(one));
}

static void asynchronous(void)
{
    int e[2];
    warm_pair(e);
    fill(buf, 1000, 0);
    must_send(e[0], buf, 300); /* in the ring */
    struct aiocb rd = {.aio_fildes = e[1], .aio_buf = in, .aio_nbytes = 200},
                 wr = {.aio_fildes = e[0], .aio_buf = buf + 300, .aio_nbytes = 300};
    show("read", aio_read(&rd));
    finished(&rd, "read");
    show("write", aio_write(&wr));
    finished(&wr, "written");
    must_send(e[0], buf + 600, 100);
    must_recv(e[1], in + 200, 300);
    rd = (struct aiocb){.aio_fildes = e[1], .aio_buf = in + 500, .aio_nbytes = 150, .aio_lio_opcode = LIO_READ};
    wr = (struct aiocb){.aio_fildes = e[0], .aio_buf = buf + 700, .aio_nbytes = 100, .aio_lio_opcode = LIO_WRITE};
    struct aiocb *list[] = {&rd, NULL, &wr};
    show("list", lio_listio(LIO_WAIT, list, 3, NULL));
    finished(&rd, "read");
    finished(&wr, "written");
    must_recv(e[1], in + 650, 150);
    say("right: %d", !memcmp(buf, in, 800));
    warm(e);
}

/* The kernel's own asynchronous I/O, which libc has no functions for. */
static void submitted(void)
{
    int e[2];
    aio_context_t context = 0;
    struct io_event event;
    warm_pair(e);
    fill(buf, 300, 0);
    must_send(e[0], buf, 200); /* in the ring */
    if (syscall(SYS_io_setup, 4, &context) != 0) {
        show("no io_setup here", -1);
        return;
    }
    struct iocb rd = {.aio_lio_opcode = IOCB_CMD_PREAD,
                      .aio_fildes = (uint32_t)e[1],
                      .aio_buf = (uint64_t)(uintptr_t)in,
                      .aio_nbytes = 150},
                wr = {.aio_lio_opcode = IOCB_CMD_PWRITE,
                      .aio_fildes = (uint32_t)e[0],
                      .aio_buf = (uint64_t)(uintptr_t)(buf + 200),
                      .aio_nbytes = 100},
                *list[] = {&rd, &wr};
    for (int i = 0; i < 2; i++) {
        show("submitted", syscall(SYS_io_submit, context, 1, &list[i]));
        show("done", syscall(SYS_io_getevents, context, 1, 1, &event, NULL));
        say("result: %ld", (long)event.res);
    }
    must_recv(e[1], in + 150, 150);
    say("right: %d", !memcmp(buf, in, 300));
    show("a bad list", syscall(SYS_io_submit, context, 1, (void *)8));
    warm(e);
}

/* A stream's descriptor is closed inside libc, and its number another socket's. */
static void reopened(void)
{
    int e[2], f[2];
    warm_pair(e);
    FILE *file = fdopen(e[1], "r+");
    put(e[0], 10);
    show("getc", getc(file));
    show("reopened", freopen("/dev/null", "r", file) == file);
    say("the same number: %d", fileno(file) == e[1]);
    show("read", read(e[1], in, 10));
    show("the other end", recv(e[0], in, 10, 0));
    show("closed inside", freopen("/nowhere", "r", file) == NULL);
    close(e[0]);
    connected(f);
    say("the number again: %d", f[0] == e[1] || f[1] == e[1]);
    warm(f);
    put(f[0], 20);
    show("recv", recv(f[1], in, 100, 0));
}

static void passed_to_a_daemon(void)
{
    int e[2], back[2];
    char text[100] = {0};
    warm_pair(e);
    if (pipe(back) != 0)
        fail("pipe");
    pid_t child = fork();
    if (child == 0) {
        dup2(e[1], 0);
        put(e[0], 10);
        if (recv(0, in, 4, 0) != 4 || daemon(1, 0) != 0)
            _exit(1);
        int n = (int)read(0, in, 10), t = ioctl(0, FIONREAD, &n), left = (int)recv(e[1], in, 10, MSG_DONTWAIT);
        int r = snprintf(text, sizeof text, "read %d, FIONREAD %d, its other number %d", (int)read(0, in, 10), t, left);
        _exit(write(back[1], text, (size_t)r) != r);
    }
    wait_for(child);
    close(back[1]);
    if (read(back[0], text, sizeof text) < 0)
        fail("read");
    say("%s", text);
}

static void terminals(void)
{
    int e[2], master;
    char text[200] = {0};
    warm_pair(e);
    dup2(e[1], 0);
    put(e[0], 10);
    pid_t child = forkpty(&master, NULL, NULL, NULL);
    if (child == 0) {
        int left = (int)recv(e[1], in, 10, MSG_DONTWAIT);
        printf("a terminal: %d, recv: %d, left: %d.", isatty(0), recv(0, in, 10, MSG_DONTWAIT) < 0 && errno == ENOTSOCK, left);
        fflush(stdout);
        _exit(0);
    }
    for (size_t n = 0; !strchr(text, '.') && n < sizeof text - 1;) {
        ssize_t r = read(master, text + n, sizeof text - 1 - n);
        if (r <= 0)
            break;
        n += (size_t)r;
    }
    say("%s", text);
    wait_for(child);
    put(e[0], 10);
    show("still", recv(0, in, 10, MSG_WAITALL));
}

static int take(pid_t pid, int fd)
{
    int pidfd = (int)syscall(434 /* pidfd_open */, pid, 0), got = (int)syscall(438 /* pidfd_getfd */, pidfd, fd, 0);
    close(pidfd);
    return got;
}

static void taken_from_itself(void)
{
    int e[2];
    warm_pair(e);
    put(e[0], 300);
    int copy = take(getpid(), e[1]);
    show("recv", recv(copy, in, 100, MSG_WAITALL));
    show("recv", recv(e[1], in, 100, MSG_WAITALL));
    close(e[1]);
    show("recv", recv(copy, in, 200, 0));
    int both[2] = {e[0], copy};
    warm(both);
}

static void sleep_on(int fd)
{
    char byte;
    must_send(fd, "ready", 5);
    if (recv(fd, &byte, 1, 0) == 1 && byte == '1') /* what comes then the other process takes */
        must_send(fd, "after", 5);
    pause();
}

static void taken_from_another(void)
{
    pid_t child;
    int fd = with_child(sleep_on, &child), theirs = -1;
    must_recv(fd, in, 5);
    must_send(fd, "1", 1);
    must_recv(fd, in, 5);
    must_send(fd, "in its ring", 11);
    for (int n = 3; n < 20 && theirs < 0; n++) { /* which number it has there */
        int got = take(child, n);
        struct sockaddr_in at;
        struct sockaddr_in mine;
        socklen_t len = sizeof at, size = sizeof mine;
        if (got >= 0 && getpeername(got, (struct sockaddr *)&at, &len) == 0 && getsockname(fd, (struct sockaddr *)&mine, &size) == 0 &&
            at.sin_family == AF_INET && at.sin_port == mine.sin_port)
            theirs = got;
        else if (got >= 0)
            close(got);
    }
    ssize_t r = recv(theirs, in, sizeof in, 0);
    say("recv: %.*s", (int)r, (char *)in);
    int both[2] = {fd, theirs};
    warm(both);
    kill(child, SIGKILL);
    wait_for(child);
    warm(both);
}

/* Taken before the process that has it has used it: it does not hear of that. */
static void taken_early(void)
{
    struct sockaddr_in at;
    int l = listener(&at), ready[2], go[2], number = -1;
    if (pipe(ready) != 0 || pipe(go) != 0)
        fail("pipe");
    pid_t child = fork();
    if (child == 0) {
        int fd = no_delay(socket(AF_INET, SOCK_STREAM, 0));
        if (connect(fd, (struct sockaddr *)&at, sizeof at) != 0 || write(ready[1], &fd, sizeof fd) < 0 || read(go[0], in, 1) != 1)
            fail("child");
        warm_end(fd, true);
        if (write(ready[1], &fd, sizeof fd) < 0)
            fail("child");
        pause();
    }
    int fd = no_delay(accept(l, NULL, NULL));
    if (read(ready[0], &number, sizeof number) < 0)
        fail("read");
    int theirs = take(child, number);
    show("nothing yet", recv(theirs, in, 1, MSG_DONTWAIT));
    if (theirs < 0 || write(go[1], "x", 1) != 1)
        fail("pidfd_getfd");
    warm_end(fd, false);
    if (read(ready[0], &number, sizeof number) < 0)
        fail("read");
    must_send(fd, "to the taker", 12);
    receive_timeout(theirs, 1000);
    ssize_t r = recv(theirs, in, sizeof in, 0);
    say("recv: %.*s", (int)r, (char *)in);
    must_send(theirs, "back", 4);
    show("recv", recv(fd, in, sizeof in, 0));
    kill(child, SIGKILL);
    wait_for(child);
}

static void marks(void)
{
    int e[2];
    warm_pair(e);
    must_send(e[0], "before", 6);
    send(e[0], "!", 1, MSG_OOB);
    usleep(20000);
    show("at the mark", sockatmark(e[1]));
    show("recv", recv(e[1], in, 100, 0));
    show("at the mark", sockatmark(e[1]));
    show("urgent", recv(e[1], in, 1, MSG_OOB));
    show("of no socket", sockatmark(0));
}

static volatile sig_atomic_t ran;

static void on_signal(int sig)
{
    (void)sig;
    ran++;
}

static void *interrupting(void *arg)
{
    struct timespec ts = {0, 30000000};
    nanosleep(&ts, NULL);
    pthread_kill(*(pthread_t *)arg, SIGUSR1);
    return NULL;
}

static void interrupted(const char *what)
{
    int e[2];
    pthread_t self = pthread_self(), other;
    warm_pair(e);
    receive_timeout(e[1], 100);
    ran = 0;
    if (pthread_create(&other, NULL, interrupting, &self) != 0)
        fail("pthread_create");
    show(what, recv(e[1], in, 10, 0));
    say("handlers: %d", (int)ran);
    pthread_join(other, NULL);
    close(e[0]);
    close(e[1]);
}

static const char *name_of(sighandler_t handler)
{
    return handler == on_signal  ? "ours"
           : handler == SIG_DFL  ? "default"
           : handler == SIG_IGN  ? "ignored"
           : handler == SIG_HOLD ? "held"
           : handler == SIG_ERR  ? "refused"
                                 : "another";
}

#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
extern sighandler_t bsd_signal(int, sighandler_t);
extern sighandler_t sigset(int, sighandler_t);
extern int sigignore(int);
extern sighandler_t __sysv_signal(int, sighandler_t);

static void handlers(void)
{
    struct sigaction act;
    signal(SIGUSR1, on_signal);
    say("sigset: %s", name_of(sigset(SIGUSR1, on_signal)));
    say("signal: %s", name_of(signal(SIGUSR1, on_signal)));
    say("sysv: %s", name_of(sysv_signal(SIGUSR1, on_signal)));
    say("sigset: %s", name_of(sigset(SIGUSR1, on_signal)));
    sigaction(SIGUSR1, NULL, &act);
    say("sigaction: %s, flags %x", name_of(act.sa_handler), (unsigned)act.sa_flags & ~0x04000000u);
    interrupted("sigset");
    say("held: %s", name_of(sigset(SIGUSR1, SIG_HOLD)));
    raise(SIGUSR1);
    say("held: %s, ran: %d", name_of(sigset(SIGUSR1, SIG_HOLD)), (int)ran);
    say("let go: %s", name_of(sigset(SIGUSR1, on_signal)));
    say("ran: %d", (int)ran);
    say("no such: %s", name_of(sigset(0, on_signal)));
    say("not to be held: %s", name_of(sigset(SIGKILL, on_signal)));
    say("sysv: %s", name_of(sysv_signal(SIGUSR1, on_signal)));
    sigaction(SIGUSR1, NULL, &act);
    say("sigaction: %s, flags %x", name_of(act.sa_handler), (unsigned)act.sa_flags & ~0x04000000u);
    interrupted("sysv");
    say("after it: %s", name_of(__sysv_signal(SIGUSR1, on_signal)));
    say("bsd: %s", name_of(bsd_signal(SIGUSR1, on_signal)));
    interrupted("bsd");
    say("ssignal: %s", name_of(ssignal(SIGUSR1, SIG_IGN)));
    say("sysv: %s", name_of(sysv_signal(SIGUSR1, SIG_DFL)));
    act = (struct sigaction){.sa_handler = on_signal};
    show("__sigaction", __sigaction(SIGUSR1, &act, NULL));
    interrupted("__sigaction");
    show("ignored", sigignore(SIGUSR1));
    say("sigset: %s", name_of(sigset(SIGUSR1, SIG_DFL)));
}

/* The least of an io_uring: one request at a time. */
static struct {
    int fd;
    uint32_t *tail, *mask, *array, *done_head, *done_tail, *done_mask;
    struct io_uring_sqe *sqes;
    struct io_uring_cqe *cqes;
} ring;

static bool ring_made(void)
{
    struct io_uring_params p = {0};
    ring.fd = (int)syscall(SYS_io_uring_setup, 4, &p);
    if (ring.fd < 0)
        return false;
    size_t sq = p.sq_off.array + p.sq_entries * sizeof(uint32_t), cq = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
    uint8_t *s = mmap(NULL, sq, PROT_READ | PROT_WRITE, MAP_SHARED, ring.fd, IORING_OFF_SQ_RING),
            *c = mmap(NULL, cq, PROT_READ | PROT_WRITE, MAP_SHARED, ring.fd, IORING_OFF_CQ_RING);
    ring.sqes = mmap(NULL, p.sq_entries * sizeof(struct io_uring_sqe), PROT_READ | PROT_WRITE, MAP_SHARED, ring.fd, IORING_OFF_SQES);
    ring.tail = (uint32_t *)(s + p.sq_off.tail);
    ring.mask = (uint32_t *)(s + p.sq_off.ring_mask);
    ring.array = (uint32_t *)(s + p.sq_off.array);
    ring.done_head = (uint32_t *)(c + p.cq_off.head);
    ring.done_tail = (uint32_t *)(c + p.cq_off.tail);
    ring.done_mask = (uint32_t *)(c + p.cq_off.ring_mask);
    ring.cqes = (struct io_uring_cqe *)(c + p.cq_off.cqes);
    return true;
}

static void request(const char *what, int op, int fd, void *at, size_t n)
{
    uint32_t tail = *ring.tail, place = tail & *ring.mask;
    ring.sqes[place] = (struct io_uring_sqe){.opcode = (uint8_t)op, .fd = fd, .addr = (uint64_t)(uintptr_t)at, .len = (uint32_t)n};
    ring.array[place] = place;
    __atomic_store_n(ring.tail, tail + 1, __ATOMIC_RELEASE);
    if (syscall(SYS_io_uring_enter, ring.fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
        fail("io_uring_enter");
    uint32_t head = *ring.done_head;
    while (head == __atomic_load_n(ring.done_tail, __ATOMIC_ACQUIRE))
        ;
    say("%s: %d", what, ring.cqes[head & *ring.done_mask].res);
    __atomic_store_n(ring.done_head, head + 1, __ATOMIC_RELEASE);
}

static void by_io_uring(void)
{
    int e[2], f[2];
    warm_pair(e);
    fill(buf, 1000, 0);
    must_send(e[0], buf, 300); /* in the ring of the library */
    if (!ring_made()) {
        show("no io_uring here", -1);
        return;
    }
    request("recv", IORING_OP_RECV, e[1], in, 200);
    request("send", IORING_OP_SEND, e[0], buf + 300, 300);
    must_send(e[0], buf + 600, 100);
    must_recv(e[1], in + 200, 300);
    request("recv", IORING_OP_RECV, e[1], in + 500, 200);
    say("right: %d", !memcmp(buf, in, 700));
    warm_pair(f); /* one that is made afterwards */
    must_send(f[0], buf, 100);
    request("recv", IORING_OP_RECV, f[1], in, 100);
    request("send", IORING_OP_SEND, f[0], buf, 100);
    must_send(f[0], buf + 100, 100);
    must_recv(f[1], in, 200);
    say("right: %d", !memcmp(buf, in, 200));
    warm(e);
}

int main(int argc, char **argv)
{
    static const struct scene scenes[] = {
        {"names_of_libc", other_names},
        {"asynchronous", asynchronous},
        {"submitted", submitted},
        {"reopened", reopened},
        {"passed_to_a_daemon", passed_to_a_daemon},
        {"terminals", terminals},
        {"taken_from_itself", taken_from_itself},
        {"taken_from_another", taken_from_another},
        {"taken_early", taken_early},
        {"marks", marks},
        {"old_handlers", handlers},
        {"by_io_uring", by_io_uring},
    };
    return play(scenes, sizeof scenes / sizeof *scenes, argc, argv);
}
