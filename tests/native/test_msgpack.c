/*
 * The attach message's msgpack: what is packed is found again, cut to fit; what is malformed is not found, and nothing is read or
 * written beyond the given lengths (buffers are exact, so that ASan sees it).
 */
#include "check.h"

/* It belongs to the preload library, which has no test of its own kind: taken in as it is. */
#include "preload/msgpack.c"

static void there_and_back(struct rng *r)
{
    struct shs_pack pack = {0};
    uint64_t number = rng_next(r) >> below(r, 64), value = 0;
    char text[32] = "", got[32];
    for (uint64_t i = below(r, 32); i; i--)
        text[i - 1] = (char)('a' + below(r, 26));
    shs_pack_map(&pack, 3);
    shs_pack_str(&pack, "t");
    shs_pack_str(&pack, text);
    shs_pack_str(&pack, "number");
    shs_pack_uint(&pack, number);
    shs_pack_str(&pack, "text");
    shs_pack_str(&pack, "last");
    uint8_t *exact = malloc(pack.len);
    memcpy(exact, pack.bytes, pack.len);
    CHECK(shs_unpack_uint(exact, pack.len, "number", &value), ==, true);
    CHECK(value, ==, number);
    CHECK(shs_unpack_str(exact, pack.len, "t", got, sizeof got), ==, true);
    CHECK(strcmp(got, text), ==, 0);
    CHECK(shs_unpack_str(exact, pack.len, "text", got, 3), ==, true);
    CHECK(strcmp(got, "la"), ==, 0);
    CHECK(shs_unpack_str(exact, pack.len, "text", got, 1), ==, true);
    CHECK(got[0], ==, 0);
    CHECK(shs_unpack_str(exact, pack.len, "number", got, sizeof got), ==, false);
    CHECK(shs_unpack_uint(exact, pack.len, "text", &value), ==, false);
    CHECK(shs_unpack_uint(exact, pack.len, "numbe", &value), ==, false);
    /* whatever is cut off is not found */
    for (size_t len = 0; len < pack.len; len++) {
        uint8_t *cut = malloc(len + 1);
        memcpy(cut + 1, exact, len); /* ends where the memory ends */
        CHECK(shs_unpack_str(cut + 1, len, "text", got, sizeof got), ==, false);
        free(cut);
    }
    free(exact);
}

/* What the helper's msgpack may write for a number: the shortest form. */
static void short_forms(void)
{
    static const struct {
        uint8_t bytes[9], len;
        int64_t value;
    } form[] = {
        {{0x00}, 1, 0},
        {{0x7f}, 1, 127},
        {{0xcc, 0xff}, 2, 255},
        {{0xcd, 0x12, 0x34}, 3, 0x1234},
        {{0xd0, 0x80}, 2, -128},
        {{0xd1, 0xff, 0x00}, 3, -256},
        {{0xe0}, 1, -32},
        {{0xff}, 1, -1},
        {{0xc2}, 1, 0},
        {{0xc3}, 1, 1},
        {{0xce, 0x80, 0, 0, 1}, 5, 0x80000001},
        {{0xd2, 0x80, 0, 0, 0}, 5, INT32_MIN},
        {{0xd3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe}, 9, -2},
    };
    for (size_t i = 0; i < sizeof form / sizeof *form; i++) {
        size_t len = 3 + form[i].len;
        uint8_t *bytes = malloc(len);
        uint64_t value = 12345;
        memcpy(bytes, "\x81\xa1k", 3);
        memcpy(bytes + 3, form[i].bytes, form[i].len);
        CHECK(shs_unpack_uint(bytes, len, "k", &value), ==, true);
        CHECK(value, ==, form[i].value);
        CHECK(shs_unpack_uint(bytes, len - 1, "k", &value), ==, false);
        free(bytes);
    }
    char got[300];
    uint8_t long_text[3 + 2 + 200] = {0x81, 0xa1, 'k', 0xd9, 200};
    memset(long_text + 5, 'x', 200);
    CHECK(shs_unpack_str(long_text, sizeof long_text, "k", got, sizeof got), ==, true);
    CHECK(strlen(got), ==, 200);
    CHECK(shs_unpack_str(long_text, sizeof long_text - 1, "k", got, sizeof got), ==, false);
}

/* A message that is too long is cut, never written beyond. */
static void too_long(void)
{
    struct shs_pack pack = {0};
    shs_pack_map(&pack, 15);
    for (int i = 0; i < 100; i++) {
        shs_pack_str(&pack, "key");
        shs_pack_uint(&pack, 7);
        CHECK(pack.len, <=, sizeof pack.bytes);
    }
}

/* Heads and lengths that lie, with some truth around them. */
static void hostile(struct rng *r)
{
    static const uint8_t heads[] = {0x80, 0x8f, 0xa0, 0xa1, 0xbf, 0xc0, 0xc4, 0xca, 0xcf, 0xd3, 0xd9, 0xda, 0xdb, 0xdc, 0xde, 0xdf, 0xe0};
    size_t len = (size_t)below(r, 40), at = 0;
    uint8_t *bytes = malloc(len ? len : 1);
    for (; at < len; at++)
        bytes[at] = below(r, 2) ? heads[below(r, sizeof heads)] : (uint8_t)(below(r, 2) ? rng_next(r) : 'k');
    if (len && below(r, 2))
        bytes[0] = (uint8_t)(0x80 | below(r, 16));
    if (len > 2 && below(r, 2))
        memcpy(bytes + 1, "\xa1k", 2);
    size_t room = 1 + (size_t)below(r, 20);
    char *text = malloc(room);
    uint64_t value;
    if (shs_unpack_str(bytes, len, "k", text, room))
        CHECK(strnlen(text, room), <, room);
    shs_unpack_uint(bytes, len, "k", &value);
    free(text);
    free(bytes);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv, 60);
    struct rng r = rng_of(1);
    short_forms();
    too_long();
    for (int i = 0; i < 2000; i++)
        there_and_back(&r);
    for (int i = 0; i < 200000; i++)
        hostile(&r);
    return 0;
}
