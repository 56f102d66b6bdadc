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
#define ELF_CLASS ELFCLASS64
#else
#define ELF_CLASS ELFCLASS32
#endif
#if defined(__x86_64__)
#define ELF_MACHINE EM_X86_64
#define OTHER_MACHINE EM_386
#elif defined(__i386__)
#define ELF_MACHINE EM_386
#define OTHER_MACHINE EM_X86_64
#elif defined(__aarch64__)
#define ELF_MACHINE EM_AARCH64
#define OTHER_MACHINE EM_NONE
#else
#define ELF_MACHINE EM_NONE
#define OTHER_MACHINE EM_NONE
#endif
/* Where the loader of programs of the other class looks for $LIB on this host: the build knows it where it made the library for both. */
#ifndef SHS_OTHER_LIB
#define SHS_OTHER_LIB ""
#endif

union elf_header {
    unsigned char ident[EI_NIDENT];
    Elf64_Ehdr wide;
    Elf32_Ehdr narrow;
};

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

/* Does the dynamic linker load it? */
static bool is_dynamic(int fd, const union elf_header *head)
{
    bool wide = head->ident[EI_CLASS] == ELFCLASS64;
    uint64_t at = wide ? head->wide.e_phoff : head->narrow.e_phoff;
    unsigned n = wide ? head->wide.e_phnum : head->narrow.e_phnum;
    unsigned size = wide ? head->wide.e_phentsize : head->narrow.e_phentsize;
    if (size != (wide ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr)))
        return false;
    for (unsigned i = 0; i < n; i++) {
        uint32_t type; /* is the first of either */
        if (read_at(fd, &type, sizeof type, at + (uint64_t)i * size) != sizeof type)
            return false;
        if (type == PT_INTERP)
            return true;
    }
    return false;
}

/* Is there a library of the other class where its loader will look for that word of LD_PRELOAD? */
static bool has_other(const struct shs_preload *preload)
{
    static const char lib[] = "$LIB", other[] = SHS_OTHER_LIB;
    char path[4096];
    const char *at = memmem(preload->word, preload->len, lib, sizeof lib - 1);
    if (!at || !*other || preload->len + sizeof other > sizeof path)
        return false;
    size_t before = (size_t)(at - preload->word), after = preload->len - before - (sizeof lib - 1);
    char *end = mempcpy(mempcpy(mempcpy(path, preload->word, before), other, sizeof other - 1), at + sizeof lib - 1, after);
    *end = 0;
    return SHS_SYS(syscall(SYS_faccessat, AT_FDCWD, path, R_OK)) == 0;
}

/* Of our class, or of the other one. */
static bool has_library(const union elf_header *head, const struct shs_preload *preload)
{
    unsigned machine = head->wide.e_machine; /* at the same place in either */
    if (head->ident[EI_CLASS] == ELF_CLASS)
        return machine == ELF_MACHINE;
    return machine == OTHER_MACHINE && machine != EM_NONE && has_other(preload);
}

/* The program's file, to be read: what was opened by O_PATH is opened again. */
static int open_program(const char *path, int fd)
{
    char own[32];
    if (!path && fd < 0)
        return fd;
    snprintf(own, sizeof own, "/proc/self/fd/%d", fd);
    return (int)SHS_SYS(syscall(SYS_openat, AT_FDCWD, path ? path : own, O_RDONLY | O_CLOEXEC));
}

bool shs_outside_program(const char *path, int fd, const struct shs_preload *preload)
{
    char line[256];
    union elf_header head;
    for (int i = 0; i < SCRIPTS; i++) {
        int file = open_program(path, fd);
        if (file < 0)
            return file == -EACCES || (!path && fd >= 0); /* a program that may be executed but not read, or no /proc */
        long n = read_at(file, line, sizeof line - 1, 0);
        bool script = n > 2 && line[0] == '#' && line[1] == '!', outside = false;
        if (!script) { /* neither: a shell will read it */
            bool elf = read_at(file, &head, sizeof head, 0) >= (long)sizeof head.narrow && !memcmp(head.ident, ELFMAG, SELFMAG);
            outside = elf && (privileged(file) || !has_library(&head, preload) || !is_dynamic(file, &head));
        }
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
