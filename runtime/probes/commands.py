"""Programs of the distribution: which are there, and the package that brings each."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

from .probe import Answer, missing, ok

# Command to Debian's package.
PACKAGES = {
    "bwrap": "bubblewrap",
    "buildah": "buildah",
    "busybox": "busybox-static",
    "capsh": "libcap2-bin",
    "chromium": "chromium",
    "crun": "crun",
    "debootstrap": "debootstrap",
    "docker-registry": "docker-registry",
    "dockerd": "docker.io",
    "fuse-overlayfs": "fuse-overlayfs",
    "gcc": "gcc",
    "getfattr": "attr",
    "git": "git",
    "htpasswd": "apache2-utils",
    "ip": "iproute2",
    "mkfs.btrfs": "btrfs-progs",
    "mkfs.erofs": "erofs-utils",
    "mkfs.ext4": "e2fsprogs",
    "mmdebstrap": "mmdebstrap",
    "newgidmap": "uidmap",
    "newuidmap": "uidmap",
    "nft": "nftables",
    "openssl": "openssl",
    "pasta": "passt",
    "podman": "podman",
    "runc": "runc",
    "runuser": "util-linux",
    "setcap": "libcap2-bin",
    "setfattr": "attr",
    "skopeo": "skopeo",
    "slirp4netns": "slirp4netns",
    "strace": "strace",
    "sudo": "sudo",
    "systemctl": "systemd",
    "tar": "tar",
    "umoci": "umoci",
    "unshare": "util-linux",
    "zstd": "zstd",
}
# Where programs are that an ordinary user's PATH leaves out.
_SYSTEM = "/usr/local/sbin:/usr/sbin:/sbin"


def find(command: str) -> str | None:
    """The path of ``command``, also where only root's PATH has it."""
    return shutil.which(command) or shutil.which(command, path=_SYSTEM)


def command(name: str) -> Callable[[], Answer]:
    def probe() -> Answer:
        path = find(name)
        if path is None:
            return missing(f"no command {name}", f"sudo apt install {PACKAGES[name]}")
        return ok(path)

    return probe


def busybox_static() -> Answer:
    """A busybox without an interpreter: it runs in an image that holds nothing else."""
    mend = "sudo apt install busybox-static"
    path = find("busybox")
    if path is None:
        return missing("no command busybox", mend)
    with open(os.path.realpath(path), "rb") as file:
        start = file.read(4096)
    # The text of PT_INTERP stands near the start of a program that has one.
    if b"/ld-" in start:
        return missing(f"{path} is linked dynamically", mend)
    return ok(f"{path}, static")


def libseccomp() -> Answer:
    for folder in ("/usr/lib", "/lib", f"/usr/lib/{os.uname().machine}-linux-gnu", "/usr/lib64"):
        if os.path.exists(f"{folder}/libseccomp.so.2"):
            return ok(f"{folder}/libseccomp.so.2")
    return missing("no libseccomp.so.2", "sudo apt install libseccomp2")


PROBES: dict[str, Callable[[], Answer]] = {
    **{name: command(name) for name in PACKAGES},
    "busybox-static": busybox_static,
    "libseccomp": libseccomp,
}
