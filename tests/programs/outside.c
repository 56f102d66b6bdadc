/*
 * A holder of a connection that the library is not in (it is linked statically):
 *
 *     outside DESCRIPTOR FROM TO [over | part]
 *
 * Reads the bytes of a stream of 32-bit counters from byte FROM on, up to byte TO, says whether each is the one that belongs there, and
 * answers "done"; or, if the stream is over there, says how it ends; or, of a part, leaves it at that.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    static uint8_t buf[65536];
    if (argc != 4 && argc != 5)
        return 2;
    int fd = atoi(argv[1]);
    unsigned long at = strtoul(argv[2], NULL, 10), to = strtoul(argv[3], NULL, 10);
    while (at < to) {
        ssize_t n = read(fd, buf, to - at < sizeof buf ? to - at : sizeof buf);
        if (n <= 0) {
            printf("%s at byte %lu\n", n ? "an error" : "the end", at);
            return 1;
        }
        for (ssize_t i = 0; i < n; i++, at++)
            if (buf[i] != (uint8_t)(at / 4 >> 8 * (at % 4))) {
                printf("wrong byte at %lu\n", at);
                return 1;
            }
    }
    if (argc == 5 && *argv[4] == 'o') {
        ssize_t n = read(fd, buf, sizeof buf);
        printf("all, %s\n", n > 0 ? "and more" : n == 0 ? "the end" : errno == ECONNRESET ? "a reset" : "an error");
        return n > 0;
    }
    if (argc == 4 && write(fd, "done", 4) != 4)
        return 1;
    printf("all\n");
    return 0;
}
