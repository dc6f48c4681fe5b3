"""Completion of commands, files and variables, asked of the shell itself: in a subshell, so that nothing of the shell changes.

bash lists its names itself; for dash and ash they are gathered from PATH, ``set`` and ``alias``, and functions from the cells that made them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from .words import literal, quoted, word_at

if TYPE_CHECKING:
    from .cells import Cells

_MOST = 500
_FUNCTION = re.compile(r"(?:^|[;&|{(]|\bfunction\b)\s*([A-Za-z_][\w-]*)\s*\(\s*\)", re.MULTILINE)
_KEYWORDS = "case do done elif else esac fi for if in then until while".split()
_BUILTINS = (
    "alias bg break cd command continue echo eval exec exit export false fg getopts hash jobs kill local printf pwd read "
    "readonly return set shift test times trap true type ulimit umask unalias unset wait"
).split()
_TYPES = {"c": "command", "f": "file", "d": "folder", "v": "variable"}
# Functions of the user's own could have these names, and options could change what a pattern finds.
_PLAIN = """unset -f printf test [ set read command unset 2>/dev/null
set +f +e +u +x +n
IFS='
'
[ -n "${BASH_VERSION-}" ] && shopt -u failglob nullglob nocaseglob dotglob globstar
__cellwall_n=0"""
_FILES = """for __cellwall_f in %s*; do
    if [ -d "$__cellwall_f" ]; then __cellwall_k=d
    elif [ -e "$__cellwall_f" ] || [ -L "$__cellwall_f" ]; then __cellwall_k=f
    else continue; fi
    __cellwall_n=$((__cellwall_n + 1))
    [ $__cellwall_n -gt %d ] && break
    \\printf '%%s%%s\\0' $__cellwall_k "$__cellwall_f"
done"""
_COMMANDS = """__cellwall_w=%s
if [ -n "${BASH_VERSION-}" ]; then
    compgen -c -- "$__cellwall_w" | while IFS= read -r __cellwall_f; do \\printf 'c%%s\\0' "$__cellwall_f"; done
else
    for __cellwall_f in %s; do
        case $__cellwall_f in "$__cellwall_w"*) command -v "$__cellwall_f" >/dev/null && \\printf 'c%%s\\0' "$__cellwall_f" ;; esac
    done
    alias | while IFS= read -r __cellwall_f; do
        __cellwall_f=${__cellwall_f#alias }
        case $__cellwall_f in "$__cellwall_w"*) \\printf 'c%%s\\0' "${__cellwall_f%%%%=*}" ;; esac
    done
    IFS=:
    for __cellwall_d in $PATH; do
        for __cellwall_f in "$__cellwall_d/$__cellwall_w"*; do
            [ -f "$__cellwall_f" ] && [ -x "$__cellwall_f" ] && \\printf 'c%%s\\0' "${__cellwall_f##*/}"
        done
    done
fi"""
_VARIABLES = """__cellwall_w=%s
if [ -n "${BASH_VERSION-}" ]; then
    compgen -v -- "$__cellwall_w" | while IFS= read -r __cellwall_f; do \\printf 'v%%s\\0' "$__cellwall_f"; done
else
    set | while IFS= read -r __cellwall_f; do
        case $__cellwall_f in "$__cellwall_w"*=*) ;; *) continue ;; esac
        __cellwall_f=${__cellwall_f%%%%=*}
        case $__cellwall_f in *[!A-Za-z0-9_]* | [0-9]* | '') continue ;; esac
        eval "[ \\"\\${$__cellwall_f+x}\\" ]" && \\printf 'v%%s\\0' "$__cellwall_f"
    done
fi"""


class Completion:
    """Answers complete_request."""

    def __init__(self, cells: Cells) -> None:
        self._cells = cells
        self._functions: dict[str, None] = {}

    def learn(self, text: str) -> None:
        """Remember the functions that a cell seems to make: dash and ash can't list theirs."""
        for match in _FUNCTION.finditer(text[:100_000]):
            if len(self._functions) < 1000:
                self._functions[match[1]] = None

    def at(self, code: str, cursor: int) -> dict[str, Any]:
        """The content of a complete_reply for ``code`` with the cursor at ``cursor``."""
        word = word_at(code, cursor)
        if "\0" in word.text or "\n" in word.text:
            return _reply([], cursor, cursor)
        if word.kind == "variable":
            script = _VARIABLES % literal(word.text)
        elif word.kind == "command" and word.text:
            known = [*_KEYWORDS, *_BUILTINS, *self._functions]
            script = _COMMANDS % (literal(word.text), " ".join(map(literal, known)))
        elif word.kind != "none":
            home = not word.quote and word.text.startswith("~/")
            pattern = '"$HOME"/' + literal(word.text[2:]) if home else literal(word.text)
            script = _FILES % (pattern, _MOST)
        else:
            return _reply([], cursor, cursor)
        found: dict[str, str] = {}
        for item in self._cells.ask(f"{_PLAIN}\n{script}").decode("utf-8", "surrogateescape").split("\0")[:-1]:
            kind, name = _TYPES.get(item[:1]), item[1:]
            if kind is None or name.startswith("__cellwall") or not name.isprintable():
                continue
            if kind in ("file", "folder"):
                if word.kind == "file" and word.text.startswith("~/") and not word.quote:
                    # As it was typed: what HOME is doesn't matter to who reads it.
                    name = "~/" + quoted(_below(name, word.text[2:]), "")
                else:
                    name = quoted(name, word.quote)
                name += "/" if kind == "folder" else ""
            found.setdefault(name, kind)
            if len(found) >= _MOST:
                break
        return _reply(sorted(found.items()), word.start, cursor)


def _below(path: str, typed: str) -> str:
    """The end of ``path`` that belongs to what was typed: as many of its parts."""
    return "/".join(path.split("/")[-(typed.count("/") + 1) :])


def _reply(matches: list[tuple[str, str]], start: int, end: int) -> dict[str, Any]:
    types = [{"start": start, "end": end, "text": name, "type": kind} for name, kind in matches]
    return {
        "status": "ok",
        "matches": [name for name, _ in matches],
        "cursor_start": start,
        "cursor_end": end,
        "metadata": {"_jupyter_types_experimental": types},
    }
