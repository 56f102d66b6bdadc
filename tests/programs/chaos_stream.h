/*
 * One end of a connection: who sends how much when follows from its hello, so that both ends, and whoever holds an end later, know what is to come.
 *
 * Three patterns: TURNS, requests and replies of some size; BOTH and FLOOD, both ends send at the same time. When all is sent the client closes, or shuts down and waits for the server's end.
 */
#pragma once
#include "chaos_content.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define PIECE 65536
#define AHEAD 4096
#define FIRST 500
#define GREETINGS 40

enum { TURNS, BOTH, FLOOD };

struct hello {
    uint32_t magic, connection, pattern, rounds, most;
};
#define MAGIC 0x0c4a05u

struct end {
    struct hello hello;
    int fd;
    uint32_t side; /* 0: the client's */
    uint32_t hello_bytes;
    uint32_t turn, done;  /* TURNS: message, and how much of it */
    _Atomic uint64_t sent, received, last_ns; /* two threads of a worker use them */
    uint64_t pause_ns;
    _Atomic uint8_t broken;
    uint8_t connecting, shut, blocked, ready, silent;
};

enum stepped { OVER = -1, BLOCKED, MOVED };

static _Thread_local uint8_t buffer[PIECE];
static uint64_t spoil_at; /* to show that it would be noticed: behind so many bytes of a stream others are sent than should be */

static uint32_t turn_bytes(const struct end *e, uint32_t turn)
{
    uint32_t most =
        turn < GREETINGS && e->hello.most > 100 ? 100 : e->hello.most; /* both ends read before much is sent, else the kernel has it */
    return 1 + (uint32_t)(mix(key_of(e->hello.connection, 2) + turn) % most);
}

static uint64_t both_bytes(const struct end *e, uint32_t side)
{
    /* about as much each way: who has received all is not bounded by that any more */
    return 1 + mix(key_of(e->hello.connection, 3)) % ((uint64_t)e->hello.rounds * e->hello.most) +
           mix(key_of(e->hello.connection, 3) + side) % AHEAD;
}

/* Bytes that are to come before the other end's next turn, or its end. */
static uint64_t to_come(const struct end *e)
{
    if (e->hello.pattern != TURNS)
        return both_bytes(e, 1 - e->side) - e->received;
    return e->turn < e->hello.rounds && (e->turn & 1) != e->side ? turn_bytes(e, e->turn) - e->done : 0;
}

/* Bytes that this end is to send now; 0: it is the other one's turn, or all is sent. */
static uint64_t to_send(const struct end *e)
{
    if (e->hello.pattern != TURNS) { /* in a BOTH nobody is far ahead of the other one, and a ring is never full */
        uint64_t bytes = both_bytes(e, e->side), most = e->received + (e->received < AHEAD ? FIRST : AHEAD);
        most = e->hello.pattern == FLOOD || !to_come(e) || most > bytes ? bytes : most;
        return most - e->sent;
    }
    return e->turn < e->hello.rounds && (e->turn & 1) == e->side ? turn_bytes(e, e->turn) - e->done : 0;
}

static int all_done(const struct end *e)
{
    return e->hello.pattern != TURNS ? e->sent == both_bytes(e, e->side) && !to_come(e) : e->turn == e->hello.rounds;
}

static struct direction *mine(const struct end *e)
{
    return &ledger->connection[e->hello.connection].direction[e->side];
}

static struct direction *theirs(const struct end *e)
{
    return &ledger->connection[e->hello.connection].direction[1 - e->side];
}

/* What happened to it, and who has it. */
static const char *story_of(const struct end *e)
{
    static _Thread_local char text[130];
    const struct connection *c = &ledger->connection[e->hello.connection];
    struct sockaddr_in name = {0};
    socklen_t size = sizeof name;
    uint64_t cookie = 0;
    getsockname(e->fd, (struct sockaddr *)&name, &size);
    size = sizeof cookie;
    getsockopt(e->fd, SOL_SOCKET, SO_COOKIE, &cookie, &size);
    snprintf(text, sizeof text, "pattern %u, %s, held by %u and %u, port %u, cookie %llx", e->hello.pattern, c->story, c->holder[0],
             c->holder[1], ntohs(name.sin_port), (unsigned long long)cookie);
    return text;
}

static void hold(const struct end *e)
{
    if (e->hello.magic) {
        atomic_store(&ledger->connection[e->hello.connection].holder[e->side], (uint32_t)getpid());
        atomic_store(&ledger->connection[e->hello.connection].fd[e->side], (uint32_t)e->fd);
    }
}

static void moved(struct end *e, uint64_t n)
{
    e->last_ns = now_ns();
    if (e->hello.pattern != TURNS)
        return;
    e->done += (uint32_t)n;
    if (e->done == turn_bytes(e, e->turn)) {
        e->turn++;
        e->done = 0;
        if ((mix(key_of(e->hello.connection, 4) + e->turn) & 255) ==
            0) /* now and then somebody thinks, so that the other one falls asleep */
            e->pause_ns = now_ns() + mix(key_of(e->hello.connection, 5) + e->turn) % 20000000;
    }
}

/* The connection is broken: what was under way may be lost. */
static enum stepped broke(struct end *e, const char *call)
{
    if (errno != ECONNRESET && errno != EPIPE && !(e->connecting && errno == ECONNREFUSED))
        finding("%s of connection %u, descriptor %d: %s", call, e->hello.connection, e->fd, strerror(errno));
    if (!e->broken)
        count(RESETS, 1);
    if (e->hello.magic)
        tell(e->hello.connection, e->side, 'r');
    e->broken = 1;
    return OVER;
}

static ssize_t send_somehow(int fd, size_t n, uint32_t how)
{
    struct iovec parts[2] = {{buffer, n / 3}, {buffer + n / 3, n - n / 3}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    switch (how % 4) {
    case 0:
        return write(fd, buffer, n);
    case 1:
        return writev(fd, parts, 2);
    case 2:
        return sendmsg(fd, &message, MSG_NOSIGNAL);
    default:
        return send(fd, buffer, n, MSG_NOSIGNAL);
    }
}

static ssize_t receive_somehow(int fd, size_t n, uint32_t how)
{
    struct iovec parts[2] = {{buffer, n / 3}, {buffer + n / 3, n - n / 3}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    switch (how % 4) {
    case 0:
        return read(fd, buffer, n);
    case 1:
        return readv(fd, parts, 2);
    case 2:
        return recvmsg(fd, &message, 0);
    default:
        return recv(fd, buffer, n, 0);
    }
}

static enum stepped send_some(struct end *e, struct dice *dice)
{
    uint64_t n = to_send(e);
    n = n < PIECE ? n : 1 + roll(dice, PIECE);
    struct direction *d = mine(e);
    fill(buffer, key_of(e->hello.connection, e->side), e->sent, n);
    if (spoil_at && e->sent > spoil_at)
        buffer[0] ^= 1;
    atomic_store(&d->intent, e->sent + n);
    ssize_t r = send_somehow(e->fd, n, roll(dice, 4));
    if (r < 0)
        return errno == EAGAIN ? BLOCKED : errno == EINTR ? MOVED : broke(e, "send");
    if (r == 0 || (uint64_t)r > n)
        finding("send of %llu bytes on connection %u returned %zd", (unsigned long long)n, e->hello.connection, r);
    e->sent += (uint64_t)r;
    atomic_store(&d->accepted, e->sent);
    count(BYTES_SENT, (uint64_t)r);
    moved(e, (uint64_t)r);
    return MOVED;
}

/* The end of the stream: all that the other end's calls took has come, and no more than it meant to send. */
static enum stepped ended(struct end *e)
{
    const struct direction *d = theirs(e);
    uint64_t accepted = atomic_load(&d->accepted), intent = atomic_load(&d->intent);
    if (e->received > intent || (e->received < accepted && !e->broken)) {
        count(CORRUPT, 1);
        finding("the end of connection %u direction %u after %llu bytes: the sender's calls took %llu, and it meant to send %llu; %s",
                e->hello.connection, 1 - e->side, (unsigned long long)e->received, (unsigned long long)accepted, (unsigned long long)intent,
                story_of(e));
        raise(SIGSTOP);
    }
    if (!e->broken)
        count(ENDS, 1);
    tell(e->hello.connection, e->side, 'e');
    return OVER;
}

static enum stepped receive_some(struct end *e, struct dice *dice)
{
    uint64_t n = to_come(e);
    struct direction *d = theirs(e);
    n = n == 0 ? 1 : n < PIECE ? n : 1 + roll(dice, PIECE);
    atomic_store(&d->asked, e->received + n);
    ssize_t r = receive_somehow(e->fd, n, roll(dice, 4));
    if (r < 0)
        return errno == EAGAIN ? BLOCKED : errno == EINTR ? MOVED : broke(e, "receive");
    if (r == 0)
        return ended(e);
    if ((uint64_t)r > n)
        finding("a receive of %llu bytes on connection %u returned %zd", (unsigned long long)n, e->hello.connection, r);
    check_stream(buffer, e->hello.connection, 1 - e->side, e->received, (size_t)r);
    if (!to_come(e))
        finding("connection %u direction %u: a byte behind the last one, at %llu", e->hello.connection, 1 - e->side,
                (unsigned long long)e->received);
    e->received += (uint64_t)r;
    atomic_store(&d->received, e->received);
    count(BYTES_RECEIVED, (uint64_t)r);
    if (e->hello.pattern != TURNS || to_come(e))
        moved(e, (uint64_t)r);
    return MOVED;
}

/* The server's first bytes say what the connection is about. */
static enum stepped greet(struct end *e)
{
    while (e->hello_bytes < sizeof e->hello) {
        ssize_t r = recv(e->fd, (char *)&e->hello + e->hello_bytes, sizeof e->hello - e->hello_bytes, 0);
        if (r <= 0) {
            if (r < 0 && (errno == EAGAIN || errno == EINTR))
                return errno == EINTR ? MOVED : BLOCKED;
            memset(&e->hello, 0, sizeof e->hello);
            return r == 0 ? OVER : broke(e, "greeting");
        }
        e->hello_bytes += (uint32_t)r;
    }
    if (e->hello.magic != MAGIC || e->hello.connection >= CONNECTIONS) {
        count(CORRUPT, 1);
        finding("a greeting that nobody sent: %x %x", e->hello.magic, e->hello.connection);
        memset(&e->hello, 0, sizeof e->hello);
        return OVER;
    }
    count(ACCEPTS, 1);
    hold(e);
    return MOVED;
}

static enum stepped introduce(struct end *e)
{
    if (e->connecting) {
        int error = 0;
        socklen_t size = sizeof error;
        struct pollfd connected = {.fd = e->fd, .events = POLLOUT};
        if (poll(&connected, 1, 0) == 0)
            return BLOCKED;
        if (getsockopt(e->fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error) {
            errno = error;
            return broke(e, "connect");
        }
        e->connecting = 0;
    }
    ssize_t r = send(e->fd, &e->hello, sizeof e->hello, MSG_NOSIGNAL);
    if (r != sizeof e->hello)
        return r < 0 ? broke(e, "greeting") : OVER;
    e->hello_bytes = sizeof e->hello;
    count(CONNECTS, 1);
    hold(e);
    e->last_ns = now_ns();
    return MOVED;
}

/* One call, or some, of which the next one is due; BLOCKED: nothing can be done now. */
static enum stepped step(struct end *e, struct dice *dice)
{
    if (e->hello_bytes < sizeof e->hello)
        return e->side ? greet(e) : introduce(e);
    e->blocked = 0;
    enum stepped sent = BLOCKED, received = BLOCKED;
    if (!e->shut && to_send(e)) {
        sent = send_some(e, dice);
        e->blocked = sent == BLOCKED;
    }
    if (sent != OVER && e->side == 0 && !e->shut && all_done(e)) {
        if (mix(key_of(e->hello.connection, 6)) & 1)
            return OVER;
        if (shutdown(e->fd, SHUT_WR) != 0 && errno != ENOTCONN)
            return broke(e, "shutdown");
        count(SHUTDOWNS, 1);
        tell(e->hello.connection, e->side, 's');
        e->shut = 1;
        return MOVED;
    }
    if (sent == OVER || e->hello.pattern != TURNS || !to_send(e) || e->shut)
        do /* a connection that does not send any more may have more to be read */
            received = receive_some(e, dice);
        while (sent == OVER && received == MOVED);
    return sent == OVER || received == OVER ? OVER : sent == MOVED || received == MOVED ? MOVED : BLOCKED;
}
