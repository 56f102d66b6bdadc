#include "preload/follow.h"

#include <alloca.h>
#include <link.h>
#include <sys/mman.h>

#include "preload/process.h"
#include "shm/sys.h"

#define PRELOAD "LD_PRELOAD="
#define PRELOAD_LEN (sizeof PRELOAD - 1)
#define SETTING "SHAREDSTACK_"
#define SETTING_LEN (sizeof SETTING - 1)
#define SHELL "; exec /bin/sh -c "
#define ON_STACK 4096          /* bytes of a copy: handlers may run on a small stack of their own */
#define LONGEST_COMMAND 100000 /* bytes; the kernel takes 128 KiB in one argument */

/* "LD_PRELOAD=WORD", then the settings, one behind the other; an empty one is the end. First empty: nothing is followed. */
static char known[8192];
static const char *file; /* that word's, as the loader found it */

static bool ours(const char *word, size_t len)
{
    static const char name[] = "libsharedstack";
    const char *slash = memrchr(word, '/', len), *base = slash ? slash + 1 : word;
    if (*known && len == strlen(known + PRELOAD_LEN) && !memcmp(word, known + PRELOAD_LEN, len))
        return true;
    return len - (size_t)(base - word) >= sizeof name - 1 && !memcmp(base, name, sizeof name - 1);
}

/* The word of a value of LD_PRELOAD that names the library; NULL: none does. */
static const char *find_word(const char *value, size_t *len)
{
    for (; value && *value; value += *len) {
        value += strspn(value, " :");
        *len = strcspn(value, " :");
        if (*len && ours(value, *len))
            return value;
    }
    return NULL;
}

static int find_file(struct dl_phdr_info *info, size_t size, void *unused)
{
    (void)size, (void)unused;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        uintptr_t at = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
        if (info->dlpi_phdr[i].p_type == PT_LOAD && (uintptr_t)known - at < info->dlpi_phdr[i].p_memsz)
            file = info->dlpi_name;
    }
    return file != NULL;
}

/* Where the next one goes, or NULL: there is no room for all. */
static char *keep(char *at, const char *text, size_t len)
{
    if (!at || len + 2 > sizeof known - (size_t)(at - known))
        return NULL;
    memcpy(at, text, len);
    return at + len + 1;
}

void shs_follow_start(void)
{
    size_t len = 0;
    dl_iterate_phdr(find_file, NULL);
    const char *word = find_word(getenv("LD_PRELOAD"), &len);
    if (!word && file) {
        word = file;
        len = strlen(file);
    }
    char *at = word ? keep(known + PRELOAD_LEN, word, len) : NULL;
    for (char **one = environ; at && one && *one; one++)
        if (!strncmp(*one, SETTING, SETTING_LEN))
            at = keep(at, *one, strlen(*one));
    if (at && file)
        memcpy(known, PRELOAD, PRELOAD_LEN); /* last: until then it is empty */
}

/* Its place in the environment, `name` with its "="; of several the last, as for the loader. */
static char *const *place_of(char *const *envp, const char *name, size_t len)
{
    char *const *found = NULL;
    for (; envp && *envp; envp++)
        if (!strncmp(*envp, name, len))
            found = envp;
    return found;
}

static const char *value_of(char *const *envp, const char *name)
{
    size_t len = strlen(name);
    char *const *at = place_of(envp, name, len);
    return at ? *at + len : NULL;
}

/* Is that option set, and 0? */
static bool refused(char *const *envp, const char *name)
{
    const char *value = value_of(envp, name);
    return value && !strcmp(value, "0");
}

/* Does it name our stack, or, where it is silent, will it have our name added? */
static bool of_our_stack(char *const *envp, bool added)
{
    const char *name = value_of(envp, "SHAREDSTACK_STACK=");
    if (!name && added)
        return true;
    return !strncmp(name && *name ? name : SHS_DEFAULT_STACK, shs_proc.stack_name, SHS_MAX_STACK_NAME);
}

/* Not if it is refused. Nor if it was removed, or is out of reach by now: the loader would say so to the user. */
static bool may_add(char *const *envp, const char *value)
{
    return *known && shs_proc.env.opt.follow && !(value && !*value) && !refused(envp, "SHAREDSTACK_FOLLOW=") &&
           SHS_SYS(syscall(SYS_faccessat, AT_FDCWD, file, R_OK)) == 0;
}

struct shs_preload shs_preload_of(char *const *envp)
{
    struct shs_preload p = {.how = SHS_PRELOAD_NOT};
    const char *value = value_of(envp, PRELOAD);
    if (refused(envp, "SHAREDSTACK_ENABLE="))
        return p;
    p.word = find_word(value, &p.len);
    if (p.word) {
        p.how = SHS_PRELOAD_THERE;
    } else if (may_add(envp, value)) {
        p.how = SHS_PRELOAD_ADD;
        p.word = known + PRELOAD_LEN;
        p.len = strlen(p.word);
    }
    p.same = of_our_stack(envp, p.how == SHS_PRELOAD_ADD);
    return p;
}

/* What shs_follow needs for a copy, in bytes: the array, and behind it LD_PRELOAD where it names others too. */
struct size {
    size_t array, text;
};

static struct size size_of(char *const *envp)
{
    char *const *preload = place_of(envp, PRELOAD, PRELOAD_LEN);
    size_t n = 1;
    for (char *const *one = envp; one && *one; one++)
        n++;
    for (const char *one = known; *one; one += strlen(one) + 1)
        n++;
    return (struct size){n * sizeof *envp, preload ? strlen(known) + strlen(*preload) + 2 : 0};
}

static void fill(char **copy, char *const *envp, char *text)
{
    char *const *preload = place_of(envp, PRELOAD, PRELOAD_LEN);
    size_t n = 0, len = strlen(known);
    for (char *const *one = envp; one && *one; one++)
        copy[n++] = *one;
    if (preload) { /* before the others, as `sharedstack run` does */
        memcpy(text, known, len);
        text[len] = ':';
        memcpy(text + len + 1, *preload + PRELOAD_LEN, strlen(*preload + PRELOAD_LEN) + 1);
        copy[preload - envp] = text;
    } else {
        copy[n++] = known;
    }
    for (char *one = known + len + 1; *one; one += strlen(one) + 1)
        if (!place_of(envp, one, strcspn(one, "=") + 1))
            copy[n++] = one;
    copy[n] = NULL;
}

static long follow_mapped(char *const *envp, const struct size *size, long (*run)(const void *what, char *const *envp), const void *what)
{
    struct shs_mapping m = {.len = size->array + size->text};
    m.at = mmap(NULL, m.len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (m.at == MAP_FAILED)
        return -ENOMEM;
    fill(m.at, envp, (char *)m.at + size->array);
    if (shs_self.vfork) /* where this succeeds it stays in the parent's memory */
        shs_self.lent = m;
    long r = run(what, m.at);
    shs_self.lent = (struct shs_mapping){0};
    munmap(m.at, m.len);
    return r;
}

long shs_follow(char *const *envp, long (*run)(const void *what, char *const *envp), const void *what)
{
    struct size size = size_of(envp);
    if (size.array + size.text > ON_STACK)
        return follow_mapped(envp, &size, run, what);
    char **copy = alloca(size.array + size.text);
    fill(copy, envp, (char *)copy + size.array);
    return run(what, copy);
}

void shs_follow_executed(void)
{
    struct shs_mapping m = shs_self.lent;
    if (SHS_LIKELY(!m.at))
        return;
    shs_self.lent = (struct shs_mapping){0};
    munmap(m.at, m.len);
}

/* In quotes of a shell's. */
static char *quote(char *to, const char *text)
{
    *to++ = '\'';
    for (; *text; text++) {
        if (*text == '\'')
            to = mempcpy(to, "'\\'", 3);
        *to++ = *text;
    }
    *to++ = '\'';
    return to;
}

static size_t quoted(const char *text)
{
    size_t len = strlen(text) + 2;
    for (; (text = strchr(text, '\'')); text++)
        len += 3;
    return len;
}

static bool exported(const char *variable)
{
    return !strncmp(variable, PRELOAD, PRELOAD_LEN) || !strncmp(variable, SETTING, SETTING_LEN);
}

/* "export 'NAME=VALUE' …; exec /bin/sh -c 'command' sh": what comes before the second shell does nothing with a descriptor. */
static char *command_by(char *const *variables, const char *command)
{
    size_t len = sizeof "export" + sizeof SHELL + quoted(command) + sizeof " sh";
    for (char *const *one = variables; *one; one++)
        len += exported(*one) ? quoted(*one) + 1 : 0;
    char *made = len > LONGEST_COMMAND ? NULL : malloc(len);
    char *at = made ? stpcpy(made, "export") : NULL;
    for (char *const *one = variables; made && *one; one++)
        if (exported(*one)) {
            *at++ = ' ';
            at = quote(at, *one);
        }
    if (made)
        strcpy(quote(stpcpy(at, SHELL), command), " sh");
    return made;
}

char *shs_follow_command(const char *command)
{
    struct size size = size_of(environ);
    char **copy = malloc(size.array + size.text);
    if (!copy)
        return NULL;
    fill(copy, environ, (char *)copy + size.array);
    char *made = command_by(copy, command);
    free(copy);
    return made;
}
