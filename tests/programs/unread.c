/*
 * A holder of a datagram socket, in a program of its own:
 *
 *     unread DESCRIPTOR
 *
 * Receives what is there, and says of each datagram its length, its sum, and from where it came, as Python would write it.
 */
#include <arpa/inet.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

union name {
    struct sockaddr sa;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
};

int main(int argc, char **argv)
{
    static uint8_t buf[1 << 16];
    if (argc != 2)
        return 2;
    struct pollfd p = {.fd = atoi(argv[1]), .events = POLLIN};
    printf("('ok', [");
    while (poll(&p, 1, 100) == 1) {
        union name n = {.sa = {0}};
        socklen_t len = sizeof n;
        char text[INET6_ADDRSTRLEN] = "none";
        ssize_t r = recvfrom(p.fd, buf, sizeof buf, MSG_DONTWAIT, &n.sa, &len);
        unsigned sum = 0;
        if (r < 0) {
            printf("'an error', ");
            break;
        }
        for (ssize_t i = 0; i < r; i++)
            sum = sum * 31 + buf[i];
        if (n.sa.sa_family == AF_INET)
            inet_ntop(AF_INET, &n.in.sin_addr, text, sizeof text);
        else
            inet_ntop(AF_INET6, &n.in6.sin6_addr, text, sizeof text);
        printf("(%zd, %u, '%s', %u), ", r, sum, text, (unsigned)ntohs(n.sa.sa_family == AF_INET ? n.in.sin_port : n.in6.sin6_port));
    }
    printf("])\n");
    return 0;
}
