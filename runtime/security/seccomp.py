"""Compiles a bundle's ``linux.seccomp`` into the filter that ``runtime/linux/seccomp.py`` loads.

Decisions are libseccomp's, as runc uses it, so that a profile written for docker means the same here:
a rule without arguments wins over those with arguments; conditions on different arguments must all hold, several
conditions on one argument make alternatives; a rule that does what the default does is left out; a name that the machine
hasn't is left out. Otherwise the first rule that matches decides. A system call of an architecture that the profile
doesn't name kills the process. x32's numbers, where x32 isn't named, are ENOSYS, as on a kernel that is built without it;
so are, where the default is an errno, numbers above all that the tables know: a C library that tries a younger call then
falls back to what there was before, which it wouldn't on EPERM (runc does the same).
Numbers are found by a binary search over ranges that have the same outcome.
Source: runtime-spec config-linux.md#seccomp, seccomp(2).
"""

from __future__ import annotations

import errno
import json
import os
from functools import lru_cache

from ..errors import SpecError, UnsupportedError
from ..frozen import frozen
from ..linux.seccomp import (
    INSTRUCTION_BYTES,
    MAX_INSTRUCTIONS,
    SECCOMP_FILTER_FLAG_LOG,
    SECCOMP_FILTER_FLAG_SPEC_ALLOW,
    SECCOMP_FILTER_FLAG_TSYNC,
)
from .bpf import ARCHITECTURE, JEQ, JGE, NUMBER, Assembler, Label
from .syscall_tables import TABLES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_KILL_PROCESS = 0x80000000
_ERRNO = 0x00050000
_ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": _KILL_PROCESS,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": _ERRNO,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
_WITH_VALUE = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
_OPERATORS = ("EQ", "NE", "GT", "GE", "LT", "LE", "MASKED_EQ")
_FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": SECCOMP_FILTER_FLAG_TSYNC,
    "SECCOMP_FILTER_FLAG_LOG": SECCOMP_FILTER_FLAG_LOG,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": SECCOMP_FILTER_FLAG_SPEC_ALLOW,
}
_ACTION = 0xFFFF0000  # SECCOMP_RET_ACTION_FULL
X32_BIT = 0x40000000
_PRIVATE = 0x0F0000  # where arm's own calls begin (__ARM_NR_BASE)
_NUMBERS_END = 1 << 32


@frozen
class _Architecture:
    table: str
    audit: int  # AUDIT_ARCH_* of linux/audit.h
    bits: int


ARCHITECTURES = {
    "SCMP_ARCH_X86_64": _Architecture("x86_64", 0xC000003E, 64),
    "SCMP_ARCH_X86": _Architecture("i386", 0x40000003, 32),
    "SCMP_ARCH_X32": _Architecture("x32", 0xC000003E, 64),
    "SCMP_ARCH_AARCH64": _Architecture("aarch64", 0xC00000B7, 64),
    "SCMP_ARCH_ARM": _Architecture("arm", 0x40000028, 32),
}
_NATIVE = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}


@frozen
class _Rule:
    conditions: tuple[tuple[int, str, int, int], ...]  # argument, operator, value, second value; all must hold
    outcome: int


def native_architecture(machine: str | None = None) -> str:
    """OCI's name of this machine's architecture; raises UnsupportedError on a machine whose table isn't here."""
    machine = machine or os.uname().machine
    if machine not in _NATIVE:
        raise UnsupportedError(f"seccomp on machine {machine}", "cellwall knows x86_64 and aarch64")
    return _NATIVE[machine]


@lru_cache(maxsize=len(TABLES))
def syscall_numbers(table: str) -> dict[str, int]:
    """Name to number on ``table``'s machine (x86_64, i386, x32, aarch64, arm)."""
    numbers = {}
    number = 0
    for word in TABLES[table].split():
        if word.isdecimal():
            number = int(word)
        else:
            numbers[word] = number
            number += 1
    return numbers


def unknown_names(profile: dict[str, Any]) -> list[str]:
    """The names in ``profile`` that are no system call of any machine known here: misspelt, or younger than the tables."""
    known = {name for table in TABLES for name in syscall_numbers(table)}
    return sorted({name for rule in profile.get("syscalls") or [] for name in rule["names"]} - known)


def filter_flags(profile: dict[str, Any]) -> int:
    """The SECCOMP_FILTER_FLAG_* of ``profile``, for ``linux.seccomp.load``; raises SpecError for an unknown one."""
    flags = 0
    for name in profile.get("flags") or ():
        if name not in _FLAGS:
            raise SpecError("linux.seccomp.flags", f"{name!r} is not a flag; the flags are {', '.join(_FLAGS)}")
        flags |= _FLAGS[name]
    return flags


def compile_filter(profile: dict[str, Any], machine: str | None = None) -> bytes:
    """The BPF program of ``profile`` (a bundle's ``linux.seccomp``) for ``machine`` (default: this one).

    Without ``architectures`` it is for the machine's own one. Compiled once per process and profile.
    Raises SpecError for a value that the specification doesn't have, UnsupportedError on an unknown machine.
    """
    return _compile(json.dumps(profile, sort_keys=True), machine or os.uname().machine)


@lru_cache(maxsize=64)
def _compile(text: str, machine: str) -> bytes:
    profile = json.loads(text)
    default = _outcome(profile.get("defaultAction"), profile.get("defaultErrnoRet"), "linux.seccomp.defaultAction")
    rules = _rules(profile.get("syscalls") or [], default)
    names = profile.get("architectures") or [native_architecture(machine)]
    found: dict[int, dict[str, _Architecture]] = {}
    for name in names:
        architecture = ARCHITECTURES.get(name)
        if architecture is None:
            if not str(name).startswith("SCMP_ARCH_"):
                raise SpecError("linux.seccomp.architectures", f"{name!r} is not an architecture")
            continue  # of another machine: its calls are never made here
        found.setdefault(architecture.audit, {})[architecture.table] = architecture
    assembler = Assembler()
    label = assembler.ret(_KILL_PROCESS)
    for audit, tables in reversed(found.items()):
        label = assembler.jump(JEQ, audit, _numbers(assembler, tables, rules, default), label)
    program_start = assembler.load(ARCHITECTURE, label)
    program = assembler.bytes()
    if program_start + 1 > MAX_INSTRUCTIONS:
        raise SpecError(
            "linux.seccomp",
            f"{len(program) // INSTRUCTION_BYTES} instructions, and the kernel takes {MAX_INSTRUCTIONS}",
        )
    return program


def _outcome(action: object, value: object, field: str) -> int:
    if not isinstance(action, str) or action not in _ACTIONS:
        raise SpecError(field, f"{action!r} is not an action; the actions are {', '.join(_ACTIONS)}")
    if action not in _WITH_VALUE:
        return _ACTIONS[action]
    number = errno.EPERM if value is None else value
    if not isinstance(number, int) or not 0 <= number <= 0xFFFF:
        raise SpecError(field, f"errnoRet {value!r} is not 0 to 65535")
    return _ACTIONS[action] | number


def _rules(syscalls: list[dict[str, Any]], default: int) -> dict[str, list[_Rule]]:
    """Name to its rules, in order; one without conditions stands alone."""
    rules: dict[str, list[_Rule]] = {}
    for entry in syscalls:
        outcome = _outcome(entry.get("action"), entry.get("errnoRet"), "linux.seccomp.syscalls.action")
        if outcome == default:
            continue
        wanted = [_Rule(conditions, outcome) for conditions in _alternatives(entry.get("args") or [])]
        for name in entry["names"]:
            known = rules.get(name)
            if known is None or (known[0].conditions and not wanted[0].conditions):
                rules[name] = wanted
            elif known[0].conditions:
                rules[name] = known + wanted
    return rules


def _alternatives(args: list[dict[str, Any]]) -> list[tuple[tuple[int, str, int, int], ...]]:
    """Sets of conditions of which one must hold."""
    conditions = []
    for arg in args:
        operator = str(arg.get("op")).removeprefix("SCMP_CMP_")
        index, value, second = arg.get("index"), arg.get("value", 0), arg.get("valueTwo", 0)
        if operator not in _OPERATORS:
            raise SpecError("linux.seccomp.syscalls.args.op", f"{arg.get('op')!r} is not an operator")
        if not isinstance(index, int) or not 0 <= index <= 5:
            raise SpecError("linux.seccomp.syscalls.args.index", f"{index!r} is not 0 to 5")
        if not all(isinstance(number, int) and 0 <= number < 1 << 64 for number in (value, second)):
            raise SpecError("linux.seccomp.syscalls.args.value", f"{value!r}, {second!r}: not 64-bit numbers")
        conditions.append((index, operator, value, second))
    indexes = [condition[0] for condition in conditions]
    if len(set(indexes)) < len(indexes):
        return [(condition,) for condition in conditions]
    return [tuple(conditions)]


def _numbers(
    assembler: Assembler, tables: dict[str, _Architecture], rules: dict[str, list[_Rule]], default: int
) -> Label:
    """Code that decides the system calls of one audit architecture, x32's beside x86_64's."""
    otherwise = assembler.ret(default)
    missing = assembler.ret(_ERRNO | errno.ENOSYS)
    younger = missing if default & _ACTION == _ERRNO else otherwise
    pieces = []  # (first number, first number behind it, where it leads)
    for table, architecture in tables.items():
        base = X32_BIT if table == "x32" else 0
        numbers = syscall_numbers(table)
        # By number: two names of one call (arm's sync_file_range2) make one piece.
        found = {number: rules[name] for name, number in numbers.items() if name in rules}
        for number, wanted in found.items():
            if wanted[0].conditions:
                label = _decide(assembler, wanted, default, architecture.bits)
            else:
                label = assembler.ret(wanted[0].outcome)
            pieces.append((base + number, base + number + 1, label))
        top = max(number for number in numbers.values() if number < _PRIVATE)
        pieces.append((base + top + 1, base + (X32_BIT if table == "x86_64" else _PRIVATE), younger))
    if "x32" in tables and "x86_64" not in tables:
        pieces.append((0, X32_BIT, assembler.ret(_KILL_PROCESS)))
    elif "x86_64" in tables and "x32" not in tables:
        pieces.append((X32_BIT, _NUMBERS_END, missing))
    runs: list[tuple[int, Label]] = [(0, otherwise)]
    for first, end, label in sorted(pieces):
        if runs[-1][0] == first:
            runs.pop()  # what begins where the piece before it ended is this piece
        if not runs or runs[-1][1] != label:
            runs.append((first, label))
        if label != otherwise:
            runs.append((end, otherwise))
    if runs[-1][0] == _NUMBERS_END:
        runs.pop()
    return assembler.load(NUMBER, _search(assembler, runs, _NUMBERS_END))


def _decide(assembler: Assembler, rules: list[_Rule], default: int, bits: int) -> Label:
    """Code that tries ``rules`` in order."""
    label = assembler.ret(default)
    for rule in reversed(rules):
        matched = assembler.ret(rule.outcome)
        step = matched
        for index, operator, value, second in reversed(rule.conditions):
            step = assembler.compare(index, operator, value, second, step, label, bits)
        label = step
    return label


def _search(assembler: Assembler, runs: list[tuple[int, Label]], end: int) -> Label:
    """Code that finds the run of the loaded number: ``runs`` are (first number, label), and end before ``end``."""
    targets = {label for _, label in runs}
    if len(targets) == 1:
        return runs[0][1]
    starts = [first for first, _ in runs] + [end]
    # Where all but single numbers go one way, asking for each of those is shorter than asking for both its ends.
    wide = {label for place, (_, label) in enumerate(runs) if starts[place + 1] - starts[place] > 1}
    if len(wide) <= 1:
        usual = wide.pop() if wide else runs[0][1]
        single = [(first, label) for first, label in runs if label != usual]
        if len(single) <= 3:
            chain = usual
            for first, label in reversed(single):
                chain = assembler.jump(JEQ, first, label, chain)
            return chain
    middle = len(runs) // 2
    above = _search(assembler, runs[middle:], end)
    below = _search(assembler, runs[:middle], runs[middle][0])
    return assembler.jump(JGE, runs[middle][0], above, below)
