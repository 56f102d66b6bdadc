/*
 * Purpose: the library goes along into the programs that are executed. Where the environment of one lacks the library, the program gets a
 * copy with LD_PRELOAD, and with the SHAREDSTACK_* settings of this process's start that it lacks, so that it joins the same stack; unless
 * the user says otherwise: SHAREDSTACK_FOLLOW=0 in this process or in that environment, or an LD_PRELOAD that is there and empty.
 * Who may call: shs_follow_start at start; shs_follow_command where malloc may be called; the rest any thread, in a signal handler, in a
 * forked child and in a vfork child too. No locks. What they read was written at start; what they write is the caller's stack, or mapped
 * where that would take too much of it.
 */
#pragma once
#include "preload/types.h"

/* What the environment of a program will say of the library. */
struct shs_preload {
    enum {
        SHS_PRELOAD_NOT,   /* nothing: the program is outside */
        SHS_PRELOAD_THERE, /* its LD_PRELOAD names it */
        SHS_PRELOAD_ADD,   /* it will, by shs_follow */
    } how;
    bool same;        /* it will be of our stack */
    const char *word; /* of LD_PRELOAD, that names it; not terminated */
    size_t len;
};

/* Remember by which name this process got the library, and its settings: programs write over their first environment. */
void shs_follow_start(void);
struct shs_preload shs_preload_of(char *const *envp);
/* Call `run` with a copy of the environment to which is added what it lacks; what that returns, or -ENOMEM. */
long shs_follow(char *const *envp, long (*run)(const void *what, char *const *envp), const void *what);
/* A command that has a shell of libc's become one that is followed, and does `command`; by malloc. NULL: it cannot be had. */
char *shs_follow_command(const char *command);
/* In the parent: its vfork child has executed, and needs no mapped copy any more. */
void shs_follow_executed(void);
