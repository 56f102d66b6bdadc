/*
 * An actor of a chaos run: `chaos LEDGER NUMBER LIFE`. It serves and makes connections whose content tells where it belongs, exchanges datagrams, and forks, executes itself, passes descriptors on, shuts down
 * and closes, as its dice say: seeded by the run's seed, its number, and how many had that number before. tests/chaos/ drives a hundred of them, kills and stops them.
 */
#include "chaos_datagrams.h"

#include <netinet/in.h>

#define PORT 20000
#define YOUNG 20000 /* bytes */

static struct sockaddr_in address_of(uint32_t number)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons((uint16_t)(PORT + number)), .sin_addr.s_addr = ledger->process[number].address};
}

/* Who had our number before may have had children, which hold its sockets for a moment. */
static int bound(int type)
{
    struct sockaddr_in name = address_of(self.number);
    int on = 1, room = 4 << 20;
    for (int tries = 0; tries < 1000; tries++, usleep(10000)) {
        int fd = socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (type == SOCK_STREAM)
            setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        else
            setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
        if (bind(fd, (struct sockaddr *)&name, sizeof name) == 0 && (type != SOCK_STREAM || listen(fd, 128) == 0))
            return fd;
        close(fd);
        alive("bind", self.number);
    }
    finding("no port for actor %u: %s", self.number, strerror(errno));
    exit(1);
}

static void open_all(void)
{
    struct sockaddr_un name;
    socklen_t size = door_of(&name, self.number);
    self.fd[LISTENER] = bound(SOCK_STREAM);
    self.fd[DATAGRAMS] = bound(SOCK_DGRAM);
    self.fd[DOOR] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    for (int tries = 0; bind(self.fd[DOOR], (struct sockaddr *)&name, size) != 0 && tries < 1000; tries++)
        usleep(10000);
    listen(self.fd[DOOR], 16);
}

static uint32_t some_target(void)
{
    for (int tries = 0; tries < 100; tries++) {
        uint32_t number = roll(&self.dice, ledger->actors);
        if (number != self.number && ledger->process[number].group == me->targets)
            return number;
    }
    return self.number;
}

static void start_connection(void)
{
    uint32_t target = some_target();
    struct sockaddr_in name = address_of(target);
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct end e = {.fd = fd, .connecting = 1};
    static const uint32_t sizes[] = {500, 4000, 8000, 16000};
    uint32_t most = sizes[roll(&self.dice, 4)], what = roll(&self.dice, 100);
    e.hello = (struct hello){
        .magic = MAGIC,
        .connection = atomic_fetch_add(&ledger->connections, 1),
        .pattern = what < 60   ? TURNS
                   : what < 97 ? BOTH
                               : FLOOD,
        .rounds = what < 97 ? 300 + roll(&self.dice, 3000) : 20 + roll(&self.dice, 20),
        .most = what >= 97                       ? 3000
                : most < ledger->most[me->group] ? most
                                                 : ledger->most[me->group],
    };
    if (e.hello.connection >= CONNECTIONS || (connect(fd, (struct sockaddr *)&name, sizeof name) != 0 && errno != EINPROGRESS)) {
        close(fd); /* whoever had that number is gone for the moment */
        return;
    }
    add_end(e);
}

static void accept_some(void)
{
    while (self.n_ends < ENDS_MOST) {
        int on = 1, fd = accept4(self.fd[LISTENER], NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0)
            return;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        add_end((struct end){.fd = fd, .side = 1});
    }
}

/* Something that is not the ordinary course. */
static void act(char **argv)
{
    uint32_t what = roll(&self.dice, 100), at = self.n_ends ? roll(&self.dice, self.n_ends) : 0;
    int there = self.n_ends && self.ends[at].hello_bytes == sizeof(struct hello),
        storms = self.number % 8 == 0; /* who forks shares all that it has */
    int young = there && self.ends[at].received < YOUNG &&
                roll(&self.dice, 8); /* what is shared before it is lifted stays the kernel's for a while */
    if (self.n_ends < 4 || (what < 30 && self.n_ends < ENDS_MOST / 2))
        start_connection();
    else if (what < 40) {
        if (storms)
            fork_with(-1);
    } else if (what < 55) {
        if (storms && there && !young && (self.ends[at].hello.pattern == TURNS || !self.ends[at].shut))
            fork_with((int)at);
    } else if (what < 65) {
        if (there && !young)
            pass_end(at);
    } else if (what < 67 && there) {
        struct linger hard = {1, 0};
        count(ABORTS, 1);
        if (what & 1)
            setsockopt(self.ends[at].fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
        tell(self.ends[at].hello.connection, self.ends[at].side, what & 1 ? 'l' : 'a');
        remove_end(at);
    } else if (what < 69 && there && !self.ends[at].shut) {
        count(SHUTDOWNS, 1);
        tell(self.ends[at].hello.connection, self.ends[at].side, 's');
        self.ends[at].shut = 1;
        shutdown(self.ends[at].fd, SHUT_WR);
    } else if (what < 70)
        execute(argv);
    else if (what < 71) {
        close(self.fd[DATAGRAMS]);
        self.fd[DATAGRAMS] = bound(SOCK_DGRAM);
        join_set(self.fd[DATAGRAMS], DATAGRAMS);
        forget_flows();
        count(REBINDS, 1);
    }
}

/* What nobody may have to wait for so long. */
static void look_for_hangs(void)
{
    for (uint32_t i = 0; i < self.n_ends; i++) {
        const struct end *e = &self.ends[i];
        if (now_ns() - e->last_ns < ledger->patience_ns)
            continue;
        const struct connection *c = &ledger->connection[e->hello.connection];
        finding("hang: connection %u descriptor %d side %u%s, %llu sent, %llu received; the peer's calls took %llu; %s",
                e->hello.connection, e->fd, e->side, e->connecting ? " connecting" : "", (unsigned long long)e->sent,
                (unsigned long long)e->received, (unsigned long long)c->direction[1 - e->side].accepted, story_of(e));
        raise(SIGSTOP);
    }
}

/* Everything ends: each connection is shut down, and read to its end. */
static void finish(void)
{
    for (uint32_t i = 0; i < self.n_ends; i++)
        if (!self.ends[i].shut && self.ends[i].hello_bytes == sizeof(struct hello)) {
            shutdown(self.ends[i].fd, SHUT_WR);
            tell(self.ends[i].hello.connection, self.ends[i].side, 'q');
            self.ends[i].shut = 1;
        }
}

static void serve_ends(void)
{
    uint64_t now = now_ns();
    for (uint32_t i = 0; i < self.n_ends;) {
        struct end *e = &self.ends[i];
        enum stepped so_far = BLOCKED;
        if (e->pause_ns && (e->pause_ns <= now || ledger->stop))
            e->pause_ns = 0, e->ready = 1;
        alive("connection", e->hello.connection);
        for (int n = 0; n < 16 && e->ready && !e->pause_ns && (so_far = step(e, &self.dice)) == MOVED; n++)
            ;
        if (so_far == BLOCKED && !e->pause_ns)
            e->ready = 0;
        if (so_far == OVER) {
            if (e->hello.magic)
                tell(e->hello.connection, e->side, 'o');
            remove_end(i);
        } else
            i++;
    }
}

/* Milliseconds until something is due without anybody's doing. */
static int until_due(uint64_t next)
{
    uint64_t now = now_ns();
    for (uint32_t i = 0; i < self.n_ends; i++) {
        if (self.ends[i].ready && !self.ends[i].pause_ns)
            return 0;
        if (self.ends[i].pause_ns && self.ends[i].pause_ns < next)
            next = self.ends[i].pause_ns;
    }
    return next > now ? (int)((next - now) / 1000000) + 1 : 0;
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return 2;
    open_ledger(argv[1]);
    signal(SIGPIPE, SIG_IGN);
    spoil_at = getenv("CHAOS_SPOIL") ? strtoull(getenv("CHAOS_SPOIL"), NULL, 10) : 0;
    signal(SIGCHLD, SIG_IGN);
    if (argc > 4)
        come_back(atoi(argv[4]));
    else {
        self.number = (uint32_t)atoi(argv[2]);
        self.life = (uint32_t)atoi(argv[3]);
        self.dice.state = mix(ledger->seed ^ mix((uint64_t)self.life << 32 | self.number));
        self.way = roll(&self.dice, WAYS);
    }
    me = &ledger->process[self.number];
    alive("start", 0);
    atomic_store(&me->pid, (uint32_t)getpid());
    if (argc <= 4) {
        open_all();
        forget_flows();
    }
    make_set();
    uint64_t next = now_ns(), stopped = 0;
    while (!stopped || self.n_ends) {
        if (ledger->stop && !stopped) {
            stopped = now_ns();
            close(self.fd[LISTENER]);
            close(self.fd[DOOR]);
            self.fd[LISTENER] = self.fd[DOOR] = self.fd[DATAGRAMS]; /* nobody comes any more */
        }
        if (stopped)
            finish();
        else if (now_ns() >= next) {
            act(argv);
            next = now_ns() + (5 + roll(&self.dice, 200)) * 1000000ull;
        }
        if (self.ready[LISTENER] && !stopped)
            accept_some();
        if (self.ready[DOOR] && !stopped)
            take_passed();
        memset(self.ready, 0, sizeof self.ready);
        if (!stopped)
            serve_datagrams(some_target);
        else
            receive_datagrams();
        serve_ends();
        look_for_hangs();
        alive("wait", 0);
        if (!stopped || self.n_ends)
            wait_for_any(until_due(stopped ? now_ns() + 50000000 : next));
    }
    atomic_store(&me->pid, 0);
    return 0;
}
