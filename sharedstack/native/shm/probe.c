#include "shm/probe.h"

#include <ucontext.h>

/* In assembly, because the handler has to know the very instruction that may fault. */
#if defined(__x86_64__)
#define TOUCH_READ "movb (%rdi), %al\n"
#define TOUCH_WRITE "orb $0, (%rdi)\n"
#define ANSWER(n) "movl $" n ", %eax\nret\n"
#define PC(uc) (uc)->uc_mcontext.gregs[REG_RIP]
#elif defined(__i386__)
#define TOUCH_READ "movl 4(%esp), %edx\nmovb (%edx), %al\n"
#define TOUCH_WRITE "movl 4(%esp), %edx\norb $0, (%edx)\n"
#define ANSWER(n) "movl $" n ", %eax\nret\n"
#define PC(uc) (uc)->uc_mcontext.gregs[REG_EIP]
#elif defined(__aarch64__)
#define TOUCH_READ "ldrb w1, [x0]\n"
#define TOUCH_WRITE "ldrb w1, [x0]\nstrb w1, [x0]\n"
#define ANSWER(n) "mov w0, #" n "\nret\n"
#define PC(uc) (uc)->uc_mcontext.pc
#endif

#ifdef PC
#define FUNCTION(name, touch) \
    ".globl " name "\n.hidden " name "\n.type " name ", %function\n" name ":\n" touch ANSWER("0") ".size " name ", . - " name "\n"

__asm__(".text\n.p2align 4\n.hidden shs_touches\nshs_touches:\n" FUNCTION("shs_probe_read", TOUCH_READ)
            FUNCTION("shs_probe_write", TOUCH_WRITE) ".hidden shs_touched\nshs_touched:\n" ANSWER("1"));

extern const char shs_touches[], shs_touched[];

bool shs_probe_failed(void *context)
{
    ucontext_t *uc = context;
    uintptr_t at = (uintptr_t)PC(uc);
    if (at < (uintptr_t)shs_touches || at >= (uintptr_t)shs_touched)
        return false;
    PC(uc) = (__typeof__(PC(uc)))(uintptr_t)shs_touched;
    return true;
}
#else
int shs_probe_read(const void *at)
{
    return (void)*(const volatile char *)at, 0;
}

int shs_probe_write(void *at)
{
    return *(volatile char *)at |= 0, 0;
}

bool shs_probe_failed(void *context)
{
    (void)context;
    return false;
}
#endif
