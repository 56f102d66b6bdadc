/*
 * Purpose: one question to the helper, and its answer: a packet each way on its control socket, with descriptors beside them.
 * Who may call: any thread, in no lock of shared memory; it waits for the answer.
 */
#pragma once
#include "preload/msgpack.h"

#include <sys/socket.h>
#include <sys/un.h>

#define SHS_ASK_FDS 32

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
/* The same as long as the helper lives, and again while so many ask that it does not take another one. */
long shs_ask_patiently(const char *stack_name, const struct shs_pack *pack, int fd, struct shs_answer *answer);
