/*
 * 1  ask the helper: an abstract SOCK_SEQPACKET socket, one msgpack message, the segments come back by SCM_RIGHTS;
 * 2  no helper: open the segments by name; owner, mode and layout hash are checked either way;
 * 3  map, claim a slot (which enrols this thread as its witness), make the socket that rings bells.
 */
#include "preload/attach.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/shm.h>

#include "endpoint/fds.h"
#include "preload/ask.h"
#include "preload/process.h"
#include "shm/slot.h"
#include "shm/sys.h"

enum { STACK, ARENA, BULK, PARTS };
static const char *const part_names[PARTS] = {"stack", "arena", "bulk"};

struct found {
    int fd[PARTS];
    int64_t bulk_id;
};

static long netns_cookie(int fd, uint64_t *cookie)
{
    socklen_t len = sizeof *cookie;
    long r = shs_sys_getsockopt(fd, SOL_SOCKET, 71 /* SO_NETNS_COOKIE */, cookie, &len);
    if (r != 0) {
        struct shs_stat st;
        r = shs_sys_stat(AT_FDCWD, "/proc/self/ns/net", &st);
        *cookie = r == 0 ? st.ino : 0;
    }
    return r;
}

/* One message to the helper and its answer: REASON_NONE, or why not. */
static int from_helper(const char *stack_name, uint64_t netns, struct found *found)
{
    struct shs_pack pack;
    struct shs_answer answer;
    shs_ask_begin(&pack, SHS_MSG_ATTACH, 2);
    shs_pack_str(&pack, "hash");
    shs_pack_uint(&pack, SHS_LAYOUT_HASH);
    shs_pack_str(&pack, "netns");
    shs_pack_uint(&pack, netns);
    if (shs_ask(stack_name, &pack, -1, SHS_ANSWER_MS, &answer) < 0)
        return SHS_REASON_NO_HELPER;
    for (uint32_t i = 0; i < answer.n_fds; i++)
        if (i < PARTS)
            found->fd[i] = answer.fd[i];
        else
            shs_sys_close(answer.fd[i]);
    if (strcmp(answer.type, SHS_MSG_LEND) != 0) {
        char code[16] = "", text[256] = "";
        shs_unpack_str(answer.bytes, answer.len, "code", code, sizeof code);
        shs_unpack_str(answer.bytes, answer.len, "text", text, sizeof text);
        int why = !strcmp(code, "layout")  ? SHS_REASON_LAYOUT_MISMATCH
                  : !strcmp(code, "netns") ? SHS_REASON_OTHER_NETNS
                                           : SHS_REASON_NO_HELPER;
        shs_log(text, -1, (uint32_t)why);
        return why;
    }
    uint64_t bulk_id = 0;
    found->bulk_id = shs_unpack_uint(answer.bytes, answer.len, "bulk_id", &bulk_id) ? (int64_t)bulk_id : -1;
    return SHS_REASON_NONE;
}

static int by_name(const char *stack_name, uint64_t netns, struct found *found)
{
    for (int i = 0; i < PARTS; i++) {
        char path[128];
        snprintf(path, sizeof path, "/dev/shm/" SHS_SHM_PREFIX ".%u.%" PRIx64 ".%s.%s", (unsigned)getuid(), netns, stack_name,
                 part_names[i]);
        found->fd[i] = (int)SHS_SYS(syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0));
        if (found->fd[i] < 0 && i != BULK)
            return SHS_REASON_NO_HELPER;
    }
    return SHS_REASON_NONE;
}

static void *map_part(int fd, size_t bytes)
{
    struct shs_stat st;
    if (fd < 0 || shs_sys_stat(fd, "", &st) != 0 || st.size < bytes || st.uid != getuid() || (st.mode & 077))
        return NULL;
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return at == MAP_FAILED ? NULL : at;
}

/* Ring memory: a POSIX segment is mapped in windows as it is used; a System V one, of huge pages, as a whole. */
static bool map_bulk(struct shs_env *env, struct found *found)
{
    struct shs_stat st;
    if (env->arena->bulk_kind == SHS_BULK_SYSV_HUGE) {
        struct shmid_ds ds;
        int id = found->bulk_id >= 0 ? (int)found->bulk_id : env->arena->bulk_id;
        if (shmctl(id, IPC_STAT, &ds) != 0 || ds.shm_perm.uid != getuid() || (ds.shm_perm.mode & 077) ||
            ds.shm_segsz < (size_t)env->arena->n_units * SHS_UNIT_BYTES)
            return false;
        return shs_bulk_map_huge(env, id) == 0;
    }
    if (found->fd[BULK] < 0 || shs_sys_stat(found->fd[BULK], "", &st) != 0 || st.uid != getuid() || (st.mode & 077))
        return false;
    env->bulk_fd = shs_fd_high(found->fd[BULK]);
    env->bulk_ino = st.ino;
    found->fd[BULK] = -1;
    return true;
}

static int use(struct shs_env *env, struct found *found)
{
    env->stack = map_part(found->fd[STACK], SHS_STACK_BYTES);
    env->arena = map_part(found->fd[ARENA], SHS_ARENA_BYTES);
    if (!env->stack || !env->arena)
        return SHS_REASON_NO_HELPER;
    if (shs_check_headers(env->stack, env->arena) != 0) {
        char line[96];
        snprintf(line, sizeof line, "stack has layout %016" PRIx64 ", the library %016" PRIx64, env->stack->layout_hash,
                 (uint64_t)SHS_LAYOUT_HASH);
        shs_log(line, found->fd[STACK], SHS_REASON_LAYOUT_MISMATCH);
        return SHS_REASON_LAYOUT_MISMATCH;
    }
    if (shs_load32(&env->stack->state) != SHS_STACK_READY)
        return SHS_REASON_DRAINING;
    if (!map_bulk(env, found) || shs_load32(&env->stack->state) != SHS_STACK_READY)
        return SHS_REASON_NO_HELPER;
    env->bell_fd = shs_fd_high((int)SHS_SYS(syscall(SYS_socket, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)));
    uint64_t netns; /* this thread's: bells are found by name there, and setns(2) may have moved it since it made its socket */
    if (env->bell_fd >= 0 && netns_cookie(env->bell_fd, &netns) == 0 && netns != env->stack->netns)
        return SHS_REASON_OTHER_NETNS;
    int slot = env->bell_fd < 0 ? -EMFILE : shs_slot_claim(env->stack, (uint32_t)getpid(), 0);
    if (slot < 0)
        return SHS_REASON_EXHAUSTED;
    env->slot1 = (uint32_t)slot + 1;
    return SHS_REASON_NONE;
}

/* A program that may have few descriptors counts on each of them. */
static bool few_descriptors(void)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < SHS_FEWEST_DESCRIPTORS;
}

int shs_attach_segments(struct shs_env *env, const char *stack_name, int fd)
{
    struct found found = {.fd = {-1, -1, -1}, .bulk_id = -1};
    uint64_t netns;
    if (few_descriptors())
        return SHS_REASON_EXHAUSTED;
    if (netns_cookie(fd, &netns) != 0)
        return SHS_REASON_OTHER_NETNS;
    int why = from_helper(stack_name, netns, &found);
    bool named = why == SHS_REASON_NO_HELPER;
    if (named)
        why = by_name(stack_name, netns, &found);
    if (why == SHS_REASON_NONE)
        why = use(env, &found);
    for (int i = 0; i < PARTS; i++)
        if (found.fd[i] >= 0)
            shs_sys_close(found.fd[i]);
    if (why != SHS_REASON_NONE) {
        if (env->stack)
            munmap(env->stack, SHS_STACK_BYTES);
        if (env->arena)
            munmap(env->arena, SHS_ARENA_BYTES);
        if (env->bulk_fd >= 0)
            shs_fd_drop(env->bulk_fd);
        if (env->bell_fd >= 0)
            shs_fd_drop(env->bell_fd);
        env->stack = NULL;
        env->arena = NULL;
        env->bulk_fd = env->bell_fd = -1;
    }
    return why;
}

void shs_nudge(const char *stack_name, uint32_t slot)
{
    struct sockaddr_un sun;
    socklen_t len = shs_ask_address(&sun, stack_name, "/nudge");
    char text[32];
    int n = snprintf(text, sizeof text, "slot %u", slot);
    struct iovec iov = {text, (size_t)n};
    struct msghdr msg = {.msg_name = &sun, .msg_namelen = len, .msg_iov = &iov, .msg_iovlen = 1};
    shs_fd_begin();
    (void)shs_sys_sendmsg(__atomic_load_n(&shs_proc.env.bell_fd, __ATOMIC_RELAXED), &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    shs_fd_end();
}
