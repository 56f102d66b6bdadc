/*
 * How connections begin and end, as a thread sees it that holds both ends: shutdown, close, reset, end of the stream. Line by line:
 *
 *     ends SCENE
 *
 * Without a scene it lists them. On the kernel and through the library the lines must be the same.
 */
#include "pairs.h"

static uint8_t buf[1 << 16];
static volatile sig_atomic_t pipes;

static void on_pipe(int sig)
{
    (void)sig;
    pipes++;
}

static void half_close(void)
{
    for (int side = 0; side < 2; side++) {
        int e[2];
        warm_pair(e);
        put(e[side], 1000);
        show("shutdown", shutdown(e[side], SHUT_WR));
        show("read", read(e[1 - side], buf, 600));
        show("read the rest", read(e[1 - side], buf, 600));
        for (int i = 0; i < 3; i++)
            show("read at the end", read(e[1 - side], buf, 600));
        show("send after shutdown", send(e[side], buf, 1, MSG_NOSIGNAL));
        put(e[1 - side], 700);
        show("the other way", recv(e[side], buf, sizeof buf, 0));
        show("shutdown", shutdown(e[1 - side], SHUT_WR));
        show("the other end", recv(e[side], buf, sizeof buf, 0));
        show("again", recv(e[side], buf, sizeof buf, MSG_DONTWAIT));
        close(e[side]);
        close(e[1 - side]);
    }
}

static void shut_reading(void)
{
    int e[2];
    warm_pair(e);
    show("shutdown", shutdown(e[0], SHUT_RD));
    show("read", recv(e[0], buf, 10, 0));
    show("send", send(e[1], buf, 100, 0));
    show("read what came", recv(e[0], buf, 200, MSG_DONTWAIT));
    show("read", recv(e[0], buf, 10, MSG_DONTWAIT));
    show("it still sends", send(e[0], buf, 100, 0));
    show("which comes", recv(e[1], buf, 200, 0));
}

static void shut_both(void)
{
    int e[2];
    warm_pair(e);
    put(e[0], 300);
    show("shutdown", shutdown(e[0], SHUT_RDWR));
    show("read", recv(e[0], buf, 10, 0));
    show("send", send(e[0], buf, 10, MSG_NOSIGNAL));
    show("peer", recv(e[1], buf, sizeof buf, 0));
    show("peer's end", recv(e[1], buf, sizeof buf, 0));
}

static void reset_unread(void)
{
    int e[2];
    warm_pair(e);
    put(e[0], 500);
    show("close with unread bytes", close(e[1]));
    show("peer reads", recv(e[0], buf, 10, 0));
    show("peer sends", send(e[0], buf, 10, MSG_NOSIGNAL));
    show("peer reads again", recv(e[0], buf, 10, 0));
    close(e[0]);
    warm_pair(e);
    put(e[0], 500);
    show("read some", recv(e[1], buf, 100, 0));
    show("close with unread bytes", close(e[1]));
    struct pollfd p = {.fd = e[0], .events = POLLIN | POLLOUT};
    show("poll", poll(&p, 1, 1000));
    say("revents: %#x", (unsigned)p.revents);
    show("peer reads", recv(e[0], buf, 10, 0));
}

static void reset_by_linger(void)
{
    int e[2];
    struct linger now = {1, 0};
    warm_pair(e);
    show("linger", setsockopt(e[1], SOL_SOCKET, SO_LINGER, &now, sizeof now));
    show("close", close(e[1]));
    show("peer reads", recv(e[0], buf, 10, 0));
    show("and again", recv(e[0], buf, 10, 0));
}

static void peer_closed(void)
{
    int e[2];
    handle(SIGPIPE, on_pipe, 0);
    warm_pair(e);
    show("close", close(e[1]));
    show("first send", send(e[0], buf, 10, MSG_NOSIGNAL));
    usleep(2000);
    show("second send", send(e[0], buf, 10, MSG_NOSIGNAL));
    say("signals: %d", (int)pipes);
    show("third, by write", write(e[0], buf, 10));
    say("signals: %d", (int)pipes);
    show("read", read(e[0], buf, 10));
    close(e[0]);
    warm_pair(e);
    put(e[1], 200);
    show("close", close(e[1]));
    show("read", read(e[0], buf, 100));
    show("read", read(e[0], buf, 200));
    show("read at the end", read(e[0], buf, 100));
    show("read at the end", read(e[0], buf, 100));
}

static void end_again(void)
{
    int e[2];
    warm_pair(e);
    put(e[1], 10);
    close(e[1]);
    show("recv", recv(e[0], buf, 100, 0));
    struct iovec iov = {buf, 10};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    for (int i = 0; i < 3; i++) {
        show("recv", recv(e[0], buf, 100, 0));
        show("read", read(e[0], buf, 100));
        show("recvmsg", recvmsg(e[0], &msg, 0));
        show("peek", recv(e[0], buf, 100, MSG_PEEK));
        show("all", recv(e[0], buf, 100, MSG_WAITALL));
        struct pollfd p = {.fd = e[0], .events = POLLIN | POLLRDHUP};
        show("poll", poll(&p, 1, 1000));
        say("revents: %#x", (unsigned)p.revents);
    }
}

/* At the end of the stream a call that does not wait says so, too. */
static void end_not_waiting(void)
{
    int e[2];
    warm_pair(e);
    show("nothing", recv(e[0], buf, 100, MSG_DONTWAIT));
    close(e[1]);
    for (int i = 0; i < 3; i++)
        show("not waiting", recv(e[0], buf, 100, MSG_DONTWAIT));
}

static void connecting(void)
{
    struct sockaddr_in at;
    int l = listener(&at), e[2], error = -1;
    socklen_t len = sizeof error;
    e[0] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    show("connect", connect(e[0], (struct sockaddr *)&at, sizeof at));
    struct pollfd p = {.fd = e[0], .events = POLLOUT};
    show("poll", poll(&p, 1, 1000));
    say("revents: %#x", (unsigned)p.revents);
    getsockopt(e[0], SOL_SOCKET, SO_ERROR, &error, &len);
    say("error: %d", error);
    show("connect again", connect(e[0], (struct sockaddr *)&at, sizeof at));
    e[1] = accept4(l, NULL, NULL, SOCK_NONBLOCK);
    show("recv", recv(e[0], buf, 10, 0));
    fcntl(e[0], F_SETFL, 0);
    fcntl(e[1], F_SETFL, 0);
    warm(e);
    say("warm");
    close(l);
    int refused = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    show("connect", connect(refused, (struct sockaddr *)&at, sizeof at));
    p.fd = refused;
    show("poll", poll(&p, 1, 1000));
    say("revents: %#x", (unsigned)p.revents);
    getsockopt(refused, SOL_SOCKET, SO_ERROR, &error, &len);
    say("error: %s", strerrorname_np(error));
    show("send", send(refused, buf, 10, MSG_NOSIGNAL));
    show("recv", recv(refused, buf, 10, 0));
}

int main(int argc, char **argv)
{
    static const struct scene scenes[] = {
        {"half_close", half_close},     {"shut_reading", shut_reading},       {"shut_both", shut_both},
        {"reset_unread", reset_unread}, {"reset_by_linger", reset_by_linger}, {"peer_closed", peer_closed},
        {"end_again", end_again},       {"end_not_waiting", end_not_waiting}, {"connecting", connecting},
    };
    return play(scenes, sizeof scenes / sizeof *scenes, argc, argv);
}
