"""Writes ``syscall_tables.py`` from kernel headers: ``python -m cellwall.runtime.security.generate_tables > FILE``.

A maintainer's tool, never imported by the runtime. It runs the C preprocessor over the headers of Debian's
``linux-libc-dev`` (x86_64, i386, x32), ``linux-libc-dev-arm64-cross`` and ``linux-libc-dev-armhf-cross``, whose place below
``/`` can be moved by one argument. System calls that are younger than those headers are listed below: from 424 on, every
machine gives a new one the same number. Source: syscalls(2), scripts/syscall.tbl and arch/x86/entry/syscalls of the kernel.
"""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap

YOUNGER = {
    "cachestat": 451,
    "fchmodat2": 452,
    "map_shadow_stack": 453,
    "futex_wake": 454,
    "futex_wait": 455,
    "futex_requeue": 456,
    "statmount": 457,
    "listmount": 458,
    "lsm_get_self_attr": 459,
    "lsm_set_self_attr": 460,
    "lsm_list_modules": 461,
    "mseal": 462,
    "setxattrat": 463,
    "getxattrat": 464,
    "listxattrat": 465,
    "removexattrat": 466,
    "open_tree_attr": 467,
    "file_getattr": 468,
    "file_setattr": 469,
}
YOUNGER_X86_64 = {"uretprobe": 335, "uprobe": 336}
X32_BIT = 0x40000000

# Machine, header, where its includes are, prefix of its defines.
SOURCES = (
    ("x86_64", "asm/unistd_64.h", "usr/include/x86_64-linux-gnu"),
    ("i386", "asm/unistd_32.h", "usr/include/x86_64-linux-gnu"),
    ("x32", "asm/unistd_x32.h", "usr/include/x86_64-linux-gnu"),
    ("aarch64", "asm/unistd.h", "usr/aarch64-linux-gnu/include"),
    ("arm", "asm/unistd-eabi.h", "usr/arm-linux-gnueabihf/include"),
)


def table(machine: str, header: str, include: str) -> dict[str, int]:
    """Name to number, as the headers of ``machine`` define them and the younger calls continue them."""
    if machine == "arm":
        # unistd.h includes the numbers by ABI and defines the private ones (__ARM_NR_cacheflush).
        header = "asm/unistd.h"
    command = ["cpp", "-undef", "-nostdinc", "-dM", "-D__ARM_EABI__", "-D__BITS_PER_LONG=64", "-D__X32_SYSCALL_BIT=0"]
    command += [f"-I{include}", "-"]
    done = subprocess.run(command, input=f"#include <{header}>\n", text=True, capture_output=True, check=True)
    defined = dict(re.findall(r"^#define (\w+) +(.+)$", done.stdout, re.MULTILINE))
    numbers = {}
    for name, text in defined.items():
        found = re.fullmatch(r"__(?:ARM_)?NR_([a-z_]\w*)", name)
        if found is None or found[1] in ("syscalls", "arch_specific_syscall"):
            continue
        while not re.fullmatch(r"[\d\sxa-fA-F()+]+", text):
            expanded = re.sub(r"[A-Za-z_]\w+", lambda match: defined.get(match[0], match[0]), text)
            if expanded == text:
                raise SystemExit(f"{header}: can't read {name} {text}")
            text = expanded
        value = sum(int(part, 0) for part in text.strip("()").replace("(", "").replace(")", "").split("+"))
        numbers[found[1]] = value & ~X32_BIT if machine == "x32" else value
    younger = YOUNGER | (YOUNGER_X86_64 if machine == "x86_64" else {})
    if machine == "x32":
        del younger["map_shadow_stack"]  # the one that x32 hasn't
    return younger | numbers


def text(numbers: dict[str, int]) -> str:
    """The table as words: a number is that of the next name, every further name has one more than the one before."""
    words = []
    expected = -1
    for name, value in sorted(numbers.items(), key=lambda item: (item[1], item[0])):
        if value != expected:
            words.append(str(value))
        words.append(name)
        expected = value + 1
    return "\n".join(textwrap.wrap(" ".join(words), 118, break_long_words=False, break_on_hyphens=False))


def main() -> None:
    root = sys.argv[1] if len(sys.argv) > 1 else "/"
    print('"""Numbers of the system calls by machine; written by generate_tables.py, not by hand.')
    print()
    print(
        "A number is that of the name after it; every further name has one more than the name before it. x32's numbers"
    )
    print('are without their bit 30. Source: the kernel\'s unistd.h headers.\n"""\n')
    print("from __future__ import annotations\n")
    print("TABLES = {")
    for machine, header, include in SOURCES:
        print(f'    "{machine}": """\n{text(table(machine, header, f"{root}/{include}"))}\n""",')
    print("}")


if __name__ == "__main__":
    main()
