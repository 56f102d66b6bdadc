/*
 * What the other calls of one thread on a connection of which it holds both ends return. Line by line:
 *
 *     semantics SCENE
 *
 * Without a scene it lists them. On the kernel and through the library the lines must be the same.
 */
#include "pairs.h"

#include <linux/sockios.h>

static uint8_t buf[1 << 16];

static void flags(void)
{
    int e[2];
    warm_pair(e);
    show("nothing", recv(e[0], buf, 10, MSG_DONTWAIT));
    for (uint32_t i = 0; i < 3; i++) {
        fill(buf, 100, i * 100);
        must_send(e[1], buf, 100);
    }
    uint8_t want[300];
    fill(want, 300, 0);
    show("peek", recv(e[0], buf, 50, MSG_PEEK));
    say("right: %d", !memcmp(buf, want, 50));
    show("peek more", recv(e[0], buf, sizeof buf, MSG_PEEK));
    say("right: %d", !memcmp(buf, want, 100));
    show("all", recv(e[0], buf, 250, MSG_WAITALL));
    say("right: %d", !memcmp(buf, want, 250));
    show("peek and do not wait", recv(e[0], buf, 100, MSG_PEEK | MSG_DONTWAIT));
    show("the rest", recv(e[0], buf, 100, MSG_DONTWAIT));
    say("right: %d", !memcmp(buf, want + 250, 50));
    show("nothing", recv(e[0], buf, 100, MSG_PEEK | MSG_DONTWAIT));
    show("all, not waiting", recv(e[0], buf, 100, MSG_WAITALL | MSG_DONTWAIT));
    put(e[1], 60);
    show("all of 100 when 60 are there, not waiting", recv(e[0], buf, 100, MSG_WAITALL | MSG_DONTWAIT));
    put(e[1], 80);
    show("thrown away", recv(e[0], NULL, 30, MSG_TRUNC));
    show("what was behind", recv(e[0], buf, 100, MSG_DONTWAIT));
}

static void nothing(void)
{
    int e[2];
    warm_pair(e);
    show("send of nothing", send(e[0], buf, 0, 0));
    show("write of nothing", write(e[0], buf, 0));
    show("read of nothing", read(e[1], buf, 0));
    put(e[0], 5);
    show("recv of nothing when 5 are there", recv(e[1], buf, 0, 0));
    show("recv", recv(e[1], buf, 10, 0));
    static struct iovec parts[1025];
    show("too many parts", writev(e[0], parts, 1025));
    show("no descriptor", recv(9999, buf, 10, 0));
}

static void nothing_of_nothing(void)
{
    int e[2];
    warm_pair(e);
    show("recv of nothing", recv(e[1], buf, 0, MSG_DONTWAIT));
}

static void unread_count(void)
{
    int e[2], n = -1;
    warm_pair(e);
    show("ioctl", ioctl(e[0], FIONREAD, &n));
    say("unread: %d", n);
    put(e[1], 1);
    put(e[1], 999);
    put(e[1], 30000);
    ioctl(e[0], FIONREAD, &n);
    say("unread: %d", n);
    recv(e[0], buf, 500, MSG_WAITALL);
    ioctl(e[0], SIOCINQ, &n);
    say("unread: %d", n);
    recv(e[0], buf, 30500, MSG_WAITALL);
    ioctl(e[0], FIONREAD, &n);
    say("unread: %d", n);
    close(e[1]);
    show("end", recv(e[0], buf, 10, 0));
    show("ioctl", ioctl(e[0], FIONREAD, &n));
    say("unread: %d", n);
}

static void copies(void)
{
    int e[2];
    warm_pair(e);
    int two = dup(e[0]), three = fcntl(e[0], F_DUPFD_CLOEXEC, 100), four = dup2(e[0], 200);
    show("send", send(e[0], "a", 1, 0));
    show("send by dup", send(two, "b", 1, 0));
    show("send by F_DUPFD", send(three, "c", 1, 0));
    show("send by dup2", send(four, "d", 1, 0));
    show("recv", recv(e[1], buf, 4, MSG_WAITALL));
    say("%.4s", buf);
    put(e[1], 40);
    show("recv", recv(e[0], buf, 10, 0));
    show("recv by dup", recv(two, buf, 10, 0));
    show("recv by F_DUPFD", recv(three, buf, 10, 0));
    show("recv by dup2", recv(four, buf, 10, 0));
    show("nothing", recv(two, buf, 10, MSG_DONTWAIT));
    fcntl(two, F_SETFL, O_NONBLOCK);
    show("one flag for all", recv(e[0], buf, 10, 0));
    fcntl(four, F_SETFL, 0);
    show("close", close(e[0]));
    show("close", close(three));
    put(e[1], 10);
    show("recv by dup", recv(two, buf, 10, 0));
    show("send by dup2", send(four, "e", 1, 0));
    show("recv", recv(e[1], buf, 10, 0));
    show("dup2 over it", dup2(two, four));
    put(e[1], 10);
    show("recv by dup2", recv(four, buf, 10, 0));
    close(two);
    close(four);
    show("end", recv(e[1], buf, 10, 0));
}

static void copied_early(void)
{
    int e[2];
    connected(e);
    int two = dup(e[0]);
    const int by_copy[2] = {two, e[1]};
    warm(e);
    warm(by_copy);
    close(e[0]);
    warm(by_copy);
    close(two);
    show("end", recv(e[1], buf, 10, 0));
}

static void messages(void)
{
    int e[2];
    warm_pair(e);
    struct iovec out[3] = {{buf, 10}, {buf + 10, 0}, {buf + 10, 20}};
    struct mmsghdr many[2] = {{.msg_hdr = {.msg_iov = out, .msg_iovlen = 3}}, {.msg_hdr = {.msg_iov = out, .msg_iovlen = 1}}};
    fill(buf, 100, 0);
    show("writev", writev(e[0], out, 3));
    show("sendmsg", sendmsg(e[0], &many[0].msg_hdr, 0));
    show("sendmmsg", sendmmsg(e[0], many, 2, 0));
    say("lengths: %u %u", many[0].msg_len, many[1].msg_len);
    uint8_t in[100] = {0}, control[64];
    struct sockaddr_in from;
    struct iovec parts[2] = {{in, 15}, {in + 15, 15}};
    show("readv", readv(e[1], parts, 2));
    say("right: %d", !memcmp(in, buf, 30));
    struct msghdr msg = {
        .msg_iov = parts, .msg_iovlen = 2, .msg_name = &from, .msg_namelen = sizeof from, .msg_control = control, .msg_controllen = 64};
    show("recvmsg", recvmsg(e[1], &msg, MSG_WAITALL));
    say("flags %#x, name of %u, control of %zu", (unsigned)msg.msg_flags, msg.msg_namelen, msg.msg_controllen);
    socklen_t len = sizeof from;
    show("recvfrom", recvfrom(e[1], in, 30, MSG_WAITALL, (struct sockaddr *)&from, &len));
    struct mmsghdr got[2] = {{.msg_hdr = {.msg_iov = parts, .msg_iovlen = 1}}, {.msg_hdr = {.msg_iov = parts, .msg_iovlen = 1}}};
    show("recvmmsg", recvmmsg(e[1], got, 2, MSG_WAITFORONE, NULL));
    say("length: %u", got[0].msg_len);
}

static void files(void)
{
    int e[2], ends[2];
    warm_pair(e);
    FILE *file = tmpfile();
    fill(buf, 5000, 0);
    fwrite(buf, 1, 5000, file);
    fflush(file);
    off_t at = 1000;
    show("send", send(e[0], "abc", 3, 0));
    show("sendfile", sendfile(e[0], fileno(file), &at, 3000));
    say("offset: %ld", (long)at);
    show("send", send(e[0], "xyz", 3, 0));
    uint8_t in[3006];
    show("recv", recv(e[1], in, sizeof in, MSG_WAITALL));
    say("in order: %d", !memcmp(in, "abc", 3) && !memcmp(in + 3, buf + 1000, 3000) && !memcmp(in + 3003, "xyz", 3));
    if (pipe(ends) != 0)
        fail("pipe");
    put(e[0], 700);
    show("splice", splice(e[1], NULL, ends[1], NULL, 700, 0));
    show("read", read(ends[0], in, 700));
    fill(buf, 700, 0);
    say("right: %d", !memcmp(in, buf, 700));
    show("write", write(ends[1], buf, 500));
    show("splice", splice(ends[0], NULL, e[0], NULL, 500, 0));
    show("send", send(e[0], "end", 3, 0));
    show("recv", recv(e[1], in, 503, MSG_WAITALL));
    say("in order: %d", !memcmp(in, buf, 500) && !memcmp(in + 500, "end", 3));
}

static void full(void)
{
    int e[2];
    warm_pair(e);
    long sent = 0, got = 0, r;
    fill(buf, sizeof buf, 0);
    while ((r = send(e[0], buf, sizeof buf, MSG_DONTWAIT)) > 0)
        sent += r;
    show("full", r);
    struct pollfd p = {.fd = e[0], .events = POLLOUT};
    show("writable", poll(&p, 1, 0));
    while ((r = recv(e[1], buf, sizeof buf, MSG_DONTWAIT)) > 0)
        got += r;
    show("empty", r);
    usleep(2000);
    while ((r = recv(e[1], buf, sizeof buf, MSG_DONTWAIT)) > 0)
        got += r;
    say("all came: %d, enough: %d", sent == got, sent > 100000);
    show("writable", poll(&p, 1, 1000));
    warm(e);
}

static void stdio_late(void)
{
    int e[2];
    warm_pair(e);
    FILE *file = fdopen(e[0], "r+");
    must_send(e[1], "line\n", 5);
    char line[100];
    show("fgets", fgets(line, sizeof line, file) ? (long)strlen(line) : -1);
    show("fputs", fputs("answer\n", file) >= 0 && fflush(file) == 0);
    show("recv", recv(e[1], buf, 100, 0));
    show("fclose", fclose(file));
    show("end", recv(e[1], buf, 100, 0));
}

/* Bytes that are in a ring when stdio takes over: it is read inside libc. */
static void stdio_unread(void)
{
    int e[2];
    warm_pair(e);
    fcntl(e[0], F_SETFL, O_NONBLOCK);
    must_send(e[1], "before\n", 7);
    FILE *file = fdopen(e[0], "r+");
    must_send(e[1], "after\n", 6);
    char line[100];
    for (int i = 0; i < 2; i++)
        say("%s", fgets(line, sizeof line, file) ? line : strerrorname_np(errno));
}

static void options(void)
{
    int e[2], value = -1, again = 50000;
    socklen_t len = sizeof value;
    struct sockaddr_in here, there;
    socklen_t here_len = sizeof here, there_len = sizeof there;
    warm_pair(e);
    show("SO_ERROR", getsockopt(e[0], SOL_SOCKET, SO_ERROR, &value, &len));
    say("value: %d", value);
    getsockopt(e[0], SOL_SOCKET, SO_TYPE, &value, &len);
    say("type: %d", value);
    show("names", getsockname(e[0], (struct sockaddr *)&here, &here_len) + getpeername(e[1], (struct sockaddr *)&there, &there_len));
    say("same: %d", !memcmp(&here, &there, sizeof here));
    show("SO_SNDBUF", setsockopt(e[0], SOL_SOCKET, SO_SNDBUF, &again, sizeof again));
    show("SO_KEEPALIVE", setsockopt(e[0], SOL_SOCKET, SO_KEEPALIVE, &(int){1}, sizeof(int)));
    show("TCP_CORK", setsockopt(e[0], IPPROTO_TCP, TCP_CORK, &(int){1}, sizeof(int)));
    put(e[0], 10);
    show("TCP_CORK", setsockopt(e[0], IPPROTO_TCP, TCP_CORK, &(int){0}, sizeof(int)));
    show("recv", recv(e[1], buf, 100, 0));
    show("MSG_MORE", send(e[0], buf, 10, MSG_MORE));
    show("send", send(e[0], buf, 10, 0));
    show("recv", recv(e[1], buf, 20, MSG_WAITALL));
    show("SO_RCVLOWAT", setsockopt(e[1], SOL_SOCKET, SO_RCVLOWAT, &(int){20}, sizeof(int)));
    put(e[0], 10);
    struct pollfd p = {.fd = e[1], .events = POLLIN};
    show("10 of 20", poll(&p, 1, 10));
    put(e[0], 10);
    show("20 of 20", poll(&p, 1, 1000));
    show("recv", recv(e[1], buf, 20, 0));
}

int main(int argc, char **argv)
{
    static const struct scene scenes[] = {
        {"flags", flags},
        {"nothing", nothing},
        {"nothing_of_nothing", nothing_of_nothing},
        {"unread_count", unread_count},
        {"copies", copies},
        {"copied_early", copied_early},
        {"messages", messages},
        {"files", files},
        {"full", full},
        {"stdio_late", stdio_late},
        {"stdio_unread", stdio_unread},
        {"options", options},
    };
    return play(scenes, sizeof scenes / sizeof *scenes, argc, argv);
}
