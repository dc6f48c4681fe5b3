"""The configuration: each layer over the one before, its source kept, and mistakes named by file and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellwall.runtime.config import PIDS_LIMIT, Config
from cellwall.runtime.errors import SpecError
from cellwall.runtime.options import RunOptions

FILE = """
root = "/srv/cells"
[registries."registry.example:5000"]
mirrors = ["one.example", "two.example"]
insecure = true
ca_file = "ca.pem"
[registries."docker.io"]
mirrors = ["mirror.example"]
[aliases]
lab = "registry.example:5000/lab:2"
[defaults]
memory = "64m"
pids_limit = 512
timeout = "5m"
pull = "never"
"""


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "config/cellwall").mkdir(parents=True)
    return {"XDG_CONFIG_HOME": str(tmp_path / "config"), "HOME": str(tmp_path)}


def write(home: dict[str, str], text: str) -> Path:
    path = Path(home["XDG_CONFIG_HOME"]) / "cellwall/config.toml"
    path.write_text(text)
    return path


def test_without_a_file_everything_is_built_in(home: dict[str, str]) -> None:
    config = Config.load(home)
    assert config.file is None
    assert config.defaults["pids_limit"] == PIDS_LIMIT
    assert config.defaults["network"] == "none"
    assert config.defaults["memory"] >= 6 << 20
    assert {setting.source for setting in config.settings()} == {"built-in"}


def test_the_file_is_read_and_remembered(home: dict[str, str]) -> None:
    path = write(home, FILE)
    config = Config.load(home)
    assert config.file == path
    assert config.paths.data == Path("/srv/cells")
    registry = config.registries["registry.example:5000"]
    assert (registry.mirrors, registry.insecure, registry.ca_file) == (
        ("one.example", "two.example"),
        True,
        path.parent / "ca.pem",
    )
    assert config.alias("lab") == "registry.example:5000/lab:2"
    assert config.alias("debian") == "debian"
    assert (config.defaults["memory"], config.defaults["timeout"], config.pull) == (64 << 20, 300.0, "never")
    sources = {setting.key: setting.source for setting in config.settings()}
    assert (
        sources["defaults.memory"]
        == sources["registries.docker.io.mirrors"]
        == sources["root"]
        == sources["aliases.lab"]
        == str(path)
    )
    assert sources["defaults.network"] == "built-in"
    assert "registries.docker.io.insecure" not in sources


def test_variables_win_over_the_file_and_flags_over_both(home: dict[str, str]) -> None:
    write(home, FILE)
    home |= {
        "CELLWALL_MEMORY": "128m",
        "CELLWALL_PIDS_LIMIT": "7",
        "CELLWALL_ROOT": "/elsewhere",
        "CELLWALL_TIMEOUT": "",
    }
    config = Config.load(home, flags={"defaults.pids_limit": "9"})
    assert (config.defaults["memory"], config.source("defaults.memory")) == (128 << 20, "CELLWALL_MEMORY")
    assert (config.defaults["pids_limit"], config.source("defaults.pids_limit")) == (9, "--pids-limit")
    assert (config.paths.data, config.source("root")) == (Path("/elsewhere"), "CELLWALL_ROOT")
    assert config.defaults["timeout"] == 300.0


def test_the_registry_settings_reach_the_image_store(home: dict[str, str]) -> None:
    write(home, FILE)
    registries = Config.load(home).registry_config()
    assert registries.settings("docker.io").mirrors == ("mirror.example",)
    assert registries.aliases == {"lab": "registry.example:5000/lab:2"}


@pytest.mark.parametrize(
    ("text", "place", "part"),
    [
        ("memroy = 1", "memroy", "unknown key"),
        ("[defaults]\nmemroy = '1g'", "defaults.memroy", "did you mean memory"),
        ("[defaults]\nmemory = '1k'", "defaults.memory", "at least 6m"),
        ("[defaults]\nmemory = []", "defaults.memory", "must be a text or a number"),
        ("[defaults]\nmemory = true", "defaults.memory", "is no size"),
        ("[defaults]\ncell_line = 'maybe'", "defaults.cell_line", "maybe"),
        ("[defaults]\nnetwork = 'a b'", "defaults.network", "none, host, bridge"),
        ("[defaults]\npull = 'maybe'", "defaults.pull", "missing, always, never"),
        ("defaults = 1", "defaults", "must be a table"),
        ("[registries]\nx = 1", "registries.x", "must be a table"),
        ("[registries.x]\nmirror = 'a'", "registries.x.mirror", "did you mean mirrors"),
        ("[registries.x]\nmirrors = 'a'", "registries.x.mirrors", "must be a list"),
        ("[registries.x]\nmirrors = [1]", "registries.x.mirrors", "must be a text"),
        ("[registries.x]\ninsecure = 'no'", "registries.x.insecure", "must be true or false"),
        ("[aliases]\nlab = 1", "aliases.lab", "must be a text"),
        ("root = ''", "root", "must be a text"),
    ],
)
def test_mistakes_name_file_and_key(home: dict[str, str], text: str, place: str, part: str) -> None:
    path = write(home, text)
    with pytest.raises(SpecError) as caught:
        Config.load(home)
    assert caught.value.field == f"{path}: {place}"
    assert part in str(caught.value)


def test_a_broken_file_is_one_sentence(home: dict[str, str]) -> None:
    path = write(home, "[defaults\n")
    with pytest.raises(SpecError, match="isn't TOML"):
        Config.load(home)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SpecError, match="isn't TOML"):
        Config.load(home)


def test_a_named_file_must_be_there(home: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no such file"):
        Config.load(home, file=tmp_path / "none.toml")
    with pytest.raises(SpecError, match="no such file"):
        Config.load(home | {"CELLWALL_CONFIG": str(tmp_path / "none.toml")})
    (tmp_path / "other.toml").write_text("[defaults]\npids_limit = 3\n")
    assert Config.load(home | {"CELLWALL_CONFIG": str(tmp_path / "other.toml")}).defaults["pids_limit"] == 3


def test_a_bad_variable_names_itself(home: dict[str, str]) -> None:
    with pytest.raises(SpecError, match=r"^CELLWALL_MEMORY: "):
        Config.load(home | {"CELLWALL_MEMORY": "lots"})


def test_a_relative_config_home_is_ignored(tmp_path: Path) -> None:
    (tmp_path / ".config/cellwall").mkdir(parents=True)
    (tmp_path / ".config/cellwall/config.toml").write_text("[defaults]\npids_limit = 3\n")
    assert Config.load({"XDG_CONFIG_HOME": "relative", "HOME": str(tmp_path)}).defaults["pids_limit"] == 3


def test_defaults_fill_what_wasnt_said(home: dict[str, str]) -> None:
    write(
        home, "[defaults]\nmemory = '64m'\nmemory_swap = '96m'\npids_limit = 5\ntimeout = 3\nstorage_driver = 'vfs'\n"
    )
    config = Config.load(home)
    filled = config.fill(RunOptions("x"))
    assert (
        filled.memory_bytes,
        filled.memory_swap_bytes,
        filled.pids_limit,
        filled.timeout_s,
        filled.network,
        filled.storage_driver,
    ) == (64 << 20, 96 << 20, 5, 3.0, "none", "vfs")
    assert config.fill(filled) == filled
    said = RunOptions("x", memory_bytes=256 << 20, pids_limit=-1, network="host")
    filled = config.fill(said)
    assert (filled.memory_bytes, filled.memory_swap_bytes, filled.pids_limit, filled.network) == (
        256 << 20,
        None,
        -1,
        "host",
    )
    assert config.fill(RunOptions("x", memory_reservation_bytes=128 << 20)).memory_bytes == 128 << 20
