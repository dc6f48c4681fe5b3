"""One small build on every storage driver and as an ordinary user; and what prune and df make of the build cache."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest

import cellwall
from cellwall.runtime.build.results import BuildRequest, Event, Output
from cellwall.runtime.cli import main
from cellwall.runtime.engine import Engine
from cellwall.runtime.errors import NotFound
from cellwall.runtime.storage.driver import explain
from cellwall.runtime.storage.names import NAMES

from ..leaks import leftovers
from ..registries import busybox_image, write_layout
from ..waiting import until
from . import test_rootless

user = test_rootless.user

pytestmark = pytest.mark.needs("root", "overlay")

SMALL = """\
FROM {base} AS made
WORKDIR /made/deep
RUN echo made > file && ln -s file link && mkfifo pipe && chmod 4711 file && rm /etc/motd
FROM {base}
COPY folder /folder
RUN --mount=type=bind,from=made,source=/made,target=/m --mount=type=bind,source=folder,target=/c \\
    cat /m/deep/link /c/one > /both && rm -r /folder/sub && mkdir /folder/sub && touch /folder/sub/new
COPY --from=made /made /copied
RUN --mount=type=cache,target=/cache echo x >> /cache/log; rm /etc/motd
CMD ["cat", "/both"]
"""
LOOK = "cat /both; cd /; find folder copied etc ! -name host* ! -name resolv.conf ! -type d -exec stat -c '%n %a %u:%g %F' {} + | sort; ls -A folder/sub"
EPOCH = "1700000000"


def make_context(folder: Path) -> Path:
    (folder / "folder/sub").mkdir(parents=True)
    (folder / "folder/one").write_text("one\n")
    (folder / "folder/sub/old").write_text("old\n")
    (folder / "folder").chmod(0o755)
    (folder / "folder/sub").chmod(0o755)
    (folder / "folder/one").chmod(0o640)
    return folder


def test_every_driver_builds_the_same(
    engine: Engine, busybox: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cellwall_root: Path
) -> None:
    """The same digest, on stores of their own; and one store's cache holds for another driver."""
    context = make_context(tmp_path)
    names = [name for name, why in explain(engine.paths, engine.identity).items() if not why]
    assert {"overlay", "vfs"} <= set(names) <= set(NAMES)
    found = {}
    for name in names:
        monkeypatch.setenv("CELLWALL_ROOT", str(cellwall_root / name))
        own = Engine()
        try:
            request = BuildRequest(
                dockerfile=SMALL.format(base=busybox),
                context=context,
                storage_driver=name,
                build_args={"SOURCE_DATE_EPOCH": EPOCH},
            )
            result = own.build(request)
            looked = cellwall.run(str(result.image.id), script=LOOK, engine=own, storage_driver=name, check=True).stdout
            again = own.build(request)
            assert again.hits == len(again.steps)
            found[name] = (str(result.image.digest), looked)
        finally:
            own.close()
    assert len({looked for _, looked in found.values()}) == 1, found
    # vfs compares trees, and can't see that a directory was made anew: it says what is gone from it instead.
    assert len({digest for name, (digest, _) in found.items() if name != "vfs"}) == 1, found
    _, looked = found["overlay"]
    assert looked.splitlines() == [
        "made",
        "one",
        "copied/deep/file 4711 0:0 regular file",
        "copied/deep/link 777 0:0 symbolic link",
        "copied/deep/pipe 644 0:0 fifo",
        "etc/group 755 0:0 regular file",
        "etc/passwd 755 0:0 regular file",
        "folder/one 640 0:0 regular file",
        "folder/sub/new 644 0:0 regular empty file",
        "new",
    ]
    # Another driver on the same store takes the layers from their blobs.
    monkeypatch.setenv("CELLWALL_ROOT", str(cellwall_root / "overlay"))
    own = Engine()
    try:
        result = own.build(
            BuildRequest(
                dockerfile=SMALL.format(base=busybox) + "RUN echo last > /last\n",
                context=context,
                storage_driver="vfs",
                build_args={"SOURCE_DATE_EPOCH": EPOCH},
            )
        )
        assert [step.status for step in result.steps].count("miss") == 1
    finally:
        own.close()


@pytest.mark.needs("user-namespaces", "overlay-userns")
def test_an_ordinary_user_builds_the_same(
    user: test_rootless.User, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = make_context(tmp_path / "context")
    base = f"oci:{write_layout(tmp_path / 'image', {'latest': busybox_image()})}:latest"
    request = BuildRequest(dockerfile=SMALL.format(base=base), context=context, build_args={"SOURCE_DATE_EPOCH": EPOCH})
    of_root = engine.build(request).image
    text = SMALL.replace("{base}", "{image}")
    code = textwrap.dedent(
        f"""
        from pathlib import Path
        from cellwall.runtime.build.results import BuildRequest, Event, Output
        from cellwall.runtime.engine import Engine
        home = Path(os.environ["HOME"]) / "context"
        (home / "folder/sub").mkdir(parents=True)
        (home / "folder/one").write_text("one\\n")
        (home / "folder/sub/old").write_text("old\\n")
        for path, mode in (("folder", 0o755), ("folder/sub", 0o755), ("folder/one", 0o640)):
            (home / path).chmod(mode)
        engine = Engine.default()
        request = BuildRequest(
            dockerfile={text!r}.replace("{{image}}", image), context=home, build_args={{"SOURCE_DATE_EPOCH": "{EPOCH}"}}, tags=("t:1",)
        )
        first, second = engine.build(request), engine.build(request)
        looked = cellwall.run("t:1", script={LOOK!r}).stdout
        freed = engine.prune_builds(mounts=True)
        left = [path.name for path in (engine.paths.build_cache / "mounts").iterdir() if path.is_dir()]
        print(json.dumps([[str(layer.diff_id) for layer in first.image.layers], second.hits, len(second.steps), looked, freed, left]))
        """
    )
    diff_ids, hits, count, looked, freed, left = user(code)
    assert hits == count
    assert "folder/one 640 0:0 regular file" in looked
    assert freed > 0
    assert left == []
    assert diff_ids == [str(layer.diff_id) for layer in of_root.layers]


def test_what_prune_and_df_make_of_it(
    engine: Engine, busybox: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    context = make_context(tmp_path / "context")

    def says(*words: str) -> str:
        assert main(list(words)) == 0
        return capfd.readouterr().out

    def rows(kind: str) -> dict[str, int]:
        found = json.loads(says("system", "df", "--format", "json"))
        # What comes after those are the spare sandboxes, where some are ready.
        assert [row["Type"] for row in found[:4]] == ["Images", "Containers", "Local Volumes", "Build Cache"]
        return next(row for row in found if row["Type"] == kind)

    request = BuildRequest(dockerfile=SMALL.format(base=busybox), context=context, tags=("small:1",))
    steps = len(engine.build(request).steps)
    images = [image.id for image in engine.images.list()]
    # The base and the built one; what holds the steps isn't shown.
    assert len(images) == 2
    listed = says("images", "-q")
    assert len(listed.split()) == 2
    cache = rows("Build Cache")
    # Six steps with layers, the context for the mount, and one cache mount.
    assert cache["TotalCount"] == 8
    assert 0 < cache["Active"] < 8
    assert cache["ReclaimableBytes"] == cache["SizeBytes"] > 0
    verbose = json.loads(says("system", "df", "-v", "--format", "json"))["BuildCache"]
    assert {row["CacheType"] for row in verbose} == {"regular", "exec.cachemount"}
    assert "COPY folder /folder" in {row["Description"] for row in verbose}
    assert "Build cache usage: " in says("system", "df", "-v")
    # image prune leaves the cache.
    says("image", "prune", "-f")
    assert engine.build(request).hits == steps
    # An image that is removed takes no step's layer along.
    says("rmi", "small:1")
    assert engine.build(request).hits == steps
    # builder prune leaves the images, and cache mounts unless it's told.
    freed = says("builder", "prune", "-f")
    assert freed.startswith("Total reclaimed space: ")
    assert rows("Build Cache")["TotalCount"] == 1
    assert cellwall.run("small:1", engine=engine).stdout == "made\none\n"
    says("builder", "prune", "-f", "-a")
    assert rows("Build Cache") | {"Type": ""} == {
        "Type": "", "TotalCount": 0, "Active": 0, "Size": "0B", "SizeBytes": 0, "Reclaimable": "0B", "ReclaimableBytes": 0,
    }  # fmt: skip
    again = engine.build(request)
    assert again.hits == 1
    # system prune takes the build cache, with --all the mounts too.
    assert says("system", "prune", "-f").startswith("Deleted Images:\n")
    assert rows("Build Cache")["TotalCount"] == 1
    says("system", "prune", "-f", "-a")
    assert rows("Build Cache")["TotalCount"] == 0
    assert engine.images.list() == []
    assert list(engine.paths.storage.glob("*/layers/sha256-*")) == []
    with pytest.raises(NotFound):
        engine.images.find("small:1")


def test_pruning_while_a_build_runs(engine: Engine, busybox: str) -> None:
    """What the build stands on stays until it is done, and its image is whole."""

    def on_event(event: Event) -> None:
        if isinstance(event, Output):
            other = Engine()
            try:
                other.prune_builds(mounts=True)
                other.images.prune(all=True)
            finally:
                other.close()

    text = (
        f"FROM {busybox}\nRUN echo 1 > /1\nRUN --mount=type=cache,target=/c echo 2 > /c/2; echo go; sleep 0.5; cp /c/2 /\n"
        "RUN echo go; cat /1 /2 > /3\n"
    )
    result = engine.build(BuildRequest(dockerfile=text, tags=("t:1",)), on_event=on_event)
    assert cellwall.run(str(result.image.id), ["cat", "/3"], engine=engine).stdout == "1\n2\n"
    # Nothing could be swept while the build held it: now it goes.
    engine.images.sweep()
    until(lambda: leftovers(engine.paths.data) == [], lambda: leftovers(engine.paths.data))
