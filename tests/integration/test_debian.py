"""The real thing: a Debian by the real mmdebstrap from this machine's package sources, unpacked; with an odd layer on top, pushed to a real registry, pulled, compared, run."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import cellwall
from cellwall.runtime.engine import Engine
from cellwall.runtime.images.digest import Digest
from cellwall.runtime.paths import Paths
from cellwall.runtime.storage.bootstrap import Base, own_distribution, tree_archive
from cellwall.runtime.storage.driver import open_driver

from .. import registries
from ..layer_trees import tree_facts
from ..registries import Registry, make_image, write_layout
from .test_registry_pull import mounted
from .test_unpack_peers import archives, differences, our_tree, podman_tree

registry = registries.registry


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The archive of a Debian base image, made once."""
    if own_distribution() != "debian":
        pytest.skip("needs a machine whose own package sources are Debian's")
    base = Base.parse("debian")
    try:
        with urllib.request.urlopen(f"{base.mirror}/dists/{base.suite}/InRelease", timeout=10) as answer:
            answer.read(100)
    except OSError as error:
        pytest.skip(f"the package archive can't be reached: {error}")
    work = tmp_path_factory.mktemp("debian")
    lines: list[str] = []
    with tree_archive(base, work, progress=lines.append) as archive:
        assert list(work.iterdir()) == [archive.parent]
        assert lines
        yield archive
    assert list(work.iterdir()) == []


@pytest.mark.needs("root", "overlay", "mmdebstrap")
def test_a_debian_base(debian: Path, tmp_path: Path) -> None:
    driver = open_driver("overlay", Paths(tmp_path, tmp_path / "run"))
    with debian.open("rb") as tar:
        chain = Digest.of(b"debian")
        info = driver.add_layer(chain, None, [], tar, digest="bootstrap")
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


@pytest.mark.needs("root", "overlay", "erofs", "mmdebstrap", "podman")
def test_a_debian_from_a_registry(debian: Path, registry: Registry, engine: Engine, tmp_path: Path) -> None:
    layers = [debian.read_bytes(), *archives(tmp_path)]
    made = make_image(layers, config={"Env": ["PATH=/usr/bin:/bin"], "Cmd": ["bash"]})
    layout = write_layout(tmp_path / "layout", {"latest": made})
    name = registry.push(f"oci:{layout}:latest", "lab/debian")

    image = engine.images.pull(name)
    plan = engine.driver.prepare("c0ffee", image.chain_ids, kept=False, directory=None)
    with mounted(plan, tmp_path / "merged") as tree:
        ours = tree_facts(tree)
    with podman_tree(f"docker://{name}", "overlay", "--tls-verify=false") as tree:
        theirs = tree_facts(tree)
    assert len(ours) > 3000
    assert "\n".join(differences(ours, theirs)) == ""
    with our_tree(layers, "erofs", tmp_path / "erofs") as tree:
        assert "\n".join(differences(tree_facts(tree), theirs)) == ""

    result = cellwall.run(
        name, script="cat /etc/debian_version; id -u; dpkg-query -W -f '${Status}' bash", engine=engine
    )
    version, uid, status = result.stdout.split(maxsplit=2)
    assert version[0].isdigit()
    assert (uid, status) == ("0", "install ok installed")
    # What an update needs: setting owners and modes with the capabilities that there are.
    script = (
        "chown 5:60 /usr/bin/env && chmod 4755 /usr/bin/env && stat -c '%u %g %a' /usr/bin/env && echo >> /etc/issue"
    )
    changed = cellwall.run(name, script=script, engine=engine)
    assert (changed.exit_status, changed.stdout) == (0, "5 60 4755\n"), changed.stderr
    assert {"C /etc/issue", "C /usr/bin/env"} <= {str(change) for change in changed.diff()}
