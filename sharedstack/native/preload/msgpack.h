/*
 * Purpose: the little of msgpack (its specification: maps, strings, integers) that one attach message and its answer need.
 * Who may call: attach. Reading is bounded by the given length; what is malformed is not found.
 */
#pragma once
#include "common.h"

struct shs_pack {
    uint8_t bytes[256];
    size_t len;
};

void shs_pack_map(struct shs_pack *pack, unsigned entries);
void shs_pack_str(struct shs_pack *pack, const char *text);
void shs_pack_uint(struct shs_pack *pack, uint64_t value);
/* The value of `key` in the map at `bytes`: false if there is none of that type. Text is cut to fit, and ends with zero. */
bool shs_unpack_str(const uint8_t *bytes, size_t len, const char *key, char *text, size_t room);
bool shs_unpack_uint(const uint8_t *bytes, size_t len, const char *key, uint64_t *value);
