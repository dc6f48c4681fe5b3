"""How docker writes values: sizes, durations, rates, limits, NAME=VALUE pairs.

Every function takes the flag (or the config key) that the text belongs to first, so that its SpecError can name it, and
the text as the user typed it. Imports the standard library, options.py and errors.py only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping

from ..errors import SpecError
from ..options import Rate, Ulimit

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
LARGEST = (1 << 63) - 1  # the kernel's own files hold sizes in signed 64 bits
MEMORY_LOWEST = 6 * MIB  # docker's: with less, a container's init itself may not fit
PIDS_HIGHEST = 1 << 22  # PID_MAX_LIMIT of 64-bit kernels; proc_sys_kernel(5), pid_max
ULIMITS = (
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
)

_SIZE = r"(?ai)(\d+)(?:\.(\d+))? ?(?:([kmgtp])i?b?|b)?"
_DURATION = r"(?a)(\d+(?:\.\d+)?)(ms|s|m|h|d)?"
_CONTAINER_NAME = r"[a-zA-Z0-9][a-zA-Z0-9_.-]+"
_HOST_NAME = r"(?!-)[a-zA-Z0-9-]{1,63}(?<!-)(\.(?!-)[a-zA-Z0-9-]{1,63}(?<!-))*"
_PLATFORM = r"[a-z0-9_]+(/[a-z0-9_]+){0,2}"
_POWERS = {"k": 10, "m": 20, "g": 30, "t": 40, "p": 50}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def size_text(number: int) -> str:
    """``67108864`` as ``64m``: the shortest exact form that ``size`` reads back."""
    for letter in "ptgmk" if number else "":
        if number % (1 << _POWERS[letter]) == 0:
            return f"{number >> _POWERS[letter]}{letter}"
    return str(number)


def size(flag: str, text: str, low: int = 1, high: int = LARGEST) -> int:
    """Bytes of ``64m``, ``1.5g``, ``512 KiB``, ``1073741824``: powers of 1024, as docker reads them."""
    match = re.fullmatch(_SIZE, text.strip())
    if match is None:
        raise SpecError(flag, f"{text!r} is no size; write a number and b, k, m, g or t, such as 256m")
    whole, fraction, unit = match.groups()
    if len(whole) > 30 or len(fraction or "") > 30:
        raise SpecError(flag, f"{text} is out of range: {size_text(low)} to {size_text(high)}")
    scale = 1 << _POWERS[unit.lower()] if unit else 1
    number = int(whole) * scale
    if fraction:
        number += int(fraction) * scale // 10 ** len(fraction)
    if not low <= number <= high:
        limits = (
            f"at least {size_text(low)}"
            if high == LARGEST and number < low
            else f"{size_text(low)} to {size_text(high)}"
        )
        raise SpecError(flag, f"{text} is out of range: {limits}")
    return number


def memory(flag: str, text: str) -> int:
    """A memory limit in bytes, at least docker's 6m."""
    return size(flag, text, MEMORY_LOWEST)


def memory_swap(flag: str, text: str) -> int:
    """Memory and swap together in bytes; -1 is unlimited."""
    return -1 if text.strip() == "-1" else size(flag, text, MEMORY_LOWEST)


def positive_size(flag: str, text: str) -> int:
    return size(flag, text)


def integer(low: int, high: int, special: tuple[int, ...] = ()) -> Callable[[str, str], int]:
    """A reader of whole numbers (decimal, or hex with 0x) from ``low`` to ``high``, or one of ``special``."""

    def read(flag: str, text: str) -> int:
        said = f"{low} to {high}" + "".join(f", or {number}" for number in special)
        try:
            number = int(text, 16) if text.lower().startswith("0x") else int(text)
        except ValueError:
            raise SpecError(flag, f"{text!r} is no whole number; the range is {said}") from None
        if not (low <= number <= high or number in special):
            raise SpecError(flag, f"{text} is out of range: {said}")
        return number

    return read


def cpus(flag: str, text: str) -> float:
    """A number of CPUs, such as 1.5, from 0.01 to as many as this machine has; 0 is no limit, as docker's."""
    count = os.cpu_count() or 1
    said = f"the range is 0.01 to {count}, as this machine has {count}; 0 is no limit"
    try:
        number = float(text)
    except ValueError:
        raise SpecError(flag, f"{text!r} is no number; {said}") from None
    if number != 0 and not 0.01 <= number <= count:
        raise SpecError(flag, f"{text} is out of range; {said}")
    return number


def duration(flag: str, text: str) -> float:
    """Seconds of ``30``, ``1.5``, ``500ms``, ``5m``, ``1h``; more than 0."""
    match = re.fullmatch(_DURATION, text.strip())
    if match is None:
        raise SpecError(flag, f"{text!r} is no time; write seconds, or a number and ms, s, m, h or d")
    number = float(match[1]) * _SECONDS[match[2] or "s"]
    if not 0 < number <= 10**9:
        raise SpecError(flag, f"{text} is out of range: more than 0 and at most 1000000000 seconds")
    return number


def choice(*words: str, prefixes: tuple[str, ...] = ()) -> Callable[[str, str], str]:
    """A reader of one of ``words``, or of ``PREFIX:something``."""

    def read(flag: str, text: str) -> str:
        if text in words or any(text.startswith(f"{prefix}:") and text != f"{prefix}:" for prefix in prefixes):
            return text
        known = ", ".join([*words, *(f"{prefix}:NAME" for prefix in prefixes)])
        raise SpecError(flag, f"{text!r} isn't known; it is one of {known}")

    return read


def pair(flag: str, text: str) -> tuple[str, str]:
    """``NAME=VALUE``; the value may be empty and hold more equals signs."""
    name, sign, value = text.partition("=")
    if not name or not sign:
        raise SpecError(flag, f"{text!r} needs the form NAME=VALUE")
    return name, value


def label(flag: str, text: str) -> tuple[str, str]:
    """``NAME=VALUE`` or ``NAME`` (an empty value), as docker's labels."""
    name, _, value = text.partition("=")
    if not name:
        raise SpecError(flag, f"{text!r} needs a name before the equals sign")
    return name, value


def sysctl(flag: str, text: str) -> tuple[str, str]:
    """One of the kernel settings that belong to a container's own namespaces, with its value.

    Source: docker run reference, --sysctl; namespaces(7).
    """
    name, value = pair(flag, text)
    name = name.replace("/", ".")
    ipc = {"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax"}
    ipc |= {"kernel.shmmni", "kernel.shm_rmid_forced"}
    if not (name in ipc or name.startswith(("net.", "fs.mqueue."))) or ".." in name:
        raise SpecError(
            flag,
            f"{name} isn't a container's own; those are kernel.msg*, kernel.shm*, kernel.sem, fs.mqueue.* and net.*",
        )
    return name, value


def environment_variable(flag: str, text: str, caller: Mapping[str, str]) -> tuple[str, str] | None:
    """``NAME=VALUE``, or ``NAME`` for the caller's value; ``None`` where the caller has none, as docker does."""
    name, sign, value = text.partition("=")
    if not name or "\0" in text:
        raise SpecError(flag, f"{text!r} needs the form NAME or NAME=VALUE")
    if sign:
        return name, value
    return (name, caller[name]) if name in caller else None


def lines_of_file(flag: str, path: str) -> list[str]:
    """The lines of an env or label file without comments, blank ones and leading space.

    Raises SpecError where it can't be read. Source: docker run reference, --env-file.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read()
    except UnicodeDecodeError:
        raise SpecError(flag, f"{path} isn't UTF-8 text") from None
    except OSError as error:
        raise SpecError(flag, f"{path} can't be read: {(error.strerror or str(error)).lower()}") from error
    lines = [line.lstrip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def environment_file(flag: str, path: str, caller: Mapping[str, str]) -> dict[str, str]:
    """The variables of an env file, later lines winning; a bare NAME takes the caller's value."""
    found: dict[str, str] = {}
    for line in lines_of_file(flag, path):
        name = line.partition("=")[0]
        if not name or any(letter.isspace() for letter in name):
            raise SpecError(flag, f"{path}: {line!r} needs the form NAME or NAME=VALUE, without space in the name")
        if entry := environment_variable(flag, line, caller):
            found[entry[0]] = entry[1]
    return found


def ulimit(flag: str, text: str) -> Ulimit:
    """``nofile=1024:2048``, ``core=0``, ``memlock=-1`` (unlimited). Source: setrlimit(2)."""
    name, sign, limits = text.partition("=")
    if name not in ULIMITS:
        raise SpecError(flag, f"{name!r} isn't known; it is one of {', '.join(ULIMITS)}")
    parts = limits.split(":")
    if not sign or len(parts) > 2:
        raise SpecError(flag, f"{text!r} needs the form NAME=SOFT[:HARD]")
    numbers = []
    for part in parts:
        part = "-1" if part == "unlimited" else part
        if not re.fullmatch(r"-1|[0-9]{1,19}", part) or int(part) > LARGEST:
            raise SpecError(flag, f"{part!r} of {text!r} is out of range: 0 to {LARGEST}, or -1 for unlimited")
        numbers.append(int(part))
    soft, hard = numbers[0], numbers[-1]
    if hard != -1 and (soft == -1 or soft > hard):
        raise SpecError(flag, f"{text!r} is out of range: the soft limit must be at most the hard one")
    return Ulimit(name, soft, hard)


def _rate(flag: str, text: str, read: Callable[[str, str], int], example: str) -> Rate:
    path, _, amount = text.rpartition(":")
    if not path.startswith("/dev/"):
        raise SpecError(flag, f"{text!r} needs the form PATH:RATE, such as {example}")
    return Rate(path, read(flag, amount))


def rate_bps(flag: str, text: str) -> Rate:
    """``/dev/sda:1mb``: bytes a second."""
    return _rate(flag, text, positive_size, "/dev/sda:1mb")


def rate_iops(flag: str, text: str) -> Rate:
    """``/dev/sda:1000``: operations a second."""
    return _rate(flag, text, integer(1, LARGEST), "/dev/sda:1000")


def file_path(flag: str, text: str) -> str:
    """A file's path, made absolute: it is written from another folder in the background."""
    return os.path.abspath(words(flag, text))


def device_weight(flag: str, text: str) -> Rate:
    """``/dev/sda:500``: a weight from 10 to 1000."""
    return _rate(flag, text, integer(10, 1000), "/dev/sda:500")


def device_rule(flag: str, text: str) -> str:
    """``c 42:* rmw``: kind (a, b or c), major and minor number or ``*``, and what may be done."""
    if not re.fullmatch(r"[abc] (\d{1,10}|\*):(\d{1,10}|\*) [rwm]{1,3}", text):
        raise SpecError(flag, f"{text!r}: write kind, numbers and access, such as 'c 42:* rmw'")
    return text


def device(flag: str, text: str) -> str:
    """``/dev/fuse``, ``/dev/sda:/dev/xvda``, ``/dev/sda:/dev/xvda:rwm``: checked, and returned whole."""
    parts = text.split(":")
    rights = parts.pop() if len(parts) > 1 and not parts[-1].startswith("/") else "rwm"
    if not 1 <= len(parts) <= 2 or not all(part.startswith("/") for part in parts):
        raise SpecError(flag, f"{text!r} needs the form HOST[:CONTAINER[:rwm]], with absolute paths")
    if not rights or set(rights) - set("rwm"):
        raise SpecError(flag, f"{rights!r} of {text!r} isn't known; rights are letters of rwm")
    return text


def container_name(flag: str, text: str) -> str:
    if not re.fullmatch(_CONTAINER_NAME, text):
        raise SpecError(
            flag,
            f"{text!r} isn't a container name; it has two or more of a-z A-Z 0-9 _ . - and starts "
            "with a letter or digit",
        )
    return text


def host_name(flag: str, text: str) -> str:
    """A name that sethostname(2) takes (at most 64 bytes) and RFC 1123 allows."""
    if len(text) > 64 or not re.fullmatch(_HOST_NAME, text):
        raise SpecError(flag, f"{text!r} isn't a host name: at most 64 of a-z A-Z 0-9 - and dots between")
    return text


def add_host(flag: str, text: str) -> str:
    """``NAME:ADDRESS`` or ``NAME=ADDRESS``, returned as ``NAME:ADDRESS``; an address may be ``host-gateway``, which is this machine's."""
    sign = "=" if "=" in text else ":"
    name, _, text_address = text.partition(sign)
    if not text_address or not re.fullmatch(_HOST_NAME, name):
        raise SpecError(flag, f"{text!r} needs the form NAME:ADDRESS")
    if text_address == "host-gateway":
        return f"{name}:{text_address}"
    return f"{name}:{address(flag, text_address.removeprefix('[').removesuffix(']'))}"


def address(flag: str, text: str) -> str:
    """An IPv4 or IPv6 address."""
    import ipaddress

    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise SpecError(flag, f"{text!r} isn't an IPv4 or IPv6 address") from None


def dns_search(flag: str, text: str) -> str:
    """One domain of a resolv.conf's search list; ``.`` alone is an empty list."""
    if text != "." and not (re.fullmatch(_HOST_NAME, text.removesuffix(".")) and len(text) < 254):
        raise SpecError(flag, f"{text!r} is no domain; write one such as example.org, or . for none")
    return text


def dns_option(flag: str, text: str) -> str:
    """One option of a resolv.conf, such as ``ndots:2``. Source: resolv.conf(5)."""
    if not re.fullmatch(r"[a-z0-9-]{1,40}(:[0-9]{1,9})?", text):
        raise SpecError(flag, f"{text!r} is no option of resolv.conf; write one such as ndots:2")
    return text


def absolute(flag: str, text: str) -> str:
    if not text.startswith("/"):
        raise SpecError(flag, f"{text!r} must be an absolute path in the container")
    return text


def cpuset(flag: str, text: str) -> str:
    """A list such as ``0-3,6``; each from 0. Source: cpuset(7), formats."""
    for part in text.split(","):
        low, sign, high = part.partition("-")
        if not low.isdecimal() or (sign and not (high.isdecimal() and int(low) <= int(high))) or len(part) > 20:
            raise SpecError(flag, f"{text!r} isn't a list of numbers and ranges, such as 0-3,6")
    return text


def user(flag: str, text: str) -> str:
    """``NAME|UID[:GROUP|GID]``; ids are 0 to 4294967294."""
    parts = text.split(":")
    if len(parts) > 2 or not all(parts) or any(part.isspace() or "\0" in part for part in parts):
        raise SpecError(flag, f"{text!r} needs the form USER[:GROUP], names or numbers")
    for part in parts:
        if part.isdecimal() and int(part[:11]) > 0xFFFFFFFE:
            raise SpecError(flag, f"{part} is out of range: 0 to 4294967294")
    return text


def capability(flag: str, text: str) -> str:
    """A capability's name as capabilities(7) writes it without CAP_, or ALL."""
    name = text.upper().removeprefix("CAP_")
    if not re.fullmatch(r"[A-Z][A-Z0-9_]*", name):
        raise SpecError(flag, f"{text!r} isn't a capability's name, such as NET_ADMIN, or ALL")
    return name


def platform(flag: str, text: str) -> str:
    if not re.fullmatch(_PLATFORM, text):
        raise SpecError(flag, f"{text!r} needs the form OS/ARCHITECTURE[/VARIANT], such as linux/arm64")
    return text


def words(flag: str, text: str) -> str:
    """Any text that a kernel string can carry."""
    if "\0" in text:
        raise SpecError(flag, "a value can't hold a NUL byte")
    return text


def boolean(flag: str, text: str) -> bool:
    """``true`` or ``false`` and the other spellings that Go's ParseBool reads."""
    if text in {"1", "t", "T", "true", "TRUE", "True"}:
        return True
    if text in {"0", "f", "F", "false", "FALSE", "False"}:
        return False
    raise SpecError(flag, f"{text!r} is neither true nor false")
