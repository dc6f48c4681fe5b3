"""Which containers may begin in a sandbox that was made ahead, and what of them is in it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from cellwall.runtime.cli.run_options import from_keywords
from cellwall.runtime.launcher.pool import kind_of, layers_of
from cellwall.runtime.spec import plan

IMAGE = {"config": {"Cmd": ["true"], "Env": ["A=1"]}}


def request(**words: Any) -> dict[str, Any]:
    """What the launcher is asked for, as launching.py makes it."""
    options = from_keywords("busybox", **{"pids_limit": "7", **words})
    made = plan(replace(options, memory_bytes=1 << 30), IMAGE, "ab" * 32)
    return {
        "spec": json.loads(json.dumps(made.spec)),
        "process": made.process,
        "plan": [{"type": "overlay", "at": "/", "lowers": ["/layers/1"], "upper": None, "work": None}],
        "files": made.files,
        "run": "/run/x",
        "running": "/run/x/containers",
        "ids": "/run/x/ids",
        "upper_bytes": None,
        "idmap": True,
        "slot": None,
        "network": None,
        "join": {},
        "record": {"ephemeral": True, "hidden": False},
    }


def test_what_is_a_containers_own_makes_no_difference() -> None:
    kind = kind_of(request())
    assert kind is not None
    assert kind == kind_of(request(env={"SECRET": "hunter2"}, hostname="other", workdir="/x", user="nobody", tty=True))
    assert kind == kind_of(request(label="a=b", cap_add=["SYS_TIME"], ulimit="nofile=5", add_host="x:192.0.2.1"))


@pytest.mark.parametrize(
    "words",
    [
        {"memory_swap": "-1", "memory": "1g"},
        {"pids_limit": "8"},
        {"cpus": "0.5"},
        {"shm_size": "1m"},
        {"sysctl": "net.core.somaxconn=5"},
        {"ipc": "none"},
        {"uts": "host"},
        {"cgroupns": "host"},
        {"userns": "host"},
        {"security_opt": "systempaths=unconfined"},
        {"tmpfs": "/x"},
    ],
)
def test_what_is_made_ahead_makes_one(words: dict[str, Any]) -> None:
    kind = kind_of(request(**words))
    assert kind is not None
    assert kind != kind_of(request())


def test_nothing_of_the_callers_is_kept() -> None:
    said = request(
        env={"SECRET": "hunter2"}, hostname="mine", add_host="mine:192.0.2.1", volume="/tmp:/data", tmpfs="/x"
    )
    text = json.dumps(kind_of(said))
    assert not [word for word in ("hunter2", "mine", "192.0.2.1", "/tmp", "/data") if word in text]


@pytest.mark.parametrize(
    "changed",
    [
        {"network": {"user_mode": "pasta"}},
        {"join": {"pid": "cd" * 32}},
        {"slot": 3},
        {"record": {"ephemeral": False}},
        {"record": {"ephemeral": True, "hidden": True}},
        {"plan": [{"type": "bind", "at": "/", "source": "/copy"}]},
        {"plan": [{"type": "overlay", "at": "/", "lowers": ["/a"], "upper": "/disk/upper", "work": "/disk/work"}]},
        {"files": {"/run/secrets/x": {"data": "hunter2"}}},
    ],
)
def test_what_has_to_be_its_own(changed: dict[str, Any]) -> None:
    assert kind_of(request() | changed) is None


@pytest.mark.parametrize("words", [{"network": "host"}, {"pid": "host"}])
def test_folders_of_the_machine_are_not_held(words: dict[str, Any]) -> None:
    assert kind_of(request(**words)) is None


def test_a_layer_is_known_by_its_file(tmp_path: Any) -> None:
    layer, index = tmp_path / "layer", tmp_path / "index"
    layer.mkdir()
    index.write_text("x")
    kind = {"plan": [{"lowers": [str(layer), {"erofs": str(index), "tar": "t"}]}]}
    before = layers_of(kind)
    assert layers_of(kind) == before
    layer.rename(tmp_path / "old")
    layer.mkdir()
    assert layers_of(kind) != before
    index.unlink()
    with pytest.raises(FileNotFoundError):
        layers_of(kind)
