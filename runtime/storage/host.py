"""The image ``host``: this machine's own system folders as a read-only base, so that nothing need be downloaded.

Its one layer is a skeleton made here: the top-level folders and links, and of ``/etc`` only what programs need to run, by an
allow-list. ``/usr`` (and ``/lib``, ``/bin`` … where they are folders of their own) are mounted from the machine. Nothing
of ``/root``, ``/home``, ``/var``, ``/opt`` or ``/srv`` is taken, no password hash, no key, no name of a
person, and no file that sites put tokens and proxy passwords into (environment, profile.d).
"""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UnsupportedError
from ..launcher import DEFAULT_PATH

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "host"

# Folders of the system itself. On a merged-/usr machine all but the first are links into it.
SYSTEM_FOLDERS = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "libexec")

_FOLDERS = {
    "dev": 0o755,
    "etc": 0o755,
    "home": 0o755,
    "media": 0o755,
    "mnt": 0o755,
    "opt": 0o755,
    "proc": 0o555,
    "root": 0o700,
    "run": 0o755,
    "run/lock": 0o1777,
    "srv": 0o755,
    "sys": 0o555,
    "tmp": 0o1777,
    "var": 0o755,
    "var/cache": 0o755,
    "var/lib": 0o755,
    "var/local": 0o755,
    "var/log": 0o755,
    "var/mail": 0o755,
    "var/opt": 0o755,
    "var/spool": 0o755,
    "var/tmp": 0o1777,
}
_LINKS = {"var/run": "/run", "var/lock": "/run/lock"}

# What of /etc programs need to run, and that holds no secret on any machine that keeps to hier(7).
_ETC = (
    "alternatives",
    "bash.bashrc",
    "bash_completion.d",
    "bindresvport.blacklist",
    "ca-certificates",
    "ca-certificates.conf",
    "debian_version",
    "dictionaries-common",
    "ethertypes",
    "fonts",
    "gai.conf",
    "host.conf",
    "inputrc",
    "issue",
    "java-11-openjdk",
    "java-17-openjdk",
    "java-21-openjdk",
    "java-25-openjdk",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "libaudit.conf",
    "locale.alias",
    "locale.conf",
    "localtime",
    "login.defs",
    "lsb-release",
    "magic",
    "magic.mime",
    "mime.types",
    "nanorc",
    "networks",
    "nsswitch.conf",
    "OpenCL",
    "os-release",
    "papersize",
    "perl",
    "pki/ca-trust/extracted",
    "pki/tls/cert.pem",
    "pki/tls/certs",
    "profile",
    "protocols",
    "python",
    "python2.7",
    "python3",
    "python3.9",
    "python3.10",
    "python3.11",
    "python3.12",
    "python3.13",
    "python3.14",
    "R",
    "rpc",
    "selinux/semanage.conf",
    "services",
    "shells",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "texmf",
    "timezone",
    "vim",
    "X11/rgb.txt",
    "xattr.conf",
)
# Made here, so that no entry of a person gets in; the runtime mounts its own over the last three.
_GENERATED = ("passwd", "group", "hostname", "hosts", "resolv.conf")
# System accounts; 1000 and up are people, 65534 is nobody. Source: Debian policy 9.2.2
_PEOPLE = range(1000, 65534)
_FILE_MAX = 4 << 20


def config() -> dict[str, Any]:
    """The ``config`` part of the image's OCI configuration. Raises UnsupportedError where this machine has no shell in /bin."""
    shell = next((shell for shell in ("/bin/bash", "/usr/bin/bash", "/bin/sh") if os.access(shell, os.X_OK)), None)
    if shell is None:
        raise UnsupportedError("the image host", "this machine has neither bash nor sh in /bin; name another image")
    return {
        "Env": [f"PATH={DEFAULT_PATH}"],
        "Cmd": [os.path.basename(shell)],
        "Labels": {"org.cellwall.host": "1"},
    }


def mounts(root: Path = Path("/")) -> list[dict[str, Any]]:
    """The entries that a mount plan of ``host`` has after the one for ``/``, in the order in which they are made.

    Source of the form: driver.py.
    """
    return [
        {
            "at": f"/{name}",
            "type": "overlay",
            "lowers": [str(root / name)],
            "upper": None,
            "work": None,
            "fallback": "bind",
        }
        for name in SYSTEM_FOLDERS
        if (root / name).is_dir() and not (root / name).is_symlink()
    ]


def is_host(image_config: dict[str, Any]) -> bool:
    """Whether an OCI image configuration is that of ``host``, whose plan needs ``mounts``."""
    labels = (image_config.get("config") or {}).get("Labels") or {}
    return labels.get("org.cellwall.host") == "1"


def skeleton(root: Path = Path("/")) -> bytes:
    """The layer's archive (tar, not compressed). The same files give the same bytes; every entry belongs to root."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in sorted(_entries(root), key=lambda entry: entry[0].name):
            tar.addfile(info, io.BytesIO(content) if content is not None else None)
    return output.getvalue()


def _entries(root: Path) -> Iterator[tuple[tarfile.TarInfo, bytes | None]]:
    for name, mode in _FOLDERS.items():
        yield _folder(name, mode), None
    for name, target in _LINKS.items():
        yield _link(name, target), None
    for name in SYSTEM_FOLDERS:
        path = root / name
        if path.is_symlink():
            yield _link(name, os.readlink(path)), None
        elif path.is_dir():
            yield _folder(name, 0o755), None
    made = {"etc"}
    for allowed in _ETC:
        path = root / "etc" / allowed
        if not path.exists() and not path.is_symlink():
            continue
        for above in list(Path("etc", allowed).parents)[:-2]:
            if str(above) not in made:
                made.add(str(above))
                yield _folder(str(above), 0o755), None
        yield from _tree(path, f"etc/{allowed}")
    for name in _GENERATED:
        content = _accounts(root / "etc" / name) if name in ("passwd", "group") else b""
        info = tarfile.TarInfo(f"etc/{name}")
        info.mode, info.size = 0o644, len(content)
        yield info, content


def _tree(path: Path, name: str) -> Iterator[tuple[tarfile.TarInfo, bytes | None]]:
    """What everybody may read at ``path`` and below: folders, files, links; nothing else."""
    try:
        status = path.lstat()
    except FileNotFoundError:  # removed since it was listed
        return
    if stat.S_ISLNK(status.st_mode):
        yield _link(name, os.readlink(path)), None
    elif stat.S_ISDIR(status.st_mode):
        if status.st_mode & 0o005 != 0o005:
            return
        yield _folder(name, 0o755), None
        for entry in sorted(os.listdir(path)):
            yield from _tree(path / entry, f"{name}/{entry}")
    elif stat.S_ISREG(status.st_mode) and status.st_mode & 0o004 and status.st_size <= _FILE_MAX:
        try:
            content = path.read_bytes()
        except (FileNotFoundError, PermissionError):  # removed since, or closed to an ordinary user by an access list
            return
        info = tarfile.TarInfo(name)
        info.mode = status.st_mode & 0o755
        info.mtime = int(status.st_mtime)
        info.size = len(content)
        yield info, content


def _accounts(path: Path) -> bytes:
    """The system's own lines of a passwd or group file, without full names and without members."""
    kept = []
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        lines = [b"root:x:0:0::/root:/bin/sh" if path.name == "passwd" else b"root:x:0:"]
    for line in lines:
        fields = line.split(b":")
        if len(fields) not in (4, 7) or not fields[2].isdigit() or int(fields[2]) in _PEOPLE:
            continue
        fields[1] = b"x"
        if len(fields) == 7:
            fields[4] = b""
        else:
            fields[3] = b""
        kept.append(b":".join(fields))
    return b"\n".join(kept) + b"\n"


def _folder(name: str, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, mode
    return info


def _link(name: str, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.linkname = tarfile.SYMTYPE, 0o777, target
    return info
