"""The default filter and docker's capabilities on the running kernel: what is refused, with which errno, and what works."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cellwall.runtime.security.capabilities import DEFAULT
from cellwall.runtime.security.default_profile import default_profile
from cellwall.runtime.security.seccomp import compile_filter, syscall_numbers

from ..tree import TOP

MACHINE = os.uname().machine
# With arguments by which none does anything: without the filter each fails otherwise than by EPERM, or changes only itself.
REFUSED = {
    "unshare": (0x10000000,),
    "setns": (-1, 0),
    "mount": (0, 0, 0, 0, 0),
    "umount2": (0, 0),
    "pivot_root": (0, 0),
    "mount_setattr": (-1, 0, 0, 0, 0),
    "move_mount": (-1, 0, -1, 0, 0),
    "open_tree": (-1, 0, 0),
    "fsopen": (0, 0),
    "fsconfig": (-1, 0, 0, 0, 0),
    "fsmount": (-1, 0, 0),
    "fspick": (-1, 0, 0),
    "bpf": (0, 0, 0),
    "keyctl": (0, -3, 0),
    "add_key": (0, 0, 0, 0, 0),
    "request_key": (0, 0, 0, 0),
    "io_uring_setup": (0, 0),
    "io_uring_enter": (-1, 0, 0, 0, 0, 0),
    "io_uring_register": (-1, 0, 0, 0),
    "perf_event_open": (0, 0, -1, -1, 0),
    "userfaultfd": (1,),
    "kexec_load": (0, 0, 0, 0x1234),
    "kexec_file_load": (-1, -1, 0, 0, 0x1234),
    "init_module": (0, 0, 0),
    "finit_module": (-1, 0, 0x1234),
    "delete_module": (0, 0),
    "reboot": (0, 0, 0, 0),
    "swapon": (0, 0),
    "swapoff": (0,),
    "acct": (1,),
    "quotactl": (0, 0, 0, 0),
    "open_by_handle_at": (-1, 0, 0),
    "settimeofday": (1, 0),
    "clock_settime": (99, 0),
    "sethostname": (0, 1000),
    "setdomainname": (0, 1000),
    "fanotify_init": (0xFFFF, 0),
    "kcmp": (0, 0, 99, 0, 0),
    "pidfd_getfd": (-1, 0, 0),
    "process_madvise": (-1, 0, 0, 0, 1),
    "migrate_pages": (0, 0, 0, 0),
    "move_pages": (0, 0, 0, 0, 0, 1),
    "vhangup": (),
    "personality": (0x40000,),
    "syslog": (3, 0, 0),
}
NAMESPACE_FLAGS = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)


def try_out(profile: dict[str, Any] | None = None, **asked: Any) -> dict[str, Any]:
    """What ``confined.py`` answers under ``profile`` (default: a default container's)."""
    program = compile_filter(default_profile(DEFAULT) if profile is None else profile)
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(Path(__file__).with_name("confined.py")), str(TOP / "src")],
        input=json.dumps({"program": program.hex(), **asked}),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    answers: dict[str, Any] = json.loads(done.stdout)
    return answers


def calls(*wanted: tuple[str, str, tuple[int, ...]], profile: dict[str, Any] | None = None) -> dict[str, Any]:
    numbers = syscall_numbers(MACHINE)
    return try_out(profile, calls=[(label, "native", [numbers[name], *args]) for label, name, args in wanted])


@pytest.mark.needs("seccomp")
def test_refused_calls() -> None:
    names = {name: args for name, args in REFUSED.items() if name in syscall_numbers(MACHINE)}
    answers = calls(*[(name, name, args) for name, args in names.items()])
    assert answers == dict.fromkeys(names, errno.EPERM)


@pytest.mark.needs("root", "seccomp")
def test_it_is_the_filter_that_refuses_them() -> None:
    """The same calls under a filter that allows all: root gets no EPERM. (vhangup would take the terminal away.)"""
    names = {name: args for name, args in REFUSED.items() if name in syscall_numbers(MACHINE) and name != "vhangup"}
    answers = calls(
        *[(name, name, args) for name, args in names.items()],
        profile={"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []},
    )
    assert {name for name, code in answers.items() if code == errno.EPERM} == set()


@pytest.mark.needs("seccomp")
def test_namespaces_by_clone() -> None:
    answers = calls(
        ("clone3", "clone3", (0, 0)),
        *[(f"clone {flag:#x}", "clone", (flag | 17, 0, 0, 0, 0)) for flag in NAMESPACE_FLAGS],
    )
    assert answers.pop("clone3") == errno.ENOSYS
    assert answers == {f"clone {flag:#x}": errno.EPERM for flag in NAMESPACE_FLAGS}


@pytest.mark.needs("seccomp")
def test_socket_families() -> None:
    wanted = {
        "unix": 1,
        "inet": 2,
        "inet6": 10,
        "rds": 21,
        "alg": 38,
        "vsock": 40,
        "alg above 32 bits": 1 << 32 | 38,
    }
    answers = calls(*[(label, "socket", (family, 2 if family < 20 else 5, 0)) for label, family in wanted.items()])
    assert answers == {
        "unix": 0,
        "inet": 0,
        "inet6": 0,
        "rds": errno.EPERM,
        "alg": errno.EPERM,
        "vsock": errno.EPERM,
        "alg above 32 bits": errno.EPERM,
    }


@pytest.mark.needs("seccomp")
def test_unknown_calls_are_missing() -> None:
    """So that a C library falls back, which it does on ENOSYS only."""
    asked = [("x32 getpid", "native", [0x40000000 | 39])] if MACHINE == "x86_64" else []
    answers = try_out(calls=[("of the future", "native", [600]), *asked])
    assert set(answers.values()) == {errno.ENOSYS}


@pytest.mark.needs("seccomp", "32-bit-programs")
def test_the_32_bit_door() -> None:
    numbers = syscall_numbers("i386")
    wanted = {"getpid": 0, "unshare": 0x10000000, "socketcall": 1, "keyctl": 0, "clone": 0x10000011, "mount": 0}
    wanted |= {"io_uring_setup": 0, "clone3": 0}
    answers = try_out(
        calls=[(name, "i386", [numbers[name], first]) for name, first in wanted.items()]
        + [("vsock", "i386", [numbers["socket"], 40])]
    )
    assert answers.pop("getpid") == 0
    assert answers.pop("clone3") == errno.ENOSYS
    assert set(answers.values()) == {errno.EPERM}


@pytest.mark.needs("seccomp", "32-bit-programs")
def test_an_architecture_that_the_profile_does_not_name_is_killed() -> None:
    profile = default_profile(DEFAULT) | {"architectures": ["SCMP_ARCH_X86_64"]}
    assert try_out(profile, calls=[("getpid", "i386", [20])]) == {"getpid": "signal 31"}


@pytest.mark.needs("root", "seccomp")
def test_dockers_fourteen_work_and_are_needed() -> None:
    """Each does what it is for under the filter; without it, though with the thirteen others, it is refused."""
    answers = try_out(capabilities=list(DEFAULT))
    audit = answers.pop("CAP_AUDIT_WRITE"), answers.pop("without CAP_AUDIT_WRITE")
    assert audit in ((0, errno.EPERM), (errno.EPROTONOSUPPORT, errno.EPROTONOSUPPORT))  # a kernel without audit
    rest = [name for name in DEFAULT if name != "CAP_AUDIT_WRITE"]
    assert {name: answers[name] for name in rest} == dict.fromkeys(rest, 0)
    refused = {name: answers[f"without {name}"] for name in rest}
    assert {name: code for name, code in refused.items() if code not in (errno.EPERM, errno.EACCES)} == {}
