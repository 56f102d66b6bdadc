/* plain_calls NUMBER: so many system calls by syscall() of which the library takes no notice. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    long sum = 0;
    for (long n = argc == 2 ? atol(argv[1]) : 0; n > 0; n--)
        sum += syscall(SYS_gettid);
    return sum < 0;
}
