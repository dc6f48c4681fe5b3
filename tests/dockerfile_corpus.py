"""The corpus of Dockerfiles in ``dockerfiles/``: reading its cases, their contexts, and the base images that they build on.

A case is a folder: ``Dockerfile``, ``case.toml`` (``Case``), and in ``context/`` the files that it copies. What git
can't carry (owners, sockets, names with a newline, archives) is made by dockerfile_contexts.py.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .dockerfile_contexts import CAPABILITY, PIECES
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


@dataclass(frozen=True)
class Case:
    """One Dockerfile. ``what`` is the sentence that says what it shows.

    ``pieces`` name functions of ``PIECES``. ``options`` are those of ``build``, the same for both hands; ``{secrets}`` and
    ``{server}`` in them stand for a folder and a web server's address. ``layers`` has buildah make one layer for each step,
    as docker and cellwall do: only then a hard link breaks when a later step writes to it. ``words`` says, where there is a
    ``Dockerfile.buildah``, what it spells differently: the installed buildah may be older than the instruction. ``differs``
    holds the paths and config fields in which the two results differ by right, each with the reason.
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
