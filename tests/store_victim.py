"""One command of the command line, begun on a word: the tests of crashes kill it at an instant of the work, not of the start.

Usage: store_victim.py WORDS…. Prints ``ready``, and begins when its standard input ends.
"""

from __future__ import annotations

import sys

# All that a command would import on its way.
from cellwall.runtime.cli.command import main

if __name__ == "__main__":
    print("ready", flush=True)
    sys.stdin.read()
    sys.exit(main(sys.argv[1:]))
