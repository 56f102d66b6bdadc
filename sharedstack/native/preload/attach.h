/*
 * Purpose: map the stack of this user: lent by the helper, or found by name where no helper answers. Called by member.c, under its lock.
 * Nothing here outlives a failure: every descriptor is closed, every mapping undone.
 */
#pragma once
#include "shm/stack.h"

/* Fill in env (maps, slot, sockets): REASON_NONE, or why not. `fd` is a socket of the network namespace in question. */
int shs_attach_segments(struct shs_env *env, const char *stack_name, int fd);
/* Tell the helper, if there is one, that slot `slot` was taken without its knowing. */
void shs_nudge(const char *stack_name, uint32_t slot);
