/*
 * How long others notice that a process was killed: `chaos_repair STACK SLOTS KILLS CONNECTIONS`. SLOTS is where in the file STACK the first slot's state is, by which the slot of a
 * process (its id is 8 bytes further) is found. For each kill a process is started that makes so many connections with us; all carry messages both ways, and then one carries them as
 * fast as it can, so that the process is often killed while it has a lock. A line each, in nanoseconds since the kill:
 *
 *   the last end seen by its peers, a message there and back of somebody else's connection, its slot free
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SLOT_BYTES 4096
#define SLOTS 1024
#define MOST 64
#define WARM 40

extern char **environ;
static const volatile uint8_t *stack;

static uint64_t ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static uint32_t word(size_t at)
{
    return __atomic_load_n((const uint32_t *)(const void *)(stack + at), __ATOMIC_ACQUIRE);
}

static int connected(uint16_t port)
{
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&name, sizeof name) != 0)
        fail("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

static void answer(int fd)
{
    char byte;
    if (recv(fd, &byte, 1, 0) != 1 || send(fd, &byte, 1, MSG_NOSIGNAL) != 1)
        exit(0); /* whoever asked has gone */
}

/* Makes connections, answers on each, and pours into the first one until it is killed; or (connections 1) answers for ever. */
static int victim(uint16_t port, int connections)
{
    static char buffer[1000];
    int fd[MOST];
    for (int i = 0; i < connections; i++)
        fd[i] = connected(port);
    for (int i = 0; i < WARM * connections; i++)
        answer(fd[i % connections]);
    while (connections > 1)
        if (send(fd[0], buffer, sizeof buffer, MSG_NOSIGNAL) < 0)
            return 0;
    while (1)
        answer(fd[0]);
}

static pid_t begin(const char *self, uint16_t port, int connections)
{
    char text[2][16];
    pid_t pid;
    snprintf(text[0], sizeof text[0], "%u", port);
    snprintf(text[1], sizeof text[1], "%d", connections);
    if (posix_spawn(&pid, self, NULL, NULL, (char *[]){(char *)self, "victim", text[0], text[1], NULL}, environ) != 0)
        fail("spawn");
    return pid;
}

static void ask(int fd)
{
    char byte = 'x';
    if (send(fd, &byte, 1, MSG_NOSIGNAL) != 1 || recv(fd, &byte, 1, 0) != 1)
        fail("ask");
}

static void accept_all(int listener, int *fd, int n)
{
    int on = 1;
    for (int i = 0; i < n; i++) {
        fd[i] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        setsockopt(fd[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    for (int i = 0; i < WARM * n; i++)
        ask(fd[i % n]);
}

static void read_to_end(int fd)
{
    static char buffer[65536];
    ssize_t r;
    while ((r = recv(fd, buffer, sizeof buffer, 0)) > 0)
        ;
    if (r < 0 && errno != ECONNRESET)
        fail("recv");
}

/* Until the helper has given the slot back; looks every 50 us, 2 s at most (0: it was not given back). */
static uint64_t given_back(size_t slot, uint64_t since)
{
    while (word(slot) != 0 && ns() - since < 2000000000u)
        usleep(50);
    return word(slot) ? 0 : ns() - since;
}

static size_t slot_of(size_t slots, pid_t pid)
{
    for (size_t i = 0; i < SLOTS; i++)
        if (word(slots + i * SLOT_BYTES) && word(slots + i * SLOT_BYTES + 8) == (uint32_t)pid)
            return slots + i * SLOT_BYTES;
    fail("its slot");
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "victim") == 0)
        return victim((uint16_t)atoi(argv[2]), atoi(argv[3]));
    size_t slots = (size_t)atol(argv[2]);
    int kills = atoi(argv[3]), connections = atoi(argv[4]), fd[MOST], bystander;
    int file = open(argv[1], O_RDONLY), listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof name;
    stack = mmap(NULL, slots + SLOTS * SLOT_BYTES, PROT_READ, MAP_SHARED, file, 0);
    if (stack == MAP_FAILED || bind(listener, (struct sockaddr *)&name, size) != 0 || listen(listener, MOST) != 0)
        fail("begin");
    getsockname(listener, (struct sockaddr *)&name, &size);
    pid_t other = begin("/proc/self/exe", name.sin_port, 1);
    accept_all(listener, &bystander, 1);
    for (int k = 0; k < kills; k++) {
        pid_t pid = begin("/proc/self/exe", name.sin_port, connections);
        accept_all(listener, fd, connections);
        static char buffer[65536];
        uint64_t until = ns() + 2000000u + (uint64_t)(k * 7919 % 1000) * 1000u, back, end, someone;
        while (ns() < until)
            if (recv(fd[0], buffer, sizeof buffer, 0) <= 0)
                fail("recv");
        size_t slot = slot_of(slots, pid);
        uint64_t since = ns();
        kill(pid, SIGKILL);
        for (int i = 0; i < connections; i++)
            read_to_end(fd[i]);
        end = ns() - since;
        uint64_t asked = ns();
        ask(bystander);
        someone = ns() - asked;
        for (int i = 0; i < connections; i++)
            close(fd[i]);
        back = given_back(slot, since);
        waitpid(pid, NULL, 0);
        printf("%llu %llu %llu\n", (unsigned long long)end, (unsigned long long)someone, (unsigned long long)back);
    }
    fflush(stdout);
    kill(other, SIGKILL);
    return 0;
}
