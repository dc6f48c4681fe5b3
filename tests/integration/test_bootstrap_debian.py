"""A real Debian base image by the real mmdebstrap, from the package sources that this machine uses."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest

from cellwall.runtime.images.digest import Digest
from cellwall.runtime.paths import Paths
from cellwall.runtime.storage.bootstrap import Base, own_distribution, tree_archive
from cellwall.runtime.storage.driver import open_driver


@pytest.mark.needs("root", "overlay", "mmdebstrap")
def test_a_debian_base(tmp_path: Path) -> None:
    if own_distribution() != "debian":
        pytest.skip("needs a machine whose own package sources are Debian's")
    base = Base.parse("debian")
    try:
        with urllib.request.urlopen(f"{base.mirror}/dists/{base.suite}/InRelease", timeout=10) as answer:
            answer.read(100)
    except OSError as error:
        pytest.skip(f"the package archive can't be reached: {error}")
    driver = open_driver("overlay", Paths(tmp_path, tmp_path / "run"))
    lines: list[str] = []
    with tree_archive(base, tmp_path / "work", progress=lines.append) as archive:
        assert list((tmp_path / "work").iterdir()) == [archive.parent]
        with archive.open("rb") as tar:
            chain = Digest.of(b"debian")
            info = driver.add_layer(chain, None, [], tar, digest="bootstrap")
    assert list((tmp_path / "work").iterdir()) == []
    assert lines
    assert info.entries > 3000
    tree = Path(driver.prepare("c", [chain], kept=False, directory=None)[0]["lowers"][0])
    assert (tree / "bin").is_symlink()
    assert (tree / "usr/bin/bash").is_file()
    assert (tree / "usr/bin/su").stat().st_mode & 0o7777 == 0o4755
    assert (
        "ID=debian" in (tree / "etc/os-release").resolve().read_text()
        or "ID=debian" in (tree / "usr/lib/os-release").read_text()
    )
    driver.remove_layer(chain)
