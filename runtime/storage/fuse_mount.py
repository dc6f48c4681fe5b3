"""What it takes to have the fuse-overlayfs program serve a mount: its device, the mount itself, its arguments, its last words.

The program gets a mount that is made already, as ``/dev/fd/N`` (libfuse 3.3): so it needs no right to mount, and the mount can
be handed on as a descriptor. Runs in the worker and in the launcher: light modules only.
Source: fuse(4), fuse(8) (mount options), fuse-overlayfs(1).
"""

from __future__ import annotations

import os
from errno import ENODEV, ENOENT, ENXIO

from ..errors import UnsupportedError
from ..linux.mounts import MOUNT_ATTR_NODEV, new_mount

DEVICE = "/dev/fuse"
MEND = "apt-get install fuse-overlayfs"
# What serving other people's files takes; everything else the program runs without.
CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_MKNOD",
    "CAP_SETFCAP",
)


def open_device() -> int:
    """A new connection to the kernel's side of FUSE, of the caller's user namespace. Raises UnsupportedError."""
    try:
        return os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (ENOENT, ENODEV, ENXIO):
            raise UnsupportedError(f"no {DEVICE}", "sudo modprobe fuse makes it, where the kernel has FUSE") from error
        raise UnsupportedError(
            f"{DEVICE}: {(error.strerror or '').lower()}", f"sudo chmod 666 {DEVICE} opens it to everybody"
        ) from error


def mount_fuse(device_fd: int) -> int:
    """A detached mount that whoever serves ``device_fd`` fills; the caller closes it. Not to be looked into before that.

    The device must have been opened in the caller's user namespace: the mount is that namespace's, and shows files to it and
    to those below it. Needs the right to mount.
    """
    options: dict[str, str | int | None] = {
        "source": "fuse-overlayfs",
        "subtype": "fuse-overlayfs",
        "fd": str(device_fd),
        "rootmode": "40000",
        "user_id": "0",
        "group_id": "0",
        "allow_other": None,
        # The kernel checks modes and owners, as everywhere.
        "default_permissions": None,
    }
    return new_mount("fuse", options, MOUNT_ATTR_NODEV)


def arguments(program: str, lowers: list[str], upper: str, work: str, device_fd: int, *, volatile: bool) -> list[str]:
    """The program's command line. ``volatile``: what is written needn't outlive the machine. No path has a colon or a comma."""
    options = f"lowerdir={':'.join(lowers)},upperdir={upper},workdir={work}" + (",volatile" if volatile else "")
    return [program, "-f", "-o", options, f"/dev/fd/{device_fd}"]


def last_words(output_fd: int) -> str:
    """The last line that the program wrote to the file ``output_fd`` about an error, or an empty string."""
    size = os.fstat(output_fd).st_size
    lines = os.pread(output_fd, 4096, max(0, size - 4096)).decode("utf-8", "replace").splitlines()
    # Remarks of every start: an option of its own that this libfuse doesn't know, no second connection to the device.
    remarks = ("unknown argument ignored", "fuse: failed to open", "fuse: trying to continue", "/proc seems")
    told = [line.strip() for line in lines if line.strip() and not line.startswith(remarks)]
    return told[-1] if told else ""
