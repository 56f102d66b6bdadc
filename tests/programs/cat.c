/* What cat does, to be linked statically, so that no library is preloaded: standard input to standard output. */
#include <unistd.h>

int main(void)
{
    static char buf[65536];
    ssize_t n;
    while ((n = read(STDIN_FILENO, buf, sizeof(buf))) > 0) {
        for (ssize_t done = 0, w; done < n; done += w) {
            w = write(STDOUT_FILENO, buf + done, (size_t)(n - done));
            if (w < 0)
                return 1;
        }
    }
    return n < 0;
}
