"""The whole table: every group of lines, and the images that they name."""

from __future__ import annotations

from collections.abc import Callable

from ..registries import MadeImage, busybox_image, busybox_layer, make_image, tar_of
from . import container_cases, control_cases, lifecycle_cases, network_cases, run_cases, volume_cases
from .cases import Group


def full_image() -> MadeImage:
    """An image that says all that an image can say of its containers."""
    return busybox_image(
        User="1000:1001",
        Env=["PATH=/bin", "IMAGE=yes"],
        Entrypoint=["sh", "-c", 'echo "$IMAGE $0 $* $(pwd) $(id -u):$(id -g)"'],
        Cmd=["from", "the image"],
        WorkingDir="/work/here",
        Labels={"role": "image"},
        StopSignal="SIGUSR1",
        ExposedPorts={"8080/tcp": {}, "53/udp": {}},
    )


def volume_image() -> MadeImage:
    """An image with a VOLUME that has something in it."""
    files = tar_of({"vol": None, "vol/file": b"from the image\n"}, mode=0o750)
    return make_image([busybox_layer(), files], config={"Volumes": {"/vol": {}}})


IMAGES: dict[str, Callable[[], MadeImage]] = {"box:1": busybox_image, "full:1": full_image, "vol:1": volume_image}
GROUPS: tuple[Group, ...] = (
    *run_cases.GROUPS,
    *container_cases.GROUPS,
    *control_cases.GROUPS,
    *lifecycle_cases.GROUPS,
    *network_cases.GROUPS,
    *volume_cases.GROUPS,
)
