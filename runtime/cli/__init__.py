"""The ``cellwall`` command: docker's words on the command line, and the run options that the magics share.

Importing this package loads nothing else: ``cellwall version`` must not pay for images, storage or the launcher.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one ``cellwall`` command line (default: this process's) and return its exit status."""
    from .command import main as run

    return run(argv)
