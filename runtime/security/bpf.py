"""Assembles programs for the kernel's classic BPF machine, back to front.

A jump only goes forwards, and a conditional one by at most 255 instructions: so a program is written from its last
instruction to its first, every target is already there when a jump to it is written, and where a target has moved out of
reach a copy of it (a return) or a bridge to it (an unconditional jump, 32 bits) is put in between.
Source: bpf(4) of the BSDs; the kernel's Documentation/networking/filter.rst; linux/bpf_common.h.
"""

from __future__ import annotations

import struct

LD_ABS = 0x20  # BPF_LD | BPF_W | BPF_ABS
JUMP = 0x05  # BPF_JMP | BPF_JA
JEQ = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
JGT = 0x25
JGE = 0x35
JSET = 0x45
AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
RET = 0x06  # BPF_RET | BPF_K

# Offsets in struct seccomp_data (linux/seccomp.h).
NUMBER = 0
ARCHITECTURE = 4
_ARGUMENTS = 16

# A conditional jump reaches 255; two bridges may come between the check and the jump.
_REACH = 250

Label = int


class Assembler:
    """A program under construction. A label is the position of an instruction, counted from the program's end."""

    def __init__(self) -> None:
        self._code: list[tuple[int, int, int, int]] = []  # last instruction first
        self._near: dict[Label, Label] = {}  # the latest copy of, or bridge to, a label
        self._returns: dict[int, Label] = {}

    def __len__(self) -> int:
        return len(self._code)

    def bytes(self) -> bytes:
        """The program as an array of struct sock_filter, in this machine's byte order."""
        pack = struct.Struct("=HBBI").pack
        return b"".join([pack(*instruction) for instruction in reversed(self._code)])

    def ret(self, value: int) -> Label:
        """The label of a return of ``value``; there is one for each value, until it is out of reach."""
        label = self._returns.get(value)
        if label is None:
            label = self._returns[value] = self._emit(RET, 0, 0, value)
        return label

    def load(self, offset: int, then: Label) -> Label:
        """Load the word at ``offset`` of struct seccomp_data, and go on at ``then``."""
        return self._before(LD_ABS, offset, then)

    def bitwise_and(self, mask: int, then: Label) -> Label:
        """Keep the bits of ``mask``, and go on at ``then``."""
        return self._before(AND, mask, then)

    def jump(self, code: int, value: int, yes: Label, no: Label, holds: int = -1) -> Label:
        """Compare what is loaded with ``value`` by ``code`` (JEQ, JGT, JGE, JSET) and go on at ``yes`` or ``no``.

        ``holds``: the word at this offset is loaded here, so that a target that begins by loading it can skip that.
        """
        if yes == no:
            return yes
        yes = self._reachable(self._loaded(yes, holds))
        no = self._reachable(self._loaded(no, holds))
        yes = self._reachable(yes)  # the copy for ``no`` has moved it by one
        here = len(self._code)
        return self._emit(code, here - yes - 1, here - no - 1, value)

    def compare(self, index: int, operator: str, value: int, second: int, yes: Label, no: Label, bits: int) -> Label:
        """Compare the 64-bit argument ``index`` by OCI's ``operator`` (without its SCMP_CMP_) and go on at ``yes`` or ``no``.

        MASKED_EQ compares the argument's bits in ``value`` with ``second``. ``bits`` 32: the machine's arguments have
        no upper half. Both supported machines are little-endian: the lower word comes first.
        """
        if operator in ("NE", "LT", "LE"):
            operator = {"NE": "EQ", "LT": "GE", "LE": "GT"}[operator]
            yes, no = no, yes
        low, high = _ARGUMENTS + 8 * index, _ARGUMENTS + 8 * index + 4
        low_value, high_value = value & 0xFFFFFFFF, value >> 32
        if operator == "MASKED_EQ":
            if second & ~value:
                return no
            test = self._masked(low, low_value, second & 0xFFFFFFFF, yes, no)
            return (
                self._masked(high, high_value, second >> 32, test, no) if bits == 64 else (no if second >> 32 else test)
            )
        if bits == 32 and high_value:
            return no  # no argument is equal to it or above it
        if operator == "EQ":
            test = self.load(low, self.jump(JEQ, low_value, yes, no, low))
            return self.load(high, self.jump(JEQ, high_value, test, no, high)) if bits == 64 else test
        test = self.load(low, self.jump(JGE if operator == "GE" else JGT, low_value, yes, no, low))
        if bits == 32:
            return test
        equal = self.jump(JEQ, high_value, test, no, high)
        return self.load(high, self.jump(JGT, high_value, yes, equal, high))

    def _masked(self, offset: int, mask: int, value: int, yes: Label, no: Label) -> Label:
        if mask == 0:
            return yes
        if mask == 0xFFFFFFFF:
            return self.load(offset, self.jump(JEQ, value, yes, no, offset))
        if value == 0:
            return self.load(offset, self.jump(JSET, mask, no, yes, offset))
        return self.load(offset, self.bitwise_and(mask, self.jump(JEQ, value, yes, no)))

    def _loaded(self, target: Label, holds: int) -> Label:
        code, _, _, offset = self._code[target]
        return target - 1 if code == LD_ABS and offset == holds else target

    def _before(self, code: int, value: int, then: Label) -> Label:
        """Write an instruction that goes on at ``then``: straight behind it, or behind a bridge to it."""
        if then != len(self._code) - 1:
            self._bridge(then)
        return self._emit(code, 0, 0, value)

    def _reachable(self, target: Label) -> Label:
        """``target``, or a copy of it or bridge to it that a conditional jump reaches."""
        near = self._near.get(target, target)
        return near if len(self._code) - near <= _REACH else self._bridge(target)

    def _bridge(self, target: Label) -> Label:
        code, _, _, value = self._code[target]
        near = self._emit(RET, 0, 0, value) if code == RET else self._emit(JUMP, 0, 0, len(self._code) - target - 1)
        self._near[target] = near
        return near

    def _emit(self, code: int, yes: int, no: int, value: int) -> Label:
        self._code.append((code, yes, no, value))
        return len(self._code) - 1
