"""Run a command as in a container: no capabilities, no new privileges, and system calls refused as by Docker's default list.

    python3 confine.py COMMAND [ARGUMENT]...

The filter refuses (EPERM) what that list allows to nobody without capabilities, ptrace and kin as on kernels before 4.8, clone with
namespaces; and clone3 (ENOSYS), so that libc falls back to clone. x86-64 only.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

DENIED = {
    "ptrace": 101, "syslog": 103, "uselib": 134, "ustat": 136, "sysfs": 139, "vhangup": 153, "pivot_root": 155, "_sysctl": 156,
    "acct": 163, "settimeofday": 164, "mount": 165, "umount2": 166, "swapon": 167, "swapoff": 168, "reboot": 169, "iopl": 172,
    "ioperm": 173, "create_module": 174, "init_module": 175, "delete_module": 176, "get_kernel_syms": 177, "query_module": 178,
    "quotactl": 179, "nfsservctl": 180, "lookup_dcookie": 212, "clock_settime": 227, "mbind": 237, "set_mempolicy": 238,
    "get_mempolicy": 239, "kexec_load": 246, "add_key": 248, "request_key": 249, "keyctl": 250, "migrate_pages": 256, "unshare": 272,
    "move_pages": 279, "perf_event_open": 298, "name_to_handle_at": 303, "open_by_handle_at": 304, "setns": 308, "process_vm_readv": 310,
    "process_vm_writev": 311, "kcmp": 312, "finit_module": 313, "kexec_file_load": 320, "bpf": 321, "userfaultfd": 323,
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428, "move_mount": 429, "fsopen": 430,
    "fsconfig": 431, "fsmount": 432, "fspick": 433, "pidfd_getfd": 438,
}  # fmt: skip
CLONE, CLONE3 = 56, 435
NAMESPACES = 0x7E020000  # CLONE_NEW*, as in Docker's list

PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 24, 38, 22, 2
AUDIT_ARCH_X86_64 = 0xC000003E
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
LOAD, JUMP_EQUAL, JUMP_ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06  # classic BPF
NUMBER_AT, ARCH_AT, FIRST_ARGUMENT_AT = 0, 4, 16  # struct seccomp_data


def _filter() -> bytes:
    def refuse(error: int) -> tuple[int, int, int, int]:
        return RETURN, 0, 0, ERRNO | error

    program = [(LOAD, 0, 0, ARCH_AT), (JUMP_EQUAL, 1, 0, AUDIT_ARCH_X86_64), refuse(errno.EPERM), (LOAD, 0, 0, NUMBER_AT)]
    for number in DENIED.values():
        program += [(JUMP_EQUAL, 0, 1, number), refuse(errno.EPERM)]
    program += [(JUMP_EQUAL, 0, 1, CLONE3), refuse(errno.ENOSYS)]
    program += [(JUMP_EQUAL, 0, 3, CLONE), (LOAD, 0, 0, FIRST_ARGUMENT_AT), (JUMP_ANY_BIT, 0, 1, NAMESPACES), refuse(errno.EPERM)]
    program += [(RETURN, 0, 0, ALLOW)]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in program)


def confine() -> None:
    """Confine this process; what it executes from now on has no capabilities, and neither have its children."""
    libc = ctypes.CDLL(None, use_errno=True)

    def prctl(*arguments: int) -> int:
        result: int = libc.prctl(*(ctypes.c_ulong(a) for a in arguments))
        return result

    for capability in range(64):
        prctl(PR_CAPBSET_DROP, capability)  # those that this kernel does not have fail
    code = ctypes.create_string_buffer(_filter())
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(code)))
    for call in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(header), 0, 0)):
        if prctl(*call) != 0:
            raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    confine()
    os.execvp(sys.argv[1], sys.argv[1:])
