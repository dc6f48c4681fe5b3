"""Image references beside skopeo, and hostile archives beside podman, where both take them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cellwall.runtime.errors import InvalidReference
from cellwall.runtime.images.reference import Reference

from ..hostile_tars import BASE, TAKEN
from ..reference_samples import samples
from ..registries import make_image, write_layout
from .test_hostile_tars import merged, plainly
from .test_unpack_peers import podman_tree


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo")
def test_references_are_those_of_skopeo() -> None:
    taken = 0
    for text in samples(250):
        # What Debian's skopeo reads by an older grammar: addresses in brackets, capitals in hosts; it lets any port pass.
        if re.search(r"[\[\]]|^[^/]*[A-Z][^/]*/|:0+/|:65536/|@", text):
            continue
        command = ["skopeo", "inspect", f"docker-archive:/nonexistent:{text}"]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stderr
        theirs = "parsing reference" not in said
        assert theirs == ("no such file" in said), said
        try:
            Reference.parse(text)
        except InvalidReference as error:
            # Go takes what can't be a host for the beginning of a path, and then asks a host without a name.
            assert not theirs or "host name" in str(error), f"{text!r}: {error}"
        else:
            taken += 1
            assert theirs, f"{text!r}: {said}"
    assert taken > 40


# Where podman's tree is another.
PODMAN_OTHERWISE = {
    "aufs's own files": "podman passes over the files of aufs but makes their folder",
    "opaque mark below aufs's own folder": "the same",
    "overlayfs's own attributes": "podman keeps attributes that steer overlayfs, and hides what is below",
}


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.needs("root", "overlay", "podman")
def test_what_is_taken_is_podmans_tree(tmp_path: Path) -> None:
    compared = []
    for number, case in enumerate(TAKEN):
        image = make_image([*([BASE] if case.base else []), case.archive])
        layout = write_layout(tmp_path / f"n{number}", {"latest": image})
        try:
            with podman_tree(f"oci:{layout}:latest", "overlay") as tree:
                theirs = plainly(tree)
        except AssertionError:  # it refuses: so it does with a name that comes twice, which docker takes
            continue
        assert (theirs == merged(case)) is (case.name not in PODMAN_OTHERWISE), (case.name, theirs)
        compared.append(case.name)
    assert len(compared) > 20
