/* libFuzzer target: the options of a TCP header, as they come. What is parsed must lie within what was given. */
#include <stdlib.h>

#include "engine/packet.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct shs_segment s = {0};
    /* exactly so much memory, for the sanitizer to see what is beyond */
    uint8_t *exact = malloc(len ? len : 1);
    if (!exact || len > 40)
        goto out;
    memcpy(exact, data, len);
    (void)shs_tcp_options(exact, (uint32_t)len, &s);
    if (s.sacks > SHS_MOST_SACKS)
        abort();
out:
    free(exact);
    return 0;
}
