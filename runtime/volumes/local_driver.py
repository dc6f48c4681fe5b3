"""The options of docker's local volume driver: ``type``, ``device`` and ``o``, checked, and mounted on a volume's folder.

``type=none,o=bind,device=/x`` mounts nothing here: containers get the folder itself. Everything else is mounted once, on the
volume's ``_data``, for all of its containers, and goes when none of them runs. Source: docker volume create reference; mount(2), mount(8).
"""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import SpecError, SyscallError, UnsupportedError, VolumeError
from ..linux.mounts import (
    MS_NOATIME,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    mount,
)

_FLAGS = {
    "ro": MS_RDONLY,
    "nosuid": MS_NOSUID,
    "nodev": MS_NODEV,
    "noexec": MS_NOEXEC,
    "noatime": MS_NOATIME,
}
_NEUTRAL = frozenset({"rw", "suid", "dev", "exec", "relatime", "defaults", "bind", "rbind"})


def check(options: dict[str, str], *, rootless: bool) -> dict[str, str]:
    """The options as they are kept. Raises SpecError, UnsupportedError."""
    for key in options:
        if key not in ("type", "device", "o"):
            raise SpecError("--opt", f"the option {key!r} isn't known; type, device and o are")
    said = {key: value for key, value in options.items() if value}
    if not said:
        return {}
    if "device" not in said:
        raise SpecError("--opt", "needs a device: --opt device=/FOLDER with o=bind, or device=tmpfs with type=tmpfs")
    if bind_source(said) is not None:
        if not said["device"].startswith("/"):
            raise SpecError("--opt", f"device={said['device']}: the folder to bind must be an absolute path")
        return said
    if "type" not in said:
        raise SpecError("--opt", "needs a type, as type=tmpfs, type=ext4, or type=none with o=bind")
    if rootless:
        raise UnsupportedError(
            f"a volume of type={said['type']}",
            "an ordinary user can't mount it for several containers: run as root, or use --tmpfs or --opt type=none,o=bind",
        )
    return said


def bind_source(options: dict[str, str]) -> str | None:
    """The folder that a volume of ``o=bind`` stands for, or None."""
    words = options.get("o", "").split(",")
    return options["device"] if options and ("bind" in words or "rbind" in words) else None


def read_only(options: dict[str, str]) -> bool:
    return "ro" in options.get("o", "").split(",")


def mount_options(options: dict[str, str], target: Path, name: str) -> None:
    """Mount what ``options`` say on ``target``, unless it is mounted there. Raises VolumeError."""
    if not options or (source := bind_source(options)) is not None:
        if options and not os.path.isdir(source or ""):
            raise VolumeError(f"volume {name}: there is no folder {source} on this machine: make it first")
        return
    if os.path.ismount(target):
        return
    flags = MS_NOSUID | MS_NODEV
    data = []
    for word in options.get("o", "").split(","):
        if word in _FLAGS:
            flags |= _FLAGS[word]
        elif word and word not in _NEUTRAL:
            data.append(word)
    try:
        mount(options["device"], str(target), options["type"], flags, ",".join(data))
    except SyscallError as error:
        raise VolumeError(
            f"volume {name}: mount {options['device']} as {options['type']}: {(error.strerror or '').lower()}: "
            "see the options that it was made with (cellwall volume inspect)"
        ) from error


def mounted_below(folder: Path) -> list[Path]:
    """The folders ``folder/NAME/_data`` that something is mounted on. Source: proc_pid_mountinfo(5)."""
    prefix = f"{os.path.realpath(folder)}/"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        points = [line.split(" ")[4] for line in file]
    return [Path(point) for point in points if point.startswith(prefix)]
