/*
 * Purpose: one question to the helper, and its answer: a packet each way on its control socket, with descriptors beside them.
 * Who may call: any thread, in no lock of shared memory; it waits for the answer.
 */
#pragma once
#include "preload/msgpack.h"

#include <sys/socket.h>
#include <sys/un.h>

#define SHS_ASK_FDS 32
#define SHS_ANSWER_MS 200 /* a helper that is stopped, or has much to do, does not stop programs for longer */

struct shs_answer {
    uint8_t bytes[SHS_MAX_MESSAGE];
    size_t len;
    char type[16]; /* name of the message */
    int fd[SHS_ASK_FDS];
    uint32_t n_fds; /* the caller's to close */
};

/* Begin a message: version, name, and room for so many fields more. */
void shs_ask_begin(struct shs_pack *pack, const char *name, unsigned fields);
/* Address of the helper of that stack and user, or of its socket with that suffix. */
socklen_t shs_ask_address(struct sockaddr_un *sun, const char *stack_name, const char *suffix);
/*
 * Send the message, and `fd` with it (-1: none), and wait for the answer for so many milliseconds, -1: as long as the helper lives. 0, or
 * -errno: there is no helper, it is another user's, it does not answer, or has died.
 */
long shs_ask(const char *stack_name, const struct shs_pack *pack, int fd, int ms, struct shs_answer *answer);
/* What is asked for may be given up while the helper has not begun with it: `give_up` says whether it was. NULL: it is never. */
struct shs_patience {
    bool (*give_up)(void *arg);
    void *arg;
};
/*
 * The same as long as the helper lives, and again while so many ask that it does not take another one. With `patience`: for SHS_ANSWER_MS,
 * and if it is given up by then, -ETIMEDOUT; else on as without.
 */
long shs_ask_patiently(const char *stack_name, const struct shs_pack *pack, int fd, const struct shs_patience *patience,
                       struct shs_answer *answer);
