"""The filter compiler: judged by a BPF machine, and by libseccomp compiling the same profile."""

from __future__ import annotations

import errno
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellwall.runtime.errors import SpecError, UnsupportedError
from cellwall.runtime.linux.capabilities import NAMES
from cellwall.runtime.linux.seccomp import MAX_INSTRUCTIONS
from cellwall.runtime.security import seccomp
from cellwall.runtime.security.capabilities import DEFAULT
from cellwall.runtime.security.default_profile import ALWAYS, BY_CAPABILITY, FAMILIES, PERSONALITIES, default_profile

from . import bpf_machine
from .bpf_machine import ALLOW, ERRNO, KILL_PROCESS

X86_64 = 0xC000003E
I386 = 0x40000003
AARCH64 = 0xC00000B7
ARM = 0x40000028
EPERM = ERRNO | errno.EPERM
ENOSYS = ERRNO | errno.ENOSYS
NATIVE = {"x86_64": X86_64, "aarch64": AARCH64}
# Calls that libseccomp folds into, or out of, i386's socketcall and ipc.
MULTIPLEXED = {102, 117, *range(359, 374), *range(393, 403), 337, 345}

Profile = dict[str, Any]


def decide(profile: Profile, arch: int, name_or_number: str | int, *args: int, machine: str = "x86_64") -> int:
    table = {X86_64: "x86_64", I386: "i386", AARCH64: "aarch64", ARM: "arm"}[arch]
    number = name_or_number if isinstance(name_or_number, int) else seccomp.syscall_numbers(table)[name_or_number]
    return bpf_machine.run(bpf_machine.unpack(seccomp.compile_filter(profile, machine)), arch, number, args)[0]


def profile_of(*rules: Profile, default: str = "SCMP_ACT_ERRNO", **more: Any) -> Profile:
    return {"defaultAction": default, "architectures": ["SCMP_ARCH_X86_64"], "syscalls": list(rules), **more}


def rule(names: str, action: str = "SCMP_ACT_ALLOW", *args: tuple[int, str, int, int], **more: Any) -> Profile:
    return {
        "names": names.split(),
        "action": action,
        "args": [{"index": i, "op": f"SCMP_CMP_{op}", "value": value, "valueTwo": two} for i, op, value, two in args],
        **more,
    }


# Tables


@pytest.mark.needs("libseccomp")
@pytest.mark.parametrize("architecture", sorted(seccomp.ARCHITECTURES))
def test_tables_are_libseccomps(architecture: str) -> None:
    """Each name that both know has the same number; libseccomp of 2022 ends at 450."""
    table = seccomp.ARCHITECTURES[architecture].table
    numbers = seccomp.syscall_numbers(table)
    compared = 0
    for name, number in numbers.items():
        theirs = bpf_machine.resolve(architecture, name)
        if theirs >= 0:
            assert number == theirs & ~seccomp.X32_BIT, name
            compared += 1
    assert compared > 300


def test_younger_calls_have_one_number_everywhere() -> None:
    for name, number in {"pidfd_open": 434, "clone3": 435, "cachestat": 451, "mseal": 462, "file_setattr": 469}.items():
        for table in ("x86_64", "i386", "x32", "aarch64", "arm"):
            assert seccomp.syscall_numbers(table)[name] == number


# Rules


def test_no_rules() -> None:
    assert decide(profile_of(), X86_64, "read") == EPERM
    assert decide(profile_of(defaultErrnoRet=99), X86_64, "read") == ERRNO | 99
    assert decide(profile_of(default="SCMP_ACT_ALLOW"), X86_64, "read") == ALLOW


@pytest.mark.parametrize(
    ("action", "value"),
    [
        ("SCMP_ACT_KILL", 0),
        ("SCMP_ACT_KILL_THREAD", 0),
        ("SCMP_ACT_KILL_PROCESS", 0x80000000),
        ("SCMP_ACT_TRAP", 0x00030000),
        ("SCMP_ACT_ERRNO", 0x00050007),
        ("SCMP_ACT_TRACE", 0x7FF00007),
        ("SCMP_ACT_NOTIFY", 0x7FC00000),
        ("SCMP_ACT_LOG", 0x7FFC0000),
        ("SCMP_ACT_ALLOW", 0x7FFF0000),
    ],
)
def test_actions(action: str, value: int) -> None:
    profile = profile_of(rule("read", action, errnoRet=7), default="SCMP_ACT_KILL_PROCESS")
    assert decide(profile, X86_64, "read") == value


def test_a_foreign_architecture_is_killed_and_x32_is_not_there() -> None:
    profile = profile_of(rule("read"))
    assert decide(profile, I386, "read") == KILL_PROCESS
    assert bpf_machine.run(bpf_machine.unpack(seccomp.compile_filter(profile)), X86_64, seccomp.X32_BIT)[0] == ENOSYS


def test_x32_where_it_is_asked_for() -> None:
    program = seccomp.compile_filter(
        profile_of(rule("read")) | {"architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"]}
    )
    run = bpf_machine.unpack(program)
    assert bpf_machine.run(run, X86_64, 0)[0] == ALLOW
    assert bpf_machine.run(run, X86_64, seccomp.X32_BIT)[0] == ALLOW
    assert bpf_machine.run(run, X86_64, seccomp.X32_BIT + 1)[0] == EPERM
    # Without x86_64 its own numbers are of another architecture.
    alone = bpf_machine.unpack(seccomp.compile_filter(profile_of(rule("read")) | {"architectures": ["SCMP_ARCH_X32"]}))
    assert bpf_machine.run(alone, X86_64, 0)[0] == KILL_PROCESS
    assert bpf_machine.run(alone, X86_64, seccomp.X32_BIT)[0] == ALLOW


def test_a_call_younger_than_the_tables_is_missing() -> None:
    top = max(seccomp.syscall_numbers("x86_64").values())
    assert decide(profile_of(), X86_64, top) == EPERM
    assert decide(profile_of(), X86_64, top + 1) == ENOSYS
    assert decide(profile_of(default="SCMP_ACT_KILL_PROCESS"), X86_64, top + 1) == KILL_PROCESS
    assert decide(profile_of(default="SCMP_ACT_ALLOW"), X86_64, top + 1) == ALLOW


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("operator", ["EQ", "NE", "GT", "GE", "LT", "LE"])
def test_comparisons_at_their_edges(operator: str, bits: int) -> None:
    import operator as python

    compare = getattr(python, operator.lower())
    arch, name = (X86_64, "SCMP_ARCH_X86_64") if bits == 64 else (I386, "SCMP_ARCH_X86")
    top = (1 << bits) - 1
    edges = {0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x100000000, 0x1FFFFFFFF, 0x200000000, 1 << 63, (1 << 64) - 1}
    for wanted in sorted(edge for edge in edges if edge <= top):
        profile = profile_of(rule("kill", "SCMP_ACT_ALLOW", (3, operator, wanted, 0))) | {"architectures": [name]}
        for passed in sorted(edge for edge in edges if edge <= top):
            expected = ALLOW if compare(passed, wanted) else EPERM
            assert decide(profile, arch, "kill", 0, 0, 0, passed) == expected, (passed, operator, wanted)


def test_masked_comparison() -> None:
    profile = profile_of(rule("kill", "SCMP_ACT_ALLOW", (1, "MASKED_EQ", 0xF0000000F0, 0x1000000020)))
    for passed, expected in {
        0x1000000020: ALLOW,
        0xFFFFFF1F_FFFFFF2F: ALLOW,
        0x0000000020: EPERM,
        0x1000000000: EPERM,
        0x3000000020: EPERM,
        0x10000000A0: EPERM,
    }.items():
        assert decide(profile, X86_64, "kill", 0, passed) == expected
    # A value outside the mask is never reached; an empty mask always is.
    assert decide(profile_of(rule("kill", "SCMP_ACT_ALLOW", (0, "MASKED_EQ", 1, 2))), X86_64, "kill", 3) == EPERM
    assert decide(profile_of(rule("kill", "SCMP_ACT_ALLOW", (0, "MASKED_EQ", 0, 0))), X86_64, "kill", 3) == ALLOW


def test_conditions_on_different_arguments_hold_together_and_on_one_are_alternatives() -> None:
    both = profile_of(rule("kill", "SCMP_ACT_ALLOW", (0, "EQ", 5, 0), (1, "EQ", 9, 0)))
    assert [decide(both, X86_64, "kill", *args) == ALLOW for args in ((5, 9), (5, 8), (4, 9))] == [True, False, False]
    either = profile_of(rule("kill", "SCMP_ACT_ALLOW", (0, "EQ", 5, 0), (0, "EQ", 6, 0), (1, "EQ", 9, 0)))
    assert [decide(either, X86_64, "kill", *args) == ALLOW for args in ((5, 0), (6, 0), (0, 9), (0, 0))] == [
        True,
        True,
        True,
        False,
    ]


def test_a_rule_without_conditions_wins() -> None:
    condition = rule("kill", "SCMP_ACT_KILL_PROCESS", (0, "EQ", 5, 0))
    for rules in ((condition, rule("kill")), (rule("kill"), condition)):
        assert decide(profile_of(*rules), X86_64, "kill", 5) == ALLOW


def test_the_first_of_several_matches_decides() -> None:
    one = rule("kill", "SCMP_ACT_ALLOW", (0, "GE", 5, 0))
    two = rule("kill", "SCMP_ACT_KILL_PROCESS", (0, "GE", 3, 0))
    assert decide(profile_of(one, two), X86_64, "kill", 7) == ALLOW
    assert decide(profile_of(two, one), X86_64, "kill", 7) == KILL_PROCESS


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        ({"defaultAction": "SCMP_ACT_MAYBE"}, "'SCMP_ACT_MAYBE' is not an action"),
        ({}, "None is not an action"),
        (profile_of(rule("read", "NO")), "'NO' is not an action"),
        (profile_of(rule("read", "SCMP_ACT_ERRNO", errnoRet=70000)), "errnoRet 70000 is not 0 to 65535"),
        (profile_of(rule("read", "SCMP_ACT_ALLOW", (6, "EQ", 0, 0))), "6 is not 0 to 5"),
        (profile_of(rule("read", "SCMP_ACT_ALLOW", (0, "LIKE", 0, 0))), "'SCMP_CMP_LIKE' is not an operator"),
        (profile_of(rule("read", "SCMP_ACT_ALLOW", (0, "EQ", 1 << 64, 0))), "not 64-bit numbers"),
        (profile_of() | {"architectures": ["amd64"]}, "'amd64' is not an architecture"),
    ],
)
def test_bad_profiles(profile: Profile, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        seccomp.compile_filter(profile)


def test_unknown_machine_and_flags() -> None:
    with pytest.raises(UnsupportedError, match="seccomp on machine riscv64"):
        seccomp.native_architecture("riscv64")
    assert seccomp.filter_flags(profile_of(flags=["SECCOMP_FILTER_FLAG_LOG"])) == 2
    with pytest.raises(SpecError, match="'FAST' is not a flag"):
        seccomp.filter_flags(profile_of(flags=["FAST"]))
    assert seccomp.unknown_names(profile_of(rule("read raed"))) == ["raed"]


def test_architectures_of_another_machine_are_left_out() -> None:
    """One profile for every machine names them all; this one's calls never come as MIPS."""
    profile = profile_of(rule("read")) | {"architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_MIPS64"]}
    assert seccomp.compile_filter(profile) == seccomp.compile_filter(profile_of(rule("read")))


# Against libseccomp


def compare_with_peer(profile: Profile, arguments: list[int], most: int = 451) -> int:
    """Every decision, by us and by libseccomp; how many were compared."""
    mine = bpf_machine.unpack(seccomp.compile_filter(profile))
    theirs = bpf_machine.unpack(
        bpf_machine.peer_compile(profile, lambda action, value: seccomp._outcome(action, value, "test"))
    )
    compared = 0
    for name in profile["architectures"]:
        architecture = seccomp.ARCHITECTURES[name]
        base = seccomp.X32_BIT if name == "SCMP_ARCH_X32" else 0
        for number in range(most):
            # 335 and 336 came after this libseccomp.
            if (architecture.table == "i386" and number in MULTIPLEXED) or number in (335, 336):
                continue
            for argument in arguments:
                if architecture.bits == 32 and argument >> 32:
                    continue
                args = (argument, *reversed(arguments[:5]))
                ours = bpf_machine.run(mine, architecture.audit, base + number, args)[0]
                other = bpf_machine.run(theirs, architecture.audit, base + number, args)[0]
                assert ours == other, (name, number, [hex(arg) for arg in args], hex(ours), hex(other))
                compared += 1
    return compared


@pytest.mark.needs("libseccomp")
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("capabilities", [DEFAULT, (), NAMES, ("CAP_SYS_ADMIN",), ("CAP_NET_ADMIN",)])
def test_default_profile_as_libseccomp_reads_it(machine: str, capabilities: tuple[str, ...]) -> None:
    arguments = [0, 1, 2, 8, 10, 16, 17, 29, 38, 39, 40, 45, 46, 0x11, 0x10000000, 0x20000, 0x20008, 0x7E020000]
    arguments += [0xFFFFFFFF, 0x100000002, 0x100000026, 0x100000028, 0x7FFFFFFFFFFFFFFF]
    assert compare_with_peer(default_profile(capabilities, machine), arguments) > 15_000


@pytest.mark.needs("libseccomp")
def test_random_profiles_as_libseccomp_reads_them() -> None:
    """Each call gets one rule, for where rules overlap libseccomp has an order of its own.

    x32 is left out: libseccomp compares 32 bits of its arguments there, the kernel passes 64.
    """
    draw = random.Random(20)
    values = [0, 1, 2, 5, 0xFFFFFFFF, 0x100000000, 0x100000001, (1 << 64) - 1]
    names = [name for name, number in seccomp.syscall_numbers("x86_64").items() if number < 335]
    for _ in range(12):
        rules = []
        for name in draw.sample(names, 150):
            action = draw.choice(["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_LOG", "SCMP_ACT_TRAP"])
            args = [
                (index, draw.choice(["EQ", "NE", "GT", "GE", "LT", "LE"]), draw.choice(values), 0)
                for index in draw.sample(range(3), draw.choice([0, 0, 1, 2]))
            ]
            rules.append(rule(name, action, *args, errnoRet=draw.randrange(1, 100)))
        default = draw.choice(["SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_ALLOW"])
        profile = profile_of(*rules, default=default)
        assert compare_with_peer(profile, values, 300) > 2000


# Against a plain reading of the rules

CONDITIONS = st.tuples(
    st.integers(0, 5),
    st.sampled_from(["EQ", "NE", "GT", "GE", "LT", "LE", "MASKED_EQ"]),
    st.integers(0, (1 << 64) - 1)
    | st.integers(0, 3)
    | st.sampled_from([0xFFFFFFFF, 1 << 32, (1 << 32) + 1, (1 << 64) - 1]),
    st.integers(0, (1 << 64) - 1) | st.integers(0, 3),
)
RULES = st.lists(st.tuples(st.lists(CONDITIONS, max_size=3), st.integers(1, 4000)), min_size=1, max_size=6)
ARGUMENTS = st.lists(
    st.integers(0, (1 << 64) - 1) | st.integers(0, 3) | st.sampled_from([0xFFFFFFFF, 1 << 32, (1 << 32) + 1]),
    min_size=6,
    max_size=6,
)


def holds(condition: tuple[int, str, int, int], arguments: list[int]) -> bool:
    index, operator, value, second = condition
    passed = arguments[index]
    return {
        "EQ": passed == value,
        "NE": passed != value,
        "GT": passed > value,
        "GE": passed >= value,
        "LT": passed < value,
        "LE": passed <= value,
        "MASKED_EQ": passed & value == second,
    }[operator]


def reading(rules: list[tuple[list[tuple[int, str, int, int]], int]], arguments: list[int]) -> int:
    """What the module's docstring says of ``rules`` for one system call; each answers with an errno of its own."""
    for conditions, number in rules:
        if not conditions:
            return ERRNO | number
    for conditions, number in rules:
        together = len({condition[0] for condition in conditions}) == len(conditions)
        if (all if together else any)(holds(condition, arguments) for condition in conditions):
            return ERRNO | number
    return ALLOW


@given(RULES, st.lists(ARGUMENTS, min_size=1, max_size=8))
@settings(max_examples=300, deadline=None)
def test_any_rules(rules: list[tuple[list[tuple[int, str, int, int]], int]], calls: list[list[int]]) -> None:
    written = [rule("kill", "SCMP_ACT_ERRNO", *conditions, errnoRet=number) for conditions, number in rules]
    program = bpf_machine.unpack(seccomp.compile_filter(profile_of(*written, default="SCMP_ACT_ALLOW")))
    # Values at the edges of the rules themselves come by chance too seldom.
    edges = [
        [value + step & (1 << 64) - 1] * 6
        for conditions, _ in rules
        for *_, value, _ in conditions
        for step in (-1, 0, 1)
    ]
    for arguments in calls + edges:
        assert bpf_machine.run(program, X86_64, 62, tuple(arguments))[0] == reading(rules, arguments)


# The program


@given(
    st.lists(st.integers(0, 450), unique=True, max_size=300),
    st.sampled_from(["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_KILL_PROCESS"]),
)
@settings(max_examples=40, deadline=None)
def test_any_set_of_numbers(numbers: list[int], action: str) -> None:
    """Also a program so long that jumps have to be bridged decides each number as its rule says."""
    names = {number: name for name, number in seccomp.syscall_numbers("x86_64").items()}
    chosen = [names[number] for number in numbers if number in names]
    conditions = [(index, "GT", 1 << 40, 0) for index in range(6)]
    profile = profile_of(*[rule(name, action, *conditions) for name in chosen])
    program = bpf_machine.unpack(seccomp.compile_filter(profile))
    for number in range(451):
        expected = seccomp._ACTIONS[action] if names.get(number) in chosen else EPERM
        assert bpf_machine.run(program, X86_64, number, (1 << 41,) * 6)[0] == expected
        assert bpf_machine.run(program, X86_64, number, (1 << 41, 0))[0] == EPERM


def test_a_program_that_the_kernel_would_refuse() -> None:
    conditions = [(index, "GT", 1 << 40, 0) for index in range(6)]
    names = list(seccomp.syscall_numbers("x86_64"))
    profile = profile_of(*[rule(name, "SCMP_ACT_ALLOW", *conditions) for name in names])
    with pytest.raises(SpecError, match=f"the kernel takes {MAX_INSTRUCTIONS}"):
        seccomp.compile_filter(profile)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_default_program_is_short(machine: str) -> None:
    program = bpf_machine.unpack(seccomp.compile_filter(default_profile(DEFAULT, machine), machine))
    assert len(program) < 300
    longest = max(bpf_machine.run(program, NATIVE[machine], number, (0xFFFF,))[1] for number in range(470))
    assert longest <= 20


# The default profile

REFUSED = """
    mount umount2 pivot_root mount_setattr move_mount open_tree open_tree_attr fsopen fsconfig fsmount fspick unshare setns
    bpf keyctl add_key request_key io_uring_setup io_uring_enter io_uring_register perf_event_open userfaultfd
    kexec_load kexec_file_load init_module finit_module delete_module reboot swapon swapoff acct quotactl syslog
    open_by_handle_at settimeofday clock_settime sethostname setdomainname fanotify_init kcmp pidfd_getfd process_madvise
    lookup_dcookie mbind set_mempolicy get_mempolicy migrate_pages move_pages vhangup
""".split()


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("name", REFUSED)
def test_default_refuses(name: str, machine: str) -> None:
    assert decide(default_profile(DEFAULT, machine), NATIVE[machine], name, machine=machine) == EPERM


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_default_refuses_namespaces(machine: str) -> None:
    profile = default_profile(DEFAULT, machine)
    assert decide(profile, NATIVE[machine], "clone", 0x11, machine=machine) == ALLOW
    assert decide(profile, NATIVE[machine], "clone", 0x3D0F00, machine=machine) == ALLOW  # a thread of glibc
    for bit in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert decide(profile, NATIVE[machine], "clone", bit | 0x11, machine=machine) == EPERM
    assert decide(profile, NATIVE[machine], "clone3", machine=machine) == ENOSYS


@pytest.mark.parametrize("upper", [0, 1 << 32, 0xFFFFFFFF << 32])
def test_default_socket_families(upper: int) -> None:
    """The kernel reads the family as an int: bits above must neither open another family nor close one."""
    profile = default_profile(DEFAULT)
    for family in range(64):
        expected = ALLOW if family in FAMILIES else EPERM
        assert decide(profile, X86_64, "socket", upper | family) == expected, family
    more = default_profile((*DEFAULT, "CAP_NET_ADMIN"))
    refused = [family for family in range(46) if decide(more, X86_64, "socket", upper | family) == EPERM]
    assert refused == [0, 38, 40]


def test_default_personalities() -> None:
    profile = default_profile(DEFAULT)
    for value in PERSONALITIES:
        assert decide(profile, X86_64, "personality", value) == ALLOW
    for value in (0x40000, 0x400000, 1, 0x20001):
        assert decide(profile, X86_64, "personality", value) == EPERM


def test_default_multiplexed_sockets() -> None:
    assert decide(default_profile(DEFAULT), I386, "socketcall", 1) == EPERM
    assert decide(default_profile(DEFAULT), I386, "socket", 40) == EPERM
    assert decide(default_profile(DEFAULT, multiplexed_sockets=True), I386, "socketcall", 1) == ALLOW


@pytest.mark.parametrize("capability", sorted(BY_CAPABILITY))
def test_capabilities_open_what_they_are_for(capability: str) -> None:
    without = default_profile(set(NAMES) - {capability})
    alone = default_profile((capability,))
    for name in BY_CAPABILITY[capability].split():
        if name in seccomp.syscall_numbers("x86_64"):
            assert decide(alone, X86_64, name) == ALLOW
            elsewhere = any(name in names.split() for other, names in BY_CAPABILITY.items() if other != capability)
            if not elsewhere and name not in ("clone", "clone3"):
                assert decide(without, X86_64, name) == EPERM


def test_no_capability_opens_these() -> None:
    profile = default_profile(NAMES)
    for name in ("keyctl", "add_key", "request_key", "io_uring_setup", "userfaultfd", "kexec_load", "pivot_root"):
        assert decide(profile, X86_64, name) == EPERM


def test_every_name_is_a_call() -> None:
    """A misspelt name would refuse in silence."""
    names = " ".join((*ALWAYS, *BY_CAPABILITY.values())).split()
    known = {name for table in ("x86_64", "i386", "aarch64", "arm") for name in seccomp.syscall_numbers(table)}
    assert [name for name in names if name not in known] == []
    assert [name for name in set(names) if " ".join(ALWAYS).split().count(name) > 1] == []
