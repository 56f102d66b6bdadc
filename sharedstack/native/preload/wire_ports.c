/* The interfaces that are lent to this process: borrowed when the first connection is lifted there, kept until it leaves the stack. */
#include <sys/mman.h>

#include "endpoint/fds.h"
#include "preload/ask.h"
#include "preload/nested.h"
#include "preload/wire_ports.h"
#include "shm/sys.h"

enum { AREA, QUEUES, NIC, FRAMES, PARTS };

struct held {
    struct shs_wire_port port;
    void *at[PARTS];
    uint64_t bytes[PARTS];
};

static struct held *held[SHS_N_NICS];
static struct shs_nested lock;

struct shs_wire_port *shs_wire_port_at(uint32_t link)
{
    struct held *h = link < SHS_N_NICS ? __atomic_load_n(&held[link], __ATOMIC_ACQUIRE) : NULL;
    return h ? &h->port : NULL;
}

static void unmap(struct held *h)
{
    for (int i = 0; i < PARTS; i++)
        if (h->at[i])
            munmap(h->at[i], h->bytes[i]);
}

/* Each is a file of this user's, and nobody else's. */
static bool map_parts(struct held *h, const int *fd)
{
    for (int i = 0; i < PARTS; i++) {
        struct shs_stat st;
        if (shs_sys_stat(fd[i], "", &st) != 0 || st.uid != getuid() || (st.mode & 077))
            return false;
        void *at = mmap(NULL, st.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd[i], 0);
        if (at == MAP_FAILED)
            return false;
        h->at[i] = at;
        h->bytes[i] = st.size;
    }
    return h->bytes[NIC] >= sizeof(struct shs_nic);
}

static bool use(struct held *h, struct shs_answer *answer)
{
    if (answer->n_fds <= PARTS || answer->n_fds > PARTS + SHS_N_NIC_QUEUES || !map_parts(h, answer->fd))
        return false;
    struct shs_wire_parts parts = {h->at[AREA],    h->at[QUEUES],    h->at[NIC],      h->at[FRAMES],
                                   h->bytes[AREA], h->bytes[QUEUES], h->bytes[FRAMES]};
    for (uint32_t i = PARTS; i < answer->n_fds; i++)
        answer->fd[i] = shs_fd_high(answer->fd[i]);
    return shs_wire_attach(&h->port, &shs_proc.env, &parts, answer->fd + PARTS, answer->n_fds - PARTS) == 0;
}

static struct held *borrow(uint32_t link)
{
    struct shs_pack pack;
    struct shs_answer answer;
    struct held *h = mmap(NULL, sizeof *h, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (h == MAP_FAILED)
        return NULL;
    shs_ask_begin(&pack, SHS_MSG_BORROW, 1);
    shs_pack_str(&pack, "link");
    shs_pack_uint(&pack, link);
    bool good =
        shs_ask(shs_proc.stack_name, &pack, -1, SHS_ANSWER_MS, &answer) == 0 && !strcmp(answer.type, SHS_MSG_WIRE) && use(h, &answer);
    for (uint32_t i = 0; i < answer.n_fds; i++)
        if (i < PARTS)
            shs_sys_close(answer.fd[i]);
        else if (!good)
            shs_fd_drop(answer.fd[i]);
    if (good)
        return h;
    unmap(h);
    munmap(h, sizeof *h);
    return NULL;
}

static bool replace(int *kept, int from, int to)
{
    return __atomic_load_n(kept, __ATOMIC_RELAXED) == from &&
           __atomic_compare_exchange_n(kept, &from, to, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

bool shs_wire_moved(int from, int to)
{
    for (uint32_t link = 0; link < SHS_N_NICS; link++) {
        struct shs_wire_port *p = shs_wire_port_at(link);
        for (uint32_t i = 0; p && i < p->n_fds; i++)
            if (replace(&p->fd[i], from, to)) {
                __atomic_store_n(&p->nic.xsk[i].fd, to, __ATOMIC_RELAXED);
                return true;
            }
    }
    return false;
}

/* Private memory in its place: a thread that still looks finds zeros, and no packets. */
static void blank(void *at, size_t bytes)
{
    (void)!mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

static void blank_ring(struct shs_xsk_ring *r)
{
    if (r->map)
        blank(r->map, r->map_bytes);
}

static void drop(uint32_t link)
{
    struct held *h = __atomic_exchange_n(&held[link], NULL, __ATOMIC_SEQ_CST);
    for (uint32_t i = 0; h && i < h->port.n_fds; i++) {
        blank_ring(&h->port.nic.xsk[i].rx);
        blank_ring(&h->port.nic.xsk[i].tx);
        blank_ring(&h->port.nic.xsk[i].fill);
        blank_ring(&h->port.nic.xsk[i].done);
        shs_fd_drop(h->port.fd[i]);
    }
    for (int i = 0; h && i < PARTS; i++)
        blank(h->at[i], h->bytes[i]);
}

void shs_wire_ports_drop(void)
{
    for (uint32_t link = 0; link < SHS_N_NICS; link++)
        drop(link);
}

/* The helper has taken it back: nothing is lifted there. */
static bool over(const struct held *h)
{
    return shs_load64(&((const struct shs_nic *)h->at[NIC])->magic) != SHS_NIC_MAGIC;
}

struct shs_wire_port *shs_wire_port_borrow(uint32_t link)
{
    if (link >= SHS_N_NICS)
        return NULL;
    shs_nested_lock(&lock);
    if (held[link] && over(held[link]))
        drop(link);
    if (!held[link])
        __atomic_store_n(&held[link], borrow(link), __ATOMIC_RELEASE);
    shs_nested_unlock(&lock);
    return shs_wire_port_at(link);
}

bool shs_wire_ports_borrow(uint32_t n)
{
    for (uint32_t link = 0; link < n && link < SHS_N_NICS; link++)
        if (!shs_wire_port_borrow(link))
            return false;
    return true;
}
