"""The half of ``cp`` that is in the container: the worker goes in, and reads or writes there.

Into a running container it goes by its namespaces: what it sees is what the container's processes see, volumes and bind mounts
included, with the rights of the container's root and no more. A stopped one is mounted as for its start, in a mount
namespace of the worker's own, and that becomes its root. So no name that the container chose is ever looked up outside.
Runs in the worker: light modules only. Source: setns(2), pivot_root(2), openat2(2) (RESOLVE_IN_ROOT), capabilities(7).
"""

from __future__ import annotations

import os
from errno import EACCES, EDQUOT, EFBIG, ENAMETOOLONG, ENOSPC, EPERM, EROFS

from .copying_tree import CopyError, Missing, Placer, send
from .launcher import rootfs as launcher_rootfs
from .launcher.bind_ids import new_users
from .launcher.bind_mounts import BindMounts
from .launcher.mount_tree import Tree
from .launcher.process import Step
from .launcher.rootfs import Ids, Rootfs, root_mounts
from .linux.capabilities import capget, capset
from .linux.mounts import MNT_DETACH, MOUNT_ATTR_RDONLY, MS_PRIVATE, MS_REC, mount, mount_setattr, pivot_root, umount2
from .linux.process import (
    CLONE_NEWNS,
    CLONE_NEWUSER,
    PR_SET_DUMPABLE,
    PR_SET_NO_NEW_PRIVS,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    be_root,
    openat2,
    prctl,
    setns,
    unshare,
)
from .storage.tarstream import TarStream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Request = dict[str, Any]

# CAP_CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, SETFCAP. Source: capabilities(7)
_FILE_CAPABILITIES = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 31
# What says why, whichever of the files it was. A broken pipe isn't one: why is known at its other end.
_TELLING = (EROFS, ENOSPC, EDQUOT, EACCES, EPERM, ENAMETOOLONG, EFBIG)
_IN_ROOT = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS


def copy(request: Request) -> object:
    """Send ``path`` to ``out_fd``, or place what comes from ``tar_fd`` there. What can't be is ``{"refused": sentence, "missing"}``."""
    if "pidfd_fd" in request:
        _join(request)
    else:
        _mount(request)
    prctl(PR_SET_DUMPABLE, 0)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    _, held, _ = capget()
    capset(held & _FILE_CAPABILITIES, held & _FILE_CAPABILITIES, 0)
    root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def opener(path: str, flags: int) -> int:
        return openat2(root_fd, path, flags, 0, _IN_ROOT)

    try:
        if "out_fd" in request:
            top = os.fsencode(request["top"])
            send(
                opener,
                request["path"],
                request["out_fd"],
                follow=request["follow"],
                top=top,
                holes_min=request["holes_min"],
            )
            return {"skipped": 0}
        placer = Placer(
            opener,
            request["path"],
            base=os.fsencode(request["base"]),
            content=request["content"],
            owned=request["owned"],
            plain=False,
            owner=(0, 0),
        )
        stream = TarStream(request["tar_fd"])
        if request["archive"]:
            placer.place_archive(stream)
        else:
            placer.place_tree(stream)
        return {"skipped": placer.skipped}
    except CopyError as error:
        return {"refused": str(error), "missing": isinstance(error, Missing)}
    except OSError as error:
        if error.errno not in _TELLING:
            raise
        return {"refused": f"{request['path']}: {(error.strerror or '').lower()}", "missing": False}


def _join(request: Request) -> None:
    pidfd = request["pidfd_fd"]
    # In one call: a process that isn't dumpable may be joined by this one's rights, and not by those that it gets inside.
    # Root and working directory become those of the mount namespace.
    setns(pidfd, CLONE_NEWNS | (CLONE_NEWUSER if request["own_users"] else 0))
    os.close(pidfd)
    if request["own_users"]:
        be_root(setgroups=request["setgroups"])


def _mount(request: Request) -> None:
    """Make the stopped container's mounts in a mount namespace of this process, and the first of them its root."""
    rootless = request.get("userns_fd") is not None
    unshare(CLONE_NEWNS)
    mount(None, "/", flags=MS_REC | MS_PRIVATE)
    launcher_rootfs.attach_directory = request["attach_directory"]
    made = Rootfs()
    ids = Ids(0, 0, -1, idmap=False, make_nodes=False)
    root_mounts(made, request["plan"], ids, upper_bytes=0, userxattr=rootless)
    binds = BindMounts(made, ids, "", -1)
    for item in request["mounts"]:
        if item["type"] == "image":
            root_mounts(made, [item["plan"]], ids, upper_bytes=0, userxattr=rootless)
        else:
            binds.add(item)
    base, count = request["plan"][0].get("id_map") or (0, 0)
    users_fd = new_users([(0, base, count)], [(0, base, count)]) if base else -1
    tree = Tree(Step("mounts"))
    tree.attach(made.entries, made.fds)
    root_fd = tree.root_fd
    if request["read_only"]:
        mount_setattr(root_fd, MOUNT_ATTR_RDONLY)
    os.fchdir(root_fd)
    pivot_root(".", ".")
    umount2(".", MNT_DETACH)
    os.chdir("/")
    if users_fd >= 0:
        # A private copy of the image, whose files carry the ids of the container.
        setns(users_fd, CLONE_NEWUSER)
        be_root(setgroups=False)
