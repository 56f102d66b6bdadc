/*
 * What calls on a connection return for pointers to nowhere, and what signals of bad memory do otherwise, line by line:
 *
 *     pointers SCENE
 */
#include "pairs.h"

#include <setjmp.h>
#include <sys/mman.h>

static uint8_t buf[1 << 12];

static void bad_address(void)
{
    int e[2];
    void *volatile bad = (void *)8;
    warm_pair(e);
    show("send", send(e[0], bad, 10, 0));
    put(e[0], 5);
    show("recv", recv(e[1], bad, 5, 0));
    show("the bytes are still there", recv(e[1], buf, 10, 0));
}

/* Signals of bad memory are the program's own all the same. */
static void *fault_at;
static jmp_buf after_fault;

static void on_fault(int sig, siginfo_t *info, void *context)
{
    (void)sig, (void)context;
    fault_at = info->si_addr;
    siglongjmp(after_fault, 1);
}

static void bad_pointers(void)
{
    int e[2];
    warm_pair(e);
    void *volatile bad = (void *)8;
    uint8_t *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(page + 4096, 4096);
    struct iovec good = {buf, 10}, wrong[2] = {{buf, 10}, {bad, 10}};
    struct msghdr msg = {.msg_iov = bad, .msg_iovlen = 1};
    struct pollfd p = {.fd = e[0], .events = POLLIN};
    show("sendmsg of nowhere", sendmsg(e[0], bad, 0));
    show("sendmsg, array nowhere", sendmsg(e[0], &msg, 0));
    show("writev, array nowhere", writev(e[0], bad, 1));
    show("recvmsg into nowhere", recvmsg(e[1], bad, MSG_DONTWAIT));
    put(e[0], 5);
    show("recvmsg, array nowhere", recvmsg(e[1], &msg, MSG_DONTWAIT));
    show("readv, array nowhere", readv(e[1], bad, 1));
    show("read into nowhere", read(e[1], bad, 5));
    show("read of nothing into nowhere", recv(e[1], bad, 0, MSG_DONTWAIT));
    show("read to the last byte of a page", read(e[1], page + 4091, 5));
    put(e[0], 10);
    show("read over its end", read(e[1], page + 4091, 10));
    show("write over its end", send(e[0], page + 4096, 10, 0));
    show("recv", recv(e[1], buf, 100, MSG_DONTWAIT));
    msg.msg_iov = wrong;
    msg.msg_iovlen = 2;
    show("recvmsg, nothing there", recvmsg(e[1], &msg, MSG_DONTWAIT));
    msg.msg_iov = &good;
    msg.msg_iovlen = 1;
    put(e[0], 10);
    show("recvmsg", recvmsg(e[1], &msg, 0));
    show("poll", poll(bad, 1, 0));
    show("select", select(e[0] + 1, bad, NULL, NULL, NULL));
    int set = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};
    epoll_ctl(set, EPOLL_CTL_ADD, e[0], &event);
    put(e[1], 10);
    show("epoll_wait", epoll_wait(set, bad, 1, 100));
    show("poll", poll(&p, 1, 0));
    show("recv", recv(e[0], buf, 100, 0));
    struct sigaction was, act = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &act, &was);
    say("default: %d, flags %#x", was.sa_handler == SIG_DFL, (unsigned)was.sa_flags & ~0x04000000u);
    if (!sigsetjmp(after_fault, 1))
        *(volatile int *)(page + 4096) = 1;
    say("its own handler: %d", fault_at == page + 4096);
    show("recv", recv(e[0], bad, 100, MSG_DONTWAIT));
    put(e[1], 10);
    show("recv", recv(e[0], bad, 100, MSG_DONTWAIT));
    for (int sent = 0; sent < 2; sent++) {
        pid_t pid = fork();
        int status = 0;
        if (pid == 0) {
            signal(SIGSEGV, SIG_DFL);
            if (sent)
                raise(SIGSEGV);
            *(volatile int *)bad = 1;
            _exit(0);
        }
        waitpid(pid, &status, 0);
        say("its own end: signal %d", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
    }
}

int main(int argc, char **argv)
{
    static const struct scene scenes[] = {
        {"bad_address", bad_address},
        {"bad_pointers", bad_pointers},
    };
    return play(scenes, sizeof scenes / sizeof *scenes, argc, argv);
}
