/*
 * Runs programs, and single-steps each from its first breakpoint instruction (int3) to its second; kills it at a point in between.
 *
 *     tracer LIBRARY SEGMENT...
 *
 * LIBRARY is preloaded into the programs ("" for none). A segment is a file of shared memory, looked at after each step; its size stays.
 * Commands come on standard input, one a line, words apart by one space: `POINT PROGRAM [ARGUMENT]...`, where POINT is
 *
 *     all       run through; then the answer has the number of the step of each store
 *     store:N   kill it behind the Nth step that changed a segment
 *     step:N    kill it behind the Nth step
 *
 * The answer is one line, "END STEPS STORES OFFSET [STEP]...": END is done, killed or ended (by itself, OFFSET is its status then); OFFSET is
 * where in LIBRARY it was killed, 0 for elsewhere. Before it "ready" comes when the first breakpoint was met, where a line is waited for; and
 * "asleep" when a system call has not come back at the third tick: whoever asks for the run can wake it then. A system call is one step,
 * and executing another program is the last one.
 *
 * All run on one CPU, where a switch costs least. x86-64 only. Sources: ptrace(2), lseek(2) SEEK_DATA, proc(5).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define MOST_SEGMENTS 4
#define MOST_WORDS 16
#define MOST_STORES 20000
#define TICK_MS 20
#define PAGE 4096
#define MOST_HOT 512
#define LOOK_AROUND 16 /* steps */

struct segment {
    int fd;
    off_t size;
    const unsigned char *now; /* as it is */
    unsigned char *was;       /* as it was at the last look */
    off_t hot[MOST_HOT];      /* pages that some step has changed before */
    int n_hot;
};

struct run {
    pid_t pid;
    unsigned long steps, stores, at[MOST_STORES];
    unsigned long long offset;
};

static struct segment segments[MOST_SEGMENTS];
static int n_segments;
static const char *library;

static void die(const char *what)
{
    fprintf(stderr, "tracer: %s: %s\n", what, strerror(errno));
    exit(2);
}

static void open_segment(const char *path)
{
    struct segment *s = &segments[n_segments++];
    struct stat st;
    s->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (s->fd < 0 || fstat(s->fd, &st) != 0)
        die(path);
    s->size = st.st_size;
    s->now = mmap(NULL, (size_t)s->size, PROT_READ, MAP_SHARED, s->fd, 0);
    s->was = mmap(NULL, (size_t)s->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (s->now == MAP_FAILED || s->was == MAP_FAILED)
        die("mmap");
}

static int page_changed(struct segment *s, off_t page)
{
    if (memcmp(s->now + page, s->was + page, PAGE) == 0)
        return 0;
    memcpy(s->was + page, s->now + page, PAGE);
    return 1;
}

static int hot_changed(struct segment *s)
{
    int found = 0;
    for (int i = 0; i < s->n_hot; i++)
        found |= page_changed(s, s->hot[i]);
    return found;
}

static void remember(struct segment *s, off_t page)
{
    for (int i = 0; i < s->n_hot; i++)
        if (s->hot[i] == page)
            return;
    if (s->n_hot < MOST_HOT)
        s->hot[s->n_hot++] = page;
}

/* Was anything of it changed since the last look? Pages that were never written are not there, and not looked at. */
static int changed(struct segment *s, int stepping)
{
    int found = 0;
    for (off_t at = 0; at < s->size && (at = lseek(s->fd, at, SEEK_DATA)) >= 0;) {
        off_t end = lseek(s->fd, at, SEEK_HOLE);
        for (off_t page = at; page < end; page += PAGE)
            if (page_changed(s, page)) {
                found = 1;
                if (stepping)
                    remember(s, page);
            }
        at = end;
    }
    return found;
}

static int any_changed(int stepping)
{
    int found = 0;
    for (int i = 0; i < n_segments; i++)
        found |= changed(&segments[i], stepping);
    return found;
}

/* Where it changes as a rule: at each step; elsewhere now and then, except in a run that is to find out where. */
static int step_changed(unsigned long step, int everywhere)
{
    int found = 0;
    if (everywhere || step % LOOK_AROUND == 0)
        return any_changed(1);
    for (int i = 0; i < n_segments; i++)
        found |= hot_changed(&segments[i]);
    return found;
}

/* Does it wait in the kernel? For a while, or for somebody. */
static int waits(pid_t pid)
{
    char name[40], text[200];
    snprintf(name, sizeof name, "/proc/%d/stat", pid);
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    close(fd);
    text[n < 0 ? 0 : n] = 0;
    const char *state = strrchr(text, ')');
    return state && state[2] == 'S';
}

static void say(const char *word)
{
    puts(word);
    fflush(stdout);
}

/* Its next stop; false: it has ended. */
static int wait_stop(pid_t pid, int *status)
{
    int looks = 0;
    for (;;) { /* a timer interrupts the wait every TICK_MS */
        pid_t r = waitpid(pid, status, 0);
        if (r == pid)
            return WIFSTOPPED(*status);
        if (errno != EINTR)
            die("waitpid");
        if (waits(pid) && ++looks == 3)
            say("asleep");
    }
}

static int at_breakpoint(pid_t pid, int status)
{
    siginfo_t info;
    return WSTOPSIG(status) == SIGTRAP && !(status >> 16) && ptrace(PTRACE_GETSIGINFO, pid, 0, &info) == 0 && info.si_code == SI_KERNEL;
}

/* What is delivered to it when it goes on: what is not ours. */
static int signal_of(int status)
{
    return WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status);
}

static int wait_again(pid_t pid, int *status)
{
    pid_t r;
    do
        r = waitpid(pid, status, 0);
    while (r < 0 && errno == EINTR);
    return r == pid;
}

/* Through whatever it executes to its first breakpoint; false: it ended before. */
static int run_up(pid_t pid, int *status)
{
    while (wait_again(pid, status) && WIFSTOPPED(*status)) {
        if (at_breakpoint(pid, *status))
            return 1;
        ptrace(PTRACE_CONT, pid, 0, signal_of(*status));
    }
    return 0;
}

static unsigned long long library_base(pid_t pid)
{
    char name[40], line[512];
    unsigned long long base = 0;
    snprintf(name, sizeof name, "/proc/%d/maps", pid);
    FILE *maps = fopen(name, "re");
    while (maps && fgets(line, sizeof line, maps))
        if (*library && strstr(line, library) && sscanf(line, "%llx", &base) == 1)
            break;
    if (maps)
        fclose(maps);
    return base;
}

static void kill_it(struct run *r)
{
    struct user_regs_struct regs;
    int status;
    unsigned long long base = library_base(r->pid);
    if (ptrace(PTRACE_GETREGS, r->pid, 0, &regs) == 0 && base && regs.rip > base && regs.rip - base < 0x1000000)
        r->offset = regs.rip - base;
    kill(r->pid, SIGKILL);
    while (wait_again(r->pid, &status) && WIFSTOPPED(status))
        ;
}

static const char *step_through(struct run *r, const char *point, int *status)
{
    unsigned long nth = strchr(point, ':') ? strtoul(strchr(point, ':') + 1, NULL, 10) : 0;
    int by_store = !strncmp(point, "store", 5), by_step = !strncmp(point, "step", 4), deliver = 0;
    for (;;) {
        if (ptrace(PTRACE_SINGLESTEP, r->pid, 0, deliver) != 0)
            die("PTRACE_SINGLESTEP");
        if (!wait_stop(r->pid, status))
            return "ended";
        deliver = signal_of(*status);
        if (at_breakpoint(r->pid, *status) || *status >> 8 == (SIGTRAP | PTRACE_EVENT_EXEC << 8))
            return "done";
        r->steps++;
        if (!by_step && step_changed(r->steps, !by_store)) {
            if (r->stores < MOST_STORES)
                r->at[r->stores] = r->steps;
            r->stores++;
            if (by_store && r->stores == nth)
                return "killed";
        }
        if (by_step && r->steps == nth)
            return "killed";
    }
}

static void on_one_cpu(void)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET((size_t)sched_getcpu(), &one);
    sched_setaffinity(0, sizeof one, &one);
}

static void tick(int sig)
{
    (void)sig;
}

static void ticks(int on)
{
    struct itimerval timer = {{0, on * TICK_MS * 1000}, {0, on * TICK_MS * 1000}};
    setitimer(ITIMER_REAL, &timer, NULL);
}

static void one(char *line)
{
    static struct run r;
    char *word[MOST_WORDS + 1] = {0};
    int n = 0, status = 0;
    for (char *w = strtok(line, " \n"); w && n < MOST_WORDS; w = strtok(NULL, " \n"))
        word[n++] = w;
    if (n < 2)
        return;
    r.steps = r.stores = 0;
    r.offset = 0;
    on_one_cpu();
    if ((r.pid = fork()) == 0) {
        if (*library)
            setenv("LD_PRELOAD", library, 1);
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        execvp(word[1], word + 1);
        _exit(127);
    }
    int began = run_up(r.pid, &status);
    const char *end = "ended";
    if (began) {
        ptrace(PTRACE_SETOPTIONS, r.pid, 0, PTRACE_O_EXITKILL | PTRACE_O_TRACEEXEC);
        say("ready");
        static char go[16];
        if (!fgets(go, sizeof go, stdin))
            exit(0);
        any_changed(0);
        ticks(1);
        end = step_through(&r, word[0], &status);
        ticks(0);
    }
    if (!strcmp(end, "ended"))
        r.offset = (unsigned)status;
    else
        kill_it(&r);
    printf("%s %lu %lu %#llx", end, r.steps, r.stores, r.offset);
    for (unsigned long i = 0; !strcmp(word[0], "all") && i < r.stores && i < MOST_STORES; i++)
        printf(" %lu", r.at[i]);
    say("");
}

int main(int argc, char **argv)
{
    static char line[8192];
    if (argc < 2 || argc > 2 + MOST_SEGMENTS)
        return 2;
    library = argv[1];
    struct sigaction action = {.sa_handler = tick}; /* without SA_RESTART */
    sigaction(SIGALRM, &action, NULL);
    for (int i = 2; i < argc; i++)
        open_segment(argv[i]);
    while (fgets(line, sizeof line, stdin))
        one(line);
    return 0;
}
