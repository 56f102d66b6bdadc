/*
 * Will a program that is to be executed be preloaded, if its environment says so? Not if it is static, of another architecture, or
 * privileged: then the dynamic linker takes no path from LD_PRELOAD (ld.so(8), secure-execution mode). In a vfork child too: no memory is
 * allocated.
 */
#include "common.h"

#include <elf.h>
#include <stdlib.h>

#include "preload/outside.h"
#include "shm/sys.h"

#define SCRIPTS 4 /* interpreters of interpreters */

#if __SIZEOF_POINTER__ == 8
typedef Elf64_Ehdr elf_header;
typedef Elf64_Phdr elf_segment;
#define ELF_CLASS ELFCLASS64
#else
typedef Elf32_Ehdr elf_header;
typedef Elf32_Phdr elf_segment;
#define ELF_CLASS ELFCLASS32
#endif
#if defined(__x86_64__)
#define ELF_MACHINE EM_X86_64
#elif defined(__i386__)
#define ELF_MACHINE EM_386
#elif defined(__aarch64__)
#define ELF_MACHINE EM_AARCH64
#else
#define ELF_MACHINE EM_NONE
#endif

static bool privileged(int fd)
{
    struct shs_stat st;
    uint8_t caps[64];
    if (getuid() != geteuid() || getgid() != getegid())
        return true; /* whatever is executed is */
    if (shs_sys_stat(fd, "", &st) != 0)
        return true;
    if ((st.mode & 04000) && st.uid != (uint32_t)getuid())
        return true;
    return (st.mode & 02010) == 02010 || SHS_SYS(syscall(SYS_fgetxattr, fd, "security.capability", caps, sizeof caps)) > 0;
}

static long read_at(int fd, void *to, size_t len, uint64_t at)
{
    return SHS_SYS(pread(fd, to, len, (off_t)at));
}

/* An ELF file that the dynamic linker loads, of our kind. */
static bool is_dynamic(int fd, const elf_header *head)
{
    if (head->e_ident[EI_CLASS] != ELF_CLASS || head->e_machine != ELF_MACHINE || head->e_phentsize != sizeof(elf_segment))
        return false;
    for (unsigned i = 0; i < head->e_phnum; i++) {
        elf_segment segment;
        if (read_at(fd, &segment, sizeof segment, head->e_phoff + i * sizeof segment) != sizeof segment)
            return false;
        if (segment.p_type == PT_INTERP)
            return true;
    }
    return false;
}

bool shs_outside_program(const char *path, int fd)
{
    char line[256];
    elf_header head;
    for (int i = 0; i < SCRIPTS; i++) {
        int file = path ? (int)SHS_SYS(syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC)) : fd;
        if (file < 0)
            return file == -EACCES; /* a program that may be executed but not read */
        long n = read_at(file, line, sizeof line - 1, 0);
        bool script = n > 2 && line[0] == '#' && line[1] == '!', outside = false;
        if (!script) { /* neither: a shell will read it */
            bool elf = read_at(file, &head, sizeof head, 0) == sizeof head && !memcmp(head.e_ident, ELFMAG, SELFMAG);
            outside = elf && (privileged(file) || !is_dynamic(file, &head));
        }
        if (path)
            shs_sys_close(file);
        if (!script)
            return outside;
        line[n] = 0;
        char *name = line + 2 + strspn(line + 2, " \t");
        name[strcspn(name, " \t\n")] = 0;
        memmove(line, name, strlen(name) + 1);
        path = line;
    }
    return true;
}

bool shs_find_program(const char *name, char *found, size_t room)
{
    const char *dirs = getenv("PATH");
    size_t len = strlen(name);
    if (strchr(name, '/')) {
        if (len < room)
            memcpy(found, name, len + 1);
        return len < room;
    }
    for (const char *dir = dirs ? dirs : "/bin:/usr/bin"; *name; dir++) {
        size_t n = strcspn(dir, ":");
        if (n + len + 2 <= room) {
            memcpy(found, dir, n);
            found[n] = '/';
            memcpy(found + n + (n > 0), name, len + 1); /* an empty one: here */
            if (SHS_SYS(syscall(SYS_faccessat, AT_FDCWD, found, X_OK)) == 0)
                return true;
        }
        dir += n;
        if (!*dir)
            break;
    }
    return false;
}
