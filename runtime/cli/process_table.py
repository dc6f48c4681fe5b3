"""The table of ``ps -ef``, read from /proc: so that ``top`` works on machines without the program.

Source: proc_pid_stat(5), proc_pid_cmdline(5), ps(1).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

HEADINGS = ("UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD")


def process_rows(pids: Iterable[int]) -> list[list[str]]:
    """A row for each process that is still there."""
    with open("/proc/stat") as file:
        booted = next(int(line.split()[1]) for line in file if line.startswith("btime "))
    ticks = os.sysconf("SC_CLK_TCK")
    rows = []
    for pid in pids:
        try:
            uid = os.stat(f"/proc/{pid}").st_uid
            with open(f"/proc/{pid}/stat", "rb") as file:
                text = file.read().decode(errors="replace")
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                command = file.read().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            continue
        name = text[text.index("(") + 1 : text.rindex(")")]
        # From the third field on: the second may hold blanks and parentheses.
        fields = text[text.rindex(")") + 2 :].split()
        used_s = (int(fields[11]) + int(fields[12])) / ticks
        started = booted + int(fields[19]) / ticks
        rows.append(
            [
                _user(uid),
                str(pid),
                fields[1],
                str(_share(used_s, time.time() - started)),
                _start(started),
                _terminal(int(fields[4])),
                _duration(used_s),
                command or f"[{name}]",
            ]
        )
    return rows


def _user(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _share(used_s: float, lived_s: float) -> int:
    return min(99, int(used_s / lived_s * 100)) if lived_s > 0 else 0


def _start(started: float) -> str:
    """``13:05`` today, ``Nov24`` before, as ps writes it."""
    then, now = time.localtime(started), time.localtime()
    if (then.tm_year, then.tm_yday) == (now.tm_year, now.tm_yday):
        return time.strftime("%H:%M", then)
    return time.strftime("%b%d" if then.tm_year == now.tm_year else "%Y", then)


def _duration(seconds: float) -> str:
    minutes, whole = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{f'{days}-' if days else ''}{hours:02d}:{minutes:02d}:{whole:02d}"


def _terminal(device: int) -> str:
    """``pts/0`` of a device number; the container's own numbering. Source: proc_pid_stat(5), tty_nr; devpts."""
    if device == 0:
        return "?"
    major, minor = (device >> 8) & 0xFFF, (device & 0xFF) | ((device >> 12) & 0xFFF00)
    if 136 <= major <= 143:
        return f"pts/{(major - 136) * 256 + minor}"
    return f"tty{minor}" if major == 4 else "?"
