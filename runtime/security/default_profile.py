"""The seccomp profile of a container that asks for nothing else: an allow-list, grouped by purpose.

Docker's default policy is the floor: what docker refuses is refused. Refused beyond it: io_uring (its operations pass no
filter), sockets of families other than the six that programs use (the rest needs CAP_NET_ADMIN; AF_VSOCK, which
reaches beyond every network namespace, and AF_ALG, which opens the kernel's cryptography to attack, need a profile of one's
own), x32, and i386's ``socketcall``, whose arguments no filter sees (``multiplexed_sockets`` brings it back, for images of
32-bit programs). A call that is refused answers EPERM. clone3 answers ENOSYS: its flags are in memory, where no filter sees
them, and every C library then falls back to clone.
Source: runtime-spec config-linux.md#seccomp; syscalls(2); docker's reference, "Seccomp security profiles for Docker".
"""

from __future__ import annotations

import errno
from collections.abc import Iterable

from ..linux.process import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
)
from .seccomp import native_architecture

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FILES = """
access faccessat faccessat2 open openat openat2 creat close close_range dup dup2 dup3 read readv pread64 preadv preadv2
write writev pwrite64 pwritev pwritev2 lseek _llseek truncate truncate64 ftruncate ftruncate64 fallocate copy_file_range
sendfile sendfile64 splice tee vmsplice readahead fadvise64 fadvise64_64 arm_fadvise64_64 sync syncfs fsync fdatasync
sync_file_range arm_sync_file_range sync_file_range2 stat stat64 lstat lstat64 fstat fstat64 fstatat64 newfstatat statx
statfs statfs64 fstatfs fstatfs64 statmount listmount ioctl fcntl fcntl64 flock cachestat name_to_handle_at
chdir fchdir getcwd getdents getdents64 mkdir mkdirat rmdir mknod mknodat link linkat symlink symlinkat readlink
readlinkat unlink unlinkat rename renameat renameat2 umask chmod fchmod fchmodat fchmodat2 chown chown32 lchown lchown32
fchown fchown32 fchownat utime utimes futimesat utimensat utimensat_time64
getxattr lgetxattr fgetxattr getxattrat setxattr lsetxattr fsetxattr setxattrat listxattr llistxattr flistxattr
listxattrat removexattr lremovexattr fremovexattr removexattrat
inotify_init inotify_init1 inotify_add_watch inotify_rm_watch fanotify_mark
"""
_WAITING = """
pipe pipe2 poll ppoll ppoll_time64 select _newselect pselect6 pselect6_time64 epoll_create epoll_create1 epoll_ctl
epoll_ctl_old epoll_wait epoll_wait_old epoll_pwait epoll_pwait2 eventfd eventfd2 signalfd signalfd4
timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64
io_setup io_submit io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64
"""
_MEMORY = """
brk mmap mmap2 munmap mremap mprotect msync madvise mincore mlock mlock2 mlockall munlock munlockall mseal
remap_file_pages map_shadow_stack memfd_create memfd_secret membarrier pkey_alloc pkey_free pkey_mprotect
shmget shmat shmdt shmctl semget semop semtimedop semtimedop_time64 semctl msgget msgsnd msgrcv msgctl ipc
mq_open mq_unlink mq_notify mq_getsetattr mq_timedsend mq_timedsend_time64 mq_timedreceive mq_timedreceive_time64
"""
_PROCESSES = """
fork vfork execve execveat exit exit_group wait4 waitid waitpid kill tkill tgkill pidfd_open pidfd_send_signal
process_mrelease getpid getppid gettid getpgid getpgrp setpgid getsid setsid getpriority setpriority ioprio_get ioprio_set
prctl arch_prctl modify_ldt get_thread_area set_thread_area set_tls set_tid_address get_robust_list set_robust_list rseq
futex futex_time64 futex_wait futex_waitv futex_wake futex_requeue restart_syscall uretprobe cacheflush breakpoint
getcpu sched_yield sched_getaffinity sched_setaffinity sched_getattr sched_setattr sched_getparam sched_setparam
sched_getscheduler sched_setscheduler sched_get_priority_max sched_get_priority_min sched_rr_get_interval
sched_rr_get_interval_time64 getrlimit ugetrlimit setrlimit prlimit64 getrusage times sysinfo uname
ptrace process_vm_readv process_vm_writev
rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_tgsigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
rt_sigtimedwait_time64 sigaltstack sigprocmask sigreturn pause alarm getitimer setitimer
"""
_IDENTITY = """
getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32 getresuid getresuid32 getresgid getresgid32
getgroups getgroups32 setuid setuid32 setgid setgid32 setreuid setreuid32 setregid setregid32 setresuid setresuid32
setresgid setresgid32 setfsuid setfsuid32 setfsgid setfsgid32 setgroups setgroups32 capget capset
seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self getrandom
"""
_TIME = """
time gettimeofday clock_gettime clock_gettime64 clock_getres clock_getres_time64 clock_nanosleep clock_nanosleep_time64
nanosleep timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64
adjtimex clock_adjtime clock_adjtime64
"""
_NETWORK = """
socketpair bind listen accept accept4 connect getsockname getpeername getsockopt setsockopt shutdown
send sendto sendmsg sendmmsg recv recvfrom recvmsg recvmmsg recvmmsg_time64
"""
ALWAYS = (_FILES, _WAITING, _MEMORY, _PROCESSES, _IDENTITY, _TIME, _NETWORK)

# What a capability that a container was given is of no use without.
BY_CAPABILITY = {
    "CAP_SYS_ADMIN": """
        mount mount_setattr move_mount open_tree open_tree_attr fsopen fsconfig fsmount fspick umount umount2
        unshare setns clone clone3 sethostname setdomainname quotactl quotactl_fd fanotify_init lookup_dcookie
        bpf perf_event_open syslog lsm_get_self_attr lsm_set_self_attr lsm_list_modules""",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "init_module finit_module delete_module",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
    "CAP_SYS_RAWIO": "iopl ioperm",
    "CAP_SYS_TIME": "settimeofday stime clock_settime clock_settime64",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYSLOG": "syslog",
    "CAP_BPF": "bpf",
    "CAP_PERFMON": "perf_event_open",
}

_NAMESPACES = (
    CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET
)  # CLONE_NEWTIME isn't among them: clone(2) takes that bit for the exit signal's
_32_BITS = 0xFFFFFFFF
# AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_BLUETOOTH. The last for libpcap, which looks for such devices whenever it
# lists interfaces and gives up on any error but EAFNOSUPPORT: the kernel's own answer outside the first network namespace.
FAMILIES = (1, 2, 10, 16, 17, 31)
_AF_ALG = 38
_AF_VSOCK = 40
_AF_MAX = 46
# PER_LINUX and PER_LINUX32, each with and without UNAME26, and the question for the present one (personality(2)).
PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)

_COMPATIBLE = {
    "SCMP_ARCH_X86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
    "SCMP_ARCH_AARCH64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
}


def default_profile(
    capabilities: Iterable[str] = (), machine: str | None = None, *, multiplexed_sockets: bool = False
) -> dict[str, Any]:
    """A bundle's ``linux.seccomp`` for a container that has ``capabilities`` (CAP_*) on ``machine`` (default: this one).

    ``multiplexed_sockets`` allows i386's socketcall, which 32-bit programs need for any socket, and with which they
    get a socket of any family. Raises UnsupportedError on an unknown machine.
    """
    native = native_architecture(machine)
    held = set(capabilities)
    allowed = {name for group in ALWAYS for name in group.split()}
    for capability, names in BY_CAPABILITY.items():
        if capability in held:
            allowed.update(names.split())
    if multiplexed_sockets:
        allowed.add("socketcall")
    rules = [_rule(sorted(allowed), "SCMP_ACT_ALLOW")]
    if "clone" not in allowed:
        rules.append(_when("clone", _NAMESPACES, 0))
        rules.append(_rule(["clone3"], "SCMP_ACT_ERRNO", errno.ENOSYS))
    families: tuple[int, ...] = FAMILIES
    if "CAP_NET_ADMIN" in held:
        families = tuple(family for family in range(1, _AF_MAX) if family not in (_AF_ALG, _AF_VSOCK))
    # The kernel reads both arguments as 32 bits: compared as 64, a bit in the upper half would make another number of it.
    rules += [_when("socket", _32_BITS, family) for family in families]
    rules += [_when("personality", _32_BITS, personality) for personality in PERSONALITIES]
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": errno.EPERM,
        "architectures": list(_COMPATIBLE[native]),
        "syscalls": rules,
    }


def _rule(names: list[str], action: str, value: int | None = None) -> dict[str, Any]:
    rule: dict[str, Any] = {"names": names, "action": action}
    if value is not None:
        rule["errnoRet"] = value
    return rule


def _when(name: str, mask: int, value: int) -> dict[str, Any]:
    """Allow ``name`` where the bits of ``mask`` in its first argument are ``value``."""
    return _rule([name], "SCMP_ACT_ALLOW") | {
        "args": [{"index": 0, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}]
    }
