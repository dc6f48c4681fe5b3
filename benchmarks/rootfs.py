"""The one root filesystem that every peer runs in: the machine's static busybox, as a folder, an OCI layout and an OCI bundle.

Source: image-spec image-layout.md and manifest.md, runtime-spec config.md.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

FOLDERS = ("bin", "dev", "etc", "proc", "sys", "tmp", "root")
# For peers that have no limits of their own accord, so that each pays for a memory and a pids group.
MEMORY_BYTES = 1 << 30
PIDS = 512
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def make_rootfs(folder: Path) -> Path:
    """Fill ``folder`` with busybox and /bin/true and /bin/sh as links to it. Raises FileNotFoundError without a static busybox."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise FileNotFoundError("busybox is not installed (Debian: apt install busybox-static)")
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    shutil.copy2(busybox, folder / "bin/busybox")
    for name in ("true", "sh"):
        (folder / "bin" / name).symlink_to("busybox")
    (folder / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (folder / "etc/group").write_text("root:x:0:\n")
    return folder


def make_layout(rootfs: Path, folder: Path) -> str:
    """Pack ``rootfs`` as the one layer of an image in the OCI layout ``folder``; returns ``oci:FOLDER:latest``."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(rootfs, arcname=".", filter=_owned_by_root)
    layer = buffer.getvalue()
    packed = gzip.compress(layer, 1, mtime=0)
    config = {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        # buildah builds on no layer without one.
        "history": [{"created_by": "busybox"}],
    }
    raw_config = json.dumps(config).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _descriptor("application/vnd.oci.image.config.v1+json", raw_config),
        "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar+gzip", packed)],
    }
    raw_manifest = json.dumps(manifest).encode()
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)
    for content in (packed, raw_config, raw_manifest):
        (blobs / _digest(content).removeprefix("sha256:")).write_bytes(content)
    entry = _descriptor("application/vnd.oci.image.manifest.v1+json", raw_manifest)
    entry["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return f"oci:{folder}:latest"


def _owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}


def make_bundle(runtime: str, folder: Path, command: tuple[str, ...] = ("/bin/true",)) -> Path:
    """An OCI bundle of ``runtime spec``'s own default that runs ``command`` in ``folder/rootfs``, with a memory and a pids limit."""
    (folder / "rootfs").mkdir(parents=True)
    subprocess.run([runtime, "spec"], cwd=folder, check=True, capture_output=True)
    path = folder / "config.json"
    spec = json.loads(path.read_text())
    spec["process"] |= {"terminal": False, "args": list(command), "env": ["PATH=/bin"]}
    spec["root"] = {"path": "rootfs"}
    spec["linux"].setdefault("resources", {}).update({"memory": {"limit": MEMORY_BYTES}, "pids": {"limit": PIDS}})
    path.write_text(json.dumps(spec))
    return folder


def mount_overlay(rootfs: Path, scratch: str, target: Path) -> list[list[str]]:
    """The commands that mount a writable overlay of ``rootfs`` at ``target``, its upper layer on a tmpfs at ``scratch``."""
    upper, work = os.path.join(scratch, "upper"), os.path.join(scratch, "work")
    return [
        ["mount", "-t", "tmpfs", "tmpfs", scratch],
        ["mkdir", upper, work],
        ["mount", "-t", "overlay", "-o", f"lowerdir={rootfs},upperdir={upper},workdir={work}", "overlay", str(target)],
    ]
