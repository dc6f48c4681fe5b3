"""The names of storage drivers: those that there are, and those that docker had: since when they are gone, and what to use instead.

Imports nothing. Source: docker's list of deprecated features (AuFS storage driver, Device mapper storage driver); docs/adr/0004-storage-seam.md.
"""

from __future__ import annotations

NAMES = ("overlay", "erofs", "fuse-overlayfs", "btrfs", "vfs")
# By the name that -s took: what became of it, and what does the same today.
FORMER = {
    "aufs": (
        "aufs never came into Linux itself, docker gave its driver up in 19.03 (2019) and removed it in 24.0 (2023)",
        "use -s overlay, which stacks layers in every kernel since 4.0; %%union reads aufs's br= lines",
    ),
    "devicemapper": (
        "docker gave its devicemapper driver up in 18.09 (2018) and removed it in 25.0 (2024), because it needs a pool of block "
        "devices that is set up and watched by hand",
        "use -s btrfs for snapshots or -s overlay otherwise; CELLWALL_ROOT may lie on a thin volume",
    ),
}
# What -s and the config take.
ASKED = (*NAMES, *FORMER)


def reason(name: str) -> str:
    """Why ``name`` can't be had, with what to use instead, as one sentence."""
    return "; ".join(FORMER[name])
