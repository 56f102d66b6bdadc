/*
 * Reading and writing by other names: preadv2 and pwritev2, which without an offset are readv and writev, and dprintf.
 */
#include "common.h"

#include <stdlib.h>

#include "intercepts.gen.h"
#include "preload/gate.h"

#define KNOWN (RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_NOWAIT | RWF_APPEND) /* of them, only RWF_NOWAIT means something to a socket */

/* Is the call to be as readv or writev? With an offset, or flags that are not known, the kernel says what is wrong. */
static bool plain(const struct shs_gate *g, int iovcnt, int64_t offset, int flags)
{
    return (g->ring || g->dgram || g->kept) && offset == -1 && !(flags & ~KNOWN) && iovcnt >= 0 && iovcnt <= 1024;
}

static ssize_t read_plainly(int fd, const struct iovec *iov, int iovcnt, int flags)
{
    struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)iovcnt};
    return flags & RWF_NOWAIT ? shs_i_recvmsg(fd, &msg, MSG_DONTWAIT) : shs_i_readv(fd, iov, iovcnt);
}

static ssize_t write_plainly(int fd, const struct iovec *iov, int iovcnt, int flags)
{
    struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)iovcnt};
    return flags & RWF_NOWAIT ? shs_i_sendmsg(fd, &msg, MSG_DONTWAIT) : shs_i_writev(fd, iov, iovcnt);
}

ssize_t shs_i_preadv2(int fd, const struct iovec *iov, int iovcnt, off_t offset, int flags)
{
    struct shs_gate g = shs_gate_enter(fd, SHS_RECEIVE);
    bool ours = plain(&g, iovcnt, offset, flags);
    ssize_t r = ours ? read_plainly(fd, iov, iovcnt, flags) : shs_n_preadv2(fd, iov, iovcnt, offset, flags);
    shs_gate_leave(&g);
    return r;
}

ssize_t shs_i_preadv64v2(int fd, const struct iovec *iov, int iovcnt, off64_t offset, int flags)
{
    struct shs_gate g = shs_gate_enter(fd, SHS_RECEIVE);
    bool ours = plain(&g, iovcnt, offset, flags);
    ssize_t r = ours ? read_plainly(fd, iov, iovcnt, flags) : shs_n_preadv64v2(fd, iov, iovcnt, offset, flags);
    shs_gate_leave(&g);
    return r;
}

ssize_t shs_i_pwritev2(int fd, const struct iovec *iov, int iovcnt, off_t offset, int flags)
{
    struct shs_gate g = shs_gate_enter(fd, SHS_SEND);
    bool ours = plain(&g, iovcnt, offset, flags);
    ssize_t r = ours ? write_plainly(fd, iov, iovcnt, flags) : shs_n_pwritev2(fd, iov, iovcnt, offset, flags);
    shs_gate_leave(&g);
    return r;
}

ssize_t shs_i_pwritev64v2(int fd, const struct iovec *iov, int iovcnt, off64_t offset, int flags)
{
    struct shs_gate g = shs_gate_enter(fd, SHS_SEND);
    bool ours = plain(&g, iovcnt, offset, flags);
    ssize_t r = ours ? write_plainly(fd, iov, iovcnt, flags) : shs_n_pwritev64v2(fd, iov, iovcnt, offset, flags);
    shs_gate_leave(&g);
    return r;
}

/* As libc does it: all of the text is written, or the call has failed. `text` is given back. */
static int write_text(int fd, char *text, int n)
{
    ssize_t r = n < 0 ? -errno : 0;
    for (int done = 0; r >= 0 && done < n; done += (int)r)
        r = shs_i_write(fd, text + done, (size_t)(n - done));
    if (n >= 0)
        free(text);
    return r < 0 ? (int)r : n;
}

int shs_i_vdprintf(int fd, const char *format, va_list args)
{
    struct shs_gate g = shs_gate_enter(fd, SHS_SEND);
    char *text = NULL;
    int r = g.ring || g.dgram ? vasprintf(&text, format, args) : shs_n_vdprintf(fd, format, args);
    r = g.ring || g.dgram ? write_text(fd, text, r) : r;
    shs_gate_leave(&g);
    return r;
}

extern int __vasprintf_chk(char **text, int check, const char *format, va_list args);

int shs_i___vdprintf_chk(int fd, int check, const char *format, va_list args)
{
    struct shs_gate g = shs_gate_enter(fd, SHS_SEND);
    char *text = NULL;
    int r = g.ring || g.dgram ? __vasprintf_chk(&text, check, format, args) : shs_n___vdprintf_chk(fd, check, format, args);
    r = g.ring || g.dgram ? write_text(fd, text, r) : r;
    shs_gate_leave(&g);
    return r;
}
