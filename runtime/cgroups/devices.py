"""The list of devices as a BPF program: what version 2 has in place of devices.allow and devices.deny.

The rules are first reduced as version 1's kernel code does (a default and its exceptions), so that both versions decide alike.
Source: admin-guide/cgroup-v1/devices; admin-guide/cgroup-v2, Device controller; security/device_cgroup.c.
"""

from __future__ import annotations

import struct

from .resources import device_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# include/uapi/linux/bpf.h: struct bpf_cgroup_dev_ctx, BPF_DEVCG_*.
_KINDS = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}
_LOAD = 0x61  # r = *(u32 *)(r + offset)
_AND = 0x54  # 32 bit
_RIGHT = 0x74
_JUMP_UNEQUAL = 0x56
_JUMP_EQUAL = 0x16
_MOVE = 0xB4
_MOVE_REGISTER = 0xBC
_EXIT = 0x95


def reduce(rules: list[dict[str, Any]]) -> tuple[bool, dict[tuple[str, int, int], str]]:
    """The default, and the exceptions to it as ``{(kind, major, minor): access}``; -1 stands for any number.

    A new group allows everything until a rule says otherwise.
    """
    default = True
    exceptions: dict[tuple[str, int, int], str] = {}
    for allow, line in device_lines(rules):
        kind, numbers, access = line.split()
        if kind == "a":
            default = allow
            exceptions = {}
            continue
        major, _, minor = numbers.partition(":")
        key = (kind, -1 if major == "*" else int(major), -1 if minor == "*" else int(minor))
        before = exceptions.get(key, "")
        if allow == default:
            after = "".join(letter for letter in before if letter not in access)
        else:
            after = "".join(letter for letter in "rwm" if letter in before + access)
        if after:
            exceptions[key] = after
        else:
            exceptions.pop(key, None)
    return default, exceptions


def program(rules: list[dict[str, Any]]) -> bytes:
    """Instructions that return 1 where the access is allowed and 0 where it isn't."""
    default, exceptions = reduce(rules)
    code = [
        _instruction(_LOAD, 2, 1, 0),
        _instruction(_MOVE_REGISTER, 3, 2),
        _instruction(_AND, 2, immediate=0xFFFF),  # r2: block or character
        _instruction(_RIGHT, 3, immediate=16),  # r3: what is to be done
        _instruction(_LOAD, 4, 1, 4),  # r4: major
        _instruction(_LOAD, 5, 1, 8),  # r5: minor
    ]
    for (kind, major, minor), access in exceptions.items():
        bits = sum(_ACCESS[letter] for letter in access)
        tests = [(2, _KINDS[kind]), *((4, major) for _ in range(major >= 0)), *((5, minor) for _ in range(minor >= 0))]
        # An exception that allows must cover all of the access, one that denies any of it.
        last = [
            _instruction(_MOVE_REGISTER, 0, 3),
            _instruction(_AND, 0, immediate=~bits & 0x7 if not default else bits),
            _instruction(_JUMP_UNEQUAL if not default else _JUMP_EQUAL, 0, offset=2),
            _instruction(_MOVE, 0, immediate=0 if default else 1),
            _instruction(_EXIT),
        ]
        for position, (register, value) in enumerate(tests):
            over = len(tests) - position - 1 + len(last)
            code.append(_instruction(_JUMP_UNEQUAL, register, offset=over, immediate=value))
        code += last
    code += [_instruction(_MOVE, 0, immediate=int(default)), _instruction(_EXIT)]
    return b"".join(code)


def _instruction(code: int, to: int = 0, source: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    return struct.pack("=BBhi", code, source << 4 | to, offset, immediate)
