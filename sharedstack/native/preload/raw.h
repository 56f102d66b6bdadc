/*
 * Purpose: system calls that a program makes by syscall(), where the library has a say: each goes to the library's own function for that
 * call, with the system call's own arguments and meaning (declare/raw.py, from which the table in raw.gen.h is made).
 * Who may call: shs_i_syscall, in no lock. The handlers return a value or -errno; they are no cancellation points, as syscall() is none.
 * A process that dies in one died in the library's function.
 */
#pragma once
#include "preload/process.h"

/* A system call: its number and arguments, as libc's syscall() takes them. */
struct shs_raw {
    long number;
    long arg[6];
    const struct shs_raw *made; /* what the program made in order to make this one (socketcall); NULL: this one */
};

/* The program's own system call, as it made it. */
long shs_raw_plain(const struct shs_raw *c);

/* Handlers of arguments that are not those of libc's function. */
long shs_raw_preadv2(const struct shs_raw *c);
long shs_raw_pwritev2(const struct shs_raw *c);
long shs_raw_fcntl(const struct shs_raw *c);
long shs_raw_ppoll(const struct shs_raw *c);
long shs_raw_select(const struct shs_raw *c);
long shs_raw_pselect6(const struct shs_raw *c);
long shs_raw_epoll_pwait(const struct shs_raw *c);
long shs_raw_epoll_pwait2(const struct shs_raw *c);
long shs_raw_rt_sigaction(const struct shs_raw *c);
long shs_raw_clone(const struct shs_raw *c);
long shs_raw_io_uring_setup(const struct shs_raw *c);
long shs_raw_io_submit(const struct shs_raw *c);
/* Another user, another network, confined: preload/identity.c */
long shs_raw_seccomp(const struct shs_raw *c);
long shs_raw_unshare(const struct shs_raw *c);
long shs_raw_setns(const struct shs_raw *c);
long shs_raw_setuid(const struct shs_raw *c);
#if __SIZEOF_POINTER__ == 4
long shs_raw_socketcall(const struct shs_raw *c);
long shs_raw_recvmmsg64(const struct shs_raw *c);
long shs_raw_ppoll64(const struct shs_raw *c);
long shs_raw_select_packed(const struct shs_raw *c);
long shs_raw_pselect64(const struct shs_raw *c);
#endif
