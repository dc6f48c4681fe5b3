"""A further process in a running container, as ``docker exec`` starts one.

Two children: the first joins the container's namespaces, and clones the second, because a process itself never changes
its pid namespace. The second is the launcher's own child (CLONE_PARENT), so its status comes to the launcher.
Source: setns(2), clone(2) CLONE_PARENT, pid_namespaces(7).
"""

from __future__ import annotations

import os
import signal
import socket

from ..linux.process import CLONE_PARENT, PR_SET_PDEATHSIG, be_root, clone3, prctl, setns
from .init import close_others, die_with_launcher, report
from .process import Step, begin_session, exec_process
from .wire import send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn


def main(
    sync: socket.socket, pidfd: int, namespaces: int, cgroup_fds: list[int], process: dict[str, Any], fds: list[int]
) -> NoReturn:
    """Run the first child: called right after its fork, never returns.

    ``namespaces`` are the CLONE_NEW* flags of those that the container of ``pidfd`` has for itself.
    """
    step = Step("join")
    try:
        join(pidfd, namespaces, cgroup_fds, [sync.fileno(), *fds])
        pid, child_fd = clone3(CLONE_PARENT)
        if pid:
            send(sync, {"joined": pid}, [child_fd])
            os._exit(0)
        if process["new_user"]:
            be_root(setgroups=process["setgroups"])
        die_with_launcher(sync)
        step.name = "session"
        begin_session()
        exec_process(sync, process, fds, step)
    except BaseException as error:
        report(sync, step, error)
    os._exit(125)


def join(pidfd: int, namespaces: int, cgroup_fds: list[int], kept_fds: list[int]) -> None:
    """Join the control groups and namespaces, in a process that was just cloned; of its descriptors ``kept_fds`` stay open, and the standard streams."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # As in init.main; the folder of the cgroup that this was cloned into is among them.
    close_others([pidfd, *cgroup_fds, *kept_fds])
    for fd in cgroup_fds:
        os.write(fd, b"0")
        os.close(fd)
    setns(pidfd, namespaces)
    os.close(pidfd)
