#include "endpoint/bell.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/random.h>
#include <sys/un.h>

#include "endpoint/end.h"
#include "endpoint/fds.h"
#include "shm/lock.h"
#include "shm/sys.h"

static socklen_t bell_address(struct sockaddr_un *sun, uint64_t name)
{
    static const char digits[] = "0123456789abcdef";
    size_t at = 1 + sizeof SHS_BELL_PREFIX - 1;
    memset(sun, 0, sizeof *sun);
    sun->sun_family = AF_UNIX;
    memcpy(sun->sun_path + 1, SHS_BELL_PREFIX, sizeof SHS_BELL_PREFIX - 1);
    for (int i = 60; i >= 0; i -= 4)
        sun->sun_path[at++] = digits[name >> i & 15];
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + at);
}

int shs_bell_make(struct shs_env *env, uint32_t tag, struct shs_bell_own *own)
{
    struct shs_slot *slot = shs_slot_at(env->stack, env->slot1 - 1);
    uint32_t i = 0;
    while (i < SHS_N_BELLS && !shs_cas32(&slot->bells[i].used, 0, tag))
        i++;
    if (i == SHS_N_BELLS)
        return -EAGAIN;
    struct shs_bell *bell = &slot->bells[i];
    uint64_t name = 0;
    if (SHS_SYS(syscall(SYS_getrandom, &name, sizeof name, 0)) != sizeof name)
        name = shs_now() ^ (uint64_t)(uintptr_t)own << 20;
    struct sockaddr_un sun;
    socklen_t len = bell_address(&sun, name);
    int fd = shs_fd_high((int)SHS_SYS(syscall(SYS_socket, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)));
    uint64_t netns = env->stack->netns;
    socklen_t netns_len = sizeof netns;
    long r = fd < 0 ? fd : SHS_SYS(syscall(SYS_bind, fd, &sun, len));
    /* a thread that went to another network namespace: nobody would find its bell */
    if (r == 0 && shs_sys_getsockopt(fd, SOL_SOCKET, 71 /* SO_NETNS_COOKIE */, &netns, &netns_len) == 0 && netns != env->stack->netns)
        r = -ENONET;
    if (r < 0) {
        if (fd >= 0)
            shs_fd_drop(fd);
        shs_store32(&bell->used, 0);
        return (int)r;
    }
    shs_store32(&bell->armed, 0);
    shs_store64(&bell->name, name);
    *own = (struct shs_bell_own){.fd = fd, .handle = (env->slot1 - 1) * SHS_N_BELLS + i + 1, .bell = bell};
    return 0;
}

SHS_AT_FORK void shs_bell_drop(struct shs_bell_own *own, bool forked)
{
    if (!own->handle)
        return;
    shs_fd_drop(own->fd);
    if (!forked) {
        shs_store32(&own->bell->armed, 0);
        shs_store64(&own->bell->name, 0);
        shs_store32(&own->bell->used, 0);
    }
    memset(own, 0, sizeof *own);
}

void shs_bell_move(struct shs_env *env, struct shs_bell_own *own, int to, bool self)
{
    __atomic_store_n(&own->fd, to, __ATOMIC_SEQ_CST);
    uint32_t armed = __atomic_load_n(&own->bell->armed, __ATOMIC_SEQ_CST);
    if (!armed || self)
        return;
    /* a poll looks its descriptors up by number again and again: it has to end first */
    shs_bell_send(env, own->bell);
    uint64_t until = shs_now() + 1000000000ull; /* it may be stopped */
    while (shs_load32(&own->bell->armed) == armed && shs_now() < until)
        sched_yield();
}

void shs_bell_drain(struct shs_bell_own *own)
{
    char byte[8];
    struct iovec iov = {byte, sizeof byte};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    /* one is enough: should there be another one, the next doze ends early, once */
    shs_fd_begin();
    (void)shs_sys_recvmsg(__atomic_load_n(&own->fd, __ATOMIC_RELAXED), &msg, MSG_DONTWAIT);
    shs_fd_end();
}

static struct shs_bell *bell_at(struct shs_env *env, uint32_t handle)
{
    return &shs_slot_at(env->stack, (handle - 1) / SHS_N_BELLS)->bells[(handle - 1) % SHS_N_BELLS];
}

void shs_bell_send(struct shs_env *env, const struct shs_bell *bell)
{
    struct sockaddr_un sun;
    socklen_t len = bell_address(&sun, shs_load64(&bell->name));
    char byte = 1;
    struct iovec iov = {&byte, 1};
    struct msghdr msg = {.msg_name = &sun, .msg_namelen = len, .msg_iov = &iov, .msg_iovlen = 1};
    shs_fd_begin();
    long r = shs_sys_sendmsg(__atomic_load_n(&env->bell_fd, __ATOMIC_RELAXED), &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    shs_fd_end();
    /* EAGAIN: its queue is full, so it is rung; anything else: it has gone, and its death is found elsewhere */
    shs_count(env, r < 0 && r != -EAGAIN ? SHS_CTR_BELLS_FAILED : SHS_CTR_BELLS, 1);
}

bool shs_bell_ring(struct shs_env *env, struct shs_direction *dir, uint32_t handle)
{
    struct shs_bell *bell = bell_at(env, handle);
    uint32_t armed = shs_load32(&bell->armed);
    if (!armed)
        return false;
    if (dir)
        shs_set64(&dir->pub_ns, shs_now()); /* the woken reader learns how long it really waited */
    if (armed & SHS_BELL_NAP) {
        if (!shs_cas32(&bell->armed, armed, 0))
            return false;
        (void)SHS_SYS(syscall(SYS_futex, &bell->armed, FUTEX_WAKE, 1, NULL, NULL, 0));
        shs_count(env, SHS_CTR_BELLS, 1);
        return true;
    }
    shs_bell_send(env, bell);
    shs_cas32(&bell->armed, armed, 0);
    return true;
}

void shs_bell_arm(struct shs_bell_own *own, bool nap)
{
    own->number = own->number + 2 ? own->number + 2 : 2;
    __atomic_store_n(&own->bell->armed, own->number | (nap ? SHS_BELL_NAP : 0), __ATOMIC_SEQ_CST);
}

long shs_bell_nap(struct shs_bell_own *own, uint64_t most_ns)
{
    struct timespec ts = {(time_t)(most_ns / 1000000000ull), (long)(most_ns % 1000000000ull)};
    long r = SHS_SYS(syscall(SYS_futex, &own->bell->armed, FUTEX_WAIT, own->number | SHS_BELL_NAP, &ts, NULL, 0));
    return r == -EAGAIN ? 0 : r;
}

void shs_bell_disarm(struct shs_bell_own *own)
{
    if (own->handle) /* else it was its parent's: a handler forked while we slept */
        shs_store32(&own->bell->armed, 0);
}

bool shs_bell_claim(struct shs_env *env, uint32_t me, const struct shs_end *end, const struct shs_bell_own *own, bool alone)
{
    struct shs_direction *dir = shs_end_rx(end);
    /* should that be another connection's by now, our bell is there for it, and our own bytes all come by the kernel */
    if (alone && shs_peek32(&dir->bell) == own->handle)
        return true;
    int r = shs_lock(env, &dir->rlock, me);
    if (r < 0)
        return false;
    if (r == SHS_LOCK_REPAIR)
        shs_dir_repair_reader(dir);
    uint32_t handle = shs_load32(&dir->bell);
    bool free = alone || !handle || handle == own->handle || !shs_load32(&bell_at(env, handle)->armed);
    free = free && shs_end_reads(end, dir);
    if (free)
        shs_store32(&dir->bell, own->handle);
    shs_unlock(&dir->rlock);
    return free;
}
