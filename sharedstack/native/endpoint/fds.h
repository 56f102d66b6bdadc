/* Purpose: keep the library's own descriptors out of the program's way: high numbers, close-on-exec. Anybody may call. */
#pragma once
#include <stdbool.h>

/* Move fd up (the old number is closed); a negative fd is returned as it is. Returns the new number, or fd where there is no room above. */
int shs_fd_high(int fd);
/* Is it one of ours? The program may not close it, knowing nothing of it. */
bool shs_fd_own(int fd);
/* Close one of ours. */
void shs_fd_drop(int fd);

/*
 * Making way for a program that wants one of our numbers (dup2): copy the descriptor to another number, store that where the number is kept, wait
 * until nobody is using what he had loaded before, and let the old number go. Who writes to one of ours loads its number between begin and end.
 */
void shs_fd_begin(void);
void shs_fd_end(void);
/* The copy's number, or -errno. */
int shs_fd_copy(int fd);
/* false: a second was not enough (a signal handler interrupted the user). */
bool shs_fd_wait_unused(void);
/* The number is not ours any more. */
void shs_fd_leave(int fd);
/* In a forked child: the other threads' uses stayed with the parent. */
void shs_fd_forked(void);
