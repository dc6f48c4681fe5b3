"""What the contexts of the corpus hold that git can't carry: modes, owners, links to nowhere, sockets, odd names, archives.

``PIECES`` are functions by the names that a case's ``pieces`` says; each adds its files to a context.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import socket
import tarfile
from collections.abc import Callable
from pathlib import Path

from .layer_trees import entry, folder, layer, link

# vfs_cap_data of cap_net_bind_service+ep. Source: linux/capability.h, VFS_CAP_REVISION_2.
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")


def _write(path: Path, content: str | bytes, mode: int = 0o644, owner: tuple[int, int] = (0, 0)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    os.chown(path, *owner)
    path.chmod(mode)


def _tree(context: Path) -> None:
    """A small tree with an empty folder, modes, owners, and a file that may be executed."""
    _write(context / "tree/one.txt", "one\n")
    _write(context / "tree/sub/two.txt", "two\n", 0o600)
    _write(context / "tree/sub/deep/three.txt", "three\n", 0o444, (1234, 4321))
    _write(context / "tree/run.sh", "#!/bin/sh\necho run\n", 0o755)
    _write(context / "tree/setuid", "setuid\n", 0o4755)
    _write(context / "tree/.hidden", "hidden\n")
    (context / "tree/empty").mkdir(mode=0o755)
    (context / "tree/private").mkdir()
    (context / "tree/private").chmod(0o700)
    (context / "tree/sticky").mkdir()
    (context / "tree/sticky").chmod(0o1777)
    os.chown(context / "tree/sub", 1234, 4321)


def _links(context: Path) -> None:
    """Symbolic links of each kind, and two names of one file."""
    folder = context / "links"
    _write(folder / "file.txt", "file\n")
    _write(folder / "dir/inside.txt", "inside\n")
    (folder / "to-file").symlink_to("file.txt")
    (folder / "to-dir").symlink_to("dir")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "absolute").symlink_to("/etc/passwd")
    (folder / "up").symlink_to("../links/file.txt")
    _write(folder / "hard-one", "hard\n")
    os.link(folder / "hard-one", folder / "hard-two")


def _names(context: Path) -> None:
    """Names that a builder may trip over."""
    folder = context / "names"
    for name in (
        "with space",
        "br[ack]et",
        "ünïcode-文",
        "new\nline",
        "-dash",
        "star*",
        "quote'\"",
        "back\\slash",
        "$dollar",
    ):
        _write(folder / name, f"{name}\n")
    _write(folder / "sp ace/inside", "inside\n")


def _globs(context: Path) -> None:
    for name in ("a1.txt", "a2.txt", "b1.txt", "a1.md", "ab.txt"):
        _write(context / "globs" / name, f"{name}\n")
    for name in ("x/one/file.c", "x/two/file.c", "x/two/file.h"):
        _write(context / name, f"{name}\n")


def _members() -> list[tuple[tarfile.TarInfo, bytes]]:
    return [
        folder("pack", mode=0o750, uid=11, gid=12),
        entry("pack/file", data=b"packed\n", mode=0o640, uid=11, gid=12),
        entry("pack/suid", data=b"suid\n", mode=0o4711),
        folder("pack/empty"),
        link("pack/symbolic", "file"),
        link("pack/hard", "pack/file", tarfile.LNKTYPE, mode=0o640, uid=11, gid=12),
        link("pack/dangling", "/nowhere"),
        entry("pack/big-ids", uid=70000, gid=70001, data=b"ids\n"),
        entry("pack/attributed", data=b"x\n", xattrs={"user.note": b"kept"}),
        entry("parentless/deep/file", data=b"no folder of mine is in the archive\n", uid=13, gid=14),
    ]


def _archives(context: Path) -> None:
    """One tar in each compression, something that only has the name of one, and a zip's first bytes."""
    tar = layer(*_members())
    _write(context / "pack.tar", tar, owner=(77, 78))
    _write(context / "pack.tar.gz", gzip.compress(tar, mtime=0))
    _write(context / "pack.tgz", gzip.compress(tar, mtime=0))
    _write(context / "pack.tar.bz2", bz2.compress(tar))
    _write(context / "pack.tar.xz", lzma.compress(tar))
    _write(context / "not-a.tar", "this is text\n")
    _write(context / "text.gz", gzip.compress(b"not a tar inside\n", mtime=0))
    _write(context / "named.bin", tar)


def _over_archive(context: Path) -> None:
    """A tar whose members meet what the base has in /opt and /srv: other modes, a file for a link, a folder for a link."""
    members = [
        folder("opt", mode=0o711, uid=5, gid=6),
        folder("opt/data", mode=0o700, uid=7, gid=8),
        entry("opt/data/one", data=b"overwritten\n", mode=0o600, uid=7, gid=8),
        entry("opt/dangling", data=b"a file in a link's place\n"),
        entry("opt/current/extra", data=b"through a link to a folder\n"),
        folder("opt/data/deep"),
    ]
    _write(context / "over.tar", layer(*members))


def _special(context: Path) -> None:
    """A fifo and a file with holes, extended attributes and a capability."""
    folder = context / "special"
    folder.mkdir()
    os.mkfifo(folder / "fifo")
    (folder / "fifo").chmod(0o620)
    with open(folder / "sparse", "wb") as file:
        file.truncate(4 << 20)
        file.seek(1 << 20)
        file.write(b"island")
    (folder / "sparse").chmod(0o644)
    _write(folder / "attributed", "attributed\n")
    os.setxattr(folder / "attributed", "user.note", b"from the context")
    _write(folder / "capable", "capable\n", 0o755)
    os.setxattr(folder / "capable", "security.capability", CAPABILITY)


def _sockets(context: Path) -> None:
    """A socket, which no archive can hold."""
    _write(context / "sockets/file", "beside a socket\n")
    # sun_path holds 107 bytes, and a test's folder may be longer than that.
    dirfd = os.open(context / "sockets", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"/proc/self/fd/{dirfd}/socket")
    finally:
        os.close(dirfd)


def _ignored(context: Path) -> None:
    """A project with what a .dockerignore usually names."""
    for name in (
        *(
            ".git/HEAD",
            ".env",
            "README.md",
            "README-secret.md",
            "docs/guide.md",
            "docs/README.md",
            "src/main.c",
            "src/main.o",
        ),
        *(
            "src/lib/util.c",
            "src/lib/util.o",
            "src/lib/README.md",
            "node_modules/x/index.js",
            "src/node_modules/y/index.js",
        ),
        *(
            "build/out/keep.txt",
            "build/out/drop.txt",
            "logs/a.log",
            "logs/important.log",
            "tmp1/x",
            "tmpa/x",
            "with space/f",
        ),
    ):
        _write(context / name, f"{name}\n")


def _secrets(context: Path) -> None:
    """Beside the context, not in it: a secret's file."""
    _write(context.parent / "secrets/token", "hunter2\n", 0o600)


def served_files(folder: Path) -> None:
    """What the web server of ADD's cases has, in ``folder``."""
    _write(folder / "file.txt", "served\n")
    _write(folder / "pack.tar", layer(*_members()))


PIECES: dict[str, Callable[[Path], None]] = {
    "tree": _tree,
    "links": _links,
    "names": _names,
    "globs": _globs,
    "archives": _archives,
    "over-archive": _over_archive,
    "special": _special,
    "sockets": _sockets,
    "ignored": _ignored,
    "secrets": _secrets,
}
