"""What ``?`` and a look at a word show: a variable's value, a function's text, a builtin's help, a manual page, or what ``--help`` prints.

``--help`` runs the program, in a process beside the shell, and programs that don't know it do something else. So a look in passing (a front end
makes one while somebody types) runs nothing but what lies in the system's own folders; a ``?`` that was typed runs whatever it names.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ...runtime.errors import CellwallError
from .words import literal, name_at

if TYPE_CHECKING:
    from .cells import Cells

_LONGEST = 200_000
_OVERSTRUCK = re.compile(r".\x08|\x1b\[[0-9;]*m")
_SYSTEM = ("/bin/", "/sbin/", "/usr/bin/", "/usr/sbin/")
_WHAT = """if [ -n "${BASH_VERSION-}" ]; then
    type -- %(name)s 2>/dev/null || exit 1
    case $(type -t -- %(name)s) in builtin | keyword) echo; help -- %(name)s ;; esac
else
    __cellwall_w=$(command -V %(name)s 2>/dev/null) || exit 1
    printf '%%s\\n' "$__cellwall_w"
fi
printf '\\0%%s' "$(command -v %(name)s)" """
_VARIABLE = """if [ -z "${%(name)s+x}" ]; then exit 1; fi
if [ -n "${BASH_VERSION-}" ]; then declare -p %(name)s; else printf '%%s\\n' "%(name)s=${%(name)s}"; fi"""
_MANUAL = "command -v man >/dev/null && MANWIDTH=80 MANPAGER=cat man -- {name} 2>/dev/null </dev/null"
_APPLET = "busybox --list 2>/dev/null | grep -qxF -- {name} && busybox {name} --help 2>&1 </dev/null"
_HELP = "{path} --help 2>&1 </dev/null"


class Inspection:
    """Answers inspect_request, and cells that end or begin with ``?``."""

    def __init__(self, cells: Cells) -> None:
        self._cells = cells

    def at(self, code: str, cursor: int) -> str:
        """What is known of the name around ``cursor``; empty where nothing is."""
        name, variable = name_at(code, cursor)
        if variable:
            return self._variable(name)
        return self.look(name, thoroughly=False) or self._variable(name)

    def look(self, name: str, *, thoroughly: bool) -> str:
        """What is known of the command ``name``; ``thoroughly``: its ``--help`` is run wherever it lies."""
        if not re.fullmatch(r"[\w./+@-]{1,200}", name) or name.startswith("-"):
            return ""
        said, _, path = self._ask(_WHAT % {"name": literal(name)}).partition("\0")
        if not said.strip():
            return self._variable(name) if thoroughly else ""
        if path == name and self._cells.box.dialect() == "ash":
            # A program that is part of busybox itself, as its shell is.
            return f"{said.rstrip()}\n\n{self._outside(_APPLET.format(name=literal(name)))}".rstrip()
        if not path.startswith("/"):
            return said.rstrip()
        more = self._outside(_MANUAL.format(name=literal(path.rpartition("/")[2])))
        if not more and (thoroughly or path.startswith(_SYSTEM)):
            more = self._outside(_HELP.format(path=literal(path)))
        return f"{said.rstrip()}\n\n{more}".rstrip()

    def _variable(self, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z_]\w{0,200}", name):
            return ""
        return self._ask(_VARIABLE % {"name": name}).rstrip()

    def _ask(self, script: str) -> str:
        return self._cells.ask(f"set +e +u +x\n{script}").decode("utf-8", "replace")[:_LONGEST]

    def _outside(self, script: str) -> str:
        """What a process beside the shell prints, as plain text; empty where it fails without a word."""
        try:
            _, said = self._cells.box.run([], script=script)
        except CellwallError:
            return ""
        text = _OVERSTRUCK.sub("", said[:_LONGEST].decode("utf-8", "replace"))
        return "".join(letter for letter in text if letter.isprintable() or letter in "\n\t").strip("\n")
