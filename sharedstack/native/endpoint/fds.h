/* Purpose: keep the library's own descriptors out of the program's way: high numbers, close-on-exec. Anybody may call. */
#pragma once
#include <stdbool.h>

/* Move fd up (the old number is closed); a negative fd is returned as it is. Returns the new number, or fd where there is no room above. */
int shs_fd_high(int fd);
/* Is it one of ours? The program may not close it, knowing nothing of it. */
bool shs_fd_own(int fd);
/* Close one of ours. */
void shs_fd_drop(int fd);
