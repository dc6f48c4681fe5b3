"""The program of a spare container, run by the image's own Python: it loads what a kernel loads, waits, and becomes the kernel.

It comes as text over its standard input, a socket, so no file of it lies in the container. It may import the standard library and what an
ipykernel brings, from Python 3.8 on; here it is read as text, and nothing but its list is imported. What it becomes has the arguments, environment,
streams and import path of a kernel that was started cold. Source: runpy (``python -m``), proc_pid_stat(5), unix(7).
"""

from __future__ import annotations

import io
import os
import sys

# The first is a kernel as it is imported; the rest is what a kernel loads besides until it answers.
LOADED = (
    "ipykernel.kernelapp",
    "ipykernel.debugger",
    "IPython.core.completerlib",
    "IPython.core.logger",
    "IPython.core.oinspect",
    "IPython.extensions.storemagic",
    "tornado.platform.asyncio",
    "tornado.queues",
    "faulthandler",
    "sqlite3",
)
# A message is a connection file and a few variables.
LONGEST_BYTES = 1 << 18


def main(module: str, arguments: list[str], whole: list[str]) -> None:
    """Be the kernel ``module`` with ``arguments`` once the message for it is there. ``whole`` is a cold kernel's command line."""
    # -c puts the current folder first, which is the notebook's: a json.py there is the kernel's to import, not this program's.
    prepended = not (sys.flags.isolated or getattr(sys.flags, "safe_path", False))
    if prepended:
        del sys.path[0]
    import importlib
    import json
    import runpy
    import socket

    for name in LOADED:
        try:
            importlib.import_module(name)
        except Exception:  # another version hasn't got it; what a kernel can't do without is told by the kernel
            pass
    channel = socket.socket(fileno=os.dup(0))
    data, ancillary, _, _ = channel.recvmsg(LONGEST_BYTES, socket.CMSG_SPACE(4))
    if not data:  # whoever held it has gone
        os._exit(0)
    channel.close()
    null_fd = int.from_bytes(ancillary[0][2][:4], sys.byteorder)
    os.dup2(null_fd, 0)
    os.close(null_fd)
    sys.stdin = sys.__stdin__ = _standard_input()  # type: ignore[misc]
    message = json.loads(data)
    # The file is there, empty: nothing but its content is late.
    with open(message["file"], "w", encoding="utf-8") as file:
        file.write(message["connection"])
    os.environ.update(message["environment"])
    if prepended:
        sys.path.insert(0, os.getcwd())
    sys.argv = [whole[0], *arguments]
    if hasattr(sys, "orig_argv"):
        sys.orig_argv = list(whole)
    _show_as(whole)
    runpy._run_module_as_main(module)  # type: ignore[attr-defined]


def _standard_input() -> io.TextIOWrapper:
    """Standard input over the descriptor as it is now, made as Python makes it."""
    buffer = open(0, "rb", closefd=False)
    buffer.raw.name = "<stdin>"  # type: ignore[attr-defined]
    text = io.TextIOWrapper(buffer, encoding=sys.stdin.encoding, errors=sys.stdin.errors, newline="\n")
    text.mode = "r"  # type: ignore[misc]
    return text


def _show_as(whole: list[str]) -> None:
    """Have /proc/PID/cmdline show the words of ``whole``. They are written where this process's own words lie, which are as long."""
    words = b"".join(os.fsencode(word) + b"\0" for word in whole)
    try:
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        begin, end = int(fields[45]), int(fields[46])
        if 0 < begin and len(words) <= end - begin:
            with open("/proc/self/mem", "r+b", buffering=0) as memory:
                memory.seek(begin)
                memory.write(words.ljust(end - begin, b"\0"))
    except (OSError, IndexError, ValueError):  # it can't be had: it is for a person's eyes alone
        pass
