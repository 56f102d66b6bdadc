/*
 * One end of a connection, which another program takes over in the middle:
 *
 *     follow WAY ENVIRONMENT OTHER       listens, says its port, answers a few turns, waits for a line, and executes the heir
 *     follow heir DESCRIPTOR             goes on where the stream is: says what it is, and answers more turns
 *
 * WAY is how it executes, ENVIRONMENT what it gives (set_environment); OTHER is another library, for LD_PRELOAD. The peer sends a stream of
 * bytes of which each is known by its place; each turn is SIZE bytes and one byte back, and UNREAD bytes are waiting when the heir comes.
 */
#include "pairs.h"

#include <ctype.h>
#include <dlfcn.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define TURNS 40
#define SIZE 500
#define UNREAD 3000
#define MANY 5000

extern char **environ;

static char self[4096], number[16];
static char *const heir[] = {self, (char *)"heir", number, NULL};
static char *variables[MANY + 4] = {NULL};
static char preload[4200] = "LD_PRELOAD=", own_preload[4200] = "LD_PRELOAD=", own_stack[64] = "SHAREDSTACK_STACK=";
static bool by_environ; /* the way takes it from there */

static void set_environment(const char *kind, const char *other)
{
    static char name[MANY][16];
    int n = 0;
    const char *had = getenv("LD_PRELOAD"), *stack = getenv("SHAREDSTACK_STACK");
    if (strcmp(kind, "kept") == 0) {
        for (char **one = environ; *one && n < MANY; one++)
            variables[n++] = *one;
    } else if (strcmp(kind, "replaced") == 0) {
        variables[n++] = (char *)"A=1";
    } else if (strcmp(kind, "other") == 0) {
        variables[n++] = strcat(preload, other);
    } else if (strcmp(kind, "another stack") == 0) {
        variables[n++] = (char *)"SHAREDSTACK_STACK=nowhere";
    } else if (strcmp(kind, "empty") == 0) {
        variables[n++] = preload;
    } else if (strcmp(kind, "refused") == 0) {
        variables[n++] = (char *)"SHAREDSTACK_FOLLOW=0";
    } else if (strcmp(kind, "disabled") == 0) {
        variables[n++] = (char *)"SHAREDSTACK_ENABLE=0";
    } else if (strcmp(kind, "many") == 0) {
        for (; n < MANY; n++) {
            snprintf(name[n], sizeof name[n], "V%d=%d", n, n);
            variables[n] = name[n];
        }
    } else if (strcmp(kind, "wanted") == 0 && had && stack) { /* what it should have, by hand */
        variables[n++] = strcat(own_preload, had);
        variables[n++] = strcat(own_stack, stack);
    }
    if (by_environ && strcmp(kind, "cleared") == 0)
        clearenv();
    else if (by_environ)
        environ = variables;
}

static void by_execve(void)
{
    execve(self, heir, variables);
}

static void by_execve_null(void)
{
    execve(self, heir, *variables ? variables : NULL);
}

static void by_execv(void)
{
    execv(self, heir);
}

static void by_execvp(void)
{
    execvp(self, heir);
}

static void by_execvpe(void)
{
    execvpe(self, heir, variables);
}

static void by_fexecve(void)
{
    fexecve(open(self, O_RDONLY | O_CLOEXEC), heir, variables);
}

/* Opened for nothing but that. */
static void by_fexecve_path(void)
{
    fexecve(open(self, O_PATH | O_CLOEXEC), heir, variables);
}

static void by_execveat(void)
{
    static int (*at)(int, const char *, char *const *, char *const *, int);
    at = (__typeof__(at))dlsym(RTLD_DEFAULT, "execveat");
    if (at)
        at(AT_FDCWD, self, heir, variables, 0);
}

static void by_execl(void)
{
    execl(self, self, "heir", number, NULL);
}

static void by_execlp(void)
{
    execlp(self, self, "heir", number, NULL);
}

static void by_execle(void)
{
    execle(self, self, "heir", number, NULL, variables);
}

static void by_number(void)
{
    syscall(SYS_execve, self, heir, variables);
}

static void by_number_at(void)
{
    syscall(SYS_execveat, AT_FDCWD, self, heir, variables, 0);
}

static void end_as(pid_t pid)
{
    int status;
    if (pid > 0 && waitpid(pid, &status, 0) == pid)
        _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 99);
}

static void by_spawn(void)
{
    pid_t pid = -1;
    if (posix_spawn(&pid, self, NULL, NULL, heir, variables) == 0)
        end_as(pid);
}

static void by_spawnp(void)
{
    pid_t pid = -1;
    if (posix_spawnp(&pid, self, NULL, NULL, heir, variables) == 0)
        end_as(pid);
}

static void by_fork(void)
{
    pid_t pid = fork();
    if (pid == 0)
        execve(self, heir, variables);
    end_as(pid);
}

static void by_vfork(void)
{
    pid_t pid = vfork();
    if (pid == 0) {
        execve(self, heir, variables);
        _exit(98);
    }
    end_as(pid);
}

static int mappings(void)
{
    int n = 0;
    FILE *maps = fopen("/proc/self/maps", "re");
    for (int c; (c = fgetc(maps)) != EOF;)
        n += c == '\n';
    fclose(maps);
    return n;
}

static void vfork_of(const char *path)
{
    static char *const nothing[] = {(char *)"true", NULL};
    pid_t pid = vfork();
    if (pid == 0) {
        execve(path, nothing, variables);
        _exit(97);
    }
    waitpid(pid, NULL, 0);
}

/* What was mapped for them is gone, whether they execute or not. */
static void by_vfork_often(void)
{
    int before = 0;
    for (int i = 0; i < 60; i++) {
        vfork_of(i % 2 ? "/nonexistent" : "/bin/true");
        if (i == 10)
            before = mappings();
    }
    if (mappings() > before + 5)
        _exit(96);
    execve(self, heir, variables);
}

static void on_signal(int unused)
{
    (void)unused;
    execve(self, heir, variables);
}

/* On a stack of its own, as small as handlers may have it. */
static void by_handler(void)
{
    static char stack[32768];
    stack_t small = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK | SA_NODEFER};
    sigaltstack(&small, NULL);
    sigaction(SIGUSR1, &sa, NULL);
    raise(SIGUSR1);
}

static char command[8400];

static void by_system(void)
{
    int status = system(command);
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 99);
}

static void by_popen(void)
{
    char line[4096];
    FILE *from = popen(command, "r");
    while (from && fgets(line, sizeof line, from))
        fputs(line, stdout);
    fflush(stdout);
    int status = from ? pclose(from) : -1;
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 99);
}

static const struct {
    const char *name;
    void (*go)(void);
    bool by_environ;
} ways[] = {
    {"execve", by_execve, false},       {"null", by_execve_null, false},  {"execv", by_execv, true},
    {"execvp", by_execvp, true},        {"execvpe", by_execvpe, false},   {"fexecve", by_fexecve, false},
    {"o_path", by_fexecve_path, false}, {"execveat", by_execveat, false}, {"execl", by_execl, true},
    {"execlp", by_execlp, true},        {"execle", by_execle, false},     {"number", by_number, false},
    {"number_at", by_number_at, false}, {"posix_spawn", by_spawn, false}, {"posix_spawnp", by_spawnp, false},
    {"fork", by_fork, false},           {"vfork", by_vfork, false},       {"often", by_vfork_often, false},
    {"handler", by_handler, false},     {"system", by_system, true},      {"popen", by_popen, true},
};

static uint8_t at(long place)
{
    return (uint8_t)((uint64_t)place * 2654435761u >> 13);
}

/* The next n bytes of the stream */
static void take(int fd, long *place, long n)
{
    static uint8_t in[UNREAD];
    for (long got = 0; got < n;) {
        long r = recv(fd, in + got, (size_t)(n - got), 0);
        if (r <= 0)
            fail("recv");
        got += r;
    }
    for (long i = 0; i < n; i++, ++*place)
        if (in[i] != at(*place)) {
            say("byte %ld is wrong", *place);
            exit(1);
        }
}

static void turns(int fd, long *place)
{
    for (int i = 0; i < TURNS; i++) {
        take(fd, place, SIZE);
        if (send(fd, ".", 1, MSG_NOSIGNAL) != 1)
            fail("send");
    }
}

static bool mapped(const char *what)
{
    static char line[8192];
    bool found = false;
    FILE *maps = fopen("/proc/self/maps", "re");
    while (maps && fgets(line, sizeof line, maps))
        found |= strstr(line, what) != NULL;
    if (maps)
        fclose(maps);
    return found;
}

static int inherit(int fd)
{
    long place = TURNS * SIZE;
    int n = 0;
    take(fd, &place, UNREAD);
    turns(fd, &place);
    for (char **one = environ; *one; one++)
        n += (*one)[0] == 'V' && isdigit((unsigned char)(*one)[1]);
    say("%s, other %d, V %d, A %s, LD_PRELOAD %s, SHAREDSTACK_STACK %s", mapped("libsharedstack") ? "preloaded" : "plain",
        mapped("null_preload"), n, getenv("A") ? getenv("A") : "none", getenv("LD_PRELOAD") ? getenv("LD_PRELOAD") : "none",
        getenv("SHAREDSTACK_STACK") ? getenv("SHAREDSTACK_STACK") : "none");
    return 0;
}

int main(int argc, char **argv)
{
    struct sockaddr_in address;
    char go;
    long place = 0;
    if (argc == 3 && strcmp(argv[1], "heir") == 0)
        return inherit(atoi(argv[2]));
    if (argc < 4)
        return 2;
    int l = listener(&address);
    say("%d", ntohs(address.sin_port));
    fflush(stdout);
    int fd = accept(l, NULL, NULL);
    turns(fd, &place);
    if (read(0, &go, 1) != 1)
        return 3;
    const char *program = argc > 4 ? argv[4] : "/proc/self/exe";
    ssize_t n = argc > 4 ? (ssize_t)strlen(strcpy(self, program)) : readlink(program, self, sizeof self - 1);
    self[n] = 0;
    snprintf(number, sizeof number, "%d", fd);
    snprintf(command, sizeof command, "test \"it's\" = 'it'\"'\"'s' && exec '%s' heir %d", self, fd);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        if (strcmp(ways[i].name, argv[1]) == 0) {
            by_environ = ways[i].by_environ;
            set_environment(argv[2], argv[3]);
            ways[i].go();
        }
    return 4;
}
