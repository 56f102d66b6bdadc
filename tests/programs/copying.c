/*
 * sendfile and splice to and from a lifted connection, with files, pipes that are full or empty, and what is left where it was:
 *
 *     copying SCENE
 *
 * Without a scene it lists them. On the kernel and through the library the lines must be the same.
 */
#include "pairs.h"

static uint8_t buf[1 << 20], in[1 << 20];

static int nonblocking(int fd)
{
    return fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

static void made_pipe(int p[2])
{
    if (pipe(p) != 0)
        fail("pipe");
}

static int file_of(size_t n, int flags)
{
    char name[] = "/tmp/copying.XXXXXX";
    int made = mkstemp(name), fd = open(name, O_RDWR | flags);
    fill(buf, n, 0);
    unlink(name);
    if (fd < 0 || write(made, buf, n) != (ssize_t)n)
        fail("file");
    close(made);
    return fd;
}

static void show_unread(const char *what, int fd)
{
    int n = 0;
    ioctl(fd, FIONREAD, &n);
    say("%s: %d", what, n);
}

/* sendfile takes only what can be read at any place, and takes nothing from anything else. */
static void sendfile_sources(void)
{
    int e[2], p[2], pair[2];
    off_t at = 0;
    warm_pair(e);
    made_pipe(p);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
        fail("socketpair");
    put(pair[0], 100);
    if (write(p[1], buf, 100) != 100)
        fail("write");
    show("from a pipe", sendfile(e[0], p[0], NULL, 100));
    show("from a pipe at an offset", sendfile(e[0], p[0], &at, 100));
    show_unread("left", p[0]);
    show("from a socket", sendfile(e[0], pair[1], NULL, 100));
    show_unread("left", pair[1]);
    show("from what is not open", sendfile(e[0], 999, NULL, 100));
    int writable = open("/dev/null", O_WRONLY);
    show("from what cannot be read", sendfile(e[0], writable, NULL, 100));
    show("from itself", sendfile(e[0], e[0], NULL, 100));
    show("nothing came", recv(e[1], in, sizeof in, MSG_DONTWAIT));
    show("none of a pipe", sendfile(e[0], p[0], NULL, 0));
    put(e[0], 10);
    show("still good", recv(e[1], in, 10, MSG_WAITALL));
}

static void sendfile_positions(void)
{
    int e[2], flags[2] = {0, O_APPEND};
    warm_pair(e);
    for (int i = 0; i < 2; i++) {
        int fd = file_of(5000, flags[i]);
        off_t at = 4000, before = -1, end = 6000;
        lseek(fd, 1000, SEEK_SET);
        show("at its own position", sendfile(e[0], fd, NULL, 500));
        say("position: %ld", (long)lseek(fd, 0, SEEK_CUR));
        show("at an offset", sendfile(e[0], fd, &at, 3000));
        say("offset: %ld, position: %ld", (long)at, (long)lseek(fd, 0, SEEK_CUR));
        show("before its beginning", sendfile(e[0], fd, &before, 10));
        show("behind its end", sendfile(e[0], fd, &end, 10));
        show("nothing of it", sendfile(e[0], fd, NULL, 0));
        show("to its end", sendfile(e[0], fd, NULL, 100000));
        say("position: %ld", (long)lseek(fd, 0, SEEK_CUR));
        show("recv", recv(e[1], in, 500 + 1000 + 3500, MSG_WAITALL));
        fill(buf, 5000, 0);
        say("right: %d", !memcmp(in, buf + 1000, 500) && !memcmp(in + 500, buf + 4000, 1000) && !memcmp(in + 1500, buf + 1500, 3500));
        close(fd);
    }
    int zero = open("/dev/zero", O_RDONLY);
    show("of a device", sendfile(e[0], zero, NULL, 1000));
    show("recv", recv(e[1], in, 1000, MSG_WAITALL));
    fcntl(e[0], F_SETFL, O_APPEND);
    show("to one that appends", sendfile(e[0], zero, NULL, 1000));
}

/* A pipe that is full: who may not wait is told so, and nothing is lost. */
static void splice_to_a_full_pipe(void)
{
    for (int how = 0; how < 2; how++) {
        int e[2], p[2];
        size_t room = 0, got = 0;
        warm_pair(e);
        made_pipe(p);
        if (how)
            nonblocking(p[1]);
        ssize_t r = 0;
        put(e[1], 65536);
        for (int i = 0; i < 1000 && r >= 0; i++) {
            r = splice(e[0], NULL, p[1], NULL, 4096, how ? 0 : SPLICE_F_NONBLOCK);
            room += r > 0 ? (size_t)r : 0;
            if (r > 0 && i % 4 == 3)
                put(e[1], 16384);
        }
        show("full", r);
        say("not so little: %d", room >= 16384);
        put(e[1], 1000);
        shutdown(e[1], SHUT_WR);
        nonblocking(p[0]);
        for (;;) {
            while ((r = read(p[0], in, sizeof in)) > 0)
                got += (size_t)r;
            r = splice(e[0], NULL, p[1], NULL, sizeof in, 0);
            if (r <= 0)
                break;
        }
        show("end", r);
        say("all that was sent came: %d", got >= room + 1000 && (got - 1000 - 65536) % 16384 == 0);
    }
}

/* SPLICE_F_NONBLOCK is about the pipe; whether to wait for bytes, the socket says. */
static void splice_from_an_empty_socket(void)
{
    int e[2], p[2];
    warm_pair(e);
    made_pipe(p);
    struct timeval soon = {0, 30000};
    setsockopt(e[0], SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon);
    double start = ms();
    show("blocking", splice(e[0], NULL, p[1], NULL, 100, SPLICE_F_NONBLOCK));
    say("waited: %d", ms() - start > 20);
    nonblocking(e[0]);
    show("not blocking", splice(e[0], NULL, p[1], NULL, 100, 0));
    put(e[1], 100);
    show("some", splice(e[0], NULL, p[1], NULL, 1000, 0));
    show("read", read(p[0], in, sizeof in));
    close(p[0]);
    signal(SIGPIPE, SIG_IGN);
    put(e[1], 100);
    show("nobody reads the pipe", splice(e[0], NULL, p[1], NULL, 100, 0));
    show("recv", recv(e[0], in, sizeof in, 0));
    close(e[1]);
    made_pipe(p);
    show("end", splice(e[0], NULL, p[1], NULL, 100, 0));
}

/* A socket that takes no more: what was not sent is still in the pipe. */
static void splice_to_a_full_socket(void)
{
    int e[2], p[2];
    warm_pair(e);
    made_pipe(p);
    nonblocking(e[0]);
    nonblocking(p[0]);
    size_t written = 0, sent = 0, got = 0;
    ssize_t r = 1;
    while (r > 0) {
        fill(buf, 16000, (uint32_t)written);
        if (write(p[1], buf, 16000) == 16000)
            written += 16000;
        r = splice(p[0], NULL, e[0], NULL, 16000, 0);
        sent += r > 0 ? (size_t)r : 0;
        if (written - sent > 40000)
            break;
    }
    say("full: %s", r < 0 ? strerrorname_np(errno) : "slowly");
    nonblocking(e[1]);
    for (bool wrong = false;;) {
        while ((r = recv(e[1], in, 16000, 0)) > 0) {
            fill(buf, (size_t)r, (uint32_t)got);
            if (memcmp(in, buf, (size_t)r) && !wrong) {
                say("wrong bytes");
                wrong = true;
            }
            got += (size_t)r;
        }
        if (got == written)
            break;
        struct pollfd in_time = {.fd = e[1], .events = POLLIN};
        if (splice(p[0], NULL, e[0], NULL, 16000, 0) < 0 && poll(&in_time, 1, 2000) <= 0)
            break;
    }
    say("all of it came: %d", got == written);
}

/* Errors that take nothing out of the pipe. */
static void splice_in_vain(void)
{
    int e[2], p[2];
    off64_t at = 0;
    signal(SIGPIPE, SIG_IGN);
    warm_pair(e);
    made_pipe(p);
    show("an empty pipe", splice(p[0], NULL, e[0], NULL, 100, SPLICE_F_NONBLOCK));
    nonblocking(p[0]);
    show("an empty pipe that does not wait", splice(p[0], NULL, e[0], NULL, 100, 0));
    if (write(p[1], buf, 300) != 300)
        fail("write");
    show("at an offset of the pipe", splice(p[0], &at, e[0], NULL, 100, 0));
    show("some", splice(p[0], NULL, e[0], NULL, 100, 0));
    show("recv", recv(e[1], in, 100, MSG_WAITALL));
    shutdown(e[0], SHUT_WR);
    show("after shutdown", splice(p[0], NULL, e[0], NULL, 100, 0));
    show_unread("left", p[0]);
    close(p[1]);
    warm_pair(e);
    show("the rest", splice(p[0], NULL, e[0], NULL, 1000, 0));
    show("the end", splice(p[0], NULL, e[0], NULL, 1000, 0));
    show("socket to socket", splice(e[1], NULL, e[0], NULL, 100, 0));
    show("recv", recv(e[1], in, sizeof in, 0));
}

int main(int argc, char **argv)
{
    static const struct scene scenes[] = {
        {"sendfile_sources", sendfile_sources},
        {"sendfile_positions", sendfile_positions},
        {"splice_to_a_full_pipe", splice_to_a_full_pipe},
        {"splice_from_an_empty_socket", splice_from_an_empty_socket},
        {"splice_to_a_full_socket", splice_to_a_full_socket},
        {"splice_in_vain", splice_in_vain},
    };
    return play(scenes, sizeof scenes / sizeof *scenes, argc, argv);
}
