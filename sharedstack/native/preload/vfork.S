/*
 * vfork: the child runs on our memory until it executes or exits, so every wrapper has to go straight to libc there. A C function
 * cannot call vfork and return: the child would return on the parent's frame. So the return address is kept in a register over the
 * system call, as vfork(2)'s implementations do, and the thread's flag is set before and cleared by the parent after.
 */
#if defined(__x86_64__)
    .text
    .globl vfork, __vfork
    .type vfork, @function
    .type __vfork, @function
    .set __vfork, vfork
vfork:
    .cfi_startproc
    subq $8, %rsp
    .cfi_adjust_cfa_offset 8
    call shs_vfork_begin
    addq $8, %rsp
    .cfi_adjust_cfa_offset -8
    popq %rdi
    .cfi_adjust_cfa_offset -8
    .cfi_register %rip, %rdi
    movl $58, %eax
    syscall
    pushq %rdi
    .cfi_adjust_cfa_offset 8
    testq %rax, %rax
    jz 1f
    movq %rax, %rdi
    jmp shs_vfork_end
1:
    ret
    .cfi_endproc
    .size vfork, . - vfork
#elif defined(__i386__)
    .text
    .globl vfork, __vfork
    .type vfork, @function
    .type __vfork, @function
    .set __vfork, vfork
vfork:
    call shs_vfork_begin
    popl %ecx
    movl $190, %eax
    int $0x80
    pushl %ecx
    testl %eax, %eax
    jz 1f
    subl $8, %esp
    pushl %eax
    call shs_vfork_end
    addl $12, %esp
1:
    ret
    .size vfork, . - vfork
#endif
    .section .note.GNU-stack, "", @progbits
