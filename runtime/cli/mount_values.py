"""How docker writes mounts: ``-v``, ``--mount`` and ``--tmpfs``, each read into one Mount; and ``--volumes-from``.

Imports the standard library, options.py and errors.py only. Source: docker run reference, --volume, --mount, --tmpfs.
"""

from __future__ import annotations

import os
import re

from ..errors import SpecError
from ..options import Mount
from .values import boolean, size

_VOLUME_NAME = r"[a-zA-Z0-9][a-zA-Z0-9_.-]+"
PROPAGATIONS = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"})
# Labels and consistency say nothing on Linux without SELinux; docker takes them, so they are kept for the engine to judge.
VOLUME_OPTIONS = PROPAGATIONS | {
    "ro",
    "rw",
    "z",
    "Z",
    "U",
    "nocopy",
    "consistent",
    "cached",
    "delegated",
    "exec",
    "noexec",
    "suid",
    "nosuid",
    "dev",
    "nodev",
}
TMPFS_FLAGS = frozenset(
    {
        "ro",
        "rw",
        "exec",
        "noexec",
        "suid",
        "nosuid",
        "dev",
        "nodev",
        "sync",
        "async",
        "atime",
        "noatime",
        "diratime",
        "nodiratime",
        "relatime",
        "norelatime",
        "strictatime",
    }
)
TMPFS_VALUES = frozenset({"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "huge", "mpol"})
_CONFLICTS = (("ro", "rw"), ("exec", "noexec"), ("suid", "nosuid"), ("dev", "nodev"))


def _target(flag: str, text: str, said: str) -> str:
    if not text.startswith("/") or "\0" in text:
        raise SpecError(flag, f"{said!r}: the path in the container must be absolute")
    path = os.path.normpath(text)
    path = "/" + path.lstrip("/")
    if path == "/":
        raise SpecError(flag, f"{said!r}: the container's root can't be mounted over")
    return path


def _source(flag: str, text: str, said: str) -> tuple[str, bool]:
    """``(source, is a path)``: an absolute host path, or a volume's name."""
    if text.startswith(("/", "./", "../")) or text in (".", ".."):
        return os.path.abspath(text), True
    if text == "~" or text.startswith("~/"):  # a notebook's cell has no shell to expand it
        return os.path.abspath(os.path.expanduser(text)), True
    if not re.fullmatch(_VOLUME_NAME, text):
        raise SpecError(
            flag,
            f"{said!r}: {text!r} is neither a path (absolute, or relative with a leading ./) nor a volume's name "
            "(letters, digits and _.-, at least two)",
        )
    return text, False


def _host_path(flag: str, text: str, said: str) -> str:
    """The absolute host path of ``--mount``'s source, where a bare name can't be anything else than a slip."""
    if not text.startswith(("/", "./", "../", "~/")) and text not in (".", "..", "~"):
        raise SpecError(flag, f"{said!r}: the source {text!r} must be absolute, or relative with a leading ./")
    return os.path.abspath(os.path.expanduser(text))


def _check_conflicts(flag: str, options: list[str], said: str) -> None:
    for one, other in _CONFLICTS:
        if one in options and other in options:
            raise SpecError(flag, f"{said!r}: {one} and {other} exclude each other")
    if sum(option in PROPAGATIONS for option in options) > 1:
        raise SpecError(flag, f"{said!r}: there can be only one of {', '.join(sorted(PROPAGATIONS))}")


def volume(flag: str, text: str) -> Mount:
    """``/container``, ``/host:/container``, ``./host:/container:ro``, ``name:/container:nocopy``."""
    parts = text.split(":")
    if not 1 <= len(parts) <= 3 or "" in parts:
        raise SpecError(flag, f"{text!r} needs the form [SOURCE:]TARGET[:OPTIONS]; for a path with a colon use --mount")
    if len(parts) == 1:
        return Mount("volume", _target(flag, text, text), flag=flag)
    options = parts[2].split(",") if len(parts) == 3 else []
    for option in options:
        if option not in VOLUME_OPTIONS:
            raise SpecError(
                flag, f"{text!r}: the option {option!r} isn't known; {', '.join(sorted(VOLUME_OPTIONS))} are"
            )
    _check_conflicts(flag, options, text)
    target = _target(flag, parts[1], text)
    source, is_path = _source(flag, parts[0], text)
    rest = tuple(option for option in options if option not in ("ro", "rw"))
    return Mount("bind" if is_path else "volume", target, source, "ro" in options, rest, flag=flag)


def tmpfs(flag: str, text: str) -> Mount:
    """``/run`` or ``/run:size=64m,mode=1777,noexec``. Source: tmpfs(5)."""
    path, _, words = text.partition(":")
    options = [word for word in words.split(",") if word]
    for option in options:
        name, sign, value = option.partition("=")
        if not (option in TMPFS_FLAGS or (sign and value and name in TMPFS_VALUES)):
            known = ", ".join([*sorted(TMPFS_FLAGS), *(f"{word}=" for word in sorted(TMPFS_VALUES))])
            raise SpecError(flag, f"{text!r}: the option {option!r} isn't known; {known} are")
        if name == "size" and not re.fullmatch(r"[0-9]{1,2}%", value):
            size(flag, value)
        if name == "mode" and not re.fullmatch(r"[0-7]{1,4}", value):
            raise SpecError(flag, f"{text!r}: mode {value!r} is out of range: octal 0 to 7777")
        if name in ("uid", "gid") and not (value.isdecimal() and len(value) < 11 and int(value) < 0xFFFFFFFF):
            raise SpecError(flag, f"{text!r}: {name} {value!r} is out of range: 0 to 4294967294")
    _check_conflicts(flag, options, text)
    rest = tuple(_tmpfs_option(flag, option) for option in options if option not in ("ro", "rw"))
    return Mount("tmpfs", _target(flag, path, text), "", "ro" in options, rest, flag=flag)


def _tmpfs_option(flag: str, option: str) -> str:
    """The kernel reads ``64m`` but not ``64mb`` nor ``1.5g``: sizes become bytes, a percentage stays. Source: tmpfs(5)."""
    name, _, value = option.partition("=")
    return f"size={size(flag, value)}" if name == "size" and not value.endswith("%") else option


def mount(flag: str, text: str) -> Mount:
    """``type=bind,src=/host,dst=/container,readonly`` and its kin for ``type=volume`` (docker's default) and ``tmpfs``."""
    import csv

    try:
        fields = next(iter(csv.reader([text], strict=True)), [])
    except csv.Error as error:
        raise SpecError(flag, f"{text!r} isn't a comma-separated list of KEY=VALUE: {error}") from None
    said: dict[str, str] = {}
    lists: dict[str, list[str]] = {key: [] for key in _LIST_KEYS}
    for field in fields:
        key, sign, value = field.partition("=")
        key = _MOUNT_KEYS.get(key.strip().lower(), key)
        if key not in _MOUNT_KEYS.values():
            raise SpecError(flag, f"{text!r}: the key {key!r} isn't known; {', '.join(sorted(_MOUNT_KEYS))} are")
        if not sign and key not in _FLAG_KEYS:
            raise SpecError(flag, f"{text!r}: {key} needs a value, as {key}=…")
        if key in _LIST_KEYS:
            lists[key].append(value)
            continue
        if key in said:
            raise SpecError(flag, f"{text!r}: {key} stands there twice")
        said[key] = value if sign else "true"
    return _mount_of(flag, said, lists, text)


_MOUNT_KEYS = {
    "type": "type",
    "source": "source",
    "src": "source",
    "target": "target",
    "dst": "target",
    "destination": "target",
    "readonly": "readonly",
    "ro": "readonly",
    "bind-propagation": "bind-propagation",
    "bind-nonrecursive": "bind-nonrecursive",
    "bind-recursive": "bind-recursive",
    "volume-nocopy": "volume-nocopy",
    "volume-label": "volume-label",
    "volume-driver": "volume-driver",
    "volume-opt": "volume-opt",
    "volume-subpath": "volume-subpath",
    "image-subpath": "image-subpath",
    "consistency": "consistency",
    "tmpfs-size": "tmpfs-size",
    "tmpfs-mode": "tmpfs-mode",
}


_FLAG_KEYS = frozenset({"readonly", "volume-nocopy", "bind-nonrecursive"})
_LIST_KEYS = ("volume-label", "volume-opt")


def _mount_of(flag: str, said: dict[str, str], lists: dict[str, list[str]], text: str) -> Mount:
    kind = said.get("type", "volume")
    if kind not in ("bind", "volume", "tmpfs", "image"):
        raise SpecError(flag, f"{text!r}: the type {kind!r} isn't known; bind, volume, tmpfs and image are")
    for key in [*said, *(key for key in lists if lists[key])]:
        owner = key.partition("-")[0]
        if owner in ("bind", "volume", "tmpfs", "image") and owner != kind:
            raise SpecError(flag, f"{text!r}: {key} doesn't go with type={kind}")
    if "target" not in said:
        raise SpecError(flag, f"{text!r} needs a target, as target=/path")
    target = _target(flag, said["target"], text)
    read_only = boolean(flag, said.get("readonly", "false"))
    source = said.get("source", "")
    if kind == "tmpfs":
        if source:
            raise SpecError(flag, f"{text!r}: a tmpfs has no source")
        options = [f"size={size(flag, said['tmpfs-size'])}"] if "tmpfs-size" in said else []
        if "tmpfs-mode" in said:
            options.append(f"mode={said['tmpfs-mode']}")
            tmpfs(flag, f"/x:{options[-1]}")
        return Mount("tmpfs", target, "", read_only, tuple(options), flag=flag)
    if kind == "bind":
        if not source:
            raise SpecError(flag, f"{text!r} needs a source, as source=/path")
        propagation = said.get("bind-propagation")
        if propagation is not None and propagation not in PROPAGATIONS:
            raise SpecError(flag, f"{text!r}: {propagation!r} isn't known; {', '.join(sorted(PROPAGATIONS))} are")
        recursive = said.get("bind-recursive", "enabled")
        if recursive not in ("enabled", "disabled", "writable", "readonly"):
            raise SpecError(flag, f"{text!r}: bind-recursive is one of enabled, disabled and readonly")
        if recursive == "writable" and read_only:
            raise SpecError(flag, f"{text!r}: what is mounted below a read-only folder is read-only here as well")
        # The kernel's bind is recursive here; a plain one is asked for by the word mount(8) has for it.
        plain = boolean(flag, said.get("bind-nonrecursive", "false")) or recursive == "disabled"
        rest = tuple(word for word in (propagation, "bind" if plain else None) if word)
        return Mount("bind", target, _host_path(flag, source, text), read_only, rest, flag=flag)
    if kind == "image":
        if not source:
            raise SpecError(flag, f"{text!r} needs a source, as source=IMAGE")
        if "readonly" in said and not read_only:
            raise SpecError(flag, f"{text!r}: an image is mounted read-only")
        subpath = _subpath(flag, said.get("image-subpath", ""), text)
        return Mount("image", target, source, True, flag=flag, subpath=subpath)
    if said.get("volume-driver", "local") != "local":
        raise SpecError(flag, f"{text!r}: the volume driver {said['volume-driver']!r} isn't there; local is")
    if source and not re.fullmatch(_VOLUME_NAME, source):
        raise SpecError(flag, f"{text!r}: {source!r} isn't a volume's name; for a folder of the host say type=bind")
    nocopy = ("nocopy",) if boolean(flag, said.get("volume-nocopy", "false")) else ()
    for pair in lists["volume-opt"]:
        if "=" not in pair:
            raise SpecError(flag, f"{text!r}: volume-opt needs the form volume-opt=NAME=VALUE")
    return Mount(
        "volume",
        target,
        source,
        read_only,
        nocopy,
        flag=flag,
        subpath=_subpath(flag, said.get("volume-subpath", ""), text),
        labels=tuple(lists["volume-label"]),
        driver_options=tuple(lists["volume-opt"]),
    )


def _subpath(flag: str, text: str, said: str) -> str:
    if text.startswith("/") or ".." in text.split("/") or "\0" in text:
        raise SpecError(
            flag, f"{said!r}: a subpath is relative and stays inside, so without a leading / and without .."
        )
    return text


def volumes_from(flag: str, text: str) -> str:
    """``CONTAINER[:ro|rw|z]``, as it is kept."""
    name, sign, mode = text.partition(":")
    if not name or (sign and not mode):
        raise SpecError(flag, f"{text!r} needs the form CONTAINER[:ro]")
    for word in mode.split(",") if mode else ():
        if word not in ("ro", "rw", "z", "Z"):
            raise SpecError(flag, f"{text!r}: the mode {word!r} isn't known; ro, rw and z are")
    return text
