"""A container's own mounts as entries of an OCI bundle's config.

Besides OCI's keys an entry may carry ``user`` (somebody asked for it: it may not cover what cellwall keeps from
containers), ``caller`` ([uid, gid]: whose the files are that the container makes there), ``subpath``, ``flag`` and, with type ``image``,
``plan``, an entry of a mount plan (storage/driver.py). Source: runtime-spec config.md#mounts; mount_namespaces(7).
"""

from __future__ import annotations

import os

from ..errors import SpecError, VolumeError
from ..launcher import PROC_FILES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..options import Mount

_SHARED = ("shared", "rshared")
_PROPAGATIONS = ("private", "rprivate", "slave", "rslave", *_SHARED)


def plain(mount: Mount) -> dict[str, Any]:
    """An entry of ``record["mounts"]`` that needs no store: a bind's or a tmpfs's."""
    return {
        "type": mount.type,
        "target": mount.target,
        "source": mount.source,
        "read_only": mount.read_only,
        "options": list(mount.options),
        "subpath": mount.subpath,
        "flag": mount.flag,
    }


def user_mount(one: dict[str, Any], *, own_users: bool) -> dict[str, Any]:
    """The OCI mount of an entry of ``record["mounts"]``. Raises VolumeError, SpecError."""
    target, said, flag = one["target"], one["options"], one["flag"]
    if (target == "/proc" or target.startswith("/proc/")) and target not in PROC_FILES:
        raise SpecError(flag, f"{target}: nothing can be mounted over /proc, which the kernel makes for the container")
    entry: dict[str, Any] = {"destination": target, "user": True, "flag": flag}
    read_only = ["ro"] if one["read_only"] else []
    if one["type"] == "tmpfs":
        own = ["nosuid", "nodev"] + ([] if "exec" in said else ["noexec"])
        if not any(option.startswith("mode=") for option in said):
            own.append("mode=1777")
        return entry | {"type": "tmpfs", "source": "tmpfs", "options": own + said + read_only}
    if one["type"] == "image":
        return entry | {"type": "image", "source": one["source"], "options": ["ro"], "plan": one["image"]}
    if one["type"] == "volume" and "name" not in one:
        raise SpecError(flag, f"{one['source'] or target}: a volume can't be had here, name a folder of this machine")
    source = one["source"]
    # A volume's folder may yet have to be made.
    if (one["type"] == "bind" or one.get("bind")) and not os.path.exists(source):
        raise VolumeError(
            f"{flag}: no folder {source} on this machine: make it first (mkdir -p {source}), it isn't made by itself"
        )
    shared = next((option for option in said if option in _SHARED), None)
    if shared and own_users:
        raise SpecError(
            flag,
            f"{target}: a container with a user namespace of its own can't be given {shared} mounts, as what it mounts would "
            "appear on this machine: use rslave, or --userns host",
        )
    keep = [option for option in said if option in ("noexec", *_PROPAGATIONS)]
    safe = [option for option in ("nosuid", "nodev") if option.removeprefix("no") not in said]
    bind = "bind" if "bind" in said else "rbind"
    entry |= {"type": "bind", "source": os.path.realpath(source), "options": [bind, *safe, *keep, *read_only]}
    if one.get("subpath"):
        entry["subpath"] = one["subpath"]
    if one.get("caller"):
        entry["caller"] = one["caller"]
    return entry
