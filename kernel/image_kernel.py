"""What an image has to run as a kernel: the kernelspecs that stand in it, or a Python, with or without ipykernel.

The image is asked by a shell script in a container of it, so it needs a shell for this; one without is told its command by hand.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..runtime.api import run_options
from ..runtime.errors import CellwallError, SpecError
from ..runtime.options import RunOptions, Script
from .connection import INSIDE_FILE

if TYPE_CHECKING:
    from ..runtime.engine import Engine

# A kernelspec of a few lines; an image that prints more than this isn't asked on.
_LONGEST_BYTES = 1 << 20

# What a kernel of Python's is called by.
_PYTHONS = ("ipykernel", "xpython")
_PYTHON = """
import importlib.metadata as m, importlib.util as u, json, os, platform, sys, sysconfig
try: libc = os.confstr("CS_GNU_LIBC_VERSION")
except (OSError, ValueError): libc = None
here = lambda p: any(p == q or p.startswith(q + "/") for q in sys.path)
folder = sysconfig.get_path("purelib")
if not here(folder): folder = next((p for p in sys.path if p.endswith(("-packages"))), folder)
print(json.dumps({"executable": sys.executable, "version": list(sys.version_info[:2]),
  "implementation": sys.implementation.name, "libc": libc, "machine": platform.machine(), "folder": folder,
  "ipykernel": u.find_spec("ipykernel") is not None,
  "installed": sorted({(d.metadata["Name"] or "") + "==" + d.version for d in m.distributions()})}))
"""

_SCRIPT = """
while read -r key first _; do
    case $key in Uid:|Gid:) echo "@$key $first";; esac
done < /proc/self/status
for python in python3 python; do
    if command -v $python >/dev/null 2>&1; then
        echo "@python $($python -I -c '%(python)s')"
        share=$($python -I -c 'import sys; print(sys.prefix)')/share/jupyter
        break
    fi
done
IFS=:
for folder in $JUPYTER_PATH "$HOME/.local/share/jupyter" "$share" /usr/local/share/jupyter /usr/share/jupyter; do
    for spec in "$folder"/kernels/*/kernel.json; do
        if [ -r "$spec" ]; then
            echo "@spec $spec"
            cat "$spec"
            echo
            echo "@end"
        fi
    done
done
"""


@dataclass(frozen=True, slots=True)
class Python:
    """An image's Python: where it is, what packages must be built for to be its own, where they go, and what it has already."""

    executable: str
    version: tuple[int, int]
    implementation: str
    libc: str
    machine: str
    folder: str
    ipykernel: bool
    installed: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Found:
    """What the image has. ``specs`` are its kernelspecs by name, ``ids`` the numbers of its user."""

    ids: tuple[int, int]
    python: Python | None
    specs: dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Choice:
    """The kernel that is taken: its command (with the connection file's place in it), language and what its kernelspec says besides."""

    command: tuple[str, ...]
    language: str
    title: str
    interrupt_mode: str = "signal"
    env: dict[str, str] = field(default_factory=dict)
    debugger: bool = False
    needs_ipykernel: bool = False

    @property
    def transport(self) -> str:
        """How it listens. All kernels know tcp; those that are known to know ipc, which needs nobody between, are Python's."""
        return "ipc" if _is_python(self.command) else "tcp"


def look(engine: Engine, options: RunOptions) -> Found:
    """Ask the image of ``options``, as the user that they say. Raises CellwallError where it has no shell to be asked with."""
    asked = RunOptions(
        image=options.image, user=options.user, env=options.env, rm=True, entrypoint=(), pull=options.pull
    )
    asked = replace(asked, platform=options.platform, storage_driver=options.storage_driver)
    text = _SCRIPT % {"python": _PYTHON.replace("'", '"')}
    result = run_options(asked, script=Script(text.encode(), "sh"), engine=engine)
    if result.exit_status:
        why = result.exit.reason
        raise CellwallError(
            f"image {options.image} can't be asked for its kernel ({why}): name its command behind --, such as "
            "-- python3 -m ipykernel_launcher -f {connection_file}"
        )
    return _read(result.stdout[:_LONGEST_BYTES].decode("utf-8", "replace"))


def _read(text: str) -> Found:
    ids: dict[str, int] = {}
    python = None
    specs: dict[str, dict[str, Any]] = {}
    lines = iter(text.splitlines())
    for line in lines:
        kind, _, rest = line.partition(" ")
        if kind in ("@Uid:", "@Gid:") and rest.strip().isdecimal():
            ids[kind] = int(rest)
        elif kind == "@python":
            python = _python(rest)
        elif kind == "@spec":
            content = []
            for more in lines:
                if more == "@end":
                    break
                content.append(more)
            spec = _json("\n".join(content))
            argv = spec.get("argv")
            if isinstance(argv, list) and argv and all(isinstance(word, str) for word in argv):
                specs.setdefault(rest.split("/")[-2].lower(), spec)
    return Found((ids.get("@Uid:", 0), ids.get("@Gid:", 0)), python, specs)


def _python(text: str) -> Python | None:
    found = _json(text)
    try:
        return Python(
            str(found["executable"]),
            (int(found["version"][0]), int(found["version"][1])),
            str(found["implementation"]),
            str(found["libc"] or ""),
            str(found["machine"]),
            str(found["folder"]),
            bool(found["ipykernel"]),
            tuple(map(str, found["installed"])),
        )
    except (KeyError, TypeError, ValueError, IndexError):  # too old to say: as if there were none
        return None


def _json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def choose(found: Found, image: str, language: str) -> Choice:
    """The kernel for ``language``; without one Python's, or the only one that there is. Raises SpecError saying what there is."""
    wanted = language.lower()
    by_name = {name: spec for name, spec in found.specs.items() if not _is_python(spec["argv"])}
    if wanted not in ("", "python", "python3", "ipython"):
        fitting = [spec for name, spec in by_name.items() if wanted in (name, str(spec.get("language", "")).lower())]
        if fitting:
            return _of_spec(fitting[0])
        raise SpecError("--language", f"image {image} has no kernel for {language}; {_there(found)}")
    if found.python is not None:
        return _of_python(found.python, next((spec for spec in found.specs.values() if _is_python(spec["argv"])), None))
    if wanted or len(by_name) != 1:
        raise SpecError("--image", f"image {image} has {'no Python' if wanted else 'no one kernel'}; {_there(found)}")
    return _of_spec(next(iter(by_name.values())))


def of_command(command: Sequence[str], language: str) -> Choice:
    """A kernel whose command was said. Raises SpecError where the connection file's place isn't in it."""
    if not any("{connection_file}" in word for word in command):
        raise SpecError(
            "the kernel's command",
            "needs the word {connection_file} where the connection file's name goes: -f {connection_file}",
        )
    return Choice(_in_container(command), language or "text", (language or command[0].rsplit("/", 1)[-1]).title())


def _there(found: Found) -> str:
    names = sorted({*found.specs, *(["python"] if found.python else [])})
    if names:
        return f"it has {', '.join(names)}: name one with --language"
    return "take an image with one, or name the kernel's command behind --, or install a shell kernel with --shell"


def _is_python(command: Sequence[str]) -> bool:
    return any(word.startswith(_PYTHONS) for word in command)


def _of_spec(spec: dict[str, Any]) -> Choice:
    mode = spec.get("interrupt_mode")
    env = spec.get("env")
    metadata = spec.get("metadata")
    title = str(spec.get("display_name") or spec.get("language") or "")
    return Choice(
        _in_container(spec["argv"]),
        str(spec.get("language") or "text"),
        title,
        "message" if mode == "message" else "signal",
        # What refers to the environment that it is started in stands for nothing here.
        {str(k): str(v) for k, v in env.items() if "$" not in str(v)} if isinstance(env, dict) else {},
        isinstance(metadata, dict) and bool(metadata.get("debugger")),
    )


def _of_python(python: Python, spec: dict[str, Any] | None) -> Choice:
    title = f"Python {python.version[0]}.{python.version[1]}"
    if spec is not None and python.ipykernel:
        return replace(_of_spec(spec), title=title, language="python")
    command = (python.executable, "-m", "ipykernel_launcher", "-f", INSIDE_FILE)
    return Choice(command, "python", title, debugger=True, needs_ipykernel=not python.ipykernel)


def _in_container(argv: Sequence[str]) -> tuple[str, ...]:
    return tuple(word.replace("{connection_file}", INSIDE_FILE) for word in argv)
