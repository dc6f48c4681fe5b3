"""The process that a kernel was started for: a kernel that is a process of its own ends with it.

The client may have been killed before this looks. Its child has been given to another process then, and isn't an orphan by what getppid(2)
says: the number that jupyter_client leaves in JPY_PARENT_PID tells. Source: pidfd_open(2), PR_SET_CHILD_SUBREAPER(2const).
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from ..runtime.errors import CellwallError
from ..runtime.linux.process import pidfd_open


def client_pid(environment: Mapping[str, str]) -> int:
    """The process that Jupyter names as the client; 0 where it names none, or process 1, which stays."""
    said = environment.get("JPY_PARENT_PID", "")
    # The largest number of a process has seven digits. Source: proc_sys_kernel(5), pid_max.
    number = int(said) if said.isascii() and said.isdecimal() and len(said) < 10 else 0
    return number if number > 1 else 0


def client_fds(environment: Mapping[str, str]) -> list[int]:
    """Pidfds of the parent and of the client, each readable once it has ended; the caller closes them. None is of process 1, which stays.

    Raises CellwallError where one of them has ended already.
    """
    numbers = {os.getppid(), client_pid(environment)} - {0, 1}
    found: list[int] = []
    try:
        for number in sorted(numbers):
            found.append(pidfd_open(number))
    except ProcessLookupError:
        for fd in found:
            os.close(fd)
        raise CellwallError(f"the client that this kernel was started for, process {number}, has ended") from None
    return found
