/*
 * One end of streams.c in a process, and a program, of its own:
 *
 *     peer server SEED CONNECTIONS BYTES          prints its port
 *     peer client SEED CONNECTIONS BYTES PORT
 *
 * Exit status 0 and "ok" from both if all was right.
 */
int streams_main(int argc, char **argv);
#define main streams_main
#include "streams.c"
#undef main

int main(int argc, char **argv)
{
    if (argc < 5)
        return 2;
    bool server = !strcmp(argv[1], "server");
    uint64_t seed = strtoull(argv[2], NULL, 0);
    int n = atoi(argv[3]), l = -1, one = 1;
    if (n < 1 || n > 64 || (!server && argc < 6))
        return 2;
    signal(SIGPIPE, SIG_IGN);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    if (server) {
        l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (l < 0 || bind(l, (struct sockaddr *)&at, len) != 0 || listen(l, 64) != 0 || getsockname(l, (struct sockaddr *)&at, &len) != 0)
            die("listen", NULL);
        printf("%d\n", ntohs(at.sin_port));
        fflush(stdout);
    } else {
        at.sin_port = htons((uint16_t)atoi(argv[5]));
    }
    rng_state = seed * 2654435761u + (server ? 1 : 2);
    struct conn *c = calloc((size_t)n, sizeof *c);
    for (int i = 0; i < n; i++) {
        c[i].total = strtoull(argv[4], NULL, 0);
        c[i].tx_key = (uint32_t)(seed * 64 + (uint64_t)i) * 2 + server;
        c[i].rx_key = (uint32_t)(seed * 64 + (uint64_t)i) * 2 + !server;
        c[i].fd = server ? accept(l, NULL, NULL) : socket(AF_INET, SOCK_STREAM, 0);
        if (c[i].fd < 0 || (!server && connect(c[i].fd, (struct sockaddr *)&at, len) != 0))
            die("connect", &c[i]);
        setsockopt(c[i].fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }
    if (seed % 4 == 0)
        drive_blocking(c, n, server);
    else
        drive(c, n);
    puts("ok");
    return 0;
}
