"""The lines of cell magics, for those who read a notebook without running it: which of their words are options, and which aren't.

What a cell magic adds to the run and build options stands here by name only; the magics themselves say what it means. A test holds
this list to the magics' own parsers.
"""

from __future__ import annotations

from functools import cache

from .build_options import add_build_options
from .parser import Parser
from .run_options import add_run_options
from .union import add_union_options

# Objects in and out: -i isn't docker's --interactive in a cell.
OBJECTS = ("-i", "-o")
# What each magic adds: options that take a value, and options that take none.
CELL_VALUES = ("--lang", "--in", "--out", "--err", "--result", "--proc", "--commit", "--on", "--map", *OBJECTS)
CELL_FLAGS = ("--bg", "--no-raise-error", "--diff", "--watch")
BUILD_VALUES = ("--result",)
BUILD_FLAGS = ("--quiet", "-q")
OWN_VALUES: dict[str, tuple[str, ...]] = {"dockerfile": ("--target", "--platform"), "layer": ("--lang", "--mount")}
OWN_FLAGS: dict[str, tuple[str, ...]] = {"dockerfile": ("--pull",), "layer": ()}
MAGICS = ("container", "union", "dockerfile", "layer")


@cache
def cell_words(magic: str) -> Parser:
    """A parser that sorts the words of ``%%magic``, one of MAGICS: its ``sort`` is to be used, not its ``parse``. Made once."""
    parser = Parser(f"%%{magic}", interspersed=True)
    if magic in ("container", "union"):
        add_run_options(parser, omit=OBJECTS)
        if magic == "union":
            add_union_options(parser)
        own: tuple[tuple[str, ...], tuple[str, ...]] = (CELL_VALUES, CELL_FLAGS)
    else:
        add_build_options(parser)
        own = ((*BUILD_VALUES, *OWN_VALUES[magic]), (*BUILD_FLAGS, *OWN_FLAGS[magic]))
    for name in own[0]:
        parser.value(name)
    for name in own[1]:
        parser.flag(name)
    return parser
