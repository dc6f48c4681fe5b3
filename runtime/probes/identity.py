"""Who runs this, and which ids a container can get: root, user namespaces, subordinate ids.

Source: user_namespaces(7), subuid(5), newuidmap(1).
"""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Callable
from pathlib import Path

from . import attempt
from .probe import Answer, limited, missing, ok

# What one container's range takes.
IDS = 65536


def root() -> Answer:
    if os.geteuid() == 0:
        return ok("uid 0")
    return missing(f"uid {os.geteuid()}: only root can do this", "sudo cellwall doctor")


def not_root() -> Answer:
    if os.geteuid() != 0:
        return ok(f"uid {os.geteuid()}")
    return missing("uid 0: only an ordinary user can do this", "runuser -u USER -- cellwall doctor")


def user() -> Answer:
    """Who asks: both ways are supported, so neither is a lack."""
    uid = os.geteuid()
    return ok("root" if uid == 0 else f"uid {uid}: containers are rootless")


def user_namespaces() -> Answer:
    outcome = attempt.outcome("user-namespace")
    if outcome.worked:
        return ok("can be made, and give capabilities inside")
    for path, refuses, mend in (
        ("/proc/sys/user/max_user_namespaces", "0", "sudo sysctl user.max_user_namespaces=15000"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sudo sysctl kernel.unprivileged_userns_clone=1"),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ):
        if read(path) == refuses:
            return missing(f"{path.removeprefix('/proc/sys/').replace('/', '.')} is {refuses}", mend)
    return missing(outcome.text, "inside another container: start that with user namespaces allowed")


def uidmap() -> Answer:
    """newuidmap and newgidmap with the right to write a map: set-uid, or file capabilities."""
    mend = "sudo apt install uidmap"
    for name in ("newuidmap", "newgidmap"):
        path = shutil.which(name)
        if path is None:
            return missing(f"{name} isn't installed", mend)
        if not os.stat(path).st_mode & 0o4000 and "security.capability" not in os.listxattr(path):
            return missing(f"{path} is neither set-uid nor has it capabilities", "sudo apt install --reinstall uidmap")
    return ok("newuidmap and newgidmap")


def subids() -> Answer:
    """Subordinate ids of this user; root takes its ranges by itself."""
    if os.geteuid() == 0:
        return ok("root needs none")
    uid = os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        return missing(
            f"uid {uid} has no entry in /etc/passwd, and so no subordinate ids", "log in as a user who has one"
        )
    mend = f"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}"
    counts = []
    for path in ("/etc/subuid", "/etc/subgid"):
        count = sum(count for owner, count in ranges(path) if owner in (name, str(uid)))
        if count == 0:
            return missing(f"{path} has none for {name}", mend)
        counts.append(count)
    if min(counts) < IDS:
        return limited(f"{min(counts)} for {name}, and images may use ids up to {IDS - 1}", mend)
    return ok(f"{counts[0]} uids and {counts[1]} gids for {name}")


def ranges(path: str) -> list[tuple[str, int]]:
    """Owner and size of each range in /etc/subuid or /etc/subgid; a line that isn't one is passed over, as newuidmap does."""
    found = []
    for line in read(path).splitlines():
        fields = line.split(":")
        if len(fields) == 3 and fields[2].isdecimal():
            found.append((fields[0], int(fields[2])))
    return found


def read(path: str) -> str:
    """The text of a small file, stripped; empty where it isn't there or isn't for us."""
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""


PROBES: dict[str, Callable[[], Answer]] = {
    "user": user,
    "root": root,
    "not-root": not_root,
    "user-namespaces": user_namespaces,
    "uidmap": uidmap,
    "subids": subids,
}
