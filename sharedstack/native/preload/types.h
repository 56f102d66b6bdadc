/* Purpose: the headers whose types the intercepted functions use. Included by the generated prototypes. */
#pragma once
#include "common.h"

#include <aio.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <termios.h>
#include <unistd.h>
#include <utmp.h>

#if __SIZEOF_POINTER__ == 4
/* What libc's functions for 64-bit time take, whatever this library is built for. */
struct shs_timespec64 {
    int64_t tv_sec;
    int32_t tv_nsec, pad;
};

struct shs_timeval64 {
    int64_t tv_sec, tv_usec;
};
#endif
