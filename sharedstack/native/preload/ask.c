#include "preload/ask.h"

#include <stdio.h>
#include <time.h>

#include "shm/sys.h"

#define AGAIN_NS 50000
#define AGAIN_MOST 200

void shs_ask_begin(struct shs_pack *pack, const char *name, unsigned fields)
{
    pack->len = 0;
    shs_pack_map(pack, 2 + fields);
    shs_pack_str(pack, "v");
    shs_pack_uint(pack, SHS_PROTOCOL_VERSION);
    shs_pack_str(pack, "t");
    shs_pack_str(pack, name);
}

socklen_t shs_ask_address(struct sockaddr_un *sun, const char *stack_name, const char *suffix)
{
    memset(sun, 0, sizeof *sun);
    sun->sun_family = AF_UNIX;
    int n = snprintf(sun->sun_path + 1, sizeof sun->sun_path - 1, SHS_SHM_PREFIX "/%u/%s%s", (unsigned)getuid(), stack_name, suffix);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

static long send_packet(int sock, const struct shs_pack *pack, int fd)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec iov = {(void *)(uintptr_t)pack->bytes, pack->len};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fd >= 0) {
        msg.msg_control = control;
        msg.msg_controllen = sizeof control;
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(cmsg), &fd, sizeof fd);
    }
    return shs_sys_sendmsg(sock, &msg, MSG_NOSIGNAL);
}

static long receive(int sock, struct shs_answer *answer)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(SHS_ASK_FDS * sizeof(int))];
    struct iovec iov = {answer->bytes, sizeof answer->bytes};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    long n = shs_sys_recvmsg(sock, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (n <= 0)
        return n ? n : -ECONNRESET;
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
    if (cmsg && cmsg->cmsg_type == SCM_RIGHTS) {
        answer->n_fds = (uint32_t)((cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(answer->fd, CMSG_DATA(cmsg), answer->n_fds * sizeof(int));
    }
    answer->len = (size_t)n;
    return shs_unpack_str(answer->bytes, answer->len, "t", answer->type, sizeof answer->type) ? 0 : -EPROTO;
}

/* 1: there is an answer, 0: not within so many milliseconds (-1: wait for ever), or -errno. */
static long await_answer(int sock, int ms)
{
    struct pollfd ready = {.fd = sock, .events = POLLIN};
    struct timespec ts = {ms / 1000, ms % 1000 * 1000000};
    long r;
    do
        r = SHS_SYS(syscall(SYS_ppoll, &ready, 1, ms < 0 ? NULL : &ts, NULL, 8));
    while (r == -EINTR);
    return r;
}

static long exchange(int sock, const struct shs_pack *pack, int fd, int ms, const struct shs_patience *patience, struct shs_answer *answer)
{
    struct ucred cred;
    socklen_t len = sizeof cred;
    long r = shs_sys_getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &len);
    if (r == 0 && cred.uid != getuid() && cred.uid != 0)
        r = -EPERM;
    if (r == 0 && (r = send_packet(sock, pack, fd)) < 0)
        return r;
    if (r >= 0)
        r = await_answer(sock, ms);
    if (r == 0 && patience && !patience->give_up(patience->arg))
        r = await_answer(sock, -1);
    return r < 0 ? r : r == 0 ? -ETIMEDOUT : receive(sock, answer);
}

static long ask(const char *stack_name, const struct shs_pack *pack, int fd, int ms, const struct shs_patience *patience,
                struct shs_answer *answer)
{
    struct sockaddr_un sun;
    socklen_t len = shs_ask_address(&sun, stack_name, "");
    int sock = (int)SHS_SYS(syscall(SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    answer->n_fds = 0;
    answer->len = 0;
    answer->type[0] = 0;
    if (sock < 0)
        return sock;
    long r = SHS_SYS(syscall(SYS_connect, sock, &sun, len));
    if (r == 0)
        r = exchange(sock, pack, fd, ms, patience, answer);
    shs_sys_close(sock);
    return r;
}

long shs_ask(const char *stack_name, const struct shs_pack *pack, int fd, int ms, struct shs_answer *answer)
{
    return ask(stack_name, pack, fd, ms, NULL, answer);
}

long shs_ask_patiently(const char *stack_name, const struct shs_pack *pack, int fd, const struct shs_patience *patience,
                       struct shs_answer *answer)
{
    struct timespec nap = {0, AGAIN_NS};
    int ms = patience ? SHS_ANSWER_MS : -1;
    long r;
    for (int i = 0; (r = ask(stack_name, pack, fd, ms, patience, answer)) == -EAGAIN && i < AGAIN_MOST; i++)
        (void)SHS_SYS(syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &nap, NULL));
    return r;
}
