/*
 * Purpose: residue, that is bytes in a ring when its descriptor goes to a holder outside the library, who reads natively: they are sent
 * again on the writer's descriptor, before anything else (docs/internals/protocol.md, Residue).
 * Who may call: recall: a holder of the reading end that takes no locks meanwhile; send: whoever holds wlock and a descriptor of the writing
 * end. When the caller dies: every phase goes on from the direction's fields, by whoever comes next to the lock.
 */
#pragma once
#include "endpoint/end.h"

/*
 * The reading end goes, or has gone, to an outside holder: nothing is pushed to it any more, and what is in its ring becomes residue, with
 * the kernel bytes behind it taken out into shared memory. As much as the kernel takes is sent again at once, if a descriptor of the writer can
 * be had. 0: done, or the writer's next call does the rest; -EPIPE: nothing can be sent again, the ring is as it was but STICKY; -EAGAIN,
 * -ENOMEM: not now, nothing has changed for the reader but STICKY.
 * `surely`: -EPIPE also where the writer's descriptor cannot be had.
 */
long shs_end_recall(struct shs_env *env, const struct shs_who *who, struct shs_end *end, bool surely);
/*
 * The sending direction of `end` is about to be shut, and its writer to stay: what is unread in its ring becomes residue, as if its reader had
 * recalled it, whose descriptor is fetched for that. Where it cannot be, the ring keeps it, for a reader of the stack.
 */
void shs_end_recall_own(struct shs_env *env, const struct shs_who *who, struct shs_end *end);
/* Under rlock: take out what is still missing of the kernel bytes that belong to the residue; false: not all is there yet. */
bool shs_residue_collect(struct shs_env *env, struct shs_direction *dir, int fd);
/*
 * Under rlock, when the kernel's stream has ended, and `taken` is all of it: what its writer could not send again any more, as much as there is
 * room for: bytes, and ksent grows as if they had been sent; `peek`: it does not. 0: there is nothing left.
 */
size_t shs_residue_read(struct shs_env *env, const struct shs_who *who, struct shs_direction *dir, struct shs_cursor *cur, bool peek);
/* Under wlock, and with ksent certain: send the residue by the kernel, without waiting: 0: nothing is left; -EAGAIN; or -errno. */
long shs_residue_send(struct shs_env *env, const struct shs_who *who, struct shs_direction *dir, int fd);
/* Before the writing end closes, shuts down or goes to an outside holder: wait until the residue is sent, `most_ms` at most. */
void shs_residue_finish(struct shs_env *env, const struct shs_who *who, struct shs_end *end, int most_ms);

/* Under both locks: give back what a recall took that did not come to its end. */
void shs_residue_tidy(struct shs_env *env, struct shs_direction *dir, uint32_t me);

/* A copy of a descriptor of that endpoint's socket, from whichever process has one: a descriptor, or -errno. */
int shs_borrow(struct shs_env *env, const struct shs_endpoint *ep);
