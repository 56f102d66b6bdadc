/*
 * shs-peer: an ordinary program with sockets, both ends of each case of `sharedstack bench`. It knows nothing of sharedstack.
 *
 * shs-peer ROLE [options]: as a server it prints `port N`, serves, and prints what it counted when its last connection has ended;
 * as a client it prints what it measured. Both as one line of JSON, last.
 *
 *   servers   echo  -w block|poll|epoll -c CONNECTIONS -s SIZE     each message back
 *             sink  -s SIZE                                        one stream, counted
 *             accept -c CONNECTIONS                                accept and close
 *             forks -c CONNECTIONS -s SIZE                         echo, a process for each connection
 *   clients   pingpong -p PORT -w WAY -c MEMBERS -s SIZE -t MS     round trips on the first of MEMBERS connections
 *             load     -p PORT -r RATE -s SIZE -t MS               RATE messages a second, replies timed
 *             stream   -p PORT -s SIZE -t MS                       one way
 *             connect  -p PORT -c CONNECTIONS                      connect, see the end, close
 *             pairs    -p PORT -c CONNECTIONS -s SIZE -t MS        ping-pong by as many processes
 *             idle     -p PORT -c CONNECTIONS -s SIZE              silent connections until standard input ends
 *             call     -t MS                                       recv that finds nothing, no server
 *   both      -u CPU                                               run there only
 */
#include "client.h"

struct arguments {
    const char *role;
    enum way way;
    int port, connections, rate, cpu;
    size_t size;
    uint64_t ns;
};

_Noreturn static void usage(void)
{
    fprintf(stderr, "usage: %s ROLE [-p PORT] [-w block|poll|epoll] [-c CONNECTIONS] [-s SIZE] [-t MS] [-r RATE] [-u CPU]\n",
            program_invocation_short_name);
    exit(2);
}

static enum way way_of(const char *name)
{
    if (strcmp(name, "block") == 0)
        return BLOCK;
    if (strcmp(name, "poll") == 0)
        return POLL;
    if (strcmp(name, "epoll") == 0)
        return EPOLL;
    usage();
}

/* A number within bounds, or usage. */
static int number(const char *text, int low, int high)
{
    char *rest;
    long value = strtol(text, &rest, 10);
    if (rest == text || *rest || value < low || value > high)
        usage();
    return (int)value;
}

static struct arguments parse(int argc, char **argv)
{
    struct arguments a = {.connections = 1, .size = 64, .cpu = -1, .rate = 1000, .ns = 1000000000u};
    if (argc < 2)
        usage();
    a.role = argv[1];
    for (int option; (option = getopt(argc - 1, argv + 1, "p:w:c:s:t:r:u:")) != -1;) {
        if (option == 'p')
            a.port = number(optarg, 1, 65535);
        else if (option == 'w')
            a.way = way_of(optarg);
        else if (option == 'c')
            a.connections = number(optarg, 1, 10000000);
        else if (option == 's')
            a.size = (size_t)number(optarg, 8, LARGEST);
        else if (option == 't')
            a.ns = (uint64_t)number(optarg, 1, 1000000) * 1000000u;
        else if (option == 'r')
            a.rate = number(optarg, 1, 1000000);
        else if (option == 'u')
            a.cpu = number(optarg, 0, CPU_SETSIZE - 1);
        else
            usage();
    }
    return a;
}

/* As many descriptors as are allowed. */
static void raise_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static bool serve(const struct arguments *a)
{
    struct served s;
    bool is_echo = strcmp(a->role, "echo") == 0, is_sink = strcmp(a->role, "sink") == 0;
    bool is_accept = strcmp(a->role, "accept") == 0, is_forks = strcmp(a->role, "forks") == 0;
    if (!is_echo && !is_sink && !is_accept && !is_forks)
        return false;
    if (is_forks && a->connections > MAX_PAIRS)
        usage();
    int listener = listen_here();
    if (is_echo)
        s = serve_echo(listener, a->way, a->connections, a->size);
    else if (is_sink)
        s = serve_sink(listener, a->size);
    else if (is_accept)
        s = serve_churn(listener, a->connections);
    else
        s = serve_pairs(listener, a->connections, a->size);
    printf("{\"ops\":%" PRIu64 ",\"cpu_ns\":%" PRIu64 "}\n", s.ops, s.cpu);
    return true;
}

static bool measure(const struct arguments *a)
{
    struct measured m;
    if (strcmp(a->role, "pingpong") == 0)
        m = run_pingpong(a->port, a->way, a->connections, a->size, a->ns, &times);
    else if (strcmp(a->role, "load") == 0)
        m = run_load(a->port, a->rate, a->size, a->ns);
    else if (strcmp(a->role, "stream") == 0)
        m = run_stream(a->port, a->size, a->ns);
    else if (strcmp(a->role, "connect") == 0)
        m = run_churn(a->port, a->connections);
    else if (strcmp(a->role, "pairs") == 0 && a->connections <= MAX_PAIRS)
        m = run_pairs(a->port, a->connections, a->size, a->ns);
    else if (strcmp(a->role, "idle") == 0)
        m = run_idle(a->port, a->connections, a->size);
    else if (strcmp(a->role, "call") == 0)
        m = run_call(a->ns);
    else
        return false;
    printf("{\"ops\":%" PRIu64 ",\"ns\":%" PRIu64 ",\"segments\":%" PRIu64 ",\"all_segments\":%" PRIu64 ",\"times\":", m.ops, m.ns,
           m.segments, m.all);
    histogram_print(&times);
    puts("}");
    return true;
}

int main(int argc, char **argv)
{
    struct arguments a = parse(argc, argv);
    raise_limit();
    pin(a.cpu);
    if (!serve(&a) && !measure(&a))
        usage();
    return 0;
}
