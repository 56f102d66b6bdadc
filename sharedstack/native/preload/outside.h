/*
 * Purpose: holders outside the library: what reads and writes a descriptor natively, unseen. Before one gets a lifted socket the connection
 * is lowered for good, and what is in its ring is sent again by the kernel (endpoint/residue.h).
 * Who may call: the handlers of calls by which a descriptor gets there, in no lock; in a vfork child too, which stands for its parent's
 * thread until it executes.
 */
#pragma once
#include <stdarg.h>
#include <stdio.h>

#include "preload/follow.h"
#include "preload/process.h"

#define SHS_FINISH_MS 10000 /* how long a call waits for residue that is to be sent before it */

/* The socket of an entry goes, or may go, to an outside holder, or, of datagrams, to any other one: 0; -EAGAIN or -ENOMEM: it must not, now; -EPIPE: what is in the ring cannot be
 * sent again, only received here (`surely`: nor by somebody else later). */
long shs_hand_over(struct shs_fd *f, uint32_t why, bool surely);
/* What only we can receive goes back into a stream of stdio's on fd, to be read first: what is in the ring of an end whose writer is gone, datagrams
 * that could not be sent again, and what was kept. */
void shs_push_back(struct shs_fd *f, int fd, FILE *file);
/* Another program is to be executed in this process, or in a child of it: hand over what it will use natively. Its file is `path`, or that of the
 * open descriptor `fd` where path is NULL, or (`search`) looked for in PATH. `stays`: in a child. `preload` is what its environment will say;
 * SHS_PRELOAD_NOT afterwards where the program cannot have the library. 0 or -errno. */
long shs_before_exec(const char *path, int fd, bool search, bool stays, struct shs_preload *preload);
/* The process is about to leave its stack: what is unread in rings that it shares with others goes to the kernel, or to a stand-in. (Of its own ones
 * shs_leave takes care, but where their writer is gone.) */
void shs_before_leaving(void);
/* A shell is to be executed by libc. */
long shs_before_shell(struct shs_preload *preload);
/* Will the library not be in the program of that file (`path`, or NULL and `fd`), though its environment names it so? */
bool shs_outside_program(const char *path, int fd, const struct shs_preload *preload);
/* Where execvp(3) finds a program: false, and it finds none. */
bool shs_find_program(const char *name, char *found, size_t room);
/* Who has the other end of a Unix socket: PLAIN is known to be without the library, of another stack or another user's. (Of a socketpair it is not
 * known who has it.) Unless `closely`, it is told by the user alone, which costs little. */
enum shs_receiver { SHS_RECEIVER_ANY, SHS_RECEIVER_PLAIN, SHS_RECEIVER_HELPER } shs_receiver(int over, bool closely);
/* The connection goes, or has gone, to a process that nobody can be sure to find: it is the kernel's for good, lifted before or not. */
void shs_gone_abroad(int fd);
/* execl, execlp (`search`) and execle (`env`): -1 and errno, as they. */
int shs_exec_list(const char *path, const char *arg, va_list args, bool search, bool env);
