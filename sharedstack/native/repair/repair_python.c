/* For the helper (ctypes). */
#include "repair/repair.h"

SHS_PUBLIC int shs_native_repair_begin(int fd);
SHS_PUBLIC int shs_native_repair_begin(int fd)
{
    return shs_repair_begin(fd);
}

SHS_PUBLIC int shs_native_repair_end(int fd, const void *fresh, uint32_t n);
SHS_PUBLIC int shs_native_repair_end(int fd, const void *fresh, uint32_t n)
{
    return (int)shs_repair_end(fd, fresh, n);
}

SHS_PUBLIC int shs_native_repair_read(int fd, struct shs_tcp_image *image, uint64_t now);
SHS_PUBLIC int shs_native_repair_read(int fd, struct shs_tcp_image *image, uint64_t now)
{
    return shs_repair_read(fd, image, now);
}

SHS_PUBLIC int shs_native_repair_write(int fd, const struct shs_tcp_image *image, const void *unsent, uint32_t n_unsent, const void *unread,
                                       uint32_t n_unread, uint64_t now);
SHS_PUBLIC int shs_native_repair_write(int fd, const struct shs_tcp_image *image, const void *unsent, uint32_t n_unsent, const void *unread,
                                       uint32_t n_unread, uint64_t now)
{
    return (int)shs_repair_write(fd, image, unsent, n_unsent, unread, n_unread, now);
}
