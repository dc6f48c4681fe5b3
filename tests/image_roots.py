"""Two images beside each other: their root filesystems entry by entry, and what their configs ask of a container.

Times aren't compared, and neither is how many layers there are: two builders may cut the same root differently.
"""

from __future__ import annotations

import io
import json
import subprocess
import tempfile
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .layer_trees import Facts, tree_facts
from .leaks import mounts

# The fields of an image config that say how a container is run. ArgsEscaped is Windows' own; history and created differ by right.
CONFIG_FIELDS = (
    "Env",
    "Cmd",
    "Entrypoint",
    "WorkingDir",
    "User",
    "Volumes",
    "ExposedPorts",
    "Labels",
    "StopSignal",
    "Healthcheck",
    "Shell",
    "OnBuild",
)
# buildah's signature under every image.
BUILDERS_LABELS = ("io.buildah.version",)
_DURATIONS = ("Interval", "Timeout", "StartPeriod", "StartInterval", "Retries")
# What gives each kind of entry its meaning; a link's own permissions mean nothing.
_FACTS = ("mode", "uid", "gid", "size", "sha256", "target", "device", "same_file_as", "xattrs")


@dataclass(frozen=True)
class ImageFacts:
    """All of an image that is compared: ``root`` by path as text, ``config`` by field, ``platform`` as ``os/architecture``."""

    root: dict[str, Facts]
    config: dict[str, Any]
    platform: str
    author: str = ""


def root_facts(root: Path) -> dict[str, Facts]:
    """Every path below ``root``. Not ``root`` itself: builders agree on no mode for it, and few layers have an entry of it."""
    found = {f"/{path.decode('utf-8', 'backslashreplace')}": facts for path, facts in tree_facts(root).items()}
    # A file of which overlayfs has copied one name up still counts the links of the lower one.
    groups = Counter(facts.get("same_file_as") for facts in found.values())
    for facts in found.values():
        if groups[facts.get("same_file_as")] == 1:
            del facts["same_file_as"]
    return {path: {name: facts[name] for name in _FACTS if name in facts} for path, facts in found.items()}


def config_facts(document: dict[str, Any]) -> dict[str, Any]:
    """The comparable fields of a config document (docker's or OCI's), an absent one as an empty one."""
    config = document.get("config") or {}
    found = {name: config.get(name) for name in CONFIG_FIELDS}
    for name in ("Env", "Cmd", "Entrypoint", "OnBuild", "Shell"):
        found[name] = list(found[name] or ())
    for name in ("Volumes", "ExposedPorts"):
        found[name] = sorted(found[name] or ())
    for name in ("User", "StopSignal"):
        found[name] = found[name] or ""
    # No folder is the root folder: runtime-spec process.cwd.
    found["WorkingDir"] = found["WorkingDir"] or "/"
    found["Labels"] = {key: value for key, value in (found["Labels"] or {}).items() if key not in BUILDERS_LABELS}
    health = found["Healthcheck"] or {}
    # A time of 0 is docker's default, as is none.
    found["Healthcheck"] = {key: value for key, value in health.items() if key not in _DURATIONS or value}
    return found


def image_facts(root: Path, document: dict[str, Any]) -> ImageFacts:
    """What the image with the unpacked ``root`` and the config ``document`` is."""
    platform = f"{document.get('os')}/{document.get('architecture')}"
    return ImageFacts(root_facts(root), config_facts(document), platform, document.get("author") or "")


def differences(one: ImageFacts, two: ImageFacts) -> dict[str, str]:
    """What differs: paths (``/etc/motd``) and fields (``config.Env``, ``platform``), each with both values. Empty: the same image."""
    found = {}
    for path in sorted(one.root.keys() | two.root.keys()):
        mine, theirs = one.root.get(path), two.root.get(path)
        if mine is None or theirs is None:
            found[path] = f"only the {'second' if mine is None else 'first'} has it: {mine or theirs}"
        elif mine != theirs:
            names = [name for name in _FACTS if mine.get(name) != theirs.get(name)]
            found[path] = "; ".join(f"{name} {mine.get(name)!r} and {theirs.get(name)!r}" for name in names)
    for field in CONFIG_FIELDS:
        if one.config[field] != two.config[field]:
            # The order means nothing to a container, yet it is part of the config: it is told apart.
            only_order = field == "Env" and sorted(one.config[field]) == sorted(two.config[field])
            found[f"config.{field}{' order' if only_order else ''}"] = (
                f"{one.config[field]!r} and {two.config[field]!r}"
            )
    for name in ("platform", "author"):
        if getattr(one, name) != getattr(two, name):
            found[name] = f"{getattr(one, name)!r} and {getattr(two, name)!r}"
    return found


class BuildFailed(Exception):
    """A builder ended with ``status``; ``output`` is what it wrote, both streams together."""

    def __init__(self, command: list[str], status: int, output: str) -> None:
        super().__init__(f"{' '.join(command)} ended with {status}:\n{output}")
        self.status = status
        self.output = output


def run(command: list[str], *, timeout_s: float = 120, **options: Any) -> str:
    """What ``command`` writes to its standard output. Raises BuildFailed with both streams."""
    done = subprocess.run(
        command, capture_output=True, text=True, errors="backslashreplace", timeout=timeout_s, **options
    )
    if done.returncode:
        raise BuildFailed(command, done.returncode, done.stdout + done.stderr)
    output: str = done.stdout
    return output


class Buildah:
    """buildah with a store of its own in the new folder ``folder``, on no network but the host's, and without control groups."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        self._command = ["buildah", "--root", str(folder / "root"), "--runroot", str(folder / "run")]
        self._command += ["--storage-driver", "overlay"]

    def __call__(self, *words: str) -> str:
        """What ``buildah WORDS…`` writes to its standard output. Raises BuildFailed."""
        return run([*self._command, *words])

    def load(self, archive: Path, names: list[str]) -> None:
        """Take the images ``names`` out of an archive in docker's format."""
        for name in names:
            self("pull", "--quiet", f"docker-archive:{archive}:{name}")

    def build(self, dockerfile: Path, context: Path, options: list[str], *, layers: bool = False) -> str:
        """The id of the image. ``layers``: one layer for each instruction, as docker has it, instead of one for all.

        Raises BuildFailed.
        """
        id_file = self._folder / "id"
        fixed = ["--isolation", "chroot", "--format", "docker", "--pull=never", f"--layers={str(layers).lower()}"]
        fixed += ["--iidfile", str(id_file), "--file", str(dockerfile)]
        # Of an image without a step of its own it leaves the root mounted: here in a namespace that goes with the build.
        run(["unshare", "--mount", *self._command, "bud", *fixed, *options, str(context)])
        return id_file.read_text().strip()

    def facts(self, image: str) -> ImageFacts:
        """What ``image`` is, seen through a container of its own that is gone afterwards."""
        try:
            found = json.loads(self("inspect", "--type", "image", image))["Docker"]
            if found["config"].get("OnBuild"):
                # `buildah from` would carry the triggers out.
                return self._unpacked(image, found)
            return self._mounted(image, found)
        finally:
            # containers/storage mounts its folder over itself, sometimes twice, and now and then leaves it so. A mount of the same
            # filesystem can't be told by stat(2).
            own = str(self._folder / "root" / "overlay")
            while own in mounts():
                run(["umount", "--lazy", own])

    def _mounted(self, image: str, document: dict[str, Any]) -> ImageFacts:
        container = self("from", "--pull-never", image).strip()
        try:
            return image_facts(Path(self("mount", container).strip()), document)
        finally:
            self("rm", container)

    def _unpacked(self, image: str, document: dict[str, Any]) -> ImageFacts:
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            self("push", "--quiet", image, f"oci-archive:{folder}/archive:image")
            return replace(
                archive_facts(Path(folder, "archive"), "image", Path(folder, "unpacked")), config=config_facts(document)
            )


class Cellwall:
    """The command line of cellwall, in this process, with the store ``root``."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __call__(self, *words: str) -> str:
        """What ``cellwall WORDS…`` writes to its standard output. Raises BuildFailed with both streams."""
        from cellwall.runtime.cli import main

        output, errors = io.StringIO(), io.StringIO()
        with redirect_stdout(output), redirect_stderr(errors):
            status = main(["--root", str(self._root), *words])
        if status:
            raise BuildFailed(["cellwall", *words], status, output.getvalue() + errors.getvalue())
        return output.getvalue()

    def build(self, dockerfile: Path, context: Path, options: list[str], name: str) -> None:
        """Build the image ``name``. Raises BuildFailed."""
        self("build", "--progress", "plain", "--file", str(dockerfile), "--tag", name, *options, str(context))

    def facts(self, name: str, scratch: Path) -> ImageFacts:
        """What the image ``name`` is: saved below ``scratch``, and its layers unpacked there by umoci, which knows nothing of us."""
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            archive = Path(folder, "archive")
            self("save", "--format", "oci-archive", "--output", str(archive), name)
            return archive_facts(archive, name, Path(folder, "unpacked"))


def archive_facts(archive: Path, name: str, folder: Path) -> ImageFacts:
    """What the image ``name`` of an OCI archive is, unpacked by umoci into the new folder ``folder``."""
    layout, bundle = folder / "layout", folder / "bundle"
    layout.mkdir(parents=True)
    run(["tar", "-xf", str(archive), "-C", str(layout)])
    index = json.loads((layout / "index.json").read_text())
    blobs = layout / "blobs" / "sha256"
    manifest = json.loads((blobs / index["manifests"][0]["digest"].partition(":")[2]).read_text())
    document = json.loads((blobs / manifest["config"]["digest"].partition(":")[2]).read_text())
    run(["umoci", "unpack", "--image", f"{layout}:{name}", str(bundle)])
    return image_facts(bundle / "rootfs", document)
