"""``cellwall volume create, ls, inspect, rm, prune``: folders that outlive containers.

May import the engine, which the context makes at its first use.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from ..errors import SpecError
from . import table, values
from .command import note
from .containers import each
from .pruning import agreed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..engine import Engine
    from ..volumes.store import Volume
    from .command import Context

_COLUMNS = (("DRIVER", "Driver"), ("VOLUME NAME", "Name"))
_FILTERS = "dangling, driver, label, name"


def create(context: Context, words: list[str]) -> int:
    """Make a volume, with a name or without; prints the name."""
    parser = context.parser("[OPTIONS] [VOLUME]")
    parser.value("-d", "--driver", metavar="DRIVER", help="local, the only one", default="local")
    parser.value("--label", repeated=True, read=values.label, metavar="NAME[=VALUE]", help="set a label")
    parser.value("--name", metavar="NAME", help="the name, as the argument")
    parser.value(
        "-o",
        "--opt",
        repeated=True,
        read=_option,
        metavar="NAME=VALUE",
        help="type=, device= and o= of what is mounted there",
    )
    said, names = parser.parse(words)
    names += [said.name] if said.name else []
    if len(names) > 1:
        raise SpecError(parser.command, f"takes one name at most: {parser.command} [OPTIONS] [VOLUME]")
    if said.driver != "local":
        raise SpecError("--driver", f"the volume driver {said.driver!r} isn't there; local is")
    volume = context.engine.volumes.create(names[0] if names else None, labels=dict(said.label), options=dict(said.opt))
    print(volume.name)
    return 0


def _option(flag: str, text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not name or not sign:
        raise SpecError(flag, f"{text!r} needs the form NAME=VALUE")
    return name, value


def ls(context: Context, words: list[str]) -> int:
    """List volumes, by name."""
    parser = context.parser("[OPTIONS]")
    parser.value("-f", "--filter", repeated=True, metavar="KEY=VALUE", help="dangling=, driver=, label=, name=")
    parser.flag("-q", "--quiet", help="names only")
    table.add_format(parser)
    said, rest = parser.parse(words)
    if rest:
        raise SpecError(parser.command, f"takes no {rest[0]!r}; '{parser.command} --help' tells what it takes")
    tests = [_test(text) for text in said.filter]
    store = context.engine.volumes
    users = store.users()
    found = [one for one in store.each() if all(test(one, users.get(one.name, [])) for test in tests)]
    if said.quiet:
        table.write("".join(f"{one.name}\n" for one in found))
        return 0
    rows = [row(context.engine, one, users.get(one.name, [])) for one in found]
    table.write(table.listing(rows, _COLUMNS, said.format))
    return 0


def row(engine: Engine, volume: Volume, users: list[str]) -> dict[str, Any]:
    """One volume as docker's ``volume ls --format json`` has it, and who uses it."""
    return {
        "Driver": "local",
        "Name": volume.name,
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(volume.labels.items())),
        "Mountpoint": str(engine.volumes.data(volume.name)),
        "Scope": "local",
        "Links": str(len(users)),
        "UsedBy": users,
    }


def _test(text: str) -> Callable[[Volume, list[str]], bool]:
    key, value = values.pair("--filter", text)
    if key == "dangling":
        wanted = values.boolean("--filter", value)
        return lambda one, users: (not users) == wanted
    if key == "driver":
        return lambda one, users: value == "local"
    if key == "name":
        return lambda one, users: value in one.name
    if key in ("label", "label!"):
        name, sign, text = value.partition("=")
        holds = key == "label"
        return lambda one, users: (name in one.labels and (not sign or one.labels[name] == text)) == holds
    raise SpecError("--filter", f"{key!r} isn't known; it is one of {_FILTERS}")


def inspect(context: Context, words: list[str]) -> int:
    """Show all that is known of volumes, as docker's JSON."""
    parser = context.parser("[OPTIONS] VOLUME…")
    parser.value("-f", "--format", metavar="FORMAT", help=table.FORMAT_HELP)
    said, names = parser.parse(words)
    if not names:
        raise SpecError(parser.command, f"needs at least one volume: {parser.command} VOLUME…")
    from ..volumes.store import described

    store = context.engine.volumes
    users = store.users()
    found: list[dict[str, Any]] = []
    failed = 0
    for name in names:
        try:
            volume = store.get(name)
        except LookupError as error:
            note(str(error))
            failed = 1
            continue
        found.append(described(volume, str(store.data(name)), users.get(name, [])))
    if said.format in (None, "json"):
        table.write(json.dumps(found, indent=4) + "\n")
    else:
        table.write("".join(table.fill(said.format, one) + "\n" for one in found))
    return failed


def rm(context: Context, words: list[str]) -> int:
    """Remove volumes that no container uses; prints the name of each."""
    parser = context.parser("[OPTIONS] VOLUME…")
    parser.flag("-f", "--force", help="don't mind missing ones")
    said, names = parser.parse(words)
    remove = context.engine.volumes.remove
    return each(parser, names, remove, what="VOLUME", missing_is_fine=said.force)


def prune(context: Context, words: list[str]) -> int:
    """Remove anonymous volumes that no container uses, with -a the named ones too; asks first."""
    parser = context.parser("[OPTIONS]")
    parser.flag("-a", "--all", help="also those with a name")
    parser.flag("-f", "--force", help="don't ask")
    parser.value("--filter", repeated=True, metavar="KEY=VALUE", help="label= or label!=")
    said, rest = parser.parse(words)
    if rest:
        raise SpecError(parser.command, f"takes no {rest[0]!r}; '{parser.command} --help' tells what it takes")
    tests = []
    for text in said.filter:
        if values.pair("--filter", text)[0] not in ("label", "label!"):
            raise SpecError("--filter", f"{text!r}: only label and label! are known here")
        tests.append(_test(text))
    which = "all volumes" if said.all else "anonymous volumes"
    if not said.force and not agreed(f"WARNING! This will remove {which} not used by at least one container."):
        return 0
    names, freed = unused(context.engine, lambda one: all(test(one, []) for test in tests), named=said.all)
    if names:
        print("\n".join(["Deleted Volumes:", *names, ""]))
    print(f"Total reclaimed space: {table.human_size(freed)}")
    return 0


def unused(engine: Engine, wanted: Callable[[Volume], bool] | None = None, *, named: bool) -> tuple[Sequence[str], int]:
    """Remove the volumes that nobody uses, anonymous ones or all; ``(their names, bytes freed)``."""
    store = engine.volumes
    users = store.users()
    sizes = {
        one.name: store.usage(one.name)
        for one in store.each()
        if one.name not in users and (named or one.anonymous) and (wanted is None or wanted(one))
    }
    removed = store.remove_unused(sizes)
    return removed, sum(sizes[name] for name in removed)
