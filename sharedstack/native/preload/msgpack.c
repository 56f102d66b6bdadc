#include "preload/msgpack.h"

static void put(struct shs_pack *pack, const void *bytes, size_t len)
{
    if (pack->len + len <= sizeof pack->bytes) {
        memcpy(pack->bytes + pack->len, bytes, len);
        pack->len += len;
    }
}

void shs_pack_map(struct shs_pack *pack, unsigned entries)
{
    uint8_t head = (uint8_t)(0x80 | entries);
    put(pack, &head, 1);
}

void shs_pack_str(struct shs_pack *pack, const char *text)
{
    uint8_t head = (uint8_t)(0xa0 | strlen(text));
    put(pack, &head, 1);
    put(pack, text, strlen(text));
}

void shs_pack_uint(struct shs_pack *pack, uint64_t value)
{
    uint8_t bytes[9] = {0xcf};
    for (int i = 0; i < 8; i++)
        bytes[1 + i] = (uint8_t)(value >> (56 - 8 * i));
    put(pack, bytes, sizeof bytes);
}

struct item {
    enum { NOTHING, STR, UINT, MAP } type;
    const uint8_t *text;
    uint64_t value; /* number, length of the text, or entries of the map */
};

static uint64_t big_endian(const uint8_t *p, size_t n)
{
    uint64_t v = 0;
    while (n--)
        v = v << 8 | *p++;
    return v;
}

/* One item at *at; moves *at behind it. Only what our messages contain is understood. */
static struct item next_item(const uint8_t **at, const uint8_t *end)
{
    struct item none = {NOTHING, NULL, 0};
    if (*at >= end)
        return none;
    uint8_t head = *(*at)++;
    size_t left = (size_t)(end - *at), width = 0;
    struct item item = none;
    if (head < 0x80) {
        item = (struct item){UINT, NULL, head};
    } else if (head < 0x90) {
        item = (struct item){MAP, NULL, head & 15};
    } else if (head >= 0xe0) {
        item = (struct item){UINT, NULL, (uint64_t)(int64_t)(int8_t)head};
    } else if (head == 0xc2 || head == 0xc3) {
        item = (struct item){UINT, NULL, head & 1};
    } else if ((head & 0xe0) == 0xa0) {
        item = (struct item){STR, *at, head & 31};
    } else if (head == 0xd9 || head == 0xda) {
        width = head == 0xd9 ? 1 : 2;
        if (left < width)
            return none;
        item = (struct item){STR, *at + width, big_endian(*at, width)};
    } else if ((head >= 0xcc && head <= 0xcf) || (head >= 0xd0 && head <= 0xd3)) {
        width = (size_t)1 << (head & 3);
        if (left < width)
            return none;
        uint64_t v = big_endian(*at, width);
        unsigned unused = 64 - 8 * (unsigned)width;
        item = (struct item){UINT, NULL, head >= 0xd0 ? (uint64_t)((int64_t)(v << unused) >> unused) : v};
    }
    size_t skip = width + (item.type == STR ? item.value : 0);
    if (item.type == NOTHING || skip > left)
        return none;
    *at += skip;
    return item;
}

static struct item find(const uint8_t *bytes, size_t len, const char *key)
{
    const uint8_t *at = bytes, *end = bytes + len;
    struct item map = next_item(&at, end);
    for (uint64_t i = 0; map.type == MAP && i < map.value; i++) {
        struct item name = next_item(&at, end), value = next_item(&at, end);
        if (name.type != STR || value.type == NOTHING || value.type == MAP)
            break;
        if (name.value == strlen(key) && !memcmp(name.text, key, name.value))
            return value;
    }
    return (struct item){NOTHING, NULL, 0};
}

bool shs_unpack_str(const uint8_t *bytes, size_t len, const char *key, char *text, size_t room)
{
    struct item item = find(bytes, len, key);
    if (item.type != STR)
        return false;
    size_t n = item.value < room - 1 ? (size_t)item.value : room - 1;
    memcpy(text, item.text, n);
    text[n] = 0;
    return true;
}

bool shs_unpack_uint(const uint8_t *bytes, size_t len, const char *key, uint64_t *value)
{
    struct item item = find(bytes, len, key);
    if (item.type == UINT)
        *value = item.value;
    return item.type == UINT;
}
