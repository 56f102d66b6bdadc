/*
 * Conversations that an executor holds by itself, so that two of them talk at the same time, and a case takes few commands.
 */
#pragma once
#include "executor_calls.h"

#define PATIENCE_MS 4000

static unsigned char incoming[LONGEST];

static bool ready(int fd, short events)
{
    struct pollfd p = {.fd = fd, .events = events};
    return poll(&p, 1, PATIENCE_MS) > 0;
}

/* n bytes, or as many as come before an end, an error, or patience's end */
static long receive_all(int fd, unsigned char *to, long n)
{
    long done = 0, r = 0;
    while (done < n && ready(fd, POLLIN)) {
        r = recv(fd, to + done, (size_t)(n - done), MSG_DONTWAIT);
        if (r == 0 || (r < 0 && errno != EAGAIN))
            break;
        done += r > 0 ? r : 0;
    }
    return done ? done : r;
}

/* fd rounds size from: sends, and has each piece back */
static long do_turns(void)
{
    for (long i = 0; i < arg[1]; i++) {
        copy_table(bytes, arg[3] + i * arg[2], arg[2]);
        if (send((int)arg[0], bytes, (size_t)arg[2], MSG_NOSIGNAL) != arg[2])
            return -1;
        if (receive_all((int)arg[0], incoming, arg[2]) != arg[2] || memcmp(bytes, incoming, (size_t)arg[2]) != 0)
            return i;
    }
    return arg[1];
}

/* fd rounds size: sends back what comes */
static long do_echoes(void)
{
    for (long i = 0; i < arg[1]; i++)
        if (receive_all((int)arg[0], incoming, arg[2]) != arg[2] || send((int)arg[0], incoming, (size_t)arg[2], MSG_NOSIGNAL) != arg[2])
            return i;
    return arg[1];
}

/* fd n end: n bytes, then what there is behind them; where an end is to come it is waited for. Answers checksum, what was there, errno. */
static long do_drain(void)
{
    int fd = (int)arg[0];
    long done = receive_all(fd, incoming, arg[1]);
    if (arg[2])
        (void)ready(fd, POLLIN);
    errno = 0;
    long behind = recv(fd, incoming + (done > 0 ? done : 0), 1000, MSG_DONTWAIT);
    add(" %u %ld %d", adler32(incoming, done > 0 ? done : 0), behind, behind < 0 ? errno : 0);
    return done;
}

/* fd from n m: sends n and receives m bytes at the same time; how many it sent, and what came */
static long do_both(void)
{
    int fd = (int)arg[0];
    long sent = 0, got = 0, r;
    copy_table(bytes, arg[1], arg[2]);
    while (sent < arg[2] || got < arg[3]) {
        if (!ready(fd, (short)((sent < arg[2] ? POLLOUT : 0) | (got < arg[3] ? POLLIN : 0))))
            break;
        if (sent < arg[2]) {
            r = send(fd, bytes + sent, (size_t)(arg[2] - sent), MSG_DONTWAIT | MSG_NOSIGNAL);
            if (r < 0 && errno != EAGAIN)
                break;
            sent += r > 0 ? r : 0;
        }
        if (got < arg[3]) {
            r = recv(fd, incoming + got, (size_t)(arg[3] - got), MSG_DONTWAIT);
            if (r == 0 || (r < 0 && errno != EAGAIN))
                break;
            got += r > 0 ? r : 0;
        }
    }
    add(" %ld %u", got, adler32(incoming, got));
    return sent;
}

/* fd n from m: n bytes by fread, and m by fwrite */
static long do_stdio(void)
{
    FILE *in = fdopen((int)arg[0], "r"), *out = fdopen((int)arg[0], "w");
    if (!in || !out)
        return -1;
    long got = arg[1] ? (long)fread(incoming, 1, (size_t)arg[1], in) : 0;
    copy_table(bytes, arg[2], arg[3]);
    long put = arg[3] ? (long)fwrite(bytes, 1, (size_t)arg[3], out) : 0;
    int flushed = fflush(out);
    add(" %ld %u %ld %d", got, adler32(incoming, got), put, flushed);
    return flushed;
}
