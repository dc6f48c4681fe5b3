"""A busybox image with something at ``/data`` for volumes to be filled with, and one of many files, in an OCI layout."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from .registries import MadeImage, busybox_layer, make_image, tar_of, write_layout

MANY = 1500


def _data() -> bytes:
    """Owners, modes, times, links of both kinds, an attribute, a link out of the tree, a folder behind a link."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:

        def put(
            name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", mode: int = 0o644, **more: object
        ) -> None:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.size, info.mtime = kind, mode, len(content), 1_600_000_000
            for key, value in more.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))

        put("data", tarfile.DIRTYPE, mode=0o2770, uid=33, gid=44)
        put("data/file", content=b"of the image\n", mode=0o640, uid=5, pax_headers={"SCHILY.xattr.user.kept": "yes"})
        put("data/again", tarfile.LNKTYPE, linkname="data/file", mode=0o640, uid=5)
        put("data/out", tarfile.SYMTYPE, linkname="/etc/passwd")
        put("data/deep", tarfile.DIRTYPE, mode=0o711)
        put("data/deep/pipe", tarfile.FIFOTYPE, mode=0o600)
        put("link", tarfile.SYMTYPE, linkname="data/deep")
        put("loop", tarfile.SYMTYPE, linkname="/proc")
        put("up", tarfile.SYMTYPE, linkname="../../..")
    return buffer.getvalue()


def write_images(folder: Path) -> dict[str, str]:
    """References of the images ``data`` (VOLUME /data), ``plain`` (none) and ``many`` (VOLUME /many, with MANY files)."""
    passwd = tar_of({"etc/passwd": b"root:x:0:0::/:/bin/sh\nme:x:1000:1000::/:/bin/sh\n", "etc/group": b"me:x:1000:\n"})
    layers = [busybox_layer(), passwd, _data()]
    many = tar_of({f"many/{number}": b"%d" % number for number in range(MANY)})
    images: dict[str, MadeImage] = {
        "data": make_image(layers, config={"Volumes": {"/data": {}}}),
        "plain": make_image(layers),
        "many": make_image([busybox_layer(), many], config={"Volumes": {"/many": {}}}),
    }
    write_layout(folder, images)
    return {name: f"oci:{folder}:{name}" for name in images}
