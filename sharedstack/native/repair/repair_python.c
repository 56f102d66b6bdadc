/* For the helper (ctypes). */
#include "repair/repair.h"

SHS_PUBLIC int shs_native_repair_begin(int fd);
SHS_PUBLIC int shs_native_repair_begin(int fd)
{
    return shs_repair_begin(fd);
}

SHS_PUBLIC int shs_native_repair_end(int fd, int reuse, const void *fresh, uint32_t n);
SHS_PUBLIC int shs_native_repair_end(int fd, int reuse, const void *fresh, uint32_t n)
{
    return (int)shs_repair_end(fd, reuse, fresh, n);
}

SHS_PUBLIC int shs_native_repair_read(int fd, struct shs_tcp_image *image);
SHS_PUBLIC int shs_native_repair_read(int fd, struct shs_tcp_image *image)
{
    return shs_repair_read(fd, image);
}

SHS_PUBLIC int shs_native_repair_write(int fd, const struct shs_tcp_image *image, const void *unsent, uint32_t n_unsent, const void *unread,
                                       uint32_t n_unread);
SHS_PUBLIC int shs_native_repair_write(int fd, const struct shs_tcp_image *image, const void *unsent, uint32_t n_unsent, const void *unread,
                                       uint32_t n_unread)
{
    return (int)shs_repair_write(fd, image, unsent, n_unsent, unread, n_unread);
}
