"""Layer archives made for tests, and what a tree on disk is, entry by entry, so that two hands' trees can be compared."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Container
from pathlib import Path
from typing import Any

Facts = dict[str, Any]


def entry(
    name: str | bytes, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **fields: Any
) -> tuple[tarfile.TarInfo, bytes]:
    """One member; ``fields`` are those of TarInfo, ``xattrs`` a dict of names to bytes."""
    info = tarfile.TarInfo(os.fsdecode(name))
    info.type = kind
    info.mode = {tarfile.DIRTYPE: 0o755, tarfile.SYMTYPE: 0o777}.get(kind, 0o644)
    info.mtime = 1_600_000_000
    info.size = len(data)
    attributes = fields.pop("xattrs", None) or {}
    info.pax_headers = {
        f"SCHILY.xattr.{key}": value.decode("utf-8", "surrogateescape") for key, value in attributes.items()
    }
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def folder(name: str | bytes, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, tarfile.DIRTYPE, **fields)


def link(
    name: str | bytes, target: str | bytes, kind: bytes = tarfile.SYMTYPE, **fields: Any
) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, kind, linkname=os.fsdecode(target), **fields)


def layer(*members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    """An archive of ``members``, in this order."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=format, errors="surrogateescape") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return output.getvalue()


def tree_facts(root: Path, without: Container[bytes] = ()) -> dict[bytes, Facts]:
    """Every path below ``root`` but those in ``without``, with all that an image can say of it.

    Hard links carry the first path of their file.
    """
    found: dict[bytes, Facts] = {}
    first: dict[tuple[int, int], bytes] = {}
    base = os.fsencode(root)
    pending = [b""]
    while pending:
        path = pending.pop()
        for name in sorted(os.listdir(base + b"/" + path if path else base)):
            below = path + b"/" + name if path else name
            if below in without:
                continue
            full = base + b"/" + below
            status = os.lstat(full)
            facts: Facts = {
                "mode": stat.filemode(status.st_mode),
                "uid": status.st_uid,
                "gid": status.st_gid,
                "mtime_ns": status.st_mtime_ns,
                "xattrs": {
                    key: os.getxattr(full, key, follow_symlinks=False)
                    for key in os.listxattr(full, follow_symlinks=False)
                },
            }
            # overlayfs shows its own marks to nobody but through the layer's folder itself.
            facts["xattrs"] = {key: value for key, value in facts["xattrs"].items() if ".overlay." not in key}
            if stat.S_ISREG(status.st_mode):
                facts["size"] = status.st_size
                facts["sha256"] = hashlib.sha256(Path(os.fsdecode(full)).read_bytes()).hexdigest()
            elif stat.S_ISLNK(status.st_mode):
                facts["target"] = os.readlink(full)
            elif stat.S_ISDIR(status.st_mode):
                pending.append(below)
            else:
                facts["device"] = status.st_rdev
            found[below] = facts
    for path in sorted(found):
        status = os.lstat(base + b"/" + path)
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            found[path]["same_file_as"] = first.setdefault((status.st_dev, status.st_ino), path)
    return found
