"""What an ordinary user commits is byte for byte what root commits: with SOURCE_DATE_EPOCH one digest, whoever made it, and whichever driver stacks."""

from __future__ import annotations

import gzip
import os
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import cellwall
from cellwall.runtime.engine import Engine
from cellwall.runtime.storage.driver import explain

from .. import registries
from ..registries import Registry, write_layout
from ..tool_image import tool_image
from .test_interop_layers import SCRIPT, base_tree
from .test_rootless import User, user

__all__ = ["user"]

registry = registries.registry

pytestmark = pytest.mark.needs("root", "overlay", "busybox-static")

EPOCH = "1700000000"


@pytest.fixture
def layout() -> Iterator[Path]:
    """A layout that everybody may read."""
    with tempfile.TemporaryDirectory(prefix="cw-image-", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        yield write_layout(Path(folder, "layout"), {"latest": tool_image(base_tree())})


def committed(engine: Engine, layout: Path, driver: str) -> str:
    with cellwall.container(f"oci:{layout}:latest", name=driver, engine=engine, storage_driver=driver) as box:
        box.run(SCRIPT)
        image = box.commit(f"lab/{driver}:1", changes=["CMD id"])
    engine.remove(driver)
    return image.digest


@pytest.mark.needs("user-namespaces", "overlay-userns")
@pytest.mark.parametrize("user", ["subordinate ids"], indirect=True)
def test_one_digest(
    user: User, layout: Path, cellwall_root: Path, monkeypatch: pytest.MonkeyPatch, registry: Registry
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
    engine = Engine()
    drivers = [name for name in ("overlay", "erofs") if explain(engine.paths, engine.identity)[name] is None]
    made = {driver: committed(engine, layout, driver) for driver in drivers}
    name = registry.name("interop/user:1")
    found = user(
        f"os.environ['SOURCE_DATE_EPOCH'] = '{EPOCH}'\n"
        f"with cellwall.container('oci:{layout}:latest', name='lab') as box:\n"
        f"    box.run({SCRIPT!r})\n"
        f"    image = box.commit('{name}', changes=['CMD id'])\n"
        "from cellwall.runtime.engine import Engine\n"
        "engine = Engine.default()\n"
        f"engine.images.push('{name}')\n"
        "again = cellwall.run(image.reference, ['sh', '-c', 'getcap /w/own-program; stat -c %u:%g:%a /w/top-ids /w/suid']).stdout\n"
        "engine.remove('lab')\n"
        "print(json.dumps([engine.driver.name, image.digest, again]))"
    )
    made[f"a user's {found[0]}"] = found[1]
    assert set(made.values()) == {found[1]}, made
    assert found[2] == "/w/own-program cap_net_bind_service,cap_net_raw=ep\n65535:65534:644\n12:42:6755\n"
    # What the user pushed is what root pulls.
    image = engine.images.pull(name)
    assert image.digest == found[1]
    # isal's bytes depend on the processor; zlib's don't.
    packed = engine.images._layout.blob_path(image.layers[-1].digest).read_bytes()
    compressor = zlib.compressobj(1, wbits=31)
    assert compressor.compress(gzip.decompress(packed)) + compressor.flush() == packed
    engine.close()


def test_one_digest_where_every_container_gets_a_copy(
    layout: Path, cellwall_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without idmapped mounts the files on disk carry the host's ids, in their access lists too: none of them goes into a layer."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
    made = []
    for idmap in ("on", "off"):
        monkeypatch.setenv("CELLWALL_IDMAP", idmap)
        monkeypatch.setenv("CELLWALL_ROOT", str(cellwall_root / idmap))
        engine = Engine()
        made.append(committed(engine, layout, "vfs"))
        found = cellwall.run(
            "lab/vfs:1", ["getfattr", "-n", "system.posix_acl_access", "-e", "hex", "/w/written"], engine=engine
        )
        # The entry that names user 1000: tag 2, rights 6, id 0x3e8.
        assert "02000600e8030000" in found.stdout
        engine.close()
    assert len(set(made)) == 1
