/*
 * Purpose: a stand-in, that is a socket which takes the place of a connection whose other end is gone, where its ring holds what nobody can send
 * again and a program outside is about to get the descriptor: what is unread comes out of the kernel then, and after it the end of the stream.
 * It has the connection's options and its own address; its peer's address is the peer's, but for the port.
 * Who may call: the handlers of calls by which a descriptor gets outside, before it is marked as shared, in no lock.
 */
#pragma once
#include "preload/process.h"

/* Replace the socket of fd, whose entry is f (NULL: none), wherever this process has it, if that is so (true). Where it cannot be done nothing has
 * changed. What other processes have too stays as it is, since they may read there still; but where `leaves`, this one will not, and they and the
 * stand-in have the bytes. */
bool shs_stand_in(struct shs_fd *f, int fd, bool leaves);
/* The process is about to be another program, which gets end->fd: replace that number, if that is so (true). Who else has the socket has what is unread
 * too. */
bool shs_stand_in_alone(struct shs_end *end);
/* Put the socket of `by` in the place of fd, which is closed by exec as it was. */
void shs_stand_in_put(int by, int fd);
