/*
 * Lifted connections and several processes: what fork, exec, passing and death do to them.
 *
 *     processes SCENE
 *
 * Without a scene it lists them. On the kernel and through the library the lines must be the same.
 */
#include "pairs.h"

#include <spawn.h>

extern char **environ;

static uint8_t buf[1 << 16];

static void wait_for(pid_t child)
{
    int status = -1;
    if (waitpid(child, &status, 0) != child)
        fail("waitpid");
    if (WIFSIGNALED(status))
        say("child: signal %d", WTERMSIG(status));
    else
        say("child: exit %d", WEXITSTATUS(status));
}

static void fork_and_read(void)
{
    int e[2];
    warm_pair(e);
    put(e[1], 3000); /* in the ring when it is shared */
    pid_t child = fork();
    if (child == 0) {
        uint8_t want[1000];
        fill(want, 1000, 0);
        must_recv(e[0], buf, 1000);
        _exit(memcmp(buf, want, 1000) != 0);
    }
    wait_for(child);
    must_recv(e[0], buf, 2000);
    uint8_t want[3000];
    fill(want, 3000, 0);
    say("right: %d", !memcmp(buf, want + 1000, 2000));
    put(e[1], 10);
    show("recv", recv(e[0], buf, 100, 0));
    warm(e);
    say("warm");
}

static void fork_and_write(void)
{
    int e[2], turn[2];
    warm_pair(e);
    if (pipe(turn) != 0)
        fail("pipe");
    must_send(e[0], "one ", 4);
    pid_t child = fork();
    if (child == 0) {
        must_send(e[0], "two ", 4);
        if (read(turn[0], buf, 1) != 1)
            _exit(1);
        must_send(e[0], "four ", 5);
        _exit(0);
    }
    must_recv(e[1], buf, 8);
    must_send(e[0], "three ", 6);
    if (write(turn[1], "x", 1) != 1)
        fail("write");
    wait_for(child);
    must_recv(e[1], buf + 8, 11);
    say("%.19s", buf);
    close(e[0]);
    show("end", recv(e[1], buf, 1, 0));
}

/* Parent and child read one stream at the same time: each byte comes to one of them. */
static void fork_and_share(void)
{
    int e[2], back[2];
    const int total = 400000;
    warm_pair(e);
    if (pipe(back) != 0)
        fail("pipe");
    pid_t child = fork(), writer = child ? fork() : 0;
    uint64_t mine[2] = {0, 0}, others[2];
    if (child && !writer) { /* the writer */
        close(e[0]);
        for (int sent = 0; sent < total; sent += 400) {
            fill(buf, 400, (uint32_t)sent);
            must_send(e[1], buf, 400);
        }
        _exit(0);
    }
    close(e[1]);
    for (ssize_t r; (r = recv(e[0], buf, 1000, 0)) > 0; mine[0] += (uint64_t)r)
        for (ssize_t i = 0; i < r; i++)
            mine[1] += buf[i];
    if (!child)
        _exit(write(back[1], mine, sizeof mine) != sizeof mine);
    if (read(back[0], others, sizeof others) != sizeof others)
        fail("read");
    wait_for(child);
    wait_for(writer);
    uint64_t sum = 0;
    for (int sent = 0; sent < total; sent += 400) {
        fill(buf, 400, (uint32_t)sent);
        for (int i = 0; i < 400; i++)
            sum += buf[i];
    }
    say("all came: %d, each once: %d", mine[0] + others[0] == (uint64_t)total, mine[1] + others[1] == sum);
}

static void echo(int fd)
{
    ssize_t r;
    while ((r = recv(fd, buf, sizeof buf, 0)) > 0)
        must_send(fd, buf, (size_t)r);
}

/* Both in a child that had it before, and the parent closes: the connection lives. */
static void fork_and_close(void)
{
    pid_t peer;
    int fd = with_child(echo, &peer);
    pid_t child = fork();
    if (child == 0) {
        for (int i = 0; i < 50; i++) {
            must_send(fd, "hello", 5);
            must_recv(fd, buf, 5);
        }
        _exit(0);
    }
    show("close", close(fd));
    wait_for(child);
    wait_for(peer);
}

static void send_right(int over, int fd)
{
    if (send_rights(over, &fd, 1) != 1)
        fail("sendmsg");
}

static int receive_right(int over)
{
    int fds[RIGHTS_MOST];
    if (receive_rights(over, 0, fds) != 1)
        fail("recvmsg");
    return fds[0];
}

static pid_t again(const char *scene, int fd, bool keep)
{
    char number[16];
    snprintf(number, sizeof number, "%d", fd);
    char *args[] = {"processes", (char *)scene, number, NULL};
    pid_t child = fork();
    if (child == 0) {
        fcntl(fd, F_SETFD, keep ? 0 : FD_CLOEXEC);
        execv("/proc/self/exe", args);
        _exit(126);
    }
    return child;
}

/* What a process does with a connection that it was given: 100 bytes are unread, then an echo. */
static int taken_over(int fd)
{
    uint8_t want[100];
    fill(want, 100, 0);
    must_recv(fd, buf, 100);
    if (memcmp(buf, want, 100))
        return 1;
    must_send(fd, "ready", 5);
    echo(fd);
    return 0;
}

static void converse(int fd)
{
    must_recv(fd, buf, 5);
    say("%.5s", buf);
    for (int i = 0; i < 300; i++) {
        uint8_t out[700];
        fill(out, sizeof out, (uint32_t)i);
        must_send(fd, out, sizeof out);
        must_recv(fd, buf, sizeof out);
        if (memcmp(buf, out, sizeof out))
            fail("wrong bytes");
    }
    say("conversed");
    shutdown(fd, SHUT_WR);
    show("end", recv(fd, buf, 10, 0));
}

static void pass(void)
{
    int e[2], over[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, over) != 0)
        fail("socketpair");
    pid_t child = again("receiver", over[1], true);
    close(over[1]);
    warm_pair(e);
    put(e[1], 100);
    send_right(over[0], e[0]);
    close(e[0]);
    converse(e[1]);
    wait_for(child);
}

static void pass_and_keep(void)
{
    int e[2], over[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, over) != 0)
        fail("socketpair");
    pid_t child = again("receiver", over[1], true);
    close(over[1]);
    warm_pair(e);
    put(e[1], 100);
    send_right(over[0], e[0]);
    must_recv(e[1], buf, 5);
    must_send(e[0], "from the first holder", 21);
    must_recv(e[1], buf, 21);
    say("%.21s", buf);
    must_send(e[1], "hello", 5);
    must_recv(e[1], buf, 5);
    close(e[0]);
    shutdown(e[1], SHUT_WR);
    show("end", recv(e[1], buf, 10, 0));
    wait_for(child);
}

static void execute(void)
{
    int e[2];
    warm_pair(e);
    put(e[1], 100);
    pid_t child = again("inheritor", e[0], true);
    close(e[0]);
    converse(e[1]);
    wait_for(child);
}

static void close_on_exec(void)
{
    int e[2];
    warm_pair(e);
    pid_t child = again("nothing", e[0], false);
    wait_for(child);
    warm(e);
    say("warm");
    close(e[0]);
    show("end", recv(e[1], buf, 10, 0));
}

static pid_t vforked(int fd, int over)
{
    pid_t child = vfork();
    if (child == 0) {
        close(fd);
        dup2(STDOUT_FILENO, over);
        execl("/bin/true", "true", (char *)NULL);
        _exit(126);
    }
    return child;
}

/* A vfork child lives on its parent's memory: what it closes stays open in the parent, and lifted. */
static void vfork_child(void)
{
    int e[2], f[2];
    warm_pair(e);
    warm_pair(f);
    put(e[1], 100);
    wait_for(vforked(e[0], f[0]));
    show("recv", recv(e[0], buf, 100, 0));
    warm(e);
    warm(f);
    posix_spawn_file_actions_t actions;
    for (int i = 0; i < 2; i++) { /* what a spawned child gets is lowered */
        fcntl(e[i], F_SETFD, FD_CLOEXEC);
        fcntl(f[i], F_SETFD, FD_CLOEXEC);
    }
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addclose(&actions, e[0]);
    posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, f[0]);
    pid_t child;
    char *args[] = {"true", NULL};
    show("posix_spawn", posix_spawn(&child, "/bin/true", &actions, NULL, args, environ));
    wait_for(child);
    warm(e);
    warm(f);
    say("warm");
}

static void idle(int fd)
{
    must_send(fd, "!", 1);
    for (;;)
        pause();
}

static void stream(int fd)
{
    for (;;)
        if (send(fd, buf, 1000, MSG_NOSIGNAL) < 0)
            exit(0);
}

static void killed(void)
{
    pid_t child;
    int fd = with_child(idle, &child);
    must_recv(fd, buf, 1);
    kill(child, SIGKILL);
    wait_for(child);
    show("all was read: recv", recv(fd, buf, 10, 0));
    show("recv", recv(fd, buf, 10, 0));
    close(fd);
    fd = with_child(stream, &child);
    for (long got = 0, r; got < 300000; got += r)
        if ((r = recv(fd, buf, sizeof buf, 0)) <= 0)
            fail("recv");
    kill(child, SIGKILL);
    wait_for(child);
    ssize_t r;
    while ((r = recv(fd, buf, sizeof buf, 0)) > 0)
        ;
    show("in a stream: recv", r);
    close(fd);
    fd = with_child(echo, &child);
    kill(child, SIGSTOP);
    put(fd, 500);
    kill(child, SIGKILL);
    wait_for(child);
    /* the kernel resets if it knows of unread bytes; those in a ring it does not know of */
    r = recv(fd, buf, 10, 0);
    say("with bytes unread: over: %d", r == 0 || (r < 0 && errno == ECONNRESET));
    usleep(1000);
    (void)!send(fd, buf, 1, MSG_NOSIGNAL);
    usleep(1000);
    say("send fails: %d", send(fd, buf, 1, MSG_NOSIGNAL) < 0);
}

static pid_t victim;

static void *kill_soon(void *unused)
{
    usleep(20000);
    kill(victim, SIGKILL);
    return unused;
}

/* Who waits in recv, poll or epoll_wait for the one that is killed hears of it. */
static void killed_while_waited_for(void)
{
    for (int way = 0; way < 3; way++) {
        int fd = with_child(idle, &victim);
        must_recv(fd, buf, 1);
        pthread_t killer;
        pthread_create(&killer, NULL, kill_soon, NULL);
        struct pollfd p = {.fd = fd, .events = POLLIN};
        struct epoll_event event = {.events = EPOLLIN};
        int set = epoll_create1(0);
        epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
        double start = ms();
        if (way == 1)
            show("poll", poll(&p, 1, 2000));
        if (way == 2)
            show("epoll_wait", epoll_wait(set, &event, 1, 2000));
        show("recv", recv(fd, buf, 10, 0));
        say("soon: %d", ms() - start < 500);
        pthread_join(killer, NULL);
        wait_for(victim);
        close(fd);
        close(set);
    }
}

static void nothing(void)
{
    exit(0);
}

int main(int argc, char **argv)
{
    static const struct scene scenes[] = {
        {"fork_and_read", fork_and_read},
        {"fork_and_write", fork_and_write},
        {"fork_and_share", fork_and_share},
        {"fork_and_close", fork_and_close},
        {"pass", pass},
        {"pass_and_keep", pass_and_keep},
        {"execute", execute},
        {"close_on_exec", close_on_exec},
        {"vfork_child", vfork_child},
        {"killed", killed},
        {"killed_while_waited_for", killed_while_waited_for},
    };
    if (argc == 3 && !strcmp(argv[1], "receiver"))
        return taken_over(receive_right(atoi(argv[2])));
    if (argc == 3 && !strcmp(argv[1], "inheritor"))
        return taken_over(atoi(argv[2]));
    if (argc == 3)
        nothing();
    return play(scenes, sizeof scenes / sizeof *scenes, argc, argv);
}
