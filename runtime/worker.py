"""The worker process: does one job on a tree of untrusted files, confined, and answers in JSON.

Started by storage/jobs.py as ``python -I -S -c … FD``; the descriptor holds the request. Before any untrusted byte is
read it joins the store's user namespace (rootless), makes the tree its root in a mount namespace of its own, and gives up
every capability but those that owning other people's files takes. It dies as soon as its caller does: the kernel
signals it when the last writer of its lifeline pipe is gone (F_SETSIG isn't needed: SIGIO's default ends a process).

The answer is ``{"result": …}`` or ``{"error": sentence, "kind": "layer"|"os"|"bug", "errno": n}``.
May import the standard library's light modules, runtime/linux, runtime/storage, and what runtime/build, runtime/union and runtime/inspect mark for it.
Source: pivot_root(2), user_namespaces(7), capabilities(7), fcntl(2) (F_SETOWN, O_ASYNC).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import resource
import select
import stat
import sys

from .errors import SyscallError
from .linux.capabilities import capget, capset
from .linux.files import write_all
from .linux.libc import check, libc
from .linux.mounts import MNT_DETACH, MS_BIND, MS_PRIVATE, MS_REC, mount, pivot_root, umount2
from .linux.process import CLONE_NEWNS, CLONE_NEWUSER, PR_SET_NO_NEW_PRIVS, openat2, prctl, setns, unshare
from .storage.lowers import Lowers
from .storage.tarheader import TarError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Request = dict[str, Any]

# CAP_CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, MKNOD, SETFCAP. Source: capabilities(7)
_FILE_CAPABILITIES = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 27 | 1 << 31
# trusted.* attributes need it. Source: xattr(7)
_CAP_SYS_ADMIN = 1 << 21
_MEMORY = 4 << 30


def main(request_fd: int) -> None:
    """Do the job that ``request_fd`` describes, answer, and end the process."""
    request: Request = json.loads(os.pread(request_fd, os.fstat(request_fd).st_size, 0))
    os.close(request_fd)
    _die_with(request["lifeline_fd"])
    os.umask(0)
    try:
        answer = {"result": _work(request)}
    except TarError as error:
        answer = {"error": str(error), "kind": "layer"}
    except MemoryError:
        answer = {"error": "it takes more memory to unpack than any real layer", "kind": "layer"}
    except OSError as error:
        what = error.call if isinstance(error, SyscallError) else str(error.filename or "")
        answer = {"error": what, "kind": "os", "errno": error.errno or 0}
    write_all(request["answer_fd"], json.dumps(answer).encode())
    # Nothing to flush or to free: leave without the interpreter's tear-down.
    os._exit(0)


def _die_with(lifeline_fd: int) -> None:
    """End this process when nobody holds the lifeline's other end any more."""
    fcntl.fcntl(lifeline_fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline_fd, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    # It may have gone before the signal was asked for.
    poll = select.poll()
    poll.register(lifeline_fd, select.POLLIN)
    if poll.poll(0):
        os._exit(1)


def _work(request: Request) -> object:
    if (userns_fd := request.get("userns_fd")) is not None:
        setns(userns_fd, CLONE_NEWUSER)
        os.close(userns_fd)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or hard > _MEMORY:
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    job: Callable[[Request], object] = _JOBS[request["job"]]
    return job(request)


def confine(root: str, *, trusted_attributes: bool) -> None:
    """Make ``root`` the process's root directory and working directory, and keep only what owning files takes.

    Without the right to a mount namespace it is chroot. Raises SyscallError.
    """
    _, held, _ = capget()
    try:
        unshare(CLONE_NEWNS)
    except SyscallError as error:
        if error.errno != errno.EPERM:
            raise
        os.chroot(root)
        os.chdir("/")
    else:
        mount(None, "/", None, MS_REC | MS_PRIVATE)
        mount(root, root, None, MS_BIND)
        os.chdir(root)
        pivot_root(".", ".")
        umount2(".", MNT_DETACH)
        os.chdir("/")
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    kept = held & (_FILE_CAPABILITIES | (_CAP_SYS_ADMIN if trusted_attributes else 0))
    capset(kept, kept, 0)


def _layer_dirfds(request: Request) -> list[int]:
    """The trees of the request's lower layers, top first: names of layer folders below ``layers_fd``."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    found = []
    for name in request["lowers"]:
        try:
            found.append(os.open(f"{name}/diff", flags, dir_fd=request["layers_fd"]))
        except FileNotFoundError:
            # A layer that isn't unpacked, see storage/erofs.py.
            from .storage.erofs_mount import lower_of, open_lower

            found.append(open_lower(lower_of(f"/proc/self/fd/{request['layers_fd']}/{name}")))
    return found


def syncfs(fd: int) -> None:
    """Write the filesystem of ``fd`` to its disk. Source: syncfs(2)."""
    check(libc.syncfs(fd), "syncfs")


def _unpack(request: Request) -> object:
    from .storage import unpack  # noqa: F401  with all that it needs: once confined, the process can't import

    lowers = Lowers(_layer_dirfds(request))
    trusted = request["opaque_attribute"].startswith("trusted.")
    confine(request["root"], trusted_attributes=trusted)
    return _unpacked(request, lowers)


def _unpack_snapshot(request: Request) -> object:
    """Make the subvolume ``root`` in ``folder_fd``: the one lower layer, or nothing, with the archive applied, and read-only."""
    from .storage import unpack  # noqa: F401  see _unpack
    from .storage.btrfs_subvolume import create, set_readonly, snapshot
    from .storage.snapshot_layer import apply_layer

    dirfds = _layer_dirfds(request)
    name = os.path.basename(request["root"])
    if dirfds:
        snapshot(dirfds[0], name, request["folder_fd"])
    else:
        create(name, request["folder_fd"])
    confine(request["root"], trusted_attributes=False)
    root_fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    if dirfds:
        place = f".tmp-{os.urandom(8).hex()}"
        os.mkdir(place, 0o755)
        counts = _unpacked(request, Lowers(dirfds), f"/{place}")
        layer_fd = os.open(f"/{place}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        apply_layer(layer_fd, root_fd, place.encode(), opaque_root=bool(counts["opaque_root"]))
        counts["opaque_root"] = False
    else:
        counts = _unpacked(request, Lowers([]))
    set_readonly(root_fd, True)
    syncfs(root_fd)
    return counts


def _snapshot(request: Request) -> object:
    """A writable snapshot of a layer of the btrfs driver: ``name`` in ``directory_fd``."""
    from .storage.btrfs_subvolume import snapshot

    (lower_fd,) = _layer_dirfds({"layers_fd": request["layers_fd"], "lowers": [request["lower"]]})
    snapshot(lower_fd, request["name"], request["directory_fd"])
    return None


def _check_btrfs(request: Request) -> object:
    from .storage.btrfs_subvolume import create, destroy, set_readonly, snapshot

    dirfd = request["directory_fd"]
    create("one", dirfd)
    one_fd = os.open("one", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dirfd)
    os.close(os.open("file", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644, dir_fd=one_fd))
    set_readonly(one_fd, True)
    snapshot(one_fd, "two", dirfd)
    os.unlink("two/file", dir_fd=dirfd)
    for name in ("one", "two"):
        destroy(name, dirfd)
    return None


def _usage_changed(request: Request) -> object:
    """The bytes on disk of the regular files that the tree ``root`` adds or changes against its stack, each counted once."""
    from .storage.merge import Shift, compare

    root_fd = os.open(request["root"], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    sizes: dict[tuple[int, int], int] = {}
    for kind, path in compare(_layer_dirfds(request), root_fd, Shift(*request["id_map"])):
        if kind != "D":
            # A container that runs may have removed it meanwhile, or put a link in its way.
            with contextlib.suppress(FileNotFoundError, SyscallError):
                fd = openat2(root_fd, os.fsdecode(path).lstrip("/"), os.O_PATH | os.O_NOFOLLOW)
                status = os.fstat(fd)
                os.close(fd)
                if stat.S_ISREG(status.st_mode):
                    sizes[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(sizes.values())


def _unpacked(request: Request, lowers: Lowers, root: str = "/") -> dict[str, object]:
    # Loaded already, for now there is no file to import: see _unpack.
    from .storage.layer_tree import LayerTree
    from .storage.tarstream import TarStream
    from .storage.unpack import Unpacker

    root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    tree = LayerTree(root_fd, lowers, request["opaque_attribute"])
    devices = request.get("userns_fd") is None
    unpacker = Unpacker(tree, request["size_limit"], request["entries_limit"], devices)
    counts = unpacker.unpack(TarStream(request["tar_fd"]))
    syncfs(root_fd)
    return counts


def _index(request: Request) -> object:
    """Write the index of the archive in the file ``tar_fd`` to ``index_fd``, or unpack it where an index can't say it all.

    With ``alone`` there are lower layers that can't be looked at yet; where that isn't enough the answer is ``{"again": why}``.
    """
    from .storage.erofs_index import build_index
    from .storage.erofs_tree import IndexTree, TarFile, Unindexable

    alone = request["alone"]
    lowers = Lowers(_layer_dirfds(request))
    confine(request["root"], trusted_attributes=True)
    os.lseek(request["tar_fd"], 0, os.SEEK_SET)
    archive = TarFile(request["tar_fd"])
    tree = IndexTree(lowers, request["size_limit"], request["entries_limit"], alone=alone)
    try:
        counts = tree.read(archive)
        image = build_index(tree.root, archive.size, bytes.fromhex(request["uuid"]))
    except Unindexable as reason:
        if alone:
            return {"again": str(reason)}
        os.lseek(request["tar_fd"], 0, os.SEEK_SET)
        return _unpacked(request, lowers) | {"record": {"unpacked_because": str(reason)}}
    write_all(request["index_fd"], image)
    os.fsync(request["tar_fd"])
    return counts


def _remove(request: Request) -> object:
    from .storage.btrfs_subvolume import destroy_below
    from .storage.removal import remove_tree

    for name in request["names"]:
        destroy_below(os.fsencode(name), request["directory_fd"])
        remove_tree(os.fsencode(name), request["directory_fd"])
    return None


def _check_overlay(request: Request) -> object:
    from .storage.overlay_check import check_overlay

    check_overlay(request["directory"], userxattr=request["userxattr"])
    return None


def _check_erofs(request: Request) -> object:
    """What overlay needs is tried first, in the same process: the erofs driver stacks its mounts with it."""
    from .storage.erofs_check import check_erofs
    from .storage.overlay_check import check_overlay

    check_overlay(request["directory"], userxattr=False)
    check_erofs(request["directory"])
    return None


def _check_fuse_overlayfs(request: Request) -> object:
    from .storage.fuse_check import check_fuse_overlayfs

    check_fuse_overlayfs(request["directory"], request["program"])
    return None


def _make_upper(request: Request) -> object:
    """An upper directory whose mode and owner are those of the layer ``like``; it appears complete."""
    from .storage.erofs_mount import open_lower

    upper = request["upper"]
    like_fd = open_lower(request["like"])
    status = os.fstat(like_fd)
    temporary = f"{upper}.tmp-{os.getpid()}"
    os.mkdir(temporary, 0o700)
    os.chown(temporary, status.st_uid, status.st_gid)
    os.chmod(temporary, status.st_mode & 0o7777)
    os.rename(temporary, upper)
    return None


def _changes(request: Request) -> object:
    from .storage.changes import scan_upper
    from .storage.erofs_mount import open_lower

    lowers = Lowers(open_lower(lower) for lower in request["lowers"])
    upper_fd = os.open(request["upper"], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    found = scan_upper(upper_fd, lowers.exists, lowers.names, marks=request["marks"])
    return [(kind, path.hex()) for kind, path in found]


def _usage(request: Request) -> object:
    """The bytes that the files below ``directory`` take on disk, each counted once; a container may be at them, and remove it all."""
    total = 0
    seen: set[tuple[int, int]] = set()
    # Of the folder itself; those below that go meanwhile are passed over.
    with contextlib.suppress(FileNotFoundError):
        for _, directories, files, dirfd in os.fwalk(request["directory"]):
            for name in [*directories, *files]:
                try:
                    status = os.stat(name, dir_fd=dirfd, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if status.st_nlink == 1 or (status.st_dev, status.st_ino) not in seen:
                    seen.add((status.st_dev, status.st_ino))
                    total += status.st_blocks * 512
    return total


def _rename(request: Request) -> object:
    os.rename(request["source"], request["target"])
    return None


def _merge(request: Request) -> object:
    from .storage.merge import Shift, merge

    dirfds = _layer_dirfds(request)
    # Without CAP_SYS_ADMIN the kernel hides trusted.overlay.opaque, and what it hides would come back.
    confine(request["root"], trusted_attributes=request.get("userns_fd") is None)
    root_fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    merge(dirfds, root_fd, Shift(*request["id_map"]))
    syncfs(root_fd)
    return None


def _compare(request: Request) -> object:
    from .storage.merge import Shift, compare

    root_fd = os.open(request["root"], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    found = compare(_layer_dirfds(request), root_fd, Shift(*request["id_map"]))
    return [(kind, path.hex()) for kind, path in found]


def _write_layer(request: Request) -> object:
    """The writable layer at ``root`` as an archive; a private copy (vfs) is compared with its stack."""
    from .launcher.listing import without_mount_points
    from .storage.changes import scan_upper
    from .storage.layer_writer import LayerWriter
    from .storage.merge import Shift, compare

    dirfds = _layer_dirfds(request)
    lowers = Lowers(dirfds)
    # Without CAP_SYS_ADMIN the kernel hides trusted.overlay.opaque.
    confine(request["root"], trusted_attributes=request.get("userns_fd") is None)
    root_fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    if request["copied"]:
        found = compare(dirfds, root_fd, Shift(*request["id_map"]), attributes=True)
    else:
        found = scan_upper(root_fd, lowers.exists, marks=request.get("marks"))
    listed = without_mount_points([(kind, os.fsdecode(path)) for kind, path in found], request["mount_points"])
    writer = LayerWriter(request["out_fd"], root_fd, **_writing(request))
    writer.layer([(kind, os.fsencode(path)) for kind, path in listed], lowers)
    return None


def _write_tree(request: Request) -> object:
    """All that the stack of trees shows, as an archive; the topmost is ``root``."""
    from .storage.layer_writer import LayerWriter
    from .storage.merge import walk

    dirfds = _layer_dirfds(request)
    confine(request["root"], trusted_attributes=request.get("userns_fd") is None)
    root_fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    writer = LayerWriter(request["out_fd"], root_fd, **_writing(request))
    points = {os.fsencode(point.strip("/")) for point in request["mount_points"]}
    for path, entries in walk([root_fd, *dirfds], request.get("marks")):
        for name in sorted(entries):
            entry = entries[name]
            below = path + b"/" + name if path else name
            writer.add(below, name, entry.parent_fd, hollow=below in points)
    writer.finish()
    return None


def _build_digests(request: Request) -> object:
    from .build.jobs import Opened, digests

    opened = Opened(request)
    confine(request["root"], trusted_attributes=request.get("userns_fd") is None)
    return digests(opened)


def _build_copy(request: Request) -> object:
    from .build.jobs import Opened, copy_layer

    opened = Opened(request)
    confine(request["root"], trusted_attributes=request.get("userns_fd") is None)
    return copy_layer(opened, request)


def _build_folder(request: Request) -> object:
    """The folder ``path`` with mode and owner; it appears complete."""
    temporary = f"{request['path']}.tmp-{os.getpid()}"
    os.mkdir(temporary, 0o700)
    os.chown(temporary, request["uid"], request["gid"])
    os.chmod(temporary, request["mode"])
    os.rename(temporary, request["path"])
    return None


def _fill_volume(request: Request) -> object:
    """Fill the volume at ``root`` with what the stack ``lowers`` has at ``target``; with no lowers only what was begun is ended."""
    from .build.tree import Tree
    from .storage.erofs_mount import open_lower
    from .volumes.fill_tree import fill

    tree = Tree(Lowers(open_lower(lower) for lower in request["lowers"]))
    # Without CAP_SYS_ADMIN the kernel hides trusted.overlay.opaque.
    confine(request["root"], trusted_attributes=request.get("userns_fd") is None)
    volume_fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    return fill(tree, os.fsencode(request["target"]), volume_fd)


def _copy(request: Request) -> object:
    from .copying_jobs import copy

    return copy(request)


def _union_scan(request: Request) -> object:
    from .union.jobs import scan

    return scan(request)


def _union_before(request: Request) -> object:
    from .union.jobs import before

    return before(request)


def _union_effects(request: Request) -> object:
    from .union.jobs import effects

    return effects(request)


def _layers(request: Request) -> object:
    """What stacks of layers hold, for the view of layers: runtime/inspect/layers_reading.py."""
    from .inspect.layers_reading import look

    for at, stack in enumerate(request["stacks"]):
        stack["upper_fd"] = request.get(f"upper_{at}_fd")
    return look(request)


def _writing(request: Request) -> dict[str, Any]:
    base, count = request["id_map"]
    return {"id_base": base, "id_count": count, "epoch": request["epoch"], "marks": request.get("marks")}


_JOBS: dict[str, Callable[[Request], object]] = {
    "unpack": _unpack,
    "unpack-snapshot": _unpack_snapshot,
    "snapshot": _snapshot,
    "remove": _remove,
    "index": _index,
    "check-overlay": _check_overlay,
    "check-btrfs": _check_btrfs,
    "check-erofs": _check_erofs,
    "check-fuse-overlayfs": _check_fuse_overlayfs,
    "make-upper": _make_upper,
    "changes": _changes,
    "usage": _usage,
    "usage-changed": _usage_changed,
    "merge": _merge,
    "compare": _compare,
    "rename": _rename,
    "write-layer": _write_layer,
    "write-tree": _write_tree,
    "build-digests": _build_digests,
    "build-copy": _build_copy,
    "build-folder": _build_folder,
    "fill-volume": _fill_volume,
    "copy": _copy,
    "union-scan": _union_scan,
    "union-before": _union_before,
    "union-effects": _union_effects,
    "layers": _layers,
}

if __name__ == "__main__":
    main(int(sys.argv[1]))
