/* Purpose: the two halves of vfork in C, called by vfork.S in the parent's thread. Nobody else may call them. */
#pragma once
#include <sys/types.h>

void shs_vfork_begin(void);
/* In the parent: the wrappers work again; turns -errno into errno. */
long shs_vfork_end(long r);
#if !defined(__x86_64__) && !defined(__i386__)
pid_t vfork(void);
pid_t __vfork(void);
#endif
