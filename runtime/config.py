"""What is in force and from where: built-in values, config.toml, CELLWALL_* variables, then flags.

The file is ``$XDG_CONFIG_HOME/cellwall/config.toml`` (``CELLWALL_CONFIG`` names another):

    root = "/srv/cellwall"                      # where images and containers are kept
    pool = 2                                    # sandboxes that a process has ready for its next containers (0: none)

    [registries."registry.example:5000"]        # a registry's host and port
    mirrors = ["mirror.example"]                # asked first, in order
    insecure = false                            # true: plain http, or https with any certificate
    ca_file = "/etc/ssl/registry.pem"           # relative to this file

    [aliases]
    lab = "registry.example:5000/courses/lab:2"

    [defaults]                                  # of the run options of the same names
    memory = "2g"
    pids_limit = 512
    locked = false                              # true: run what the notebook's lock says, or nothing
    cell_line = false                           # no line below a notebook's cells that says how they ended

A value may be overridden by a variable of its name (``CELLWALL_MEMORY``, ``CELLWALL_PIDS_LIMIT``, ``CELLWALL_ROOT``).
An unknown key is an error that names the file and the key. Imports the standard library, options.py, paths.py, errors.py, frozen.py and
the readers of values that the command line uses.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from .cli import values
from .cli.network_values import default_network
from .errors import SpecError
from .frozen import field, frozen, replace
from .options import RunOptions
from .paths import Paths
from .storage.names import ASKED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .images.settings import RegistryConfig, RegistrySettings
    from .options import PullPolicy

    Read = Callable[[str, str], Any]

BUILT_IN = "built-in"
# A fork bomb is stopped long before it hurts, and a JVM or a parallel build still fits; podman's figure.
PIDS_LIMIT = 2048
TIMEOUT_S = 10.0
# One for the next container and one for whoever runs two at once; each is a process of some 3 MiB. See launcher/pool.py.
POOL = 2
_POOL_MOST = 64


@frozen
class Setting:
    """One value in force, for ``cellwall info``: its dotted key, the value, and where it came from."""

    key: str
    value: Any
    source: str


# [defaults]: the config's key, the field of RunOptions (empty: Config's own), how it is read.
_DEFAULTS: dict[str, tuple[str, Read]] = {
    "memory": ("memory_bytes", values.memory),
    "memory_swap": ("memory_swap_bytes", values.memory_swap),
    "cpus": ("cpus", values.cpus),
    "pids_limit": ("pids_limit", values.integer(1, values.PIDS_HIGHEST, (-1, 0))),
    "shm_size": ("shm_size_bytes", values.positive_size),
    "network": ("network", default_network),
    "storage_driver": ("storage_driver", values.choice(*ASKED)),
    "storage_size": ("storage_size_bytes", values.positive_size),
    "timeout": ("timeout_s", values.duration),
    "stop_timeout": ("stop_timeout_s", values.integer(0, 10**9)),
    "platform": ("platform", values.platform),
    "pull": ("", values.choice("missing", "always", "never")),
    "locked": ("", values.boolean),
    "cell_line": ("", values.boolean),
}
_SECTIONS = ("registries", "aliases", "defaults")
_REGISTRY_KEYS = ("mirrors", "insecure", "ca_file")


@frozen
class Config:
    """The values in force. ``defaults`` are by their keys in the file; ``sources`` says where each dotted key came from.

    ``file`` is the file that was read, or None where there is none.
    """

    file: Path | None = None
    root: Path | None = None
    pool: int = POOL
    registries: Mapping[str, RegistrySettings] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def load(
        cls,
        environment: Mapping[str, str] | None = None,
        *,
        file: Path | str | None = None,
        flags: Mapping[str, str] | None = None,
    ) -> Config:
        """Read the file (``file``, else CELLWALL_CONFIG, else the usual place), the variables and ``flags``.

        ``flags`` maps a dotted key ("root", "defaults.memory") to its text. Raises SpecError for a file that can't be read, that was named and
        isn't there, for an unknown key and for a bad value, each naming the place.
        """
        env = dict(os.environ if environment is None else environment)
        loader = _Loader(env)
        loader.built_in()
        loader.read_file(file)
        loader.read_environment()
        for key, text in (flags or {}).items():
            loader.set_text(key, text, f"--{key.rpartition('.')[2].replace('_', '-')}", "flag")
        return loader.config()

    @property
    def paths(self) -> Paths:
        """Where state is kept, ``root`` taken into account."""
        env = dict(self.environment or os.environ)
        if self.root is not None:
            env["CELLWALL_ROOT"] = str(self.root)
        return Paths.default(env)

    @property
    def pull(self) -> PullPolicy | None:
        policy: PullPolicy | None = self.defaults.get("pull")
        return policy

    @property
    def locked(self) -> bool:
        """Whether images are to be those of the notebook's lock where a command doesn't say."""
        return bool(self.defaults.get("locked"))

    @property
    def cell_line(self) -> bool:
        """Whether a notebook shows a line below each cell that says how it ended."""
        return bool(self.defaults.get("cell_line", True))

    def source(self, key: str) -> str:
        """Where the value of a dotted key came from: ``built-in``, a file, a variable or a flag."""
        return self.sources.get(key, BUILT_IN)

    def fill(self, options: RunOptions) -> RunOptions:
        """``options`` with the defaults for what they don't say. Filling twice is filling once.

        ``pull`` isn't filled, as "missing" can't be told from "not said" any more, nor ``locked``, which is asked for by image. A default memory_swap goes only with a memory limit,
        and never below it.
        """
        missing = {
            name: self.defaults[key]
            for key, (name, _) in _DEFAULTS.items()
            if name and self.defaults.get(key) is not None and getattr(options, name) is None
        }
        if swap := missing.get("memory_swap_bytes"):
            limit = options.memory_bytes or missing.get("memory_bytes")
            if limit is None or (swap != -1 and swap < limit):
                del missing["memory_swap_bytes"]
        if "memory_bytes" in missing:
            # A default limit never contradicts what was said: a larger reservation or swap figure raises it.
            said = [options.memory_reservation_bytes or 0, missing["memory_bytes"]]
            missing["memory_bytes"] = max(said)
        return replace(options, **missing) if missing else options

    def alias(self, reference: str) -> str:
        """What ``[aliases]`` says for exactly this name, else the name itself."""
        return self.aliases.get(reference, reference)

    def registry_config(self) -> RegistryConfig:
        """The registry settings in the form that the image store takes."""
        from .images.settings import RegistryConfig

        return RegistryConfig(dict(self.registries), dict(self.aliases))

    def settings(self) -> list[Setting]:
        """Every value in force with its source, in the file's order."""
        found = [
            Setting("root", str(self.paths.data), self.source("root")),
            Setting("pool", self.pool, self.source("pool")),
        ]
        for host, said in self.registries.items():
            for name in _REGISTRY_KEYS:
                key = f"registries.{host}.{name}"
                if key in self.sources:
                    value = getattr(said, name)
                    found.append(Setting(key, str(value) if isinstance(value, Path) else value, self.source(key)))
        found += [
            Setting(f"aliases.{name}", target, self.source(f"aliases.{name}")) for name, target in self.aliases.items()
        ]
        for name in _DEFAULTS:
            if self.defaults.get(name) is not None:
                found.append(Setting(f"defaults.{name}", self.defaults[name], self.source(f"defaults.{name}")))
        return found


class _Loader:
    """Gathers values, later ones over earlier ones, and remembers their sources."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        self.file: Path | None = None
        self.root: Path | None = None
        self.pool = POOL
        self.registries: dict[str, RegistrySettings] = {}
        self.aliases: dict[str, str] = {}
        self.defaults: dict[str, Any] = {}
        self.sources: dict[str, str] = {}

    def config(self) -> Config:
        return Config(
            self.file,
            self.root,
            self.pool,
            self.registries,
            self.aliases,
            self.defaults,
            self.sources,
            self.environment,
        )

    def built_in(self) -> None:
        self.defaults |= {
            "network": "none",
            "pids_limit": PIDS_LIMIT,
            "stop_timeout": TIMEOUT_S,
            "pull": "missing",
            "locked": False,
            "cell_line": True,
        }
        if total := machine_memory_bytes():
            # The notebook server and this machine's own work keep a quarter.
            self.defaults["memory"] = max(total * 3 // 4 // values.MIB * values.MIB, values.MEMORY_LOWEST)

    def read_file(self, named: Path | str | None) -> None:
        said = named or self.environment.get("CELLWALL_CONFIG")
        path = Path(said).absolute() if said else _usual_place(self.environment)
        try:
            raw = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            if said:
                raise SpecError(str(path), "there is no such file; name another with CELLWALL_CONFIG") from None
            return
        except OSError as error:
            raise SpecError(str(path), f"can't be read: {(error.strerror or str(error)).lower()}") from error
        import tomllib

        try:
            document = tomllib.loads(raw.decode())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SpecError(str(path), f"isn't TOML: {error}") from None
        self.file = path
        for key, value in document.items():
            if key == "root":
                self.set_text("root", _text(f"{path}: root", value), f"{path}: root", str(path))
            elif key == "pool":
                self.set_text("pool", _text(f"{path}: pool", value, numbers=True), f"{path}: pool", str(path))
            elif key in _SECTIONS:
                self._section(path, key, value)
            else:
                raise _unknown(f"{path}: {key}", key, ("root", "pool", *_SECTIONS))

    def _section(self, path: Path, section: str, table: object) -> None:
        place = f"{path}: {section}"
        for key, value in _table(place, table).items():
            if section == "registries":
                self._registry(path, f"{place}.{key}", key, value)
            elif section == "aliases":
                self.aliases[key] = _text(f"{place}.{key}", value)
                self.sources[f"aliases.{key}"] = str(path)
            else:
                if key not in _DEFAULTS:
                    raise _unknown(f"{place}.{key}", key, tuple(_DEFAULTS))
                self.set_text(
                    f"defaults.{key}", _text(f"{place}.{key}", value, numbers=True), f"{place}.{key}", str(path)
                )

    def _registry(self, path: Path, place: str, host: str, table: object) -> None:
        from .images.settings import RegistrySettings

        said: dict[str, Any] = {}
        for key, value in _table(place, table).items():
            here = f"{place}.{key}"
            if key == "mirrors":
                if not isinstance(value, list):
                    raise SpecError(here, f"{value!r} must be a list of hosts")
                said[key] = tuple(_text(here, mirror) for mirror in value)
            elif key == "insecure":
                if not isinstance(value, bool):
                    raise SpecError(here, f"{value!r} must be true or false")
                said[key] = value
            elif key == "ca_file":
                said[key] = path.parent / Path(_text(here, value)).expanduser()
            else:
                raise _unknown(here, key, _REGISTRY_KEYS)
            self.sources[f"registries.{host}.{key}"] = str(path)
        self.registries[host] = RegistrySettings(**said)

    def read_environment(self) -> None:
        """CELLWALL_ROOT, CELLWALL_POOL and one variable for each of the defaults. An empty variable counts as not set."""
        for key in ("root", "pool", *(f"defaults.{name}" for name in _DEFAULTS)):
            variable = f"CELLWALL_{key.rpartition('.')[2].upper()}"
            if text := self.environment.get(variable):
                self.set_text(key, text, variable, variable)

    def set_text(self, key: str, text: str, place: str, source: str) -> None:
        """Read ``text`` for a dotted key; ``place`` stands in the error, ``source`` is remembered."""
        if key == "root":
            self.root = Path(text).expanduser().absolute()
        elif key == "pool":
            self.pool = values.integer(0, _POOL_MOST)(place, text)
        else:
            name = key.removeprefix("defaults.")
            if name not in _DEFAULTS:
                raise _unknown(place, name, tuple(_DEFAULTS))
            self.defaults[name] = _DEFAULTS[name][1](place, text)
        self.sources[key] = place if source == "flag" else source


def machine_memory_bytes() -> int | None:
    """This machine's memory. Source: proc_meminfo(5), MemTotal."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemTotal:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        return None  # no /proc: no default limit, and the engine says that it can't count memory
    return None


def _usual_place(environment: Mapping[str, str]) -> Path:
    base = environment.get("XDG_CONFIG_HOME") or ""
    if not base.startswith("/"):  # the XDG specification: a relative path is to be ignored
        base = os.path.join(environment.get("HOME") or os.path.expanduser("~"), ".config")
    return Path(base) / "cellwall/config.toml"


def _table(place: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SpecError(place, f"{value!r} must be a table of keys")
    return value


def _text(place: str, value: object, numbers: bool = False) -> str:
    if numbers and isinstance(value, (bool, int, float)):
        return str(value).lower()
    if not isinstance(value, str) or not value:
        raise SpecError(place, f"{value!r} must be a text{' or a number' if numbers else ''}")
    return value


def _unknown(place: str, key: str, known: tuple[str, ...]) -> SpecError:
    import difflib

    near = difflib.get_close_matches(key, known, 1)
    mend = f"did you mean {near[0]}" if near else f"known are {', '.join(known)}"
    return SpecError(place, f"unknown key; {mend}")
