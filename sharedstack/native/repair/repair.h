/*
 * Purpose: a live TCP connection of the kernel's as an image for the engine, and back on the same descriptor, by TCP_REPAIR (tcp(7),
 * linux/tcp.h). Who may call: the helper, which has CAP_NET_ADMIN; one thread at a time for a connection.
 *
 *     reuse = shs_repair_begin(fd);   the kernel sends nothing of its own accord to a peer any more, but for what its timers and its input ask for
 *     <its packets are steered to the engine, and no CPU handles one still>
 *     shs_repair_read(fd, &image);    -EAGAIN: something is queued or not acknowledged: steer back, shs_repair_end(fd, reuse, NULL, 0), try again later
 *     ...                             the engine has it
 *     shs_repair_write(fd, &image, …) the descriptor is the connection again; still in repair
 *     <its packets are steered back>
 *     shs_repair_end(fd, …);
 *
 * When the caller dies between begin and end the connection stays in repair, which its descriptor's next user ends.
 */
#pragma once
#include "common.h"
#include "layout.gen.h"

/* What shs_repair_end is to restore (SO_REUSEADDR, which the kernel forgets over this), or -errno; -EPERM: no CAP_NET_ADMIN. */
int shs_repair_begin(int fd);
/* Silently: no window probe. `fresh`: bytes behind those of the send queue, which nobody has sent yet; the kernel sends them now. 0 or more, or -errno. */
long shs_repair_end(int fd, int reuse, const void *fresh, uint32_t n);

/* In repair: what the kernel knows of the connection. Queues of the image are the caller's to set. 0; -EAGAIN: see above; -ENOTCONN: it is not (any
 * more) established, or half of it is closed; or -errno. The engine's clock is CLOCK_MONOTONIC. */
int shs_repair_read(int fd, struct shs_tcp_image *image);

/*
 * In repair: makes the descriptor the connection of the image, with `unread` in its receive queue, and in its send queue what was sent (up to
 * image.snd_nxt) and is not acknowledged. Returns how many of `unsent` that are, the rest being for shs_repair_end: in repair the kernel counts as sent
 * what it is given, and would send it only when its timer ends. Or -errno: the descriptor is of no use then.
 */
long shs_repair_write(int fd, const struct shs_tcp_image *image, const void *unsent, uint32_t n_unsent, const void *unread,
                      uint32_t n_unread);
