/* Purpose: the library's descriptors make way for the program's. Called in no lock, by dup2 and dup3. */
#pragma once

/* The program is about to have this number: 0, or -EBUSY (dup2(2): a race with open) where a descriptor of ours cannot be moved now. */
int shs_make_way(int fd);
