"""What compares images sees every difference: each test changes one thing of an image."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ..image_roots import CONFIG_FIELDS, config_facts, differences, image_facts

pytestmark = pytest.mark.needs("root")

CONFIG: dict[str, Any] = {
    "Env": ["PATH=/bin", "A=1"],
    "Cmd": ["sh"],
    "Entrypoint": ["/bin/env"],
    "WorkingDir": "/work",
    "User": "app",
    "Volumes": {"/v": {}},
    "ExposedPorts": {"80/tcp": {}},
    "Labels": {"a": "1"},
    "StopSignal": "SIGINT",
    "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1000},
    "Shell": ["/bin/ash", "-c"],
    "OnBuild": ["RUN true"],
}


def document(**config: Any) -> dict[str, Any]:
    return {"os": "linux", "architecture": "amd64", "author": "somebody", "config": copy.deepcopy(CONFIG) | config}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with one of each kind of thing."""
    made = tmp_path / "one"
    (made / "dir/below").mkdir(parents=True)
    (made / "file").write_text("content\n")
    (made / "plain").write_text("plain\n")
    os.link(made / "file", made / "dir/hard")
    (made / "link").symlink_to("file")
    os.mkfifo(made / "fifo")
    os.mknod(made / "device", 0o20600, os.makedev(1, 3))
    os.setxattr(made / "plain", "user.note", b"note")
    return made


def relink(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def renode(path: Path, mode: int, device: int) -> None:
    path.unlink()
    os.mknod(path, mode, device)


# What is done to a copy of the root, and the path that must be told.
CHANGES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "mode of a file": (lambda root: (root / "plain").chmod(0o600), "/plain", "mode"),
    "setuid bit": (lambda root: (root / "plain").chmod(0o4644), "/plain", "mode"),
    "mode of a folder": (lambda root: (root / "dir").chmod(0o1777), "/dir", "mode"),
    "owner": (lambda root: os.chown(root / "plain", 1, 0), "/plain", "uid"),
    "group": (lambda root: os.chown(root / "dir/below", 0, 1), "/dir/below", "gid"),
    "owner of a link": (lambda root: os.chown(root / "link", 1, 0, follow_symlinks=False), "/link", "uid"),
    "content": (lambda root: (root / "plain").write_text("plant\n"), "/plain", "sha256"),
    "size": (lambda root: os.truncate(root / "plain", 7), "/plain", "size"),
    "target": (lambda root: relink(root / "link", "dir"), "/link", "target"),
    "attribute": (lambda root: os.setxattr(root / "plain", "user.note", b"other"), "/plain", "xattrs"),
    "attribute gone": (lambda root: os.removexattr(root / "plain", "user.note"), "/plain", "xattrs"),
    "device": (lambda root: renode(root / "device", 0o20600, os.makedev(1, 5)), "/device", "device"),
    "kind": (lambda root: renode(root / "fifo", 0o140644, 0), "/fifo", "mode"),
    "gone": (lambda root: (root / "dir/below").rmdir(), "/dir/below", "only the first"),
    "more": (lambda root: (root / "new\nline").touch(), "/new\nline", "only the second"),
}


def pair(root: Path) -> Path:
    other = root.parent / "two"
    shutil.copytree(
        root, other, symlinks=True, copy_function=shutil.copy2, ignore=shutil.ignore_patterns("fifo", "device")
    )
    os.mkfifo(other / "fifo")
    os.mknod(other / "device", 0o20600, os.makedev(1, 3))
    (other / "dir/hard").unlink()
    os.link(other / "file", other / "dir/hard")
    return other


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_the_root_is_seen(root: Path, change: str) -> None:
    other = pair(root)
    assert differences(image_facts(root, document()), image_facts(other, document())) == {}
    apply, path, how = CHANGES[change]
    apply(other)
    found = differences(image_facts(root, document()), image_facts(other, document()))
    assert [*found] == [path]
    assert how in found[path]


def test_a_hard_link_that_became_a_copy_is_seen(root: Path) -> None:
    other = pair(root)
    (other / "dir/hard").unlink()
    shutil.copy2(other / "file", other / "dir/hard")
    found = differences(image_facts(root, document()), image_facts(other, document()))
    assert sorted(found) == ["/dir/hard", "/file"]


def test_a_link_count_alone_is_no_hard_link(root: Path) -> None:
    """As overlayfs shows a file whose other name was changed in an upper layer."""
    other = pair(root)
    os.link(other / "plain", other.parent / "elsewhere")
    assert differences(image_facts(root, document()), image_facts(other, document())) == {}


def test_time_is_not_compared(root: Path) -> None:
    other = pair(root)
    os.utime(other / "plain", (1, 1))
    assert differences(image_facts(root, document()), image_facts(other, document())) == {}


@pytest.mark.parametrize("field", CONFIG_FIELDS)
def test_a_change_of_the_config_is_seen(root: Path, field: str) -> None:
    one = image_facts(root, document())
    other: Any = "x"
    if isinstance(CONFIG[field], list):
        other = ["x"]
    elif isinstance(CONFIG[field], dict):
        other = {"x": {}}
    for value in (None, other):
        assert [*differences(one, image_facts(root, document(**{field: value})))] == [f"config.{field}"]


def test_the_order_of_the_environment_is_told_apart(root: Path) -> None:
    found = differences(image_facts(root, document()), image_facts(root, document(Env=["A=1", "PATH=/bin"])))
    assert [*found] == ["config.Env order"]


@pytest.mark.parametrize(("field", "value"), [("architecture", "arm64"), ("os", "plan9"), ("author", "nobody")])
def test_a_change_beside_the_config_is_seen(root: Path, field: str, value: str) -> None:
    found = differences(image_facts(root, document()), image_facts(root, document() | {field: value}))
    assert [*found] == ["author" if field == "author" else "platform"]


def test_what_means_the_same_is_the_same() -> None:
    bare = config_facts({"config": {}})
    empty: dict[str, Any] = {key: [] for key in ("Cmd", "Entrypoint", "OnBuild", "Shell")}
    empty["Labels"] = {"io.buildah.version": "1"}
    assert bare == config_facts({"config": {"WorkingDir": "/", "Volumes": None, "User": "", **empty}})
    times = {"Test": ["NONE"], "Interval": 0, "Retries": 0}
    assert config_facts({"config": {"Healthcheck": times}})["Healthcheck"] == {"Test": ["NONE"]}
