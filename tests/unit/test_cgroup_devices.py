"""The BPF program for devices decides as version 1's rules do. The instructions are run by a small machine of the test's own."""

from __future__ import annotations

import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cellwall.runtime.cgroups.devices import program, reduce

BITS = {"m": 1, "r": 2, "w": 4}
KINDS = {"b": 1, "c": 2}


def run(code: bytes, kind: str, major: int, minor: int, access: str) -> bool:
    """What the program answers. Source: Documentation/bpf/standardization/instruction-set."""
    context = struct.pack("=III", sum(BITS[letter] for letter in access) << 16 | KINDS[kind], major, minor)
    registers = [0] * 11
    initialised = {1}
    at = 0
    while True:
        opcode, names, offset, immediate = struct.unpack_from("=BBhi", code, 8 * at)
        to, source = names & 15, names >> 4
        at += 1
        value = immediate & 0xFFFFFFFF
        if opcode == 0x95:
            assert 0 in initialised, "the verifier wants r0 set"
            return bool(registers[0])
        if opcode == 0x61:
            (registers[to],) = struct.unpack_from("=I", context, offset)
        elif opcode == 0xB4:
            registers[to] = value
        elif opcode == 0xBC:
            assert source in initialised
            registers[to] = registers[source] & 0xFFFFFFFF
        else:
            assert to in initialised
            if opcode == 0x54:
                registers[to] &= value
            elif opcode == 0x74:
                registers[to] = (registers[to] & 0xFFFFFFFF) >> value
            elif opcode == 0x56:
                at += offset if registers[to] & 0xFFFFFFFF != value else 0
            elif opcode == 0x16:
                at += offset if registers[to] & 0xFFFFFFFF == value else 0
            else:
                raise AssertionError(f"instruction {opcode:#x}")
            continue
        initialised.add(to)


def allows(rules: list[dict[str, Any]], kind: str, major: int, minor: int, access: str) -> bool:
    return run(program(rules), kind, major, minor, access)


DEFAULT: list[dict[str, Any]] = [
    {"allow": False, "access": "rwm"},
    {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"},
    {"allow": True, "type": "c", "major": 136, "access": "rwm"},
]


def test_an_allow_list() -> None:
    assert allows(DEFAULT, "c", 1, 3, "r")
    assert allows(DEFAULT, "c", 1, 3, "rw")
    assert not allows(DEFAULT, "c", 1, 3, "m")
    assert not allows(DEFAULT, "c", 1, 3, "rm")
    assert not allows(DEFAULT, "b", 1, 3, "r")
    assert not allows(DEFAULT, "c", 1, 5, "r")
    assert allows(DEFAULT, "c", 136, 17, "rwm")
    assert not allows(DEFAULT, "b", 8, 0, "r")


def test_a_deny_list() -> None:
    rules = [{"allow": False, "type": "b", "major": 8, "minor": 0, "access": "w"}]
    assert not allows(rules, "b", 8, 0, "w")
    assert not allows(rules, "b", 8, 0, "rw")
    assert allows(rules, "b", 8, 0, "r")
    assert allows(rules, "b", 8, 1, "w")


def test_a_rule_for_all_forgets_the_rules_before() -> None:
    assert reduce([*DEFAULT, {"allow": True, "access": "rwm"}]) == (True, {})
    assert allows([*DEFAULT, {"allow": True, "access": "rwm"}], "b", 8, 0, "rwm")
    assert not allows([*DEFAULT, {"allow": False, "access": "rwm"}], "c", 1, 3, "r")


def test_denying_takes_from_what_was_allowed() -> None:
    rules = [*DEFAULT, {"allow": False, "type": "c", "major": 1, "minor": 3, "access": "w"}]
    assert allows(rules, "c", 1, 3, "r")
    assert not allows(rules, "c", 1, 3, "w")


NUMBERS = st.integers(0, 2)
RULE = st.fixed_dictionaries(
    {"allow": st.booleans(), "access": st.sampled_from(["r", "w", "m", "rw", "rwm"]), "type": st.sampled_from("bca")},
    optional={"major": NUMBERS, "minor": NUMBERS},
)


@given(
    st.lists(RULE, max_size=8), st.sampled_from("bc"), NUMBERS, NUMBERS, st.sampled_from(["r", "w", "m", "rw", "rwm"])
)
def test_the_program_says_what_the_reduced_rules_say(
    rules: list[dict[str, Any]], kind: str, major: int, minor: int, access: str
) -> None:
    default, exceptions = reduce(rules)
    matching = [
        set(said) for (k, a, i), said in exceptions.items() if k == kind and a in (-1, major) and i in (-1, minor)
    ]
    if default:
        expected = not any(said & set(access) for said in matching)
    else:
        expected = any(set(access) <= said for said in matching)
    assert allows(rules, kind, major, minor, access) == expected
