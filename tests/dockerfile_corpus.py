"""The corpus of Dockerfiles in ``dockerfiles/``: reading its cases, their contexts, and the base images that they build on.

A case is a folder: ``Dockerfile``, ``case.toml`` (``Case``), and in ``context/`` the files that it copies. What git
can't carry (owners, links to nowhere, sockets, names with a newline, archives) is made by the functions in ``PIECES``.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import shutil
import socket
import tarfile
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .layer_trees import entry, folder, layer, link
from .registries import sha256_of

CORPUS = Path(__file__).with_name("dockerfiles")
# Both hands find these names in their own stores; nobody can pull them.
BASE, CHILD, TRIGGERS = "localhost/corpus/base:1", "localhost/corpus/child:1", "localhost/corpus/triggers:1"
# What a Dockerfile of the corpus may run.
APPLETS = (
    "[ ash awk basename cat chmod chown cmp cp cut date dirname dd df du echo env expr false find grep gunzip gzip head hostname id "
    "ip ln ls md5sum mkdir mkfifo mknod mktemp mv nc od printf ps pwd readlink realpath rm rmdir sed seq sh sha256sum sleep sort "
    "stat sync tail tar tee test touch tr true truncate uname uniq wc wget which xargs"
).split()
# vfs_cap_data of cap_net_bind_service+ep. Source: linux/capability.h, VFS_CAP_REVISION_2.
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")


@dataclass(frozen=True)
class Case:
    """One Dockerfile. ``what`` is the sentence that says what it shows.

    ``pieces`` name functions of ``PIECES``. ``options`` are those of ``build``, the same for both hands; ``{secrets}`` and
    ``{server}`` in them stand for a folder and a web server's address. ``layers`` has buildah make one layer for each step, as
    docker and cellwall do: only then a hard link breaks when a later step writes to it. ``words`` says, where there is a ``Dockerfile.buildah``, what it spells differently:
    the installed buildah may be older than the instruction. ``differs`` holds the paths and config fields in which the two
    results differ by right, each with the reason.
    """

    name: str
    folder: Path
    what: str
    pieces: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    layers: bool = False
    words: str = ""
    differs: dict[str, str] = field(default_factory=dict)

    @property
    def dockerfile(self) -> Path:
        return self.folder / "Dockerfile"

    @property
    def buildah_dockerfile(self) -> Path:
        """What buildah reads: the Dockerfile, or the same in words that it knows."""
        return self.folder / "Dockerfile.buildah" if self.words else self.dockerfile


def read_case(path: Path) -> Case:
    """The case in the folder ``path``. Raises TypeError for a key that no case has."""
    found = tomllib.loads((path / "case.toml").read_text())
    for name in ("pieces", "options"):
        found[name] = tuple(found.get(name, ()))
    return Case(path.name, path, **found)


def cases() -> list[Case]:
    """Every case, by name."""
    return [read_case(path) for path in sorted(CORPUS.iterdir()) if path.is_dir()]


def make_context(case: Case, target: Path) -> Path:
    """The build context of ``case`` in the new folder ``target``, with the same modes and owners on every machine."""
    source = case.folder / "context"
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    else:
        target.mkdir()
    for path in [target, *sorted(target.rglob("*"))]:
        if not path.is_symlink():
            # git keeps only whether a file can be executed, and the umask of whoever checked it out did the rest.
            executable = path.is_dir() or bool(path.stat().st_mode & 0o100)
            path.chmod(0o755 if executable else 0o644)
    for name in case.pieces:
        PIECES[name](target)
    return target


# -- what contexts are made of


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


# -- the base images


def base_layers() -> list[bytes]:
    """A root with busybox and much of what roots can hold, in two layers: the second changes and deletes."""
    busybox = Path(shutil.which("busybox") or "/bin/busybox").read_bytes()
    passwd = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/false\napp:x:1000:1000:App:/home/app:/bin/sh\n"
    passwd += "lone:x:1001:50::/nonexistent:/bin/sh\n"
    group = "root:x:0:\ndaemon:x:1:\nstaff:x:50:app\nwheel:x:10:app,root\napp:x:1000:\n"
    first = [
        *(
            folder(name)
            for name in (
                "bin",
                "usr",
                "usr/bin",
                "usr/lib",
                "etc",
                "dev",
                "proc",
                "sys",
                "run",
                "home",
                "var",
                "var/log",
                "srv",
                "data",
            )
        ),
        folder("tmp", mode=0o1777),
        folder("root", mode=0o700),
        folder("home/app", mode=0o750, uid=1000, gid=1000),
        folder("srv/app", uid=1000, gid=1000),
        link("lib", "usr/lib"),
        link("var/run", "/run"),
        entry("bin/busybox", data=busybox, mode=0o755),
        *(link(f"bin/{name}", "busybox") for name in APPLETS),
        link("usr/bin/env", "/bin/busybox"),
        entry("etc/passwd", data=passwd.encode()),
        entry("etc/group", data=group.encode()),
        *(entry(f"etc/{name}") for name in ("hosts", "resolv.conf", "hostname")),
        entry("etc/motd", data=b"the first layer's\n"),
        folder("opt"),
        folder("opt/data", mode=0o755, uid=1000, gid=50),
        entry("opt/data/one", data=b"one file, two names\n", mode=0o640, uid=1000, gid=50),
        link("opt/data/two", "opt/data/one", tarfile.LNKTYPE, mode=0o640, uid=1000, gid=50),
        folder("opt/data/deep"),
        folder("opt/data/deep/er"),
        entry("opt/data/deep/er/leaf", data=b"leaf\n"),
        folder("opt/releases"),
        folder("opt/releases/1"),
        entry("opt/releases/1/version", data=b"1\n"),
        link("opt/current", "releases/1"),
        link("opt/absolute", "/opt/data"),
        link("opt/dangling", "nowhere"),
        link("opt/loop", "loop"),
        folder("opt/setgid", mode=0o2775, gid=50),
        folder("opt/sticky", mode=0o1777),
        folder("opt/private", mode=0o700, uid=1000, gid=1000),
        entry("opt/suid", data=b"#!/bin/sh\n", mode=0o4755),
        entry("opt/capable", data=b"capable\n", mode=0o755, xattrs={"security.capability": CAPABILITY}),
        entry("opt/attributed", data=b"attributed\n", xattrs={"user.note": b"from the base"}),
        entry("opt/fifo", tarfile.FIFOTYPE, mode=0o622),
        entry("opt/null", tarfile.CHRTYPE, mode=0o666, devmajor=1, devminor=3),
        entry("opt/big-ids", data=b"big\n", uid=70000, gid=70001),
        folder("opt/replaced"),
        entry("opt/replaced/below", data=b"hidden by the second layer\n"),
        entry("opt/deleted", data=b"deleted by the second layer\n"),
    ]
    second = [
        entry("etc/motd", data=b"the second layer's\n", mode=0o664),
        entry("opt/.wh.deleted"),
        folder("opt/replaced", mode=0o755, uid=3, gid=4),
        entry("opt/replaced/.wh..wh..opq"),
        entry("opt/replaced/new", data=b"new\n"),
    ]
    return [layer(*first), layer(*second)]


PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CONFIGS: dict[str, dict[str, Any]] = {
    BASE: {"Env": [PATH, "FROM_BASE=base value"], "Cmd": ["sh"], "WorkingDir": "/", "Labels": {"base.label": "1"}},
    # Everything that a FROM can inherit.
    CHILD: {
        "Env": [PATH, "CHILD=yes"],
        "Entrypoint": ["/bin/echo", "entry"],
        "Cmd": ["given", "by base"],
        "WorkingDir": "/srv/app",
        "User": "app",
        "Labels": {"base.label": "1", "child.label": "two"},
        "ExposedPorts": {"80/tcp": {}},
        "Volumes": {"/data": {}},
        "StopSignal": "SIGQUIT",
        "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000, "Retries": 2},
        "Shell": ["/bin/ash", "-ec"],
    },
    TRIGGERS: {
        "Env": [PATH],
        "WorkingDir": "/work",
        "OnBuild": [
            "ENV TRIGGERED=$FROM_ARG.yes",
            "COPY tree /triggered",
            'RUN echo "in $PWD as $(id -u)" > /triggered/by-run',
            "USER app",
            "LABEL triggered=1",
        ],
    },
}


def write_archive(path: Path) -> Path:
    """The base images as one archive in docker's own format, which both hands load with every field of the configs."""
    layers = base_layers()
    files: dict[str, bytes] = {}
    manifest = []
    for name, config in CONFIGS.items():
        document = {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine),
            "os": "linux",
            "created": "2024-01-02T03:04:05Z",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [sha256_of(tar) for tar in layers]},
            "history": [{"created_by": f"layer {number}"} for number in range(len(layers))],
        }
        raw = json.dumps(document).encode()
        config_name = f"{sha256_of(raw).partition(':')[2]}.json"
        files[config_name] = raw
        names = [f"layer{number}.tar" for number in range(len(layers))]
        files |= dict(zip(names, layers, strict=True))
        manifest.append({"Config": config_name, "RepoTags": [name], "Layers": names})
    files["manifest.json"] = json.dumps(manifest).encode()
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path
