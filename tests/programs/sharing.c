/*
 * What it costs to share lifted connections: `sharing CONNECTIONS WARM`. Both ends of each are ours, and WARM messages have gone each way. Then it does what is said on standard input, a line each, and answers
 * by nanoseconds, a line for each sample (compat/test_sharing_cost.py and compat/cost.py read them):
 *
 *   fork K      K times fork, _exit in the child, waitpid
 *   passed N    N descriptors come to another process by SCM_RIGHTS
 *   forked N    ... by fork
 *   executed N  ... by fork and exec
 *               each sample: the first receive of one waiting byte, the first send, and both once more, as "recv send recv send"; then the recvmsg by which it came, or 0
 *   check       a byte each way on each connection
 */
#include "pairs.h"

#include <sys/resource.h>

static int (*ends)[2];
static int n_ends;
static const char *self;

static uint64_t ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void one_byte(int from, int to)
{
    char byte = 'x';
    if (send(from, &byte, 1, 0) != 1 || recv(to, &byte, 1, 0) != 1)
        fail("byte");
}

static void talk(int times)
{
    for (int t = 0; t < times; t++)
        for (int i = 0; i < n_ends; i++) {
            one_byte(ends[i][0], ends[i][1]);
            one_byte(ends[i][1], ends[i][0]);
        }
}

static void forks(int times)
{
    for (int i = 0; i < times; i++) {
        uint64_t start = ns();
        pid_t pid = fork();
        if (pid == 0)
            _exit(0);
        if (pid < 0 || waitpid(pid, NULL, 0) != pid)
            fail("fork");
        printf("%llu\n", (unsigned long long)(ns() - start));
    }
    fflush(stdout);
}

/* The other process: `in` and `out` say when the next byte waits. */
static void use(int fd, int in, int out, uint64_t rights)
{
    char byte;
    uint64_t took[4];
    for (int i = 0; i < 4; i += 2) {
        if (read(in, &byte, 1) != 1) /* a byte waits */
            fail("turn");
        uint64_t start = ns();
        if (recv(fd, &byte, 1, 0) != 1)
            fail("recv");
        uint64_t between = ns();
        if (send(fd, &byte, 1, 0) != 1)
            fail("send");
        took[i] = between - start;
        took[i + 1] = ns() - between;
        if (write(out, &byte, 1) != 1)
            fail("turn");
    }
    printf("%llu %llu %llu %llu %llu\n", (unsigned long long)took[0], (unsigned long long)took[1], (unsigned long long)took[2],
           (unsigned long long)took[3], (unsigned long long)rights);
}

/* Ours: a byte waits; take the answer; twice. */
static void serve(int fd, int in, int out)
{
    char byte = 'y';
    for (int i = 0; i < 2; i++) {
        if (send(fd, &byte, 1, 0) != 1 || write(out, &byte, 1) != 1 || read(in, &byte, 1) != 1 || recv(fd, &byte, 1, 0) != 1)
            fail("serve");
    }
}

static void shared(const char *how, int times)
{
    int there[2], back[2], rights[2];
    char number[4][16];
    if (pipe(there) || pipe(back) || socketpair(AF_UNIX, SOCK_STREAM, 0, rights))
        fail("pipe");
    fflush(stdout);
    bool passed = !strcmp(how, "passed");
    pid_t pid = fork();
    if (pid == 0 && !strcmp(how, "executed")) {
        snprintf(number[0], sizeof number[0], "%d", there[0]);
        snprintf(number[1], sizeof number[1], "%d", back[1]);
        snprintf(number[2], sizeof number[2], "%d", ends[0][1]);
        snprintf(number[3], sizeof number[3], "%d", times);
        execl(self, self, "use", number[0], number[1], number[2], number[3], NULL);
        fail("exec");
    }
    if (pid == 0) {
        for (int i = 0; i < n_ends && passed; i++)
            close(ends[i][1]);
        for (int i = 0; i < times; i++) {
            int fds[RIGHTS_MOST] = {ends[i][1]};
            char byte;
            if (passed && read(there[0], &byte, 1) != 1) /* the message waits */
                fail("turn");
            uint64_t start = ns();
            if (passed && receive_rights(rights[0], 0, fds) != 1)
                fail("rights");
            use(fds[0], there[0], back[1], ns() - start);
        }
        fflush(stdout);
        _exit(0);
    }
    for (int i = 0; i < times; i++) {
        if (passed && (send_rights(rights[1], &ends[i][1], 1) != 1 || write(there[1], "x", 1) != 1))
            fail("pass");
        serve(ends[i][0], back[0], there[1]);
    }
    if (waitpid(pid, NULL, 0) != pid)
        fail("wait");
    for (int i = 0; i < 2; i++) {
        close(there[i]);
        close(back[i]);
        close(rights[i]);
    }
}

int main(int argc, char **argv)
{
    char line[64], what[16];
    int n = 0;
    if (argc == 6) { /* executed: descriptors are two apart, since both ends of each connection were made in turn */
        for (int i = 0; i < atoi(argv[5]); i++)
            use(atoi(argv[4]) + 2 * i, atoi(argv[2]), atoi(argv[3]), 0);
        return 0;
    }
    self = argv[0];
    n_ends = atoi(argv[1]);
    struct rlimit most;
    if (getrlimit(RLIMIT_NOFILE, &most))
        fail("getrlimit");
    most.rlim_cur = (rlim_t)n_ends * 2 + 100;
    most.rlim_max = most.rlim_max > most.rlim_cur ? most.rlim_max : most.rlim_cur;
    if (setrlimit(RLIMIT_NOFILE, &most))
        fail("so many descriptors");
    ends = calloc((size_t)n_ends, sizeof *ends);
    struct sockaddr_in at;
    int l = listener(&at);
    for (int i = 0; i < n_ends; i++) {
        ends[i][0] = socket(AF_INET, SOCK_STREAM, 0);
        if (ends[i][0] < 0 || connect(ends[i][0], (struct sockaddr *)&at, sizeof at) || (ends[i][1] = accept(l, NULL, NULL)) < 0)
            fail("connect");
        no_delay(ends[i][0]);
        no_delay(ends[i][1]);
    }
    talk(atoi(argv[2]));
    say("ready");
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "%15s %d", what, &n) < 1)
            continue;
        if (!strcmp(what, "fork"))
            forks(n);
        else if (!strcmp(what, "check"))
            talk(1);
        else
            shared(what, n);
        say(".");
    }
    return 0;
}
