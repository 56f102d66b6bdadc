/* Purpose: a process that has set up io_uring (aside.c). Called by the gate, in no lock of shared memory, when an entry has just been registered. */
#pragma once
#include "preload/process.h"

void shs_registered_aside(struct shs_fd *f);
