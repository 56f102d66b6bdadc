/* Purpose: keep the library's own descriptors out of the program's way: high numbers, close-on-exec. Anybody may call. */
#pragma once
/* Move fd up (the old number is closed); a negative fd is returned as it is. Returns the new number, or fd where there is no room above. */
int shs_fd_high(int fd);
