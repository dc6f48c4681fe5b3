"""``cellwall doctor, info, version``: this machine and what is in force.

``version`` loads nothing but the standard library; ``doctor`` the probes; ``info`` the engine.
"""

from __future__ import annotations

import json
import os
import platform

from ..errors import SpecError, UnsupportedError
from . import table, values
from .parser import Parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .command import Context


def version(context: Context, words: list[str]) -> int:
    """Print the version of cellwall, of Python and of the kernel."""
    parser = context.parser("[OPTIONS]")
    table.add_format(parser)
    said, rest = parser.parse(words)
    _no_words(parser, rest)
    found = _versions()
    if said.format == "json":
        print(json.dumps(found, indent=2))
    elif said.format:
        print(table.fill(said.format, found))
    else:
        print("\n".join(f"{name}: {value}" for name, value in found.items()).replace("Version: ", "cellwall ", 1))
    return 0


def _versions() -> dict[str, str]:
    from ... import __version__

    kernel = os.uname()
    return {
        "Version": __version__,
        "Python": platform.python_version(),
        "Kernel": kernel.release,
        "Os": "linux",
        "Arch": kernel.machine,
    }


def doctor(context: Context, words: list[str]) -> int:
    """Print what this machine can do: ok, limited or missing, and the one command that mends it.

    With names, only these, and UnsupportedError for the first of them that isn't ok.
    """
    parser = context.parser("[OPTIONS] [NAME...]")
    parser.value(
        "--format",
        read=values.choice("json", "text"),
        metavar="json|text",
        help="data, or text for a person",
        default="text",
    )
    said, names = parser.parse(words)
    from ..inspect.machine import look

    view = look(names)
    if said.format == "json":
        print(json.dumps(view.to_dict(), indent=2))
    elif table.has_view():
        table.write_view({"text": view.text(), "html": view.html()})
    else:
        import shutil

        print(view.text(shutil.get_terminal_size((100, 24)).columns), end="")
    if names and (lacking := [probe for probe in view.probes if probe["status"] != "ok"]):
        raise UnsupportedError(
            f"{lacking[0]['name']} is {lacking[0]['status']}: {lacking[0]['detail']}", lacking[0]["mend"]
        )
    return 0


def info(context: Context, words: list[str]) -> int:
    """Print what is in force, where each value came from, and what there is."""
    parser = context.parser("[OPTIONS]")
    table.add_format(parser)
    said, rest = parser.parse(words)
    _no_words(parser, rest)
    found = _information(context)
    if said.format == "json":
        print(json.dumps(found, indent=2, default=str))
        return 0
    if said.format:
        print(table.fill(said.format, found))
        return 0
    for key, value in found.items():
        if key in ("Settings", "Warnings"):
            continue
        if isinstance(value, dict):
            print(f"{key}:")
            for name, inner in value.items():
                print(f"  {name}: {table.text(inner)}")
        else:
            print(f"{key}: {table.text(value)}")
    print("Settings (value, and where it came from):")
    rows = found["Settings"]
    lines = [[f"  {row['Key']}", table.text(row["Value"]), table.text(row["Source"])] for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(2)]
    for key, value, source in lines:
        print(f"{key:{widths[0]}}  {value:{widths[1]}}  {source}")
    for warning in found["Warnings"]:
        print(f"WARNING: {table.printable(warning)}")
    return 0


def _information(context: Context) -> dict[str, Any]:
    from ..usage import spare_kernels, spares

    engine, config = context.engine, context.config
    containers = engine.containers(all=True)
    uname = os.uname()
    ready, held = spares(str(engine.paths.spares))
    kernels, held_by_kernels = spare_kernels(engine.known)
    return {
        "Version": _versions()["Version"],
        "Containers": {
            "Total": len(containers),
            "Running": sum(box.status == "running" for box in containers),
            "Paused": sum(box.status == "paused" for box in containers),
            "Stopped": sum(not box.runs for box in containers),
        },
        "Spares": {
            "Sandboxes": ready,
            "Memory": table.human_size(held),
            "Kernels": kernels,
            "KernelMemory": table.human_size(held_by_kernels),
        },
        "Images": len({image.id for image in engine.images.list()}),
        "StorageDriver": engine.driver.name,
        "Rootless": os.geteuid() != 0,
        "KernelVersion": uname.release,
        "Architecture": uname.machine,
        "NCPU": os.cpu_count(),
        "MemTotal": _memory(),
        "DataRoot": str(engine.paths.data),
        "RunRoot": str(engine.paths.run),
        "ConfigFile": str(config.file) if config.file else "none",
        "Settings": [
            {"Key": one.key, "Value": _shown(one.key, one.value), "Source": one.source} for one in config.settings()
        ],
        "Warnings": list(engine.warnings),
    }


def _memory() -> int | None:
    from ..config import machine_memory_bytes

    return machine_memory_bytes()


def _shown(key: str, value: Any) -> Any:
    """Sizes as they are written in the file, so that what is printed can be put there."""
    sizes = ("memory", "memory_swap", "shm_size", "storage_size")
    if key.startswith("defaults.") and key.removeprefix("defaults.") in sizes and value > 0:
        return values.size_text(value)
    return list(value) if isinstance(value, tuple) else value


def _no_words(parser: Parser, rest: list[str]) -> None:
    if rest:
        raise SpecError(parser.command, f"takes no {rest[0]!r}; '{parser.command} --help' tells what it takes")
